//! The lines of a file of results.

use serde::{Deserialize, Serialize};

use super::{Histogram, Metric, Parameters};
use crate::environment::Environment;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first line.
    Run(Box<Run>),
    /// A figure.
    Measurement(Measurement),
    /// The end of a trial: what stands above it is whole.
    Trial(Trial),
    /// A trial that failed.
    Error(Failure),
    /// Something that was left out from the start.
    Skipped(Skipped),
    /// The machine that the lines marked as emulated come from.
    Guest(Box<Guest>),
}

/// The header: what was run, how, and on what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// See [`super::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Names the run.
    pub run_id: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// Of the order of the trials.
    pub seed: u64,
    /// How it was asked for.
    pub options: RunOptions,
    /// In the order in which they are shown.
    pub workloads: Vec<WorkloadInfo>,
    /// In the order in which they are shown.
    pub drivers: Vec<DriverInfo>,
    /// The machine.
    pub environment: Environment,
}

/// How a run was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// How often each cell is measured.
    pub repeats: u32,
    /// How often each cell is run before that, unmeasured.
    pub warm_ups: u32,
    /// The short set.
    #[serde(default)]
    pub quick: bool,
    /// `--drivers`; empty for all.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// `--only`; empty for all.
    #[serde(default)]
    pub only: Vec<String>,
}

/// What a report says of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadInfo {
    /// As in the measurements.
    pub name: String,
    /// For people.
    pub title: String,
    /// What it is there to show.
    #[serde(default)]
    pub purpose: String,
    /// The paper or the lesson that it comes from.
    #[serde(default)]
    pub source: String,
    /// The heading it stands below in the report.
    #[serde(default)]
    pub group: String,
}

/// What a report says of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// As in the measurements.
    pub name: String,
    /// How it was set up: versions, block size, mount options.
    #[serde(default)]
    pub description: String,
}

/// Which trial: one repeat of one workload with one driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrialId {
    /// The workload's name.
    pub workload: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "has_no_parameters")]
    pub parameters: Parameters,
    /// The driver's name.
    pub driver: String,
    /// From 0. Figures of one repeat are compared pair by pair.
    pub repeat: u32,
    /// Measured in a guest, whose hardware is emulated: to be compared with other such figures alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
}

impl TrialId {
    /// What it was done with, for people: `depth 10, emulated`; may be empty.
    pub fn conditions(&self) -> String {
        self.parameters.conditions(self.emulated)
    }
}

fn has_no_parameters(parameters: &Parameters) -> bool {
    parameters.0.is_empty()
}

/// A figure of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Of which trial.
    #[serde(flatten)]
    pub trial: TrialId,
    /// The trial's place in the order in which they were run, from 0.
    pub position: u64,
    /// What was measured.
    #[serde(flatten)]
    pub metric: Metric,
    /// In the metric's unit; finite, not negative.
    pub value: f64,
    /// The latencies of the operations behind the value, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Histogram>,
}

/// A trial that came to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which.
    #[serde(flatten)]
    pub trial: TrialId,
    /// Its place in the order, from 0.
    pub position: u64,
    /// RFC 3339, UTC.
    pub started: String,
    /// How long it took with all that was made ready for it.
    pub duration_seconds: f64,
    /// How many measurements stand above this line.
    pub measurements: u32,
}

/// A trial that failed: an error of the driver in this cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    #[serde(flatten)]
    pub trial: TrialId,
    /// Its place in the order, from 0.
    pub position: u64,
    /// RFC 3339, UTC.
    pub started: String,
    /// What was being done.
    pub step: String,
    /// What the driver said.
    pub message: String,
}

/// What was left out from the start: what is not named is left out for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// The driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Why, and what would be needed.
    pub reason: String,
    /// Left out in the guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
}

/// The run in a guest whose lines were merged into this file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name.
    pub run_id: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// The guest, as it sees itself.
    pub environment: Environment,
}
