//! The table on the terminal: the reference's figures, and for the others how many times as good they are.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell as TableCell, CellAlignment, ContentArrangement, Table};

use super::plot::ratio_text;
use crate::analysis::{Analysis, Change, Comparison, Row};
use crate::results::Role;
use crate::statistics::{Ratio, Verdict};

/// Lines of a table without borders; the columns from `figures_from` on are set to the right.
fn lines(headings: &[String], rows: &[Vec<String>], figures_from: usize) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let cell = |(column, text): (usize, &String)| {
        let cell = TableCell::new(text);
        if column >= figures_from { cell.set_alignment(CellAlignment::Right) } else { cell }
    };
    table.set_header(headings.iter().enumerate().map(cell));
    for row in rows {
        table.add_row(row.iter().enumerate().map(cell));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn ratio_cell(ratio: &Ratio) -> String {
    let sign = match ratio.verdict() {
        Verdict::NoDifference => "≈ ",
        Verdict::TooFew => "? ",
        Verdict::Better | Verdict::Worse => "",
    };
    format!("{sign}{}", ratio_text(ratio.value))
}

/// What one driver has in a row, in a word.
pub(super) fn row_cell(analysis: &Analysis, row: &Row, driver: usize) -> String {
    match row.cells.get(driver).and_then(Option::as_ref) {
        Some(cell) => match &cell.ratio {
            Some(ratio) => ratio_cell(ratio),
            None => row.id.metric.unit.format(cell.estimate.median),
        },
        None if analysis.has_failed(&row.id, driver) => "failed".to_owned(),
        None => "-".to_owned(),
    }
}

/// The order of the columns: the reference first.
pub(super) fn columns(analysis: &Analysis) -> Vec<usize> {
    let mut columns = vec![analysis.reference];
    columns.extend((0..analysis.drivers.len()).filter(|driver| *driver != analysis.reference));
    columns
}

/// The table of a run.
pub fn run_table(analysis: &Analysis) -> String {
    let columns = columns(analysis);
    let mut headings = vec!["WORKLOAD".to_owned(), "FIGURE".to_owned()];
    headings.extend(
        columns.iter().filter_map(|driver| Some(analysis.drivers.get(*driver)?.name.clone())),
    );
    let rows: Vec<Vec<String>> = analysis
        .rows_of(Role::Result)
        .map(|row| {
            let conditions = row.id.conditions();
            let space = if conditions.is_empty() { "" } else { ", " };
            let mut cells =
                vec![format!("{}{space}{conditions}", row.id.workload), row.id.metric.title()];
            cells.extend(columns.iter().map(|driver| row_cell(analysis, row, *driver)));
            cells
        })
        .collect();
    let mut text = lines(&headings, &rows, 2);
    text.push_str(&format!(
        "\nRatios to {}, pair by pair; above 1 is better. ≈: no difference shown (the interval spans 1). ?: too few repeats.\n",
        analysis.reference_name()
    ));
    text
}

/// The table of two runs.
pub fn comparison_table(comparison: &Comparison) -> String {
    let headings = ["WORKLOAD", "FIGURE", "DRIVER", "A", "B", "A TO B"].map(str::to_owned);
    let results = comparison.changes.iter().filter(|change| change.id.metric.role == Role::Result);
    let rows: Vec<Vec<String>> = results
        .map(|change: &Change| {
            let conditions = change.id.conditions();
            let space = if conditions.is_empty() { "" } else { ", " };
            let unit = change.id.metric.unit;
            vec![
                format!("{}{space}{conditions}", change.id.workload),
                change.id.metric.title(),
                comparison.drivers.get(change.driver).cloned().unwrap_or_default(),
                unit.format(change.first.median),
                unit.format(change.second.median),
                change.ratio.as_ref().map_or_else(|| "-".to_owned(), ratio_cell),
            ]
        })
        .collect();
    let mut text = lines(&headings, &rows, 3);
    if let Some(share) = comparison.reproducibility() {
        text.push_str(&format!(
            "\nThe intervals of {:.0} % of the results overlap. Above 1, A is better.\n",
            share * 100.0
        ));
    }
    text
}
