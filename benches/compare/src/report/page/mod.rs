//! The page: one file, which loads nothing.

mod ending;
mod heat_table;
mod references;
mod run;
mod two;

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use run::run_page;
pub use two::{comparison_page, comparison_plots};

use super::plot::palette::{HEAT_DARK, HEAT_LIGHT, Ink, driver_colors, driver_shape};
use super::plot::svg::{Svg, escape};
use super::plot::{Plot, Table, font};
use crate::analysis::Analysis;

/// How a page begins and ends. `drivers` are those that have colours in it.
pub(super) fn document(title: &str, drivers: &[String], body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:; img-src data:\">\n\
         <title>{}</title>\n<style>\n{}{}{}</style>\n</head>\n<body>\n{body}\n\
         <div id=\"tip\" role=\"tooltip\"></div>\n<script>\n{}</script>\n</body>\n</html>\n",
        escape(title),
        fonts(),
        colors(drivers),
        include_str!("style.css"),
        include_str!("script.js"),
    )
}

fn fonts() -> String {
    let mut css = String::new();
    for (weight, bytes) in [(400, font::REGULAR_WOFF2), (500, font::MEDIUM_WOFF2)] {
        writeln!(
            css,
            "@font-face {{ font-family: Roboto; font-weight: {weight}; src: url(data:font/woff2;base64,{}) \
             format(\"woff2\"); }}",
            STANDARD.encode(bytes)
        )
        .ok();
    }
    css
}

/// The colours that the results decide: those of the drivers, and the scale.
fn colors(drivers: &[String]) -> String {
    let mut css = String::new();
    for dark in [false, true] {
        css.push_str(if dark {
            "@media (prefers-color-scheme: dark) { :root {"
        } else {
            ":root {"
        });
        for (number, name) in drivers.iter().enumerate() {
            let (light, on_dark) = driver_colors(name, number);
            write!(css, " --d{number}: {};", if dark { on_dark } else { light }).ok();
        }
        for (step, color) in (if dark { HEAT_DARK } else { HEAT_LIGHT }).iter().enumerate() {
            write!(css, " --h{step}: {color};").ok();
        }
        let (strong, weak) = if dark { ("#101215", "#f3f4f6") } else { ("#ffffff", "#1b1e23") };
        write!(css, " --on-strong: {strong}; --on-weak: {weak}; }}").ok();
        css.push_str(if dark { " }\n" } else { "\n" });
    }
    for number in 0..drivers.len() {
        writeln!(
            css,
            ".f{number} {{ fill: var(--d{number}); }} .s{number} {{ stroke: var(--d{number}); }}"
        )
        .ok();
    }
    for step in 0..HEAT_LIGHT.len() {
        let ink = if matches!(step, 0 | 1 | 9 | 10) { "strong" } else { "weak" };
        writeln!(css, ".b{step} {{ background: var(--h{step}); color: var(--on-{ink}); }}").ok();
    }
    css
}

/// A driver's mark, for a legend.
fn driver_mark(name: &str, number: usize) -> String {
    let mut svg = Svg::new(12.0, 12.0);
    let ink = Ink::Driver(number, driver_colors(name, number).0);
    svg.mark((6.0, 6.0), driver_shape(name, number), 4.6, ink);
    svg.inline("").replace("role=\"img\" aria-label=\"\"", "aria-hidden=\"true\"")
}

