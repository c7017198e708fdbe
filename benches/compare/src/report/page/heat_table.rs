//! All ratios in a table that can be sorted and filtered, coloured by how much better or worse.

use std::fmt::Write;

use super::super::plot::palette::heat_step;
use super::super::plot::svg::escape;
use super::super::plot::{cell_tip, ratio_text};
use crate::analysis::{Analysis, Row};
use crate::statistics::{Ratio, Verdict};

/// A cell of the table.
pub(super) fn ratio_cell(ratio: &Ratio, tip: &str, driver: usize) -> String {
    let verdict = ratio.verdict();
    let step = if verdict == Verdict::NoDifference { 5 } else { heat_step(ratio.value) };
    let sign = match verdict {
        Verdict::NoDifference => "≈ ",
        Verdict::TooFew => "? ",
        Verdict::Better | Verdict::Worse => "",
    };
    format!(
        "<td class=\"cell b{step}\" data-driver=\"{driver}\" data-value=\"{}\" data-tip=\"{}\">{sign}{}</td>",
        ratio.value,
        escape(tip).replace('\n', "&#10;"),
        ratio_text(ratio.value)
    )
}

/// What the colours mean.
pub(super) fn key(better: &str, worse: &str) -> String {
    let mut html = format!(
        "<div class=\"key\"><span class=\"steps\">{}<span aria-hidden=\"true\">",
        escape(worse)
    );
    for step in 0..11 {
        write!(html, "<i class=\"b{step}\"></i>").ok();
    }
    write!(
        html,
        "</span>{}</span><span>Steps at 1.05, 1.4, 2, 4 and 16 times</span>\
         <span>≈ the interval spans 1: no difference shown</span><span>? fewer than three repeats</span></div>",
        escape(better)
    )
    .ok();
    html
}

/// The table of these rows.
pub(super) fn heat_table(analysis: &Analysis, rows: &[&Row], caption: &str) -> String {
    let reference = analysis.reference;
    let others: Vec<usize> =
        (0..analysis.drivers.len()).filter(|driver| *driver != reference).collect();
    let mut html = format!(
        "<div class=\"scroll\"><table class=\"heat sortable\" aria-label=\"{}\"><thead><tr>",
        escape(caption)
    );
    for heading in ["Workload", "Figure"] {
        write!(html, "<th scope=\"col\"><button type=\"button\">{heading}</button></th>").ok();
    }
    let name = escape(analysis.reference_name());
    write!(
        html,
        "<th scope=\"col\" data-driver=\"{reference}\"><button type=\"button\">{name}</button></th>"
    )
    .ok();
    for driver in &others {
        let name = analysis.drivers.get(*driver).map_or("", |driver| &driver.name);
        write!(
            html,
            "<th scope=\"col\" data-driver=\"{driver}\"><button type=\"button\">{}</button></th>",
            escape(name)
        )
        .ok();
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        html.push_str(&line(analysis, row, &others));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn line(analysis: &Analysis, row: &Row, others: &[usize]) -> String {
    let id = &row.id;
    let title = analysis.workload(&id.workload).map_or(id.workload.as_str(), |known| &known.title);
    let conditions = id.conditions();
    let mut html = format!(
        "<tr data-workload=\"{}\"><th scope=\"row\">{}",
        escape(&id.workload),
        escape(title)
    );
    if !conditions.is_empty() {
        write!(html, " <span class=\"quiet small\">{}</span>", escape(&conditions)).ok();
    }
    write!(html, "</th><td class=\"metric\">{}</td>", escape(&id.metric.title())).ok();
    let cell = |driver: usize| row.cells.get(driver).and_then(Option::as_ref);
    let missing = |driver: usize| {
        if analysis.has_failed(id, driver) {
            format!("<td class=\"failed\" data-driver=\"{driver}\">failed</td>")
        } else {
            format!("<td class=\"none\" data-driver=\"{driver}\"></td>")
        }
    };
    match cell(analysis.reference) {
        Some(cell) => {
            let tip = cell_tip(analysis, id, analysis.reference, cell);
            let median = cell.estimate.median;
            write!(
                html,
                "<td class=\"figure\" data-driver=\"{}\" data-value=\"{median}\" data-tip=\"{}\">{}</td>",
                analysis.reference,
                escape(&tip).replace('\n', "&#10;"),
                escape(&id.metric.unit.format(median))
            )
            .ok();
        }
        None => html.push_str(&missing(analysis.reference)),
    }
    for driver in others {
        match cell(*driver) {
            Some(cell) => {
                let tip = cell_tip(analysis, id, *driver, cell);
                match &cell.ratio {
                    Some(ratio) => html.push_str(&ratio_cell(ratio, &tip, *driver)),
                    // Nothing to compare with: the figure itself.
                    None => {
                        write!(
                            html,
                            "<td class=\"none\" data-driver=\"{driver}\" data-tip=\"{}\">{}</td>",
                            escape(&tip).replace('\n', "&#10;"),
                            escape(&id.metric.unit.format(cell.estimate.median))
                        )
                        .ok();
                    }
                }
            }
            None => html.push_str(&missing(*driver)),
        }
    }
    html.push_str("</tr>\n");
    html
}
