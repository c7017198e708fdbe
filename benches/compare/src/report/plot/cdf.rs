//! Latencies: the share of operations that took no longer. The upper end is stretched, so that as much room is
//! between 99 % and 99.9 % as between 90 % and 99 %: the tail is what is felt.

use super::axis::Axis;
use super::palette::Ink;
use super::svg::{Anchor, Svg};
use super::{
    Plot, Table, TableCell, driver_ink, driver_name, driver_shape, font, plot_title, row_title,
    slug,
};
use crate::analysis::{Analysis, Row};
use crate::results::{Histogram, Unit};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 14.0;
const PLOT_HEIGHT: f64 = 220.0;
const LEGEND_LINE: f64 = 18.0;
const QUANTILES: [(f64, &str); 5] =
    [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];

/// What is shown of the tail: a share that so few operations make up is chance.
fn highest_share(histograms: &[(usize, &Histogram)]) -> f64 {
    let most = histograms.iter().map(|(_, histogram)| histogram.count()).max().unwrap_or(0);
    match most {
        0..1000 => 0.99,
        1000..20_000 => 0.999,
        _ => 0.9999,
    }
}

/// None if no driver has latencies.
pub fn cdf(analysis: &Analysis, row: &Row) -> Option<Plot> {
    let histograms: Vec<(usize, &Histogram)> = row
        .present()
        .filter_map(|(driver, cell)| Some((driver, cell.latency.as_ref()?)))
        .filter(|(_, histogram)| histogram.count() > 0)
        .collect();
    let top_share = highest_share(&histograms);
    let ends = histograms.iter().filter_map(|(_, histogram)| {
        Some((histogram.quantile(0.005)?, histogram.quantile(top_share)?))
    });
    let (least, most) =
        ends.reduce(|(least, most), (low, high)| (least.min(low), most.max(high)))?;
    let (legend, legend_lines) = legend(analysis, &histograms);
    let top = crate::number::float_of(legend_lines).mul_add(LEGEND_LINE, 46.0);
    let bottom = top + PLOT_HEIGHT;
    let x_axis = Axis::logarithmic(Unit::Seconds, least, most, (LEFT, RIGHT), 6);
    // From 0 % at the bottom; the last step is to 99.99 %.
    let stretched = |share: f64| -(1.0 - share.min(top_share)).log10();
    let y = |share: f64| bottom - stretched(share) / stretched(1.0) * PLOT_HEIGHT;
    let mut drawing = Svg::new(WIDTH, bottom + 42.0);
    let title = format!("{}, latency", plot_title(analysis, &row.id));
    drawing.text(0.0, 14.0, Ink::Title, Anchor::Start, &font::fitting(&title, 13.4, WIDTH));
    let conditions = row.id.conditions();
    let semicolon = if conditions.is_empty() { "" } else { "; " };
    let note = format!("{conditions}{semicolon}share of operations within; further left is better");
    drawing.text(0.0, 31.0, Ink::Subtitle, Anchor::Start, &font::fitting(&note, 11.0, WIDTH));
    for (driver, x, line) in legend {
        let y = crate::number::float_of(line).mul_add(LEGEND_LINE, 48.0);
        drawing.open_group("series", Some(driver), "", None);
        drawing.line((x, y - 4.0), (x + 16.0, y - 4.0), driver_ink(analysis, driver), 2.0);
        drawing.mark(
            (x + 8.0, y - 4.0),
            driver_shape(analysis, driver),
            3.4,
            driver_ink(analysis, driver),
        );
        drawing.text(x + 21.0, y, Ink::Value, Anchor::Start, driver_name(analysis, driver));
        drawing.close_group();
    }
    let shown = QUANTILES.iter().filter(|(share, _)| *share <= top_share);
    for (share, label) in [(0.0, "0 %")].iter().chain(shown) {
        drawing.line((LEFT, y(*share)), (RIGHT, y(*share)), Ink::Grid, 1.0);
        drawing.text(LEFT - 7.0, y(*share) + 4.0, Ink::Tick, Anchor::End, label);
    }
    drawing.line((LEFT, bottom), (RIGHT, bottom), Ink::Axis, 1.0);
    for (value, label) in &x_axis.ticks {
        let x = x_axis.place(*value);
        drawing.line((x, bottom), (x, bottom + 4.0), Ink::Axis, 1.0);
        drawing.text(x, bottom + 16.0, Ink::Tick, Anchor::Middle, label);
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    drawing.text(middle, bottom + 34.0, Ink::Subtitle, Anchor::Middle, "latency (logarithmic)");
    for (driver, histogram) in &histograms {
        // What lies above the axis is not shown.
        let mut steps = histogram.steps(120);
        let shown = steps.iter().position(|(_, share)| *share >= top_share);
        steps.truncate(shown.map_or(usize::MAX, |last| last + 1));
        let points: Vec<(f64, f64)> = steps
            .into_iter()
            .filter(|(seconds, _)| *seconds > 0.0)
            .map(|(seconds, share)| (x_axis.place(seconds), y(share)))
            .collect();
        drawing.open_group("series", Some(*driver), "", None);
        drawing.polyline(&thinned(&points), driver_ink(analysis, *driver), 1.7);
        drawing.close_group();
    }
    marks(&mut drawing, analysis, &histograms, (&x_axis, top_share), y);
    Some(Plot {
        name: slug(&format!("latency {}", row.id.key())),
        title: format!("{}: latency of {}", row_title(analysis, &row.id), row.id.metric.title()),
        workload: Some(row.id.workload.clone()),
        drawing,
        table: table(analysis, &histograms),
    })
}

/// Points that cannot be told apart are one.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let near = kept
            .last()
            .is_some_and(|last| (last.0 - point.0).abs() < 0.7 && (last.1 - point.1).abs() < 0.7);
        if !near {
            kept.push(*point);
        }
    }
    kept
}

