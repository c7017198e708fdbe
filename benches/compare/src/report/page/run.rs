//! The page of one run.

use std::fmt::Write;

use super::super::Figures;
use super::super::facts::commit_words;
use super::super::plot::svg::escape;
use super::{bar, document, driver_names, ending, facts, figure, heat_table, references};
use crate::analysis::{Analysis, Row};
use crate::results::{Results, Role, WorkloadInfo};
use crate::statistics::Verdict;

/// The whole page.
pub fn run_page(results: &Results, analysis: &Analysis, figures: &Figures) -> String {
    let drivers = driver_names(analysis);
    let groups = groups(analysis);
    let mut sections = vec![("overview".to_owned(), "Overview".to_owned())];
    sections.extend(groups.iter().map(|(name, _)| (anchor(name), name.clone())));
    if !figures.resources.is_empty() {
        sections.push(("cost".to_owned(), "What it took".to_owned()));
    }
    for (name, title) in [
        ("method", "Method"),
        ("environment", "Environment"),
        ("errors", "Errors"),
        ("skipped", "Left out"),
    ] {
        sections.push((name.to_owned(), title.to_owned()));
    }
    let sections: Vec<(&str, &str)> =
        sections.iter().map(|(name, title)| (name.as_str(), title.as_str())).collect();
    let workloads: Vec<(String, String)> = analysis
        .workloads
        .iter()
        .map(|workload| (workload.name.clone(), workload.title.clone()))
        .collect();
    let mut body = head(results, analysis);
    body.push_str(&bar(&sections, &drivers, &workloads, Some(analysis.reference)));
    body.push_str("<main>\n");
    body.push_str(&overview(analysis));
    for (name, workloads) in &groups {
        writeln!(body, "<section id=\"{}\" data-group><h2>{}</h2>", anchor(name), escape(name))
            .ok();
        for workload in workloads {
            body.push_str(&workload_section(workload, figures));
        }
        body.push_str("</section>\n");
    }
    if !figures.resources.is_empty() {
        body.push_str("<section id=\"cost\"><h2>What it took</h2>");
        body.push_str("<p class=\"quiet\">Measured around every trial; less is better.</p>");
        for plot in &figures.resources {
            body.push_str(&figure(plot, true));
        }
        let rows: Vec<&Row> = analysis.rows_of(Role::Resource).collect();
        let caption = format!("Resources, compared with {}", analysis.reference_name());
        write!(
            body,
            "<details><summary>All resources, compared with {}</summary>",
            escape(analysis.reference_name())
        )
        .ok();
        body.push_str(&heat_table::heat_table(analysis, &rows, &caption));
        body.push_str("</details></section>\n");
    }
    body.push_str(&ending::method(results, analysis));
    let mut machines = vec![("Machine".to_owned(), &results.run.environment)];
    machines.extend(
        results.guests.iter().map(|guest| ("Guest, emulated".to_owned(), &guest.environment)),
    );
    body.push_str(&ending::environment(&machines));
    body.push_str(&ending::errors(results));
    body.push_str(&ending::skipped(results));
    body.push_str("</main>\n<footer>Made by <code>thinstore bench</code> from <code>results.jsonl</code>, which has every \
         single measurement, as has <code>results.csv</code>. Each plot lies beside this page in \
         <code>plots</code> as SVG and PNG.</footer>");
    document("thinstore bench: the comparison of drivers", &drivers, &body)
}

fn anchor(group: &str) -> String {
    format!("group-{}", super::super::plot::slug(group))
}

fn head(results: &Results, analysis: &Analysis) -> String {
    let run = &results.run;
    let machine = &run.environment;
    let repeats = analysis.repeats().map_or_else(String::new, |(least, most)| {
        if least == most { least.to_string() } else { format!("{least} to {most}") }
    });
    let failed = results.failures.len();
    format!(
        "<header class=\"top\"><h1>Storage drivers for containers, compared</h1>\
         <p>thinstore {}, {}; {}; {}, {}. Run {}, started {}.</p>{}</header>\n",
        escape(&machine.thinstore),
        escape(&commit_words(machine)),
        escape(machine.kernel.split(" #").next().unwrap_or("")),
        escape(&machine.processor),
        escape(&machine.disk.file_system),
        escape(&run.run_id),
        escape(&run.started),
        facts(&[
            (analysis.drivers.len().to_string(), "drivers"),
            (analysis.workloads.len().to_string(), "workloads"),
            (repeats, "repeats"),
            (results.trials.len().to_string(), "trials"),
            (results.measurements.len().to_string(), "measurements"),
            (failed.to_string(), if failed == 1 { "failed trial" } else { "failed trials" }),
        ])
    )
}

