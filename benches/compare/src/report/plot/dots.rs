//! One resource over all workloads: a line for each workload, on it a mark for each driver.

use super::axis::Axis;
use super::palette::Ink;
use super::svg::{Anchor, Svg};
use super::{
    Plot, Table, TableCell, cell_tip, driver_ink, driver_name, driver_shape, font, row_title, slug,
};
use crate::analysis::{Analysis, Row, range_of};

const WIDTH: f64 = 900.0;
const LINE: f64 = 24.0;
const LEGEND_LINE: f64 = 19.0;

/// None if there are no values above 0.
pub fn dots(analysis: &Analysis, rows: &[&Row], title: &str, note: &str) -> Option<Plot> {
    let first = rows.first()?;
    let unit = first.id.metric.unit;
    let cells =
        || rows.iter().flat_map(|row| row.present()).filter(|(_, cell)| cell.estimate.median > 0.0);
    let (_, most) = range_of(cells().map(|(_, cell)| &cell.estimate))?;
    let least = cells().map(|(_, cell)| cell.estimate.median).reduce(f64::min)?;
    let titles: Vec<String> = rows.iter().map(|row| row_title(analysis, &row.id)).collect();
    let widest = titles.iter().map(|title| font::width(title, 12.0)).fold(0.0, f64::max);
    let left = widest.min(330.0) + 14.0;
    let right = WIDTH - 16.0;
    let mut present: Vec<usize> = cells().map(|(driver, _)| driver).collect();
    present.sort_unstable();
    present.dedup();
    let (legend, legend_lines) = legend(analysis, &present);
    let top = crate::number::float_of(legend_lines).mul_add(LEGEND_LINE, 46.0);
    let bottom = crate::number::float_of(rows.len()).mul_add(LINE, top);
    let axis = Axis::logarithmic(unit, least, most, (left, right), 9);
    let mut drawing = Svg::new(WIDTH, bottom + 24.0);
    drawing.text(0.0, 14.0, Ink::Title, Anchor::Start, title);
    drawing.text(0.0, 31.0, Ink::Subtitle, Anchor::Start, note);
    for (driver, x, line) in legend {
        let y = crate::number::float_of(line).mul_add(LEGEND_LINE, 50.0);
        drawing.open_group("series", Some(driver), "", None);
        drawing.mark(
            (x + 5.0, y - 4.0),
            driver_shape(analysis, driver),
            4.2,
            driver_ink(analysis, driver),
        );
        drawing.text(x + 14.0, y, Ink::Value, Anchor::Start, driver_name(analysis, driver));
        drawing.close_group();
    }
    for (value, label) in &axis.ticks {
        let x = axis.place(*value);
        drawing.line((x, top - 2.0), (x, bottom), Ink::Grid, 1.0);
        drawing.text(x, bottom + 16.0, Ink::Tick, Anchor::Middle, label);
    }
    for (place, (row, title)) in rows.iter().zip(&titles).enumerate() {
        let y = crate::number::float_of(place).mul_add(LINE, top) + LINE / 2.0;
        let title = font::fitting(title, 12.0, left - 14.0);
        drawing.text(left - 12.0, y + 4.0, Ink::Label, Anchor::End, &title);
        drawing.line((left, y), (right, y), Ink::Grid, 1.0);
        for (driver, cell) in row.present() {
            if cell.estimate.median <= 0.0 {
                continue;
            }
            let center = (axis.place(cell.estimate.median), y);
            let tip = format!("{title}\n{}", cell_tip(analysis, &row.id, driver, cell));
            drawing.open_group("mark", Some(driver), &tip, None);
            drawing.target((center.0 - 7.0, center.1 - 9.0), (14.0, 18.0));
            drawing.mark(center, driver_shape(analysis, driver), 4.4, driver_ink(analysis, driver));
            drawing.close_group();
        }
    }
    drawing.line((left, bottom), (right, bottom), Ink::Axis, 1.0);
    Some(Plot {
        name: slug(&format!("all {}", first.id.metric.name)),
        title: title.to_owned(),
        workload: None,
        drawing,
        table: table(analysis, rows, &titles),
    })
}

fn legend(analysis: &Analysis, drivers: &[usize]) -> (Vec<(usize, f64, usize)>, usize) {
    let (mut x, mut line) = (0.0, 0);
    let mut entries = Vec::new();
    for driver in drivers {
        let width = font::width(driver_name(analysis, *driver), 11.0) + 14.0;
        if x > 0.0 && x + width > WIDTH {
            x = 0.0;
            line += 1;
        }
        entries.push((*driver, x, line));
        x += width + 18.0;
    }
    (entries, line + 1)
}

fn table(analysis: &Analysis, rows: &[&Row], titles: &[String]) -> Table {
    let mut headings = vec!["Workload".to_owned()];
    headings.extend(analysis.drivers.iter().map(|driver| driver.name.clone()));
    let rows = rows.iter().zip(titles).map(|(row, title)| {
        let mut cells = vec![TableCell::words(title.as_str())];
        cells.extend(row.cells.iter().enumerate().map(|(driver, cell)| match cell {
            Some(cell) => {
                let median = cell.estimate.median;
                TableCell::figure(row.id.metric.unit.format(median), median)
            }
            None if analysis.has_failed(&row.id, driver) => TableCell::words("failed"),
            None => TableCell::default(),
        }));
        (None, cells)
    });
    let rows = rows.collect();
    Table { headings, rows }
}
