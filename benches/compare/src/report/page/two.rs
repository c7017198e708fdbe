//! The page of two runs side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::facts::commit_words;
use super::super::plot::svg::escape;
use super::super::plot::{Plot, Table, TableCell, forest, ratio_text};
use super::{bar, document, ending, facts, figure, heat_table, table};
use crate::analysis::{Analysis, Change, Comparison, RowId};
use crate::results::{Results, Role, Unit, WorkloadInfo};
use crate::statistics::Verdict;

/// The whole page. The names are those of the two files.
pub fn comparison_page(
    names: (&str, &str),
    results: (&Results, &Results),
    analyses: (&Analysis, &Analysis),
    comparison: &Comparison,
    plots: &[Plot],
) -> String {
    let sections = [
        ("changes", "Ratios"),
        ("plots", "Plots"),
        ("figures", "Figures"),
        ("environment", "Environments"),
        ("errors", "Errors"),
    ];
    let workloads: Vec<(String, String)> = analyses
        .0
        .workloads
        .iter()
        .map(|workload| (workload.name.clone(), workload.title.clone()))
        .collect();
    let mut body = head(names, results, comparison);
    body.push_str(&bar(&sections, &comparison.drivers, &workloads, None));
    body.push_str("<main>\n");
    body.push_str("<section id=\"changes\"><h2>A against B</h2><p class=\"quiet\">How many times as good A is as B: ratios of the \
         medians, with bootstrap intervals over both runs (they are not paired). Above 1, A is better.</p>");
    body.push_str(&heat_table::key("A better", "B better"));
    for (role, title) in [(Role::Result, "Results"), (Role::Resource, "What it took")] {
        let changes: Vec<&Change> =
            comparison.changes.iter().filter(|change| change.id.metric.role == role).collect();
        if !changes.is_empty() {
            write!(body, "<h3>{title}</h3>").ok();
            body.push_str(&changes_table(analyses.0, comparison, &changes));
        }
    }
    body.push_str("</section>\n<section id=\"plots\"><h2>Plots</h2>");
    for plot in plots {
        body.push_str(&figure(plot, true));
    }
    body.push_str("</section>\n<section id=\"figures\"><h2>Figures</h2>");
    body.push_str(&table(&figures_table(analyses.0, comparison), "All figures of both runs"));
    body.push_str("</section>\n");
    body.push_str(&ending::environment(&[
        (format!("A: {}", names.0), &results.0.run.environment),
        (format!("B: {}", names.1), &results.1.run.environment),
    ]));
    body.push_str("<section id=\"errors\"><h2>Errors</h2>");
    for (letter, results) in [("A", results.0), ("B", results.1)] {
        let errors = ending::errors(results);
        let errors =
            errors.replace("<section id=\"errors\"><h2>Errors</h2>", "").replace("</section>", "");
        write!(body, "<h3>{letter}</h3>{errors}").ok();
    }
    body.push_str(
        "</section></main>\n<footer>Made by <code>thinstore bench report</code>.</footer>",
    );
    document("thinstore bench: two runs compared", &comparison.drivers, &body)
}

/// A plot of the results of each workload.
pub fn comparison_plots(analysis: &Analysis, comparison: &Comparison) -> Vec<Plot> {
    let heading = |change: &Change| {
        let conditions = change.id.conditions();
        let metric = change.id.metric.title();
        if conditions.is_empty() { metric } else { format!("{metric}, {conditions}") }
    };
    let of = |workload: &WorkloadInfo| {
        let changes: Vec<&Change> = comparison
            .changes
            .iter()
            .filter(|change| {
                change.id.metric.role == Role::Result && change.id.workload == workload.name
            })
            .collect();
        let tip = |change: &Change| tip(comparison, change);
        forest(comparison, &workload.name, &workload.title, &changes, heading, tip)
    };
    analysis.workloads.iter().filter_map(of).collect()
}

fn head(names: (&str, &str), results: (&Results, &Results), comparison: &Comparison) -> String {
    let mut counts = [0_usize; 3];
    for change in &comparison.changes {
        let Some(ratio) = change.ratio.filter(|_| change.id.metric.role == Role::Result) else {
            continue;
        };
        let place = match ratio.verdict() {
            Verdict::Better => 0,
            Verdict::NoDifference | Verdict::TooFew => 1,
            Verdict::Worse => 2,
        };
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    let overlap = comparison
        .reproducibility()
        .map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0));
    let mut html =
        String::from("<header class=\"top\"><h1>Two runs of thinstore bench, compared</h1>");
    for (letter, name, results) in [("A", names.0, results.0), ("B", names.1, results.1)] {
        let machine = &results.run.environment;
        write!(
            html,
            "<p><b>{letter}</b> {}: {}; {} ({}); {}; started {}</p>",
            escape(name),
            escape(&commit_words(machine)),
            escape(&machine.host),
            escape(&machine.processor),
            escape(machine.kernel.split(" #").next().unwrap_or("")),
            escape(&results.run.started)
        )
        .ok();
    }
    html.push_str(&facts(&[
        (overlap, "of the results' intervals overlap"),
        (counts[0].to_string(), "results better in A"),
        (counts[1].to_string(), "no difference shown"),
        (counts[2].to_string(), "results better in B"),
        (comparison.only_first.to_string(), "cells only in A"),
        (comparison.only_second.to_string(), "cells only in B"),
    ]));
    html.push_str("</header>\n");
    html
}