/// Where each driver stands, and all ratios.
fn overview(analysis: &Analysis) -> String {
    // The script puts another name here when another driver is chosen.
    let reference = format!("<span data-reference>{}</span>", escape(analysis.reference_name()));
    let rows: Vec<&Row> = analysis.rows_of(Role::Result).collect();
    let mut html = format!(
        "<section id=\"overview\"><h2>Compared with {reference}</h2>\
         <p class=\"quiet\">In how many of the figures below a driver is better than {reference}, shows no difference, or is \
         worse.{}</p><div class=\"score\">",
        if rows.iter().any(|row| row.id.emulated) {
            " Emulated figures count too, each against the emulated one of the other driver."
        } else {
            ""
        }
    );
    for (number, driver) in analysis.drivers.iter().enumerate() {
        html.push_str(&score(&driver.name, number, &rows));
    }
    write!(
        html,
        "</div><h3>All ratios</h3><p class=\"quiet\">How many times as good as {reference}, whose own figures stand in its \
         column. Point at a cell for the figures, click on a heading to sort. As a drawing, compared with {}: \
         <a href=\"plots/ratios.svg\">SVG</a> <a href=\"plots/ratios.png\">PNG</a></p>{}",
        escape(analysis.reference_name()),
        heat_table::key("better", "worse")
    )
    .ok();
    let caption = format!("Ratios to {}", analysis.reference_name());
    html.push_str(&heat_table::heat_table(analysis, &rows, &caption));
    html.push_str(&references::references(analysis, &rows));
    html.push_str("</section>\n");
    html
}

/// In how many figures a driver is better, shows no difference, or is worse; the reference's own line is there, and not
/// shown.
fn score(name: &str, number: usize, rows: &[&Row]) -> String {
    let mut counts = [0_usize; 3];
    for ratio in rows.iter().filter_map(|row| row.cells.get(number)?.as_ref()?.ratio) {
        let place = match ratio.verdict() {
            Verdict::Better => 0,
            Verdict::NoDifference | Verdict::TooFew => 1,
            Verdict::Worse => 2,
        };
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    let hidden = if counts == [0; 3] { " hidden" } else { "" };
    let name = escape(name);
    let mut html = format!(
        "<span data-driver=\"{number}\"{hidden}>{name}</span><div class=\"stack\" data-driver=\"{number}\" role=\"img\" \
         aria-label=\"{name}: better in {}, no difference in {}, worse in {}\"{hidden}>",
        counts[0], counts[1], counts[2]
    );
    for (count, (class, words)) in
        counts.iter().zip([("better", "better"), ("same", "no difference"), ("worse", "worse")])
    {
        let hidden = if *count == 0 { " hidden" } else { "" };
        write!(
            html,
            "<b class=\"{class}\" style=\"flex: {count} 1 0\" data-tip=\"{name}&#10;{words} in {count}\"{hidden}>{count}</b>"
        )
        .ok();
    }
    html.push_str("</div>");
    html
}

/// Workloads by their headings, in the order of the first of each.
fn groups(analysis: &Analysis) -> Vec<(String, Vec<&WorkloadInfo>)> {
    let mut groups: Vec<(String, Vec<&WorkloadInfo>)> = Vec::new();
    for workload in &analysis.workloads {
        let name = if workload.group.is_empty() { "Workloads" } else { &workload.group };
        match groups.iter_mut().find(|(known, _)| known == name) {
            Some((_, workloads)) => workloads.push(workload),
            None => groups.push((name.to_owned(), vec![workload])),
        }
    }
    groups
}

fn workload_section(workload: &WorkloadInfo, figures: &Figures) -> String {
    let name = escape(&workload.name);
    let mut html =
        format!("<section data-workload=\"{name}\"><h3>{}</h3>", escape(&workload.title));
    if !workload.purpose.is_empty() || !workload.source.is_empty() {
        write!(html, "<p class=\"quiet small\">{}", escape(&workload.purpose)).ok();
        if !workload.source.is_empty() {
            write!(html, " Source: {}", escape(&workload.source)).ok();
        }
        html.push_str("</p>");
    }
    html.push_str("<div class=\"panels\">\n");
    for plot in figures.of_workload(&workload.name) {
        html.push_str(&figure(plot, false));
    }
    html.push_str("</div></section>\n");
    html
}
