//! What the results of a run come to: a row for each figure, a cell for each driver in it.

mod comparison;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use comparison::{Change, Comparison};
pub use sweep::{Sweep, sweeps};

use crate::results::{
    DriverInfo, Histogram, Measurement, Metric, Parameters, Results, Role, WorkloadInfo,
};
use crate::statistics::{Bootstrap, Estimate, Ratio};

/// Which figure: what can be compared between drivers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The workload's name.
    pub workload: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// What was measured.
    pub metric: Metric,
    /// In a guest under emulation.
    pub emulated: bool,
}

impl RowId {
    fn of(line: &Measurement) -> Self {
        Self {
            workload: line.trial.workload.clone(),
            parameters: line.trial.parameters.clone(),
            metric: line.metric.clone(),
            emulated: line.trial.emulated,
        }
    }

    /// Names the row among all: for seeds, files and anchors.
    pub fn key(&self) -> String {
        let emulated = if self.emulated { " emulated" } else { "" };
        format!("{} {} {}{emulated}", self.workload, self.parameters, self.metric.name)
    }

    /// What it was done with, for people: `depth 10, emulated`; may be empty.
    pub fn conditions(&self) -> String {
        self.parameters.conditions(self.emulated)
    }
}

/// A driver in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The figure.
    pub estimate: Estimate,
    /// Its values, each with its repeat.
    pub repeats: Vec<(u32, f64)>,
    /// How many times as good it is as the reference, pair by pair; none of the reference itself.
    pub ratio: Option<Ratio>,
    /// The latencies of all repeats.
    pub latency: Option<Histogram>,
}

/// A figure for all drivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub id: RowId,
    /// By driver, in the order of [`Analysis::drivers`].
    pub cells: Vec<Option<Cell>>,
}

impl Row {
    /// The drivers that have a cell, by their number.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Cell)> {
        self.cells.iter().enumerate().filter_map(|(driver, cell)| Some((driver, cell.as_ref()?)))
    }

    /// How many times as good one driver is as another, pair by pair; none of itself.
    pub fn ratio(&self, analysis: &Analysis, driver: usize, reference: usize) -> Option<Ratio> {
        let cell = |number: usize| self.cells.get(number).and_then(Option::as_ref);
        let name = format!("{} {}", self.id.key(), analysis.drivers.get(driver)?.name);
        let (values, against) = (&cell(driver)?.repeats, &cell(reference)?.repeats);
        if driver == reference {
            return None;
        }
        paired(&self.id, &name, values, against, &analysis.bootstrap)
    }

    /// The least and the largest end of all intervals.
    pub fn range(&self) -> Option<(f64, f64)> {
        range_of(self.present().map(|(_, cell)| &cell.estimate))
    }
}

/// The least and the largest end of intervals.
pub fn range_of<'a>(estimates: impl Iterator<Item = &'a Estimate>) -> Option<(f64, f64)> {
    estimates.fold(None, |range, estimate| {
        let interval = estimate.interval;
        let low = interval.map_or(estimate.median, |interval| interval.low);
        let high = interval.map_or(estimate.median, |interval| interval.high);
        Some(
            range.map_or((low, high), |(least, most): (f64, f64)| (least.min(low), most.max(high))),
        )
    })
}

/// What a run comes to.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// In the order in which they are shown.
    pub drivers: Vec<DriverInfo>,
    /// The driver that all others are compared with.
    pub reference: usize,
    /// Workload by workload, each with its results first, then what they took.
    pub rows: Vec<Row>,
    /// Of the drivers that failed: workload, parameters, driver and emulation.
    pub failed: BTreeSet<(String, Parameters, String, bool)>,
    /// The workloads that have rows, in order.
    pub workloads: Vec<WorkloadInfo>,
    /// How intervals were drawn.
    pub bootstrap: Bootstrap,
}

/// What a row's values are, by driver: repeat and value.
type Values = BTreeMap<usize, Vec<(u32, f64)>>;

