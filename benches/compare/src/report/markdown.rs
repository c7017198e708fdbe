//! The report as Markdown, for documents and issues.

use std::fmt::Write;

use super::facts::{environment_facts, grouped_failures, method_sentences};
use super::plot::row_title;
use super::terminal::{columns, row_cell};
use crate::analysis::{Analysis, Comparison, RowId};
use crate::results::{Results, Role};

/// What may not stand in a cell of a table as it is.
fn cell(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '\n' | '\r' => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

fn table(text: &mut String, headings: &[String], rows: &[Vec<String>], figures_from: usize) {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    text.push_str(&line(headings));
    for column in 0..headings.len() {
        text.push_str(if column >= figures_from { "|--:" } else { "|---" });
    }
    text.push_str("|\n");
    for row in rows {
        text.push_str(&line(row));
    }
    text.push('\n');
}

/// The report of a run.
pub fn run_markdown(results: &Results, analysis: &Analysis) -> String {
    let mut text = format!(
        "# Storage drivers for containers, compared\n\nRun {}, started {}.\n\n",
        results.run.run_id, results.run.started
    );
    let columns = columns(analysis);
    let mut headings = vec!["Workload".to_owned(), "Figure".to_owned()];
    headings.extend(
        columns.iter().filter_map(|driver| Some(analysis.drivers.get(*driver)?.name.clone())),
    );
    for (role, title) in [(Role::Result, "Results"), (Role::Resource, "What it took")] {
        let rows: Vec<Vec<String>> = analysis
            .rows_of(role)
            .map(|row| {
                let mut cells = vec![row_title(analysis, &row.id), row.id.metric.title()];
                cells.extend(columns.iter().map(|driver| row_cell(analysis, row, *driver)));
                cells
            })
            .collect();
        if !rows.is_empty() {
            write!(
                text,
                "## {title}\n\nThe figures of {}, and how many times as good the others are. Above 1 is better; ≈: no difference \
                 shown; ?: too few repeats.\n\n",
                analysis.reference_name()
            )
            .ok();
            table(&mut text, &headings, &rows, 2);
        }
    }
    text.push_str("## Method\n\n");
    for sentence in method_sentences(results, analysis) {
        writeln!(text, "- {sentence}").ok();
    }
    text.push('\n');
    environment(&mut text, "Environment", &results.run.environment);
    for guest in &results.guests {
        environment(&mut text, "Environment of the guest (emulated)", &guest.environment);
    }
    endings(&mut text, results);
    text
}

fn environment(text: &mut String, title: &str, environment: &crate::environment::Environment) {
    write!(text, "## {title}\n\n").ok();
    let mut rows: Vec<Vec<String>> =
        environment_facts(environment).into_iter().map(|(name, value)| vec![name, value]).collect();
    rows.extend(
        environment.programs.iter().map(|(name, version)| vec![name.clone(), version.clone()]),
    );
    table(text, &[String::new(), String::new()], &rows, 2);
}

fn endings(text: &mut String, results: &Results) {
    text.push_str("## Errors\n\n");
    for (failure, repeats) in grouped_failures(results) {
        let trial = &failure.trial;
        writeln!(
            text,
            "- {}, {} {}, repeat {}, while: {}: {}",
            cell(&trial.driver),
            cell(&trial.workload),
            cell(&trial.conditions()),
            repeats,
            cell(&failure.step),
            cell(&failure.message)
        )
        .ok();
    }
    for warning in &results.warnings {
        writeln!(text, "- {}", cell(warning)).ok();
    }
    if results.failures.is_empty() && results.warnings.is_empty() {
        text.push_str("None.\n");
    }
    text.push_str("\n## Left out\n\n");
    for line in &results.skipped {
        let all = "all";
        writeln!(
            text,
            "- {}, {}{}: {}",
            cell(line.driver.as_deref().unwrap_or(all)),
            cell(line.workload.as_deref().unwrap_or(all)),
            if line.emulated { " (in the guest)" } else { "" },
            cell(&line.reason)
        )
        .ok();
    }
    if results.skipped.is_empty() {
        text.push_str("Nothing.\n");
    }
}

/// The report of two runs.
pub fn comparison_markdown(
    names: (&str, &str),
    results: (&Results, &Results),
    analysis: &Analysis,
    comparison: &Comparison,
) -> String {
    let mut text = String::from("# Two runs of thinstore bench, compared\n\n");
    for (letter, name, results) in [("A", names.0, results.0), ("B", names.1, results.1)] {
        let machine = &results.run.environment;
        let commit = super::facts::commit_words(machine);
        writeln!(
            text,
            "- {letter}: {} ({commit}, {}, {})",
            cell(name),
            cell(&machine.host),
            results.run.started
        )
        .ok();
    }
    if let Some(share) = comparison.reproducibility() {
        write!(text, "\nThe intervals of {:.0} % of the results overlap.\n", share * 100.0).ok();
    }
    text.push('\n');
    let headings = ["Workload", "Figure", "Driver", "A", "B", "A to B"].map(str::to_owned);
    let rows: Vec<Vec<String>> = comparison
        .changes
        .iter()
        .map(|change| {
            let id: &RowId = &change.id;
            let unit = id.metric.unit;
            let ratio = change.ratio.as_ref().map_or_else(String::new, |ratio| {
                let interval = ratio.interval.map_or_else(String::new, |interval| {
                    format!(
                        " ({} to {})",
                        super::plot::ratio_text(interval.low),
                        super::plot::ratio_text(interval.high)
                    )
                });
                format!("{}{interval}", super::plot::ratio_text(ratio.value))
            });
            vec![
                row_title(analysis, id),
                id.metric.title(),
                comparison.drivers.get(change.driver).cloned().unwrap_or_default(),
                unit.format(change.first.median),
                unit.format(change.second.median),
                ratio,
            ]
        })
        .collect();
    table(&mut text, &headings, &rows, 3);
    text
}
