//! Cost against a parameter: a line for each driver, in a band of its intervals.

use super::axis::{Axis, LOGARITHMIC_FROM};
use super::palette::Ink;
use super::svg::{Anchor, Svg};
use super::{
    Plot, Table, TableCell, cell_tip, driver_ink, driver_name, driver_shape, font, plot_note,
    plot_title, row_title, slug,
};
use crate::analysis::{Analysis, Cell, Sweep, range_of};
use crate::results::Unit;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 320.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = HEIGHT - 42.0;
const LEFT: f64 = 52.0;

/// A driver's line: its number, and its points.
type Line<'a> = (usize, Vec<(f64, &'a Cell)>);

/// None if there is nothing to draw.
pub fn lines(analysis: &Analysis, sweep: &Sweep<'_>) -> Option<Plot> {
    let unit = sweep.id.metric.unit;
    let lines: Vec<Line<'_>> = (0..analysis.drivers.len())
        .filter_map(|driver| {
            let points: Vec<(f64, &Cell)> = sweep
                .points
                .iter()
                .filter_map(|(value, row)| Some((*value, row.cells.get(driver)?.as_ref()?)))
                .collect();
            (!points.is_empty()).then_some((driver, points))
        })
        .collect();
    let all = lines.iter().flat_map(|(_, points)| points.iter().map(|(_, cell)| &cell.estimate));
    let range = range_of(all)?;
    let names = lines.iter().map(|(driver, _)| font::width(driver_name(analysis, *driver), 11.0));
    let right = WIDTH - names.fold(40.0, f64::max).min(120.0) - 14.0;
    let (x_axis, y_axis) =
        (along(sweep, (LEFT, right)), Axis::fitting(unit, range, (BOTTOM, TOP), 5));
    let mut drawing = Svg::new(WIDTH, HEIGHT);
    let title = plot_title(analysis, &sweep.id);
    drawing.text(0.0, 14.0, Ink::Title, Anchor::Start, &font::fitting(&title, 13.4, WIDTH));
    let mut note = plot_note(&sweep.id);
    if !y_axis.symbol.is_empty() {
        note = format!("{note}; {}", y_axis.symbol);
    }
    if y_axis.logarithmic {
        note.push_str("; logarithmic");
    }
    drawing.text(0.0, 31.0, Ink::Subtitle, Anchor::Start, &font::fitting(&note, 11.0, WIDTH));
    frame(&mut drawing, &x_axis, &y_axis, &sweep.parameter);
    for (driver, points) in &lines {
        draw(&mut drawing, analysis, *driver, points, (&x_axis, &y_axis));
    }
    for (driver, points) in &lines {
        marks(&mut drawing, analysis, sweep, *driver, points, (&x_axis, &y_axis));
    }
    names_at_ends(&mut drawing, analysis, &lines, (&x_axis, &y_axis));
    Some(Plot {
        name: slug(&format!("lines {} {}", sweep.id.key(), sweep.parameter)),
        title: format!(
            "{}: {} against {}",
            row_title(analysis, &sweep.id),
            sweep.id.metric.title(),
            crate::results::parameter_title(&sweep.parameter)
        ),
        workload: Some(sweep.id.workload.clone()),
        drawing,
        table: table(analysis, sweep, &lines),
    })
}

/// The axis of the parameter: ticks where there are values.
fn along(sweep: &Sweep<'_>, places: (f64, f64)) -> Axis {
    let values: Vec<f64> = sweep.points.iter().map(|(value, _)| *value).collect();
    let first = values.first().copied().unwrap_or(0.0);
    let last = values.last().copied().unwrap_or(1.0);
    let logarithmic = first > 0.0 && last / first >= 8.0;
    let range = if logarithmic {
        let room = (last / first).powf(0.03);
        (first / room, last * room)
    } else {
        (if last < first * LOGARITHMIC_FROM { 0.0 } else { first }, last * 1.03)
    };
    let mut axis = Axis { range, places, logarithmic, ticks: Vec::new(), symbol: String::new() };
    let bytes = sweep.parameter.ends_with("_bytes");
    let mut free_from = f64::NEG_INFINITY;
    for value in values {
        let label = if bytes { Unit::Bytes.format(value) } else { format!("{value}") };
        let (place, half) = (axis.place(value), font::width(&label, 11.0) / 2.0);
        let label = if place - half > free_from { label } else { String::new() };
        if !label.is_empty() {
            free_from = place + half + 4.0;
        }
        axis.ticks.push((value, label));
    }
    axis
}

fn frame(drawing: &mut Svg, x_axis: &Axis, y_axis: &Axis, parameter: &str) {
    let (left, right) = x_axis.places;
    for (value, label) in &y_axis.ticks {
        let y = y_axis.place(*value);
        drawing.line((left, y), (right, y), Ink::Grid, 1.0);
        drawing.text(left - 7.0, y + 4.0, Ink::Tick, Anchor::End, label);
    }
    drawing.line((left, BOTTOM), (right, BOTTOM), Ink::Axis, 1.0);
    for (value, label) in &x_axis.ticks {
        let x = x_axis.place(*value);
        drawing.line((x, BOTTOM), (x, BOTTOM + 4.0), Ink::Axis, 1.0);
        drawing.text(x, BOTTOM + 16.0, Ink::Tick, Anchor::Middle, label);
    }
    let name = crate::results::parameter_title(parameter);
    let scale = if x_axis.logarithmic { " (logarithmic)" } else { "" };
    let text = format!("{name}{scale}");
    drawing.text(f64::midpoint(left, right), BOTTOM + 34.0, Ink::Subtitle, Anchor::Middle, &text);
}