impl Analysis {
    /// Takes the results together. The reference is the named driver; overlay2, Docker's own, if none is named,
    /// or else the first.
    pub fn of(
        results: &Results,
        reference: Option<&str>,
        bootstrap: Bootstrap,
    ) -> crate::Result<Self> {
        let drivers = results.drivers();
        let number = |name: &str| drivers.iter().position(|driver| driver.name == name);
        let reference = match reference {
            Some(name) => number(name).ok_or_else(|| {
                let known: Vec<&str> = drivers.iter().map(|driver| driver.name.as_str()).collect();
                crate::Error::Invalid(format!(
                    "no results of the driver '{name}' to compare with; there are {}",
                    known.join(", ")
                ))
            })?,
            None => number("overlay2").unwrap_or(0),
        };
        let numbers: HashMap<&str, usize> = drivers
            .iter()
            .enumerate()
            .map(|(number, driver)| (driver.name.as_str(), number))
            .collect();
        let mut lines: BTreeMap<RowId, (usize, Values, BTreeMap<usize, Histogram>)> =
            BTreeMap::new();
        for (place, line) in results.measurements.iter().enumerate() {
            let Some(driver) = numbers.get(line.trial.driver.as_str()).copied() else { continue };
            let (_, values, latencies) = lines
                .entry(RowId::of(line))
                .or_insert_with(|| (place, Values::new(), BTreeMap::new()));
            values.entry(driver).or_default().push((line.trial.repeat, line.value));
            if let Some(latency) = &line.latency {
                latencies.entry(driver).or_default().merge(latency);
            }
        }
        let workloads = ordered_workloads(results);
        let order: HashMap<&str, usize> = workloads
            .iter()
            .enumerate()
            .map(|(number, workload)| (workload.name.as_str(), number))
            .collect();
        let mut rows: Vec<(usize, Row)> = lines
            .into_iter()
            .map(|(id, (place, values, latencies))| {
                (place, row(id, &values, latencies, &drivers, reference, &bootstrap))
            })
            .collect();
        // Results before resources; then as they were first met, but parameters in their own order.
        let mut first_met: HashMap<(String, String), usize> = HashMap::new();
        for (place, row) in &rows {
            let key = (row.id.workload.clone(), row.id.metric.name.clone());
            let first = first_met.entry(key).or_insert(*place);
            *first = (*first).min(*place);
        }
        rows.sort_by_cached_key(|(_, row)| {
            let id = &row.id;
            let key = (id.workload.clone(), id.metric.name.clone());
            (
                order.get(id.workload.as_str()).copied(),
                id.metric.role,
                id.emulated,
                first_met.get(&key).copied(),
                id.parameters.clone(),
            )
        });
        let failed = results.failures.iter().map(|failure| {
            let trial = failure.trial.clone();
            (trial.workload, trial.parameters, trial.driver, trial.emulated)
        });
        let failed = failed.collect();
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        Ok(Self { drivers, reference, rows, failed, workloads, bootstrap })
    }

    /// The rows of one role.
    pub fn rows_of(&self, role: Role) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.id.metric.role == role)
    }

    /// Did this driver fail in this row?
    pub fn has_failed(&self, row: &RowId, driver: usize) -> bool {
        let Some(driver) = self.drivers.get(driver) else { return false };
        let key = (row.workload.clone(), row.parameters.clone(), driver.name.clone(), row.emulated);
        self.failed.contains(&key)
    }

    /// The reference's name.
    pub fn reference_name(&self) -> &str {
        self.drivers.get(self.reference).map_or("", |driver| &driver.name)
    }

    /// What is known of a workload.
    pub fn workload(&self, name: &str) -> Option<&WorkloadInfo> {
        self.workloads.iter().find(|workload| workload.name == name)
    }

    /// The smallest and largest number of repeats of a cell.
    pub fn repeats(&self) -> Option<(usize, usize)> {
        self.repeats_of(|_| true)
    }

    /// That of some rows.
    pub fn repeats_of(&self, which: impl Fn(&RowId) -> bool) -> Option<(usize, usize)> {
        let counts = self.rows.iter().filter(|row| which(&row.id)).flat_map(Row::present);
        let counts = counts.map(|(_, cell)| cell.estimate.values.len());
        counts.fold(None, |range, count| {
            Some(range.map_or((count, count), |(least, most): (usize, usize)| {
                (least.min(count), most.max(count))
            }))
        })
    }
}

fn ordered_workloads(results: &Results) -> Vec<WorkloadInfo> {
    let measured: BTreeSet<&str> =
        results.measurements.iter().map(|line| line.trial.workload.as_str()).collect();
    let known = results.run.workloads.iter().filter(|known| measured.contains(known.name.as_str()));
    let mut workloads: Vec<WorkloadInfo> = known.cloned().collect();
    for name in measured {
        if workloads.iter().all(|known| known.name != name) {
            workloads.push(results.workload(name));
        }
    }
    workloads
}

fn row(
    id: RowId,
    values: &Values,
    mut latencies: BTreeMap<usize, Histogram>,
    drivers: &[DriverInfo],
    reference: usize,
    bootstrap: &Bootstrap,
) -> Row {
    let key = id.key();
    let against = values.get(&reference).map_or(&[][..], Vec::as_slice);
    let cells = drivers.iter().enumerate().map(|(number, driver)| {
        let values = values.get(&number)?;
        let name = format!("{key} {}", driver.name);
        let plain = values.iter().map(|(_, value)| *value).collect();
        let estimate = Estimate::of(&name, plain, bootstrap)?;
        let ratio =
            if number == reference { None } else { paired(&id, &name, values, against, bootstrap) };
        let repeats = values.clone();
        Some(Cell { estimate, repeats, ratio, latency: latencies.remove(&number) })
    });
    let cells = cells.collect();
    Row { id, cells }
}

/// The ratio of the values of one driver to those of another in the same repeats.
fn paired(
    id: &RowId,
    name: &str,
    values: &[(u32, f64)],
    reference: &[(u32, f64)],
    bootstrap: &Bootstrap,
) -> Option<Ratio> {
    let against: HashMap<u32, f64> = reference.iter().copied().collect();
    let ratios = values
        .iter()
        .filter_map(|(repeat, value)| id.metric.better.ratio(*value, *against.get(repeat)?));
    Ratio::paired(name, &ratios.collect::<Vec<f64>>(), bootstrap)
}
