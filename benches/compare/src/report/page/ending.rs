//! What stands at the end of a page: method, environment, errors, what was left out.

use std::fmt::Write;

use super::super::facts::{environment_facts, grouped_failures, method_sentences};
use super::super::plot::svg::escape;
use crate::analysis::Analysis;
use crate::environment::Environment;
use crate::results::{Results, Skipped};

/// How it was measured.
pub(super) fn method(results: &Results, analysis: &Analysis) -> String {
    let mut html = String::from("<section id=\"method\"><h2>Method</h2><ul>");
    for sentence in method_sentences(results, analysis) {
        write!(html, "<li>{}</li>", escape(&sentence)).ok();
    }
    html.push_str("</ul>");
    let described: Vec<_> =
        analysis.drivers.iter().filter(|driver| !driver.description.is_empty()).collect();
    if !described.is_empty() {
        html.push_str("<h3>Drivers</h3><div class=\"columns\"><table><tbody>");
        for driver in described {
            write!(
                html,
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                escape(&driver.name),
                escape(&driver.description)
            )
            .ok();
        }
        html.push_str("</tbody></table></div>");
    }
    html.push_str("</section>\n");
    html
}

/// The machines, each in a table.
pub(super) fn environment(machines: &[(String, &Environment)]) -> String {
    let mut html =
        String::from("<section id=\"environment\"><h2>Environment</h2><div class=\"columns\">");
    for (title, machine) in machines {
        write!(html, "<div>{}<table><tbody>", heading(title)).ok();
        for (name, value) in environment_facts(machine) {
            write!(
                html,
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                escape(&name),
                escape(&value)
            )
            .ok();
        }
        html.push_str("</tbody></table></div>");
        if !machine.programs.is_empty() {
            html.push_str("<div><h3>Programs</h3><table><tbody>");
            for (name, version) in &machine.programs {
                write!(
                    html,
                    "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                    escape(name),
                    escape(version)
                )
                .ok();
            }
            html.push_str("</tbody></table></div>");
        }
    }
    html.push_str("</div></section>\n");
    html
}

fn heading(title: &str) -> String {
    format!("<h3>{}</h3>", escape(title))
}

/// What failed, in the drivers' own words.
pub(super) fn errors(results: &Results) -> String {
    let mut html = String::from("<section id=\"errors\"><h2>Errors</h2>");
    if results.failures.is_empty() {
        html.push_str("<p>No driver failed.</p>");
    }
    for (failure, repeats) in grouped_failures(results) {
        let trial = &failure.trial;
        write!(
            html,
            "<div class=\"error\" data-workload=\"{}\"><b>{}</b>, {}{} <span class=\"quiet small\">repeat {}, \
             while: {}</span><pre>{}</pre></div>",
            escape(&trial.workload),
            escape(&trial.driver),
            escape(&results.workload(&trial.workload).title),
            escape(&match trial.conditions() {
                title if title.is_empty() => String::new(),
                title => format!(", {title}"),
            }),
            escape(&repeats),
            escape(&failure.step),
            escape(&failure.message)
        )
        .ok();
    }
    for warning in &results.warnings {
        write!(html, "<p class=\"error\">{}</p>", escape(warning)).ok();
    }
    html.push_str("</section>\n");
    html
}

/// What was left out from the start.
pub(super) fn skipped(results: &Results) -> String {
    let mut html = String::from("<section id=\"skipped\"><h2>Left out</h2>");
    if results.skipped.is_empty() {
        html.push_str("<p>Nothing was left out.</p></section>\n");
        return html;
    }
    html.push_str(
        "<table><thead><tr><th>Driver</th><th>Workload</th><th>Why</th></tr></thead><tbody>",
    );
    for line in &results.skipped {
        write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(line.driver.as_deref().unwrap_or("all")),
            escape(&workload_of(results, line)),
            escape(&line.reason)
        )
        .ok();
    }
    html.push_str("</tbody></table></section>\n");
    html
}

fn workload_of(results: &Results, line: &Skipped) -> String {
    let mut text = line
        .workload
        .as_ref()
        .map_or_else(|| "all".to_owned(), |name| results.workload(name).title);
    if let Some(parameters) = &line.parameters {
        write!(text, ", {}", parameters.title()).ok();
    }
    if line.emulated {
        text.push_str(" (in the guest)");
    }
    text
}