/// What is told of a change that is pointed at.
fn tip(comparison: &Comparison, change: &Change) -> String {
    let unit = change.id.metric.unit;
    let name = comparison.drivers.get(change.driver).map_or("", String::as_str);
    let side = |letter: &str, estimate: &crate::statistics::Estimate| {
        let interval = estimate.interval.map_or_else(String::new, |interval| {
            format!(" ({} to {})", unit.format(interval.low), unit.format(interval.high))
        });
        format!("{letter}: {}{interval}", unit.format(estimate.median))
    };
    let mut tip = format!("{name}\n{}\n{}", side("A", &change.first), side("B", &change.second));
    if let Some(ratio) = &change.ratio {
        let interval = ratio.interval.map_or_else(String::new, |interval| {
            format!(" ({} to {})", ratio_text(interval.low), ratio_text(interval.high))
        });
        write!(tip, "\nA is {} as good as B{interval}", ratio_text(ratio.value)).ok();
    }
    tip
}

/// The rows of changes, in their order, each with its drivers.
fn by_row<'a>(changes: &[&'a Change]) -> Vec<(&'a RowId, BTreeMap<usize, &'a Change>)> {
    let mut rows: Vec<(&RowId, BTreeMap<usize, &Change>)> = Vec::new();
    for change in changes {
        match rows.last_mut() {
            Some((id, cells)) if **id == change.id => {
                cells.insert(change.driver, change);
            }
            _ => rows.push((&change.id, BTreeMap::from([(change.driver, *change)]))),
        }
    }
    rows
}

fn row_names(analysis: &Analysis, id: &RowId) -> (String, String) {
    let title = analysis.workload(&id.workload).map_or(id.workload.as_str(), |known| &known.title);
    (title.to_owned(), id.conditions())
}

fn changes_table(analysis: &Analysis, comparison: &Comparison, changes: &[&Change]) -> String {
    let mut html = String::from(
        "<div class=\"scroll\"><table class=\"heat sortable\" aria-label=\"A against B\"><thead><tr>",
    );
    for heading in ["Workload", "Figure"] {
        write!(html, "<th scope=\"col\"><button type=\"button\">{heading}</button></th>").ok();
    }
    for (number, name) in comparison.drivers.iter().enumerate() {
        write!(
            html,
            "<th scope=\"col\" data-driver=\"{number}\"><button type=\"button\">{}</button></th>",
            escape(name)
        )
        .ok();
    }
    html.push_str("</tr></thead><tbody>\n");
    for (id, cells) in by_row(changes) {
        let (title, conditions) = row_names(analysis, id);
        write!(
            html,
            "<tr data-workload=\"{}\"><th scope=\"row\">{} <span class=\"quiet small\">{}</span></th>\
             <td class=\"metric\">{}</td>",
            escape(&id.workload),
            escape(&title),
            escape(&conditions),
            escape(&id.metric.title())
        )
        .ok();
        for number in 0..comparison.drivers.len() {
            let change = cells.get(&number);
            match change.and_then(|change| Some((change, change.ratio.as_ref()?))) {
                Some((change, ratio)) => {
                    html.push_str(&heat_table::ratio_cell(ratio, &tip(comparison, change), number));
                }
                None => {
                    write!(html, "<td class=\"none\" data-driver=\"{number}\"></td>").ok();
                }
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn figures_table(analysis: &Analysis, comparison: &Comparison) -> Table {
    let headings =
        ["Driver", "Workload", "Figure", "A", "B", "A to B", "Its interval", "Intervals"];
    let rows = comparison.changes.iter().map(|change| {
        let (title, conditions) = row_names(analysis, &change.id);
        let title = if conditions.is_empty() { title } else { format!("{title}, {conditions}") };
        let unit: Unit = change.id.metric.unit;
        let figure = |value: f64| TableCell::figure(unit.format(value), value);
        let name = comparison.drivers.get(change.driver).map_or("", String::as_str);
        let mut cells = vec![
            TableCell::words(name),
            TableCell::words(title),
            TableCell::words(change.id.metric.title()),
            figure(change.first.median),
            figure(change.second.median),
        ];
        match &change.ratio {
            Some(ratio) => {
                cells.push(TableCell::figure(ratio_text(ratio.value), ratio.value));
                cells.push(ratio.interval.map_or_else(TableCell::default, |interval| {
                    let text =
                        format!("{} to {}", ratio_text(interval.low), ratio_text(interval.high));
                    TableCell::figure(text, interval.low)
                }));
            }
            None => cells.extend([TableCell::default(), TableCell::default()]),
        }
        let overlap = match (change.first.interval, change.second.interval) {
            (Some(first), Some(second)) if first.overlaps(&second) => "overlap",
            (Some(_), Some(_)) => "apart",
            _ => "",
        };
        cells.push(TableCell::words(overlap));
        (Some(change.driver), cells)
    });
    let rows = rows.collect();
    Table { headings: headings.map(str::to_owned).into(), rows }
}