fn draw(
    drawing: &mut Svg,
    analysis: &Analysis,
    driver: usize,
    points: &[(f64, &Cell)],
    axes: (&Axis, &Axis),
) {
    let (x_axis, y_axis) = axes;
    let ink = driver_ink(analysis, driver);
    drawing.open_group("series", Some(driver), "", None);
    let edge = |high: bool| {
        points.iter().map(move |(value, cell)| {
            let median = cell.estimate.median;
            let end = cell
                .estimate
                .interval
                .map_or(median, |interval| if high { interval.high } else { interval.low });
            (x_axis.place(*value), y_axis.place(end))
        })
    };
    let mut band: Vec<(f64, f64)> = edge(true).collect();
    let mut lower: Vec<(f64, f64)> = edge(false).collect();
    lower.reverse();
    band.extend(lower);
    if points.len() > 1 {
        drawing.polygon(&band, ink, 0.13);
    }
    let medians: Vec<(f64, f64)> = points
        .iter()
        .map(|(value, cell)| (x_axis.place(*value), y_axis.place(cell.estimate.median)))
        .collect();
    drawing.polyline(&medians, ink, 1.8);
    drawing.close_group();
}

fn marks(
    drawing: &mut Svg,
    analysis: &Analysis,
    sweep: &Sweep<'_>,
    driver: usize,
    points: &[(f64, &Cell)],
    axes: (&Axis, &Axis),
) {
    let (x_axis, y_axis) = axes;
    for (value, cell) in points {
        let center = (x_axis.place(*value), y_axis.place(cell.estimate.median));
        let tip = cell_tip(analysis, &sweep.id, driver, cell);
        let tip = match tip.split_once('\n') {
            Some((name, rest)) => {
                let parameter = crate::results::parameter_title(&sweep.parameter);
                let shown = if sweep.parameter.ends_with("_bytes") {
                    Unit::Bytes.format(*value)
                } else {
                    format!("{value}")
                };
                format!("{name}, {parameter} {shown}\n{rest}")
            }
            None => tip,
        };
        drawing.open_group("mark", Some(driver), &tip, None);
        drawing.target((center.0 - 9.0, center.1 - 9.0), (18.0, 18.0));
        drawing.mark(center, driver_shape(analysis, driver), 3.6, driver_ink(analysis, driver));
        drawing.close_group();
    }
}

/// Names beside the ends of their lines, moved apart where they would cover each other.
fn names_at_ends(drawing: &mut Svg, analysis: &Analysis, lines: &[Line<'_>], axes: (&Axis, &Axis)) {
    const STEP: f64 = 13.0;
    let (x_axis, y_axis) = axes;
    let mut names: Vec<(usize, f64, f64)> = lines
        .iter()
        .filter_map(|(driver, points)| {
            let y = y_axis.place(points.last()?.1.estimate.median);
            Some((*driver, y, y))
        })
        .collect();
    names.sort_by(|first, second| first.1.total_cmp(&second.1));
    // Down from the top, and then up again from the bottom as far as need be.
    let mut free_from = TOP - STEP;
    for (_, _, y) in &mut names {
        *y = y.max(free_from + STEP);
        free_from = *y;
    }
    let mut free_to = BOTTOM + STEP;
    for (_, _, y) in names.iter_mut().rev() {
        *y = y.min(free_to - STEP);
        free_to = *y;
    }
    let right = x_axis.places.1;
    for (driver, end, y) in names {
        let ink = driver_ink(analysis, driver);
        drawing.open_group("series", Some(driver), "", None);
        let last = lines
            .iter()
            .find(|(number, _)| *number == driver)
            .and_then(|(_, points)| points.last())
            .map_or(right, |(value, _)| x_axis.place(*value));
        drawing.polyline(&[(last + 5.0, end), (right + 1.0, end), (right + 8.0, y)], ink, 0.8);
        let name = font::fitting(driver_name(analysis, driver), 11.0, WIDTH - right - 12.0);
        drawing.text(right + 11.0, y + 4.0, Ink::Value, Anchor::Start, &name);
        drawing.close_group();
    }
}

fn table(analysis: &Analysis, sweep: &Sweep<'_>, lines: &[Line<'_>]) -> Table {
    let unit = sweep.id.metric.unit;
    let parameter = crate::results::parameter_title(&sweep.parameter);
    let mut headings = vec!["Driver".to_owned()];
    let bytes = sweep.parameter.ends_with("_bytes");
    headings.extend(sweep.points.iter().map(|(value, _)| {
        let value = if bytes { Unit::Bytes.format(*value) } else { format!("{value}") };
        format!("{parameter} {value}")
    }));
    let rows = lines.iter().map(|(driver, points)| {
        let mut cells = vec![TableCell::words(driver_name(analysis, *driver))];
        for (value, row) in &sweep.points {
            let cell = points.iter().find(|(at, _)| at.total_cmp(value).is_eq());
            cells.push(match cell {
                Some((_, cell)) => {
                    let median = cell.estimate.median;
                    let interval = cell.estimate.interval.map_or_else(String::new, |interval| {
                        format!(
                            " ({} to {})",
                            unit.format(interval.low),
                            unit.format(interval.high)
                        )
                    });
                    TableCell::figure(format!("{}{interval}", unit.format(median)), median)
                }
                None if analysis.has_failed(&row.id, *driver) => TableCell::words("failed"),
                None => TableCell::default(),
            });
        }
        (Some(*driver), cells)
    });
    let rows = rows.collect();
    Table { headings, rows }
}
