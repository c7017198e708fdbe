//! All ratios at a glance: workloads by drivers, on a scale from worse to better. The page has this as a table of its
//! own; this is the drawing for papers.

use super::palette::{Ink, heat_step};
use super::svg::{Anchor, Svg};
use super::{Plot, Table, driver_name, font, row_title};
use crate::analysis::{Analysis, Row};
use crate::results::Role;
use crate::statistics::Verdict;

const CELL_WIDTH: f64 = 78.0;
const CELL_HEIGHT: f64 = 24.0;
const VALUE_WIDTH: f64 = 84.0;

/// `2.3×`, `0.041×`.
pub fn ratio_text(ratio: f64) -> String {
    let digits = match ratio {
        99.5.. => format!("{ratio:.0}"),
        9.95.. => format!("{ratio:.1}"),
        0.0995.. => format!("{ratio:.2}"),
        0.000_995.. => format!("{ratio:.3}"),
        0.000_009_5.. => format!("{ratio:.5}").trim_end_matches('0').to_owned(),
        _ => format!("{ratio:.0e}"),
    };
    format!("{digits}×")
}

/// None if there are no results.
pub fn heat(analysis: &Analysis) -> Option<Plot> {
    let rows: Vec<&Row> = analysis.rows_of(Role::Result).collect();
    if rows.is_empty() {
        return None;
    }
    let titles: Vec<String> = rows
        .iter()
        .map(|row| format!("{}: {}", row_title(analysis, &row.id), row.id.metric.title()))
        .collect();
    let widest = titles.iter().map(|title| font::width(title, 12.0)).fold(0.0, f64::max);
    let left = widest.min(420.0) + 12.0;
    let others: Vec<usize> =
        (0..analysis.drivers.len()).filter(|driver| *driver != analysis.reference).collect();
    let width = crate::number::float_of(others.len()).mul_add(CELL_WIDTH, left + VALUE_WIDTH);
    let top = 68.0;
    let height = crate::number::float_of(rows.len()).mul_add(CELL_HEIGHT, top + 40.0);
    let mut drawing = Svg::new(width, height);
    let title = format!("How many times as good as {}", analysis.reference_name());
    drawing.text(0.0, 14.0, Ink::Title, Anchor::Start, &title);
    let note = "medians of ratios pair by pair; above 1 is better; ≈: the interval spans 1";
    drawing.text(0.0, 31.0, Ink::Subtitle, Anchor::Start, note);
    let column =
        |place: usize| crate::number::float_of(place).mul_add(CELL_WIDTH, left + VALUE_WIDTH);
    let reference = font::fitting(analysis.reference_name(), 11.0, VALUE_WIDTH - 8.0);
    drawing.text(left + VALUE_WIDTH - 10.0, top - 10.0, Ink::Tick, Anchor::End, &reference);
    for (place, driver) in others.iter().enumerate() {
        let name = font::fitting(driver_name(analysis, *driver), 11.0, CELL_WIDTH - 4.0);
        drawing.text(
            column(place) + CELL_WIDTH / 2.0,
            top - 10.0,
            Ink::Tick,
            Anchor::Middle,
            &name,
        );
    }
    for (line, (row, title)) in rows.iter().zip(&titles).enumerate() {
        let y = crate::number::float_of(line).mul_add(CELL_HEIGHT, top);
        let base = y + 16.0;
        let title = font::fitting(title, 12.0, left - 12.0);
        drawing.text(left - 12.0, base, Ink::Label, Anchor::End, &title);
        let end = left + VALUE_WIDTH - 10.0;
        if let Some(Some(cell)) = row.cells.get(analysis.reference) {
            let value = row.id.metric.unit.format(cell.estimate.median);
            drawing.text(end, base, Ink::Value, Anchor::End, &value);
        } else if analysis.has_failed(&row.id, analysis.reference) {
            drawing.text(end, base, Ink::Faint, Anchor::End, "failed");
        }
        for (place, driver) in others.iter().enumerate() {
            let center = column(place) + CELL_WIDTH / 2.0;
            let cell = row.cells.get(*driver).and_then(Option::as_ref);
            match cell.map(|cell| (cell.ratio, cell.estimate.median)) {
                // Nothing to compare with: the figure itself.
                Some((None, median)) => {
                    let value = row.id.metric.unit.format(median);
                    drawing.text(center, base, Ink::Faint, Anchor::Middle, &value);
                }
                Some((Some(ratio), _)) => {
                    let same = ratio.verdict() == Verdict::NoDifference;
                    let step = if same { 5 } else { heat_step(ratio.value) };
                    let corner = (column(place) + 1.0, y + 1.0);
                    let size = (CELL_WIDTH - 2.0, CELL_HEIGHT - 2.0);
                    drawing.rectangle(corner, size, Ink::Heat(step), " rx=\"2\"");
                    let sign = if same { "≈ " } else { "" };
                    let text = format!("{sign}{}", ratio_text(ratio.value));
                    drawing.text(center, base, Ink::OnHeat(step), Anchor::Middle, &text);
                }
                None => {
                    let failed = analysis.has_failed(&row.id, *driver);
                    let text = if failed { "failed" } else { "–" };
                    drawing.text(center, base, Ink::Faint, Anchor::Middle, text);
                }
            }
        }
    }
    scale(&mut drawing, (left + VALUE_WIDTH, height - 26.0));
    // The page has the table itself.
    let table = Table::default();
    Some(Plot { name: "ratios".to_owned(), title, workload: None, drawing, table })
}

fn scale(drawing: &mut Svg, (x, y): (f64, f64)) {
    const STEP: f64 = 22.0;
    drawing.text(x - 8.0, y + 11.0, Ink::Tick, Anchor::End, "worse");
    for step in 0..11_usize {
        let corner = (crate::number::float_of(step).mul_add(STEP, x), y);
        drawing.rectangle(corner, (STEP - 2.0, 12.0), Ink::Heat(step), "");
    }
    drawing.text(STEP.mul_add(11.0, x) + 6.0, y + 11.0, Ink::Tick, Anchor::Start, "better");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_the_digits_that_count() {
        for (ratio, text) in [
            (234.5, "234×"),
            (12.34, "12.3×"),
            (2.345, "2.35×"),
            (0.4321, "0.43×"),
            (0.04321, "0.043×"),
            (0.000_31, "0.00031×"),
            (0.000_001_2, "1e-6×"),
        ] {
            assert_eq!(ratio_text(ratio), text);
        }
    }
}
