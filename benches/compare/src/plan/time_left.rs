//! How long a run still takes.

use std::collections::HashMap;
use std::time::Duration;

use super::Planned;
use crate::number::float_of;
use crate::results::Parameters;
use crate::workload::Workload;

#[derive(Clone, Copy, Default)]
struct Sum {
    seconds: f64,
    count: usize,
}

impl Sum {
    fn add(&mut self, seconds: f64) {
        self.seconds += seconds;
        self.count += 1;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.seconds / float_of(self.count))
    }
}

/// Learns from the trials that were run: a trial takes as long as its cell did with the same driver; else as that
/// workload did; else what its file says; else as all did.
#[derive(Default)]
pub struct TimeLeft {
    cells: HashMap<(String, Parameters, String), Sum>,
    workloads: HashMap<String, Sum>,
    all: Sum,
}

impl TimeLeft {
    /// A trial took so long.
    pub fn learn(&mut self, planned: &Planned, seconds: f64) {
        let trial = &planned.trial;
        let cell = (trial.workload.clone(), trial.parameters.clone(), trial.driver.clone());
        self.cells.entry(cell).or_default().add(seconds);
        self.workloads.entry(trial.workload.clone()).or_default().add(seconds);
        self.all.add(seconds);
    }

    /// What these trials will take; none as long as nothing is known of one of them.
    pub fn of(&self, trials: &[Planned], workloads: &[Workload]) -> Option<Duration> {
        let seconds = trials.iter().try_fold(0.0, |sum, planned| {
            let trial = &planned.trial;
            let cell = (trial.workload.clone(), trial.parameters.clone(), trial.driver.clone());
            let of_cell = self.cells.get(&cell).and_then(Sum::mean);
            let of_workload = self.workloads.get(&trial.workload).and_then(Sum::mean);
            let said = workloads.get(planned.workload).and_then(|workload| workload.seconds);
            Some(sum + of_cell.or(of_workload).or(said).or_else(|| self.all.mean())?)
        })?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}
