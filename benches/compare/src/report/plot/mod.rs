//! The plots: each is a drawing and the table of its figures.

mod axis;
mod bars;
mod cdf;
mod dots;
pub mod font;
mod forest;
mod heat;
mod lines;
pub mod palette;
pub mod png;
pub mod svg;

pub use axis::LOGARITHMIC_FROM;
pub use bars::bars;
pub use cdf::cdf;
pub use dots::dots;
pub use forest::forest;
pub use heat::{heat, ratio_text};
pub use lines::lines;

use palette::Ink;
use svg::Svg;

use crate::analysis::{Analysis, Cell, RowId};
use crate::statistics::{Ratio, Verdict};

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Its name among all: of its file, and its anchor in the page.
    pub name: String,
    /// What it is called.
    pub title: String,
    /// The workload it belongs to; none if it is about all.
    pub workload: Option<String>,
    /// The drawing.
    pub drawing: Svg,
    /// Its figures.
    pub table: Table,
}

/// The figures of a plot.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What stands above.
    pub headings: Vec<String>,
    /// The driver whose row it is, and the cells: words, and what they are sorted by.
    pub rows: Vec<(Option<usize>, Vec<TableCell>)>,
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub struct TableCell {
    /// What is shown.
    pub text: String,
    /// What it is sorted by; by the text if there is no number.
    pub number: Option<f64>,
}

impl TableCell {
    /// Words.
    pub fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), number: None }
    }

    /// A figure.
    pub fn figure(text: impl Into<String>, number: f64) -> Self {
        Self { text: text.into(), number: Some(number) }
    }
}

/// The ink of a driver.
pub fn driver_ink(analysis: &Analysis, driver: usize) -> Ink {
    let name = analysis.drivers.get(driver).map_or("", |driver| driver.name.as_str());
    Ink::Driver(driver, palette::driver_colors(name, driver).0)
}

fn driver_name(analysis: &Analysis, driver: usize) -> &str {
    analysis.drivers.get(driver).map_or("", |driver| driver.name.as_str())
}

fn driver_shape(analysis: &Analysis, driver: usize) -> usize {
    palette::driver_shape(driver_name(analysis, driver), driver)
}

/// The width that the names of all drivers need: the same in every plot, so that their axes are aligned.
fn names_width(analysis: &Analysis) -> f64 {
    let widths = analysis.drivers.iter().map(|driver| font::width(&driver.name, Ink::Label.size()));
    widths.fold(40.0, f64::max).min(130.0)
}

/// `random write, depth 10`.
pub fn row_title(analysis: &Analysis, id: &RowId) -> String {
    let title = analysis.workload(&id.workload).map_or(id.workload.as_str(), |known| &known.title);
    let conditions = id.conditions();
    if conditions.is_empty() { title.to_owned() } else { format!("{title}, {conditions}") }
}

/// The title of a plot: `Many small files: untar`.
fn plot_title(analysis: &Analysis, id: &RowId) -> String {
    let title = analysis.workload(&id.workload).map_or(id.workload.as_str(), |known| &known.title);
    format!("{title}: {}", id.metric.title())
}

/// What stands below it: `depth 10; higher is better`.
fn plot_note(id: &RowId) -> String {
    let better = match id.metric.better {
        crate::results::Better::Lower => "lower is better",
        crate::results::Better::Higher => "higher is better",
    };
    let conditions = id.conditions();
    if conditions.is_empty() { better.to_owned() } else { format!("{conditions}; {better}") }
}

/// What is told of a cell that is pointed at: its figure, and how it compares.
pub fn cell_tip(analysis: &Analysis, id: &RowId, driver: usize, cell: &Cell) -> String {
    let mut tip = figure_tip(analysis, id, driver, cell);
    if let Some(ratio) = &cell.ratio {
        tip.push_str(&format!("\n{}", ratio_sentence(ratio, analysis.reference_name())));
    }
    tip
}

/// What is told of its figure alone.
pub fn figure_tip(analysis: &Analysis, id: &RowId, driver: usize, cell: &Cell) -> String {
    let unit = id.metric.unit;
    let estimate = &cell.estimate;
    let mut tip = format!(
        "{}\n{} {}",
        driver_name(analysis, driver),
        id.metric.title(),
        unit.format(estimate.median)
    );
    if let Some(interval) = estimate.interval {
        let (low, high) = (unit.format(interval.low), unit.format(interval.high));
        tip.push_str(&format!("\ninterval {low} to {high}"));
    }
    let count = estimate.values.len();
    tip.push_str(&format!("\n{count} repeat{}", if count == 1 { "" } else { "s" }));
    tip
}

/// `2.1 times as good as overlay2 (1.9 to 2.4)`.
pub fn ratio_sentence(ratio: &Ratio, reference: &str) -> String {
    let interval = ratio.interval.map_or_else(String::new, |interval| {
        format!(" ({} to {})", ratio_text(interval.low), ratio_text(interval.high))
    });
    let value = ratio_text(ratio.value);
    match ratio.verdict() {
        Verdict::NoDifference => format!("no difference from {reference} shown: {value}{interval}"),
        Verdict::TooFew => {
            format!("{value} as good as {reference}{interval}; too few repeats to tell")
        }
        Verdict::Better | Verdict::Worse => format!("{value} as good as {reference}{interval}"),
    }
}

/// The table of figures of one row.
fn row_table(analysis: &Analysis, id: &RowId, cells: &[Option<Cell>]) -> Table {
    let mut headings: Vec<String> =
        ["Driver", "Median", "Interval", "Least", "Most", "Repeats"].map(str::to_owned).into();
    headings.push(format!("To {}", analysis.reference_name()));
    headings.push("Its interval".to_owned());
    let unit = id.metric.unit;
    let mut rows = Vec::new();
    for (driver, cell) in cells.iter().enumerate() {
        let name = TableCell::words(driver_name(analysis, driver));
        let Some(cell) = cell else {
            if analysis.has_failed(id, driver) {
                let mut cells = vec![name, TableCell::words("failed")];
                cells.resize(headings.len(), TableCell::default());
                rows.push((Some(driver), cells));
            }
            continue;
        };
        let estimate = &cell.estimate;
        let interval = estimate.interval.map_or_else(TableCell::default, |interval| {
            let text = format!("{} to {}", unit.format(interval.low), unit.format(interval.high));
            TableCell::figure(text, interval.low)
        });
        let figure = |value: f64| TableCell::figure(unit.format(value), value);
        let repeats = estimate.values.len();
        let mut row = vec![name, figure(estimate.median), interval];
        row.extend([figure(estimate.minimum()), figure(estimate.maximum())]);
        row.push(TableCell::figure(repeats.to_string(), crate::number::float_of(repeats)));
        match &cell.ratio {
            Some(ratio) => {
                row.push(TableCell::figure(ratio_text(ratio.value), ratio.value));
                row.push(ratio.interval.map_or_else(TableCell::default, |interval| {
                    let same = if ratio.verdict() == Verdict::NoDifference {
                        ": no difference"
                    } else {
                        ""
                    };
                    let text = format!(
                        "{} to {}{same}",
                        ratio_text(interval.low),
                        ratio_text(interval.high)
                    );
                    TableCell::figure(text, interval.low)
                }));
            }
            None => row.extend([TableCell::default(), TableCell::default()]),
        }
        rows.push((Some(driver), row));
    }
    Table { headings, rows }
}

/// A name of a file and of an anchor: lower-case letters, digits and hyphens.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.truncate(120);
    slug.trim_end_matches('-').to_owned()
}
