//! How results are shown: a table on the terminal, Markdown, CSV, and one page that loads nothing, with every plot as
//! SVG and PNG beside it.

mod facts;
mod markdown;
mod page;
pub mod plot;
mod terminal;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use plot::Plot;
pub use terminal::{comparison_table, run_table};

use crate::analysis::{Analysis, Comparison, Row, Sweep, sweeps};
use crate::results::{Results, Role, Unit, write_csv};
use crate::statistics::Bootstrap;
use crate::{Error, Result};

/// What a report is made with.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// The driver that all others are compared with; see [`Analysis::of`].
    pub reference: Option<String>,
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
    /// Leave the PNGs out: they take most of the time.
    pub without_png: bool,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Report {
    /// The page.
    pub page: PathBuf,
    /// What is printed on the terminal.
    pub table: String,
    /// How many plots there are.
    pub plots: usize,
}

/// All plots of a run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Those of workloads, in the order of the page.
    pub workloads: Vec<Plot>,
    /// Those over all workloads: what it took.
    pub resources: Vec<Plot>,
    /// All ratios, for papers: in the page this is a table.
    pub ratios: Option<Plot>,
}

impl Figures {
    /// Draws everything.
    pub fn of(analysis: &Analysis) -> Self {
        let sweeps = sweeps(analysis);
        let mut workloads = Vec::new();
        for workload in &analysis.workloads {
            let swept: Vec<&Sweep<'_>> =
                sweeps.iter().filter(|sweep| sweep.id.workload == workload.name).collect();
            let in_sweep = |row: &Row| {
                swept.iter().any(|sweep| sweep.points.iter().any(|(_, point)| point.id == row.id))
            };
            let rows: Vec<&Row> = analysis
                .rows_of(Role::Result)
                .filter(|row| row.id.workload == workload.name)
                .collect();
            workloads.extend(swept.iter().filter_map(|sweep| plot::lines(analysis, sweep)));
            let bars = rows.iter().filter(|row| !in_sweep(row));
            workloads.extend(bars.filter_map(|row| plot::bars(analysis, row)));
            workloads.extend(rows.iter().filter_map(|row| plot::cdf(analysis, row)));
        }
        let resources = resource_names(analysis).into_iter().filter_map(|(name, unit)| {
            let rows: Vec<&Row> = analysis
                .rows_of(Role::Resource)
                .filter(|row| row.id.metric.name == name && row.id.metric.unit == unit)
                .collect();
            let title = resource_title(&name);
            plot::dots(analysis, &rows, &title, "medians; logarithmic; further left is better")
        });
        Self { resources: resources.collect(), ratios: plot::heat(analysis), workloads }
    }

    /// The plots of one workload.
    pub fn of_workload<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Plot> {
        self.workloads.iter().filter(move |plot| plot.workload.as_deref() == Some(name))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Plot> {
        self.ratios.iter().chain(&self.workloads).chain(&self.resources)
    }
}

/// The resources that were measured; the bytes written for a byte come first.
fn resource_names(analysis: &Analysis) -> Vec<(String, Unit)> {
    let mut names: Vec<(String, Unit)> = Vec::new();
    for row in analysis.rows_of(Role::Resource) {
        let name = (row.id.metric.name.clone(), row.id.metric.unit);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|(_, unit)| *unit != Unit::Ratio);
    names
}

fn resource_title(name: &str) -> String {
    match name {
        "bytes_written_per_byte" => {
            "Bytes written to the disk for each byte of the workload".into()
        }
        "disk_bytes_written" => "Bytes written to the disk".into(),
        "disk_flushes" => "Flushes of the disk".into(),
        "space" => "Growth of the store on its file system".into(),
        "page_cache" => "Growth of the page cache".into(),
        "cpu_user" => "Processor time outside the kernel".into(),
        "cpu_kernel" => "Processor time in the kernel".into(),
        "cpu_daemons" => "Processor time of the driver's daemons".into(),
        name => name.replace('_', " "),
    }
}

/// Writes the report of a run into a folder, which is made if it is not there: `report.html`, `report.md`,
/// `results.csv`, `plots/*.svg` and `plots/*.png`.
pub fn write_report(results: &Results, folder: &Path, options: &ReportOptions) -> Result<Report> {
    let analysis = Analysis::of(results, options.reference.as_deref(), options.bootstrap)?;
    let figures = Figures::of(&analysis);
    make_folder(folder)?;
    let page = folder.join("report.html");
    write(&page, page::run_page(results, &analysis, &figures).as_bytes())?;
    write(&folder.join("report.md"), markdown::run_markdown(results, &analysis).as_bytes())?;
    let mut csv = Vec::new();
    let path = folder.join("results.csv");
    write_csv(results, &mut csv).map_err(Error::io("write", &path))?;
    write(&path, &csv)?;
    let plots: Vec<&Plot> = figures.all().collect();
    write_plots(&plots, &folder.join("plots"), options)?;
    Ok(Report { page, table: run_table(&analysis), plots: plots.len() })
}

/// Writes the comparison of two runs into a folder: `report.html`, `report.md` and `plots`. The names say which is which.
pub fn write_comparison(
    first: (&str, &Results),
    second: (&str, &Results),
    folder: &Path,
    options: &ReportOptions,
) -> Result<Report> {
    let analyze =
        |results: &Results| Analysis::of(results, options.reference.as_deref(), options.bootstrap);
    let analyses = (analyze(first.1)?, analyze(second.1)?);
    let comparison = Comparison::of(&analyses.0, &analyses.1);
    if comparison.changes.is_empty() {
        return Err(Error::Invalid(format!(
            "{} and {} have no figure in common: there is nothing to compare",
            first.0, second.0
        )));
    }
    make_folder(folder)?;
    let (names, results) = ((first.0, second.0), (first.1, second.1));
    let page = folder.join("report.html");
    let plots = page::comparison_plots(&analyses.0, &comparison);
    let analyzed = (&analyses.0, &analyses.1);
    let html = page::comparison_page(names, results, analyzed, &comparison, &plots);
    write(&page, html.as_bytes())?;
    let text = markdown::comparison_markdown(names, results, &analyses.0, &comparison);
    write(&folder.join("report.md"), text.as_bytes())?;
    write_plots(&plots.iter().collect::<Vec<_>>(), &folder.join("plots"), options)?;
    Ok(Report { page, table: comparison_table(&comparison), plots: plots.len() })
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))
}

/// Drawing pixels takes by far the longest, so every processor draws.
fn write_plots(plots: &[&Plot], folder: &Path, options: &ReportOptions) -> Result<()> {
    make_folder(folder)?;
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while let Some(plot) = plots.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = write_plot(plot, folder, options) {
                failed
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .get_or_insert(error);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 1..threads.min(plots.len()) {
            scope.spawn(work);
        }
        work();
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

fn write_plot(plot: &Plot, folder: &Path, options: &ReportOptions) -> Result<()> {
    let svg = plot.drawing.document(&plot.title);
    write(&folder.join(format!("{}.svg", plot.name)), svg.as_bytes())?;
    if !options.without_png {
        write(&folder.join(format!("{}.png", plot.name)), &plot::png::png(&svg)?)?;
    }
    Ok(())
}
