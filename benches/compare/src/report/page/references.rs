//! All ratios to every driver: what the page's switch of the reference takes its figures from.

use serde_json::{Value, json};

use super::super::plot::palette::heat_step;
use super::super::plot::{figure_tip, ratio_sentence, ratio_text};
use crate::analysis::{Analysis, Row};
use crate::statistics::Verdict;

/// A block of data for the script: of each row the figures of all drivers, and their ratios to each of them.
pub(super) fn references(analysis: &Analysis, rows: &[&Row]) -> String {
    let names: Vec<&str> = analysis.drivers.iter().map(|driver| driver.name.as_str()).collect();
    let cells: Vec<Value> = rows.iter().map(|row| cells(analysis, row)).collect();
    let ratios: Vec<Value> = rows.iter().map(|row| ratios(analysis, row)).collect();
    let data = json!({ "drivers": names, "cells": cells, "ratios": ratios }).to_string();
    // Nothing in it may end the element.
    let data = data.replace('<', "\\u003c");
    format!("<script type=\"application/json\" id=\"references\">{data}</script>\n")
}

/// `[what is shown, its value, what is told]` of each driver.
fn cells(analysis: &Analysis, row: &Row) -> Value {
    let cell = |(driver, cell): (usize, &Option<crate::analysis::Cell>)| {
        cell.as_ref().map_or(Value::Null, |cell| {
            let median = cell.estimate.median;
            let tip = figure_tip(analysis, &row.id, driver, cell);
            json!([row.id.metric.unit.format(median), median, tip])
        })
    };
    row.cells.iter().enumerate().map(cell).collect()
}

/// For each reference, of each driver: `[what is shown, its value, step of the colours, verdict, what is told]`.
fn ratios(analysis: &Analysis, row: &Row) -> Value {
    let names = || analysis.drivers.iter().map(|driver| driver.name.as_str()).enumerate();
    let to = |(reference, name): (usize, &str)| -> Value {
        let of = |(driver, _): (usize, &str)| {
            let Some(ratio) = row.ratio(analysis, driver, reference) else { return Value::Null };
            let (sign, verdict) = match ratio.verdict() {
                Verdict::Better => ("", 0),
                Verdict::NoDifference => ("≈ ", 1),
                Verdict::TooFew => ("? ", 1),
                Verdict::Worse => ("", 2),
            };
            let same = ratio.verdict() == Verdict::NoDifference;
            let step = if same { 5 } else { heat_step(ratio.value) };
            let shown = format!("{sign}{}", ratio_text(ratio.value));
            json!([shown, ratio.value, step, verdict, ratio_sentence(&ratio, name)])
        };
        names().map(of).collect()
    };
    names().map(to).collect()
}
