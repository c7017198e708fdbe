//! What was measured, as JSON lines: a header, then a line for each measurement, ended trial, failure and thing
//! left out. The schema is in docs/benchmarks.md; `record.rs` is the schema in Rust.

mod csv;
mod file;
mod histogram;
mod merge;
mod metric;
mod parameters;
mod read;
mod record;

pub use csv::write_csv;
pub use file::{Outcome, ResultsFile};
pub use histogram::Histogram;
pub use metric::{Better, Metric, Role, Scale, Unit, resources};
pub use parameters::{ParameterValue, Parameters, parameter_title, value_title};
pub use read::Results;
pub use record::{
    DriverInfo, Failure, Guest, Measurement, Record, Run, RunOptions, Skipped, Trial, TrialId,
    WorkloadInfo,
};

/// The version of the schema that this program writes and reads. New optional fields leave it as it is; whatever
/// changes the meaning of a field raises it.
pub const SCHEMA_VERSION: u32 = 1;
