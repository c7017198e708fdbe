//! Two runs side by side: two commits, or two machines.

use std::collections::HashMap;

use super::{Analysis, RowId};
use crate::results::Role;
use crate::statistics::{Estimate, Interval, Ratio, share_of_overlaps};

/// One cell in both runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which figure.
    pub id: RowId,
    /// The driver's number among [`Comparison::drivers`].
    pub driver: usize,
    /// In the first run.
    pub first: Estimate,
    /// In the second.
    pub second: Estimate,
    /// How many times as good the first is as the second.
    pub ratio: Option<Ratio>,
}

/// What two runs have in common, and what only one has.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// All drivers of both.
    pub drivers: Vec<String>,
    /// The common cells, in the order of the first run.
    pub changes: Vec<Change>,
    /// How many cells only the first run has.
    pub only_first: usize,
    /// How many cells only the second run has.
    pub only_second: usize,
}

impl Comparison {
    /// Sets two runs side by side.
    pub fn of(first: &Analysis, second: &Analysis) -> Self {
        let mut drivers: Vec<String> =
            first.drivers.iter().map(|driver| driver.name.clone()).collect();
        for driver in &second.drivers {
            if !drivers.contains(&driver.name) {
                drivers.push(driver.name.clone());
            }
        }
        let mut there: HashMap<(&RowId, &str), &Estimate> = HashMap::new();
        for row in &second.rows {
            for (number, cell) in row.present() {
                if let Some(driver) = second.drivers.get(number) {
                    there.insert((&row.id, driver.name.as_str()), &cell.estimate);
                }
            }
        }
        let (all, mut changes, mut only_first) = (there.len(), Vec::new(), 0);
        for row in &first.rows {
            for (number, cell) in row.present() {
                let name = drivers.get(number).map_or("", String::as_str);
                let Some(other) = there.get(&(&row.id, name)) else {
                    only_first += 1;
                    continue;
                };
                let estimate = &cell.estimate;
                let ratio = Ratio::unpaired(
                    &format!("{} {name}", row.id.key()),
                    &estimate.values,
                    &other.values,
                    row.id.metric.better,
                    &first.bootstrap,
                );
                changes.push(Change {
                    id: row.id.clone(),
                    driver: number,
                    first: estimate.clone(),
                    second: (*other).clone(),
                    ratio,
                });
            }
        }
        let only_second = all - changes.len();
        Self { drivers, changes, only_first, only_second }
    }

    /// Of the results that both runs have, the share whose intervals overlap: how reproducible they are.
    pub fn reproducibility(&self) -> Option<f64> {
        let results = self.changes.iter().filter(|change| change.id.metric.role == Role::Result);
        let pairs: Vec<(Interval, Interval)> = results
            .filter_map(|change| Some((change.first.interval?, change.second.interval?)))
            .collect();
        share_of_overlaps(&pairs)
    }
}
