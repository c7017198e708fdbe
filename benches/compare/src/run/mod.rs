//! A run: the trials of a plan one after the other, each result durable before the next begins.

mod budget;
mod fio;
mod meter;
mod program;
mod replay;
mod subject;
mod trial;
mod writing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use budget::Budget;
pub use meter::{MachineMeter, Meter, Reading};
pub use replay::{ReplaySpeed, Replayed, replay};
pub use subject::{Answer, ImageOrder, MountOrder, MountedOver, Subject};
pub use trial::{Fault, Figure, run_trial};

use crate::plan::{Plan, Planned, TimeLeft};
use crate::results::{Failure, Measurement, Outcome, ResultsFile, Trial};
use crate::workload::Workload;
use crate::{Error, Result};

/// Who is told how far it is.
pub trait Watch {
    /// A trial begins: the `number`-th (from 1) of `count`; about so long until the end, if that is known.
    fn begins(&mut self, planned: &Planned, number: usize, count: usize, left: Option<Duration>);

    /// It has ended.
    fn ended(&mut self, planned: &Planned, fault: Option<&Fault>);
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All trials were run.
    Finished,
    /// It was asked to stop; it can be resumed.
    Stopped,
    /// Its time was used, with so many trials of later repeats left; it can be resumed.
    OutOfTime(usize),
}

/// What a run is made with.
pub struct Runner<'a> {
    /// Those that the plan was made of.
    pub workloads: &'a [Workload],
    /// The drivers of the plan.
    pub subjects: &'a [&'a dyn Subject],
    /// Reads the counters.
    pub meter: &'a dyn Meter,
    /// When set, the run stops after the present trial.
    pub stop: &'a AtomicBool,
    /// The time that it may take; none for as long as it takes.
    pub budget: Option<Budget>,
}

impl Runner<'_> {
    /// Runs the trials of a plan. A driver's failure is a result; a full disk, or results that cannot be written, end
    /// the run, with all that was finished kept.
    pub fn run(
        &self,
        plan: &Plan,
        results: &mut ResultsFile,
        watch: &mut dyn Watch,
    ) -> Result<Ending> {
        let mut time_left = TimeLeft::default();
        for (number, planned) in plan.trials.iter().enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Ending::Stopped);
            }
            let rest = plan.trials.get(number..).unwrap_or_default();
            let before = number.checked_sub(1).and_then(|before| plan.trials.get(before));
            if self
                .budget
                .is_some_and(|budget| budget.ends_before(before, rest, &time_left, self.workloads))
            {
                return Ok(Ending::OutOfTime(rest.len()));
            }
            watch.begins(
                planned,
                number + 1,
                plan.trials.len(),
                time_left.of(rest, self.workloads),
            );
            let begun = Instant::now();
            let started = crate::time::now();
            let outcome = self.trial(planned)?;
            let seconds = begun.elapsed().as_secs_f64();
            time_left.learn(planned, seconds);
            // A step that was interrupted by the wish to stop has not failed.
            if outcome.is_err() && self.stop.load(Ordering::Relaxed) {
                return Ok(Ending::Stopped);
            }
            watch.ended(planned, outcome.as_ref().err());
            if let Err(fault) = &outcome
                && fault.disk_is_full
            {
                return Err(Error::Invalid(format!(
                    "the disk is full ({} with {}, {}: {}); what was finished is kept: make room, and resume",
                    planned.trial.workload, planned.trial.driver, fault.step, fault.message
                )));
            }
            if !planned.warm_up {
                results.append(outcome_of(planned, started, seconds, outcome))?;
            }
        }
        Ok(Ending::Finished)
    }

    fn trial(&self, planned: &Planned) -> Result<std::result::Result<Vec<Figure>, Fault>> {
        let driver = &planned.trial.driver;
        let subject = self.subjects.iter().find(|subject| subject.name() == driver);
        let workload = self.workloads.get(planned.workload);
        let (Some(subject), Some(workload)) = (subject, workload) else {
            return Err(Error::Invalid(format!(
                "the plan has {} with {driver}, which this run has not",
                planned.trial.workload
            )));
        };
        Ok(run_trial(*subject, self.meter, workload, &planned.trial.parameters))
    }
}

fn outcome_of(
    planned: &Planned,
    started: String,
    duration_seconds: f64,
    outcome: std::result::Result<Vec<Figure>, Fault>,
) -> Outcome {
    let (trial, position) = (planned.trial.clone(), planned.position);
    match outcome {
        Ok(figures) => {
            let measurements = figures.into_iter().map(|figure| Measurement {
                trial: trial.clone(),
                position,
                metric: figure.metric,
                value: figure.value,
                latency: figure.latency,
            });
            let measurements = measurements.collect();
            Outcome::Measured {
                trial: Trial { trial, position, started, duration_seconds, measurements: 0 },
                measurements,
            }
        }
        Err(Fault { step, message, .. }) => {
            Outcome::Failed(Failure { trial, position, started, step, message })
        }
    }
}
