//! Two runs: for each figure of a workload the ratio of the first to the second, a line for each driver with its interval.

use super::axis::Axis;
use super::palette::{Ink, driver_colors, driver_shape};
use super::svg::{Anchor, Svg};
use super::{Plot, Table, font, ratio_text, slug};
use crate::analysis::{Change, Comparison};
use crate::number::float_of;
use crate::results::Unit;

const WIDTH: f64 = 900.0;
const HEAD: f64 = 20.0;
const LINE: f64 = 15.0;

/// Of these changes, which are those of one workload in their order; `heading` says of one what was measured. None if no
/// change has a ratio.
pub fn forest(
    comparison: &Comparison,
    workload: &str,
    title: &str,
    changes: &[&Change],
    heading: impl Fn(&Change) -> String,
    tip: impl Fn(&Change) -> String,
) -> Option<Plot> {
    let drawn: Vec<(&Change, (f64, f64, f64))> = changes
        .iter()
        .filter_map(|change| {
            let ratio = change.ratio.as_ref()?;
            let interval = ratio.interval;
            let low = interval.map_or(ratio.value, |interval| interval.low);
            let high = interval.map_or(ratio.value, |interval| interval.high);
            Some((*change, (low, ratio.value, high)))
        })
        .collect();
    if drawn.is_empty() {
        return None;
    }
    // 1 is always in sight, with some room at both sides.
    let least = drawn.iter().map(|(_, (low, _, _))| *low).fold(0.8, f64::min);
    let most = drawn.iter().map(|(_, (_, _, high))| *high).fold(1.25, f64::max);
    let headings = drawn
        .iter()
        .enumerate()
        .filter(|(place, (change, _))| {
            let before = place.checked_sub(1).and_then(|before| drawn.get(before));
            before.is_none_or(|(before, _)| before.id != change.id)
        })
        .count();
    let (left, right) = (150.0, WIDTH - 70.0);
    let top = 46.0;
    let bottom = float_of(headings).mul_add(HEAD, float_of(drawn.len()).mul_add(LINE, top));
    let axis = Axis::logarithmic(Unit::Ratio, least, most, (left, right), 9);
    let mut drawing = Svg::new(WIDTH, bottom + 24.0);
    drawing.text(0.0, 14.0, Ink::Title, Anchor::Start, title);
    let note = "how many times as good A is as B; logarithmic; a line is the interval";
    drawing.text(0.0, 31.0, Ink::Subtitle, Anchor::Start, note);
    for (value, label) in &axis.ticks {
        let x = axis.place(*value);
        drawing.line((x, top - 2.0), (x, bottom), Ink::Grid, 1.0);
        drawing.text(x, bottom + 16.0, Ink::Tick, Anchor::Middle, label);
    }
    let one = axis.place(1.0);
    drawing.line((one, top - 2.0), (one, bottom), Ink::Axis, 1.4);
    let mut y = top;
    let mut before: Option<&Change> = None;
    for (change, (low, value, high)) in drawn {
        if before.is_none_or(|before| before.id != change.id) {
            let heading = font::fitting(&heading(change), 12.0, WIDTH);
            drawing.text(0.0, y + 14.0, Ink::Label, Anchor::Start, &heading);
            y += HEAD;
        }
        before = Some(change);
        let name = comparison.drivers.get(change.driver).map_or("", String::as_str);
        let ink = Ink::Driver(change.driver, driver_colors(name, change.driver).0);
        let middle = y + LINE / 2.0;
        drawing.open_group("mark", Some(change.driver), &tip(change), None);
        drawing.target((0.0, y), (WIDTH, LINE));
        drawing.text(left - 12.0, middle + 4.0, Ink::Value, Anchor::End, name);
        drawing.line((axis.place(low), middle), (axis.place(high), middle), Ink::Whisker, 1.4);
        let shape = driver_shape(name, change.driver);
        drawing.mark((axis.place(value), middle), shape, 4.2, ink);
        drawing.text(WIDTH, middle + 4.0, Ink::Value, Anchor::End, &ratio_text(value));
        drawing.close_group();
        y += LINE;
    }
    drawing.line((left, bottom), (right, bottom), Ink::Axis, 1.0);
    Some(Plot {
        name: slug(&format!("two {workload}")),
        title: title.to_owned(),
        workload: Some(workload.to_owned()),
        drawing,
        // The page has one table of all figures of both runs.
        table: Table::default(),
    })
}
