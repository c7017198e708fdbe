//! One figure for all drivers: a bar from zero with its interval each, or, where the values lie too far apart
//! for that, a point on a logarithmic axis.

use super::axis::Axis;
use super::palette::Ink;
use super::svg::{Anchor, Svg};
use super::{
    Plot, cell_tip, driver_ink, driver_name, driver_shape, font, names_width, plot_note,
    plot_title, row_table, row_title, slug,
};
use crate::analysis::{Analysis, Row};

const WIDTH: f64 = 440.0;
const HEAD: f64 = 50.0;
const LINE: f64 = 23.0;
const FOOT: f64 = 30.0;
const VALUE: f64 = 66.0;

/// None if no driver has a value.
pub fn bars(analysis: &Analysis, row: &Row) -> Option<Plot> {
    let unit = row.id.metric.unit;
    let range = row.range()?;
    let lines: Vec<usize> = (0..analysis.drivers.len())
        .filter(|driver| {
            row.cells.get(*driver).is_some_and(Option::is_some)
                || analysis.has_failed(&row.id, *driver)
        })
        .collect();
    let left = names_width(analysis) + 10.0;
    let right = WIDTH - VALUE - 8.0;
    let axis = Axis::fitting(unit, range, (left, right), 4);
    let bottom = crate::number::float_of(lines.len()).mul_add(LINE, HEAD);
    let mut drawing = Svg::new(WIDTH, bottom + FOOT);
    let title = plot_title(analysis, &row.id);
    drawing.text(0.0, 14.0, Ink::Title, Anchor::Start, &font::fitting(&title, 13.4, WIDTH));
    let scale = if axis.logarithmic { "; logarithmic" } else { "" };
    let note = format!("{}{scale}", plot_note(&row.id));
    drawing.text(0.0, 31.0, Ink::Subtitle, Anchor::Start, &font::fitting(&note, 11.0, WIDTH));
    // Everything that moves when drivers are filtered away has a class for the script.
    drawing.open_group("rows-grid", None, "", None);
    for (value, _) in &axis.ticks {
        let x = axis.place(*value);
        drawing.line((x, HEAD - 6.0), (x, bottom), Ink::Grid, 1.0);
    }
    drawing.close_group();
    for (place, driver) in lines.iter().copied().enumerate() {
        let shift = crate::number::float_of(place).mul_add(LINE, HEAD);
        line(&mut drawing, analysis, row, driver, &axis, shift);
    }
    drawing.open_group("rows-axis", None, "", Some(bottom));
    drawing.line((left, 0.0), (right, 0.0), Ink::Axis, 1.0);
    for (value, label) in &axis.ticks {
        drawing.text(axis.place(*value), 15.0, Ink::Tick, Anchor::Middle, label);
    }
    drawing.text(WIDTH - VALUE + 4.0, 15.0, Ink::Tick, Anchor::Start, &axis.symbol);
    drawing.close_group();
    Some(Plot {
        name: slug(&format!("bars {}", row.id.key())),
        title: format!("{}: {}", row_title(analysis, &row.id), row.id.metric.title()),
        workload: Some(row.id.workload.clone()),
        drawing,
        table: row_table(analysis, &row.id, &row.cells),
    })
}

fn line(drawing: &mut Svg, analysis: &Analysis, row: &Row, driver: usize, axis: &Axis, shift: f64) {
    let name = driver_name(analysis, driver);
    let (left, right) = axis.places;
    let cell = row.cells.get(driver).and_then(Option::as_ref);
    let tip = cell.map_or_else(
        || format!("{name}\nfailed: see the errors at the end"),
        |cell| cell_tip(analysis, &row.id, driver, cell),
    );
    drawing.open_group("row mark", Some(driver), &tip, Some(shift));
    drawing.target((0.0, 0.0), (WIDTH, LINE));
    let name = font::fitting(name, 12.0, left - 8.0);
    drawing.text(left - 10.0, 15.5, Ink::Label, Anchor::End, &name);
    let Some(cell) = cell else {
        drawing.text(left + 6.0, 15.5, Ink::Faint, Anchor::Start, "failed");
        drawing.close_group();
        return;
    };
    let ink = driver_ink(analysis, driver);
    let (middle, x) = (LINE / 2.0, axis.place(cell.estimate.median));
    if axis.logarithmic {
        drawing.line((left, middle), (right, middle), Ink::Grid, 1.0);
    } else {
        drawing.rectangle((left, 4.5), ((x - left).max(1.0), LINE - 9.0), ink, " rx=\"1.5\"");
    }
    if let Some(interval) = cell.estimate.interval {
        let (low, high) = (axis.place(interval.low), axis.place(interval.high));
        // An interval narrower than its own line says nothing.
        if high - low > 1.5 {
            drawing.line((low, middle), (high, middle), Ink::Whisker, 1.2);
            for end in [low, high] {
                drawing.line((end, middle - 3.5), (end, middle + 3.5), Ink::Whisker, 1.2);
            }
        }
    }
    if axis.logarithmic {
        drawing.mark((x, middle), driver_shape(analysis, driver), 4.6, ink);
    }
    let value = row.id.metric.unit.format(cell.estimate.median);
    drawing.text(WIDTH - 2.0, 15.5, Ink::Value, Anchor::End, &value);
    drawing.close_group();
}