/// What stays on top: where to go, what to see, and what to compare with, if that can be chosen.
fn bar(
    sections: &[(&str, &str)],
    drivers: &[String],
    workloads: &[(String, String)],
    reference: Option<usize>,
) -> String {
    let mut html = String::from("<div class=\"bar\"><div><nav aria-label=\"Sections\">");
    for (anchor, title) in sections {
        write!(html, "<a href=\"#{anchor}\">{}</a>", escape(title)).ok();
    }
    html.push_str(
        "</nav><span class=\"choice\"><label class=\"small quiet\" for=\"chosen\">Workload</label>",
    );
    html.push_str("<select id=\"chosen\" autocomplete=\"off\"><option value=\"\">all</option>");
    for (name, title) in workloads {
        write!(html, "<option value=\"{}\">{}</option>", escape(name), escape(title)).ok();
    }
    html.push_str("</select></span>");
    if let Some(reference) = reference {
        html.push_str("<span class=\"choice\"><label class=\"small quiet\" for=\"reference\">Compared with</label>");
        html.push_str("<select id=\"reference\" autocomplete=\"off\">");
        for (number, name) in drivers.iter().enumerate() {
            let selected = if number == reference { " selected" } else { "" };
            write!(html, "<option value=\"{number}\"{selected}>{}</option>", escape(name)).ok();
        }
        html.push_str("</select></span>");
    }
    html.push_str("<div class=\"chips\" role=\"group\" aria-label=\"Drivers shown\">");
    for (number, name) in drivers.iter().enumerate() {
        write!(
            html,
            "<button type=\"button\" aria-pressed=\"true\" data-toggle=\"{number}\" \
             title=\"Show or hide; with Shift: this one alone\">{}{}</button>",
            driver_mark(name, number),
            escape(name)
        )
        .ok();
    }
    html.push_str("<button type=\"button\" id=\"every\">All drivers</button></div></div></div>\n");
    html
}

/// Facts in large letters.
fn facts(pairs: &[(String, &str)]) -> String {
    let mut html = String::from("<dl class=\"facts\">");
    for (value, name) in pairs {
        write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value)).ok();
    }
    html.push_str("</dl>");
    html
}

/// A plot with the table of its figures below.
fn figure(plot: &Plot, wide: bool) -> String {
    let workload = plot
        .workload
        .as_ref()
        .map_or_else(String::new, |name| format!(" data-workload=\"{}\"", escape(name)));
    let class = if wide { "plot wide" } else { "plot" };
    let svg = plot.drawing.inline(&plot.title);
    let svg = if wide { format!("<div class=\"scroll\">{svg}</div>") } else { svg };
    let name = escape(&plot.name);
    let files = format!(
        "<p class=\"small\"><a href=\"plots/{name}.svg\">SVG</a><a href=\"plots/{name}.png\">PNG</a></p>"
    );
    let figures = if plot.table.headings.is_empty() {
        files
    } else {
        let table = table(&plot.table, &plot.title);
        format!("<details><summary>Figures</summary>{table}{files}</details>")
    };
    format!("<figure class=\"{class}\" id=\"{name}\"{workload}>{svg}{figures}</figure>\n")
}

/// A table that can be sorted.
fn table(table: &Table, caption: &str) -> String {
    let mut html = format!(
        "<div class=\"scroll\"><table class=\"sortable\" aria-label=\"{}\"><thead><tr>",
        escape(caption)
    );
    for (column, heading) in table.headings.iter().enumerate() {
        let figures = table
            .rows
            .iter()
            .any(|(_, cells)| cells.get(column).is_some_and(|cell| cell.number.is_some()));
        let class = if figures { " class=\"figure\"" } else { "" };
        write!(
            html,
            "<th scope=\"col\"{class}><button type=\"button\">{}</button></th>",
            escape(heading)
        )
        .ok();
    }
    html.push_str("</tr></thead><tbody>");
    for (driver, cells) in &table.rows {
        match driver {
            Some(driver) => write!(html, "<tr data-driver=\"{driver}\">").ok(),
            None => write!(html, "<tr>").ok(),
        };
        for cell in cells {
            match cell.number {
                Some(number) => {
                    write!(
                        html,
                        "<td class=\"figure\" data-value=\"{number}\">{}</td>",
                        escape(&cell.text)
                    )
                }
                None => write!(html, "<td>{}</td>", escape(&cell.text)),
            }
            .ok();
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

fn driver_names(analysis: &Analysis) -> Vec<String> {
    analysis.drivers.iter().map(|driver| driver.name.clone()).collect()
}
