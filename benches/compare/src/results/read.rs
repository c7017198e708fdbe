//! Reading results.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use serde_json::Value;

use super::{
    DriverInfo, Failure, Guest, Measurement, Record, Run, SCHEMA_VERSION, Skipped, Trial, TrialId,
    WorkloadInfo,
};
use crate::{Error, Result};

/// All of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// The header.
    pub run: Run,
    /// The machines that lines marked as emulated come from.
    pub guests: Vec<Guest>,
    /// The figures of whole trials, in the order of the file.
    pub measurements: Vec<Measurement>,
    /// The whole trials.
    pub trials: Vec<Trial>,
    /// The failed ones, but for those that were repeated with success.
    pub failures: Vec<Failure>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// What is odd about the file.
    pub warnings: Vec<String>,
}

/// What a file has, and how much of it is whole.
pub(super) struct Parsed {
    pub results: Results,
    /// Up to here the file consists of whole trials; what follows was being written when the run was stopped.
    pub whole_bytes: u64,
}

impl Results {
    /// Reads a file. A torn end (the run was killed while it wrote) is left out with a warning; anything else
    /// that is no result is an error that names the line.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Ok(parse(path, &bytes)?.results)
    }

    /// The trials that need not be run again.
    pub fn completed(&self) -> BTreeSet<TrialId> {
        self.trials.iter().map(|trial| trial.trial.clone()).collect()
    }

    /// The trials that failed.
    pub fn failed(&self) -> BTreeSet<TrialId> {
        self.failures.iter().map(|failure| failure.trial.clone()).collect()
    }

    /// All lines, as a file has them.
    pub fn records(&self) -> Vec<Record> {
        let mut of_trial: BTreeMap<&TrialId, Vec<&Measurement>> = BTreeMap::new();
        for line in &self.measurements {
            of_trial.entry(&line.trial).or_default().push(line);
        }
        let mut records = vec![Record::Run(Box::new(self.run.clone()))];
        records.extend(self.guests.iter().map(|guest| Record::Guest(Box::new(guest.clone()))));
        records.extend(self.skipped.iter().cloned().map(Record::Skipped));
        for trial in &self.trials {
            let lines = of_trial.remove(&trial.trial).unwrap_or_default();
            records.extend(lines.into_iter().cloned().map(Record::Measurement));
            records.push(Record::Trial(trial.clone()));
        }
        records.extend(self.failures.iter().cloned().map(Record::Error));
        records
    }

    /// What is known of a workload; a title is made of the name where the header has none.
    pub fn workload(&self, name: &str) -> WorkloadInfo {
        let known = self.run.workloads.iter().find(|workload| workload.name == name);
        known.cloned().unwrap_or_else(|| WorkloadInfo {
            name: name.to_owned(),
            title: name.replace(['-', '_'], " "),
            ..WorkloadInfo::default()
        })
    }

    /// The drivers that were run, in the order in which they are shown: those of the header, then any other.
    pub fn drivers(&self) -> Vec<DriverInfo> {
        let measured = || self.measurements.iter().map(|line| &line.trial);
        let run = || measured().chain(self.failures.iter().map(|line| &line.trial));
        let names: HashSet<&str> = run().map(|trial| trial.driver.as_str()).collect();
        let mut drivers = self.run.drivers.clone();
        drivers.retain(|driver| names.contains(driver.name.as_str()));
        for trial in run() {
            if drivers.iter().all(|driver| driver.name != trial.driver) {
                let name = trial.driver.clone();
                drivers.push(DriverInfo { name, ..DriverInfo::default() });
            }
        }
        drivers
    }
}

/// The header is looked at for its version before anything else: what another version means by its other
/// fields is not known.
fn read_header(path: &Path, line: &[u8]) -> Result<Run> {
    let malformed = |message: &str| Error::Malformed {
        path: path.to_owned(),
        line: 1,
        message: format!("{message}: this is no file of results of 'thinstore bench'"),
    };
    let value: Value =
        serde_json::from_slice(line).map_err(|error| malformed(&format!("no JSON ({error})")))?;
    let version = value.get("schema_version").ok_or_else(|| malformed("no schema_version"))?;
    if version.as_u64() != Some(u64::from(SCHEMA_VERSION)) {
        let found = version.to_string();
        return Err(Error::SchemaVersion { path: path.to_owned(), found });
    }
    match serde_json::from_value(value) {
        Ok(Record::Run(run)) => Ok(*run),
        Ok(_) => Err(malformed("the first line is no header of a run")),
        Err(error) => Err(malformed(&format!("the header is not as it should be ({error})"))),
    }
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let header = lines.next().unwrap_or_default();
    let mut results = Results { run: read_header(path, header)?, ..Results::default() };
    let mut offset = header.len();
    let mut whole = offset;
    let mut open: Vec<Measurement> = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, line) in (2..).zip(lines) {
        offset += line.len();
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if !line.ends_with(b"\n") {
            results.warnings.push(format!(
                "{}: the last line, {number}, is torn and was left out: the run was stopped while it \
                 wrote",
                path.display()
            ));
            break;
        }
        let record = serde_json::from_slice(text).map_err(|error| Error::Malformed {
            path: path.to_owned(),
            line: number,
            message: format!("no line of results: {error}"),
        })?;
        if let Record::Measurement(line) = record {
            open.push(line);
            continue;
        }
        if !open.is_empty() && !ends(&record, &open) {
            return Err(Error::Malformed {
                path: path.to_owned(),
                line: number,
                message: "the trial of the measurements above has no end".to_owned(),
            });
        }
        take(&mut results, record, &mut open, &mut seen).map_err(|message| {
            let message = message.to_owned();
            Error::Malformed { path: path.to_owned(), line: number, message }
        })?;
        whole = offset;
    }
    if !open.is_empty() {
        results.warnings.push(format!(
            "{}: the {} measurements at the end belong to a trial that did not end, and were left out",
            path.display(),
            open.len()
        ));
    }
    let whole_bytes = u64::try_from(whole).unwrap_or(u64::MAX);
    Ok(Parsed { results, whole_bytes })
}

/// Does this line end the trial of these measurements?
fn ends(record: &Record, open: &[Measurement]) -> bool {
    let Record::Trial(end) = record else { return false };
    open.iter().all(|line| line.trial == end.trial)
        && u32::try_from(open.len()) == Ok(end.measurements)
}

fn take(
    results: &mut Results,
    record: Record,
    open: &mut Vec<Measurement>,
    seen: &mut BTreeSet<TrialId>,
) -> std::result::Result<(), &'static str> {
    match record {
        Record::Trial(end) => {
            if !seen.insert(end.trial.clone()) {
                return Err("this trial stands in the file twice");
            }
            results.failures.retain(|failure| failure.trial != end.trial);
            results.measurements.append(open);
            results.trials.push(end);
        }
        Record::Error(failure) => {
            results.failures.retain(|known| known.trial != failure.trial);
            results.failures.push(failure);
        }
        Record::Skipped(skipped) => results.skipped.push(skipped),
        Record::Guest(guest) => results.guests.push(*guest),
        Record::Run(_) => return Err("a second header: two runs stand in one file"),
        Record::Measurement(_) => {}
    }
    Ok(())
}