fn marks(
    drawing: &mut Svg,
    analysis: &Analysis,
    histograms: &[(usize, &Histogram)],
    (x_axis, top_share): (&Axis, f64),
    y: impl Fn(f64) -> f64,
) {
    for (driver, histogram) in histograms {
        for (share, label) in QUANTILES.iter().filter(|(share, _)| *share <= top_share) {
            let Some(seconds) = histogram.quantile(*share) else { continue };
            let center = (x_axis.place(seconds), y(*share));
            let tip = format!(
                "{}\n{label} within {}\n{} operations",
                driver_name(analysis, *driver),
                Unit::Seconds.format(seconds),
                histogram.count()
            );
            drawing.open_group("mark", Some(*driver), &tip, None);
            drawing.target((center.0 - 8.0, center.1 - 8.0), (16.0, 16.0));
            drawing.mark(
                center,
                driver_shape(analysis, *driver),
                3.0,
                driver_ink(analysis, *driver),
            );
            drawing.close_group();
        }
    }
}

/// Where each driver's name stands, and how many lines that takes.
fn legend(
    analysis: &Analysis,
    histograms: &[(usize, &Histogram)],
) -> (Vec<(usize, f64, usize)>, usize) {
    let (mut x, mut line) = (0.0, 0);
    let mut entries = Vec::new();
    for (driver, _) in histograms {
        let width = font::width(driver_name(analysis, *driver), 11.0) + 21.0;
        if x > 0.0 && x + width > WIDTH {
            x = 0.0;
            line += 1;
        }
        entries.push((*driver, x, line));
        x += width + 14.0;
    }
    (entries, line + 1)
}

fn table(analysis: &Analysis, histograms: &[(usize, &Histogram)]) -> Table {
    let mut headings = vec!["Driver".to_owned(), "Operations".to_owned()];
    headings.extend(QUANTILES.iter().map(|(_, label)| (*label).to_owned()));
    headings.push("Most".to_owned());
    let rows = histograms.iter().map(|(driver, histogram)| {
        let count = histogram.count();
        let mut cells = vec![
            TableCell::words(driver_name(analysis, *driver)),
            TableCell::figure(count.to_string(), crate::number::float(count)),
        ];
        for share in QUANTILES.iter().map(|(share, _)| *share).chain([1.0]) {
            let seconds = histogram.quantile(share).unwrap_or(0.0);
            cells.push(TableCell::figure(Unit::Seconds.format(seconds), seconds));
        }
        (Some(*driver), cells)
    });
    let rows = rows.collect();
    Table { headings, rows }
}
