//! The file that a run writes: what was appended is durable, and a stopped run goes on where it was.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Failure, Measurement, Record, Results, Run, Skipped, Trial, read};
use crate::{Error, Result};

/// What a trial, or the look at what there is, came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was measured.
    Measured {
        /// Which, when, how long.
        trial: Trial,
        /// What came out.
        measurements: Vec<Measurement>,
    },
    /// It failed.
    Failed(Failure),
    /// It was left out.
    Skipped(Skipped),
}

/// A file of results that is being written. One process at a time may.
#[derive(Debug)]
pub struct ResultsFile {
    path: PathBuf,
    file: File,
    /// Everything below is durable and whole.
    length: u64,
}

impl ResultsFile {
    /// Begins a run. The file must not be there.
    pub fn create(path: &Path, run: &Run) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(Error::io("create", path))?;
        let mut results = Self { path: path.to_owned(), file, length: 0 };
        results.lock()?;
        results.append_records(&[Record::Run(Box::new(run.clone()))])?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder_file = File::open(folder).map_err(Error::io("open", folder))?;
        folder_file.sync_all().map_err(Error::io("sync", folder))?;
        Ok(results)
    }

    /// Goes on with a run: what a stopped one left half-written is cut off. What is done stands in the results.
    pub fn resume(path: &Path) -> Result<(Self, Results)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let mut this = Self { path: path.to_owned(), file, length: 0 };
        this.lock()?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let parsed = read::parse(path, &bytes)?;
        this.length = parsed.whole_bytes;
        this.cut()?;
        Ok((this, parsed.results))
    }

    /// Appends what a trial came to, as a whole and durably. If that fails (as on a full disk), the file is as it
    /// was before.
    pub fn append(&mut self, outcome: Outcome) -> Result<()> {
        let records = match outcome {
            Outcome::Measured { mut trial, measurements } => {
                if let Some(line) = measurements.iter().find(|line| !is_figure(line.value)) {
                    return Err(Error::Invalid(format!(
                        "{} of {} with {} is {}, which is no figure",
                        line.metric.name, trial.trial.workload, trial.trial.driver, line.value
                    )));
                }
                if measurements.iter().any(|line| line.trial != trial.trial) {
                    return Err(Error::Invalid(format!(
                        "a measurement of another trial was given for {}",
                        trial.trial.workload
                    )));
                }
                trial.measurements = u32::try_from(measurements.len()).unwrap_or(u32::MAX);
                let lines = measurements.into_iter().map(Record::Measurement);
                lines.chain([Record::Trial(trial)]).collect()
            }
            Outcome::Failed(failure) => vec![Record::Error(failure)],
            Outcome::Skipped(skipped) => vec![Record::Skipped(skipped)],
        };
        self.append_records(&records)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> Result<()> {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                let path = self.path.display();
                Error::Invalid(format!(
                    "{path} is being written by another run: wait for it, or stop it"
                ))
            } else {
                Error::Io { action: "lock", path: self.path.clone(), source: error.into() }
            }
        })
    }

    /// Takes away what stands behind the last whole trial.
    fn cut(&mut self) -> Result<()> {
        let cut = self.file.set_len(self.length);
        cut.and_then(|()| self.file.seek(SeekFrom::Start(self.length)))
            .map_err(Error::io("cut the torn end of", &self.path))?;
        Ok(())
    }

    fn append_records(&mut self, records: &[Record]) -> Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            serde_json::to_writer(&mut bytes, record)
                .map_err(|error| Error::Invalid(format!("results cannot be written: {error}")))?;
            bytes.push(b'\n');
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What it was for is told below; if this fails too, the next run cuts.
            self.cut().ok();
            return Err(Error::io("write", &self.path)(error));
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }
}

impl Drop for ResultsFile {
    /// A program that another thread is just starting has the file too, until it runs: closing it would leave the lock to
    /// that one for a moment.
    fn drop(&mut self) {
        flock(&self.file, FlockOperation::Unlock).ok();
    }
}

fn is_figure(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

impl Results {
    /// Writes all of it as a new file, as after a merge.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = ResultsFile::create(path, &self.run)?;
        file.append_records(self.records().get(1..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_has_ended_holds_no_lock_whoever_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let run = Run { schema_version: crate::results::SCHEMA_VERSION, ..Run::default() };
        let file = ResultsFile::create(&path, &run).unwrap();
        let as_a_child_has_it = file.file.try_clone().unwrap();
        assert!(ResultsFile::resume(&path).is_err(), "it is being written");
        drop(file);
        ResultsFile::resume(&path).unwrap();
        drop(as_a_child_has_it);
    }
}
