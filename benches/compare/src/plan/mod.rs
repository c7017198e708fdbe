//! Which trials there are, and their order.
//!
//! Every repeat goes through all cells in an order of its own, and in each cell all drivers have their turn one after the
//! other, in an order of its own too. So what drifts over minutes meets all drivers of a pair alike, and no driver
//! always comes after the same other one. The order follows from the seed and from names alone: a run that is
//! resumed goes on in the order it began with.

mod time_left;

use std::collections::BTreeSet;

pub use time_left::TimeLeft;

use crate::random::Random;
use crate::results::{Parameters, RunOptions, Skipped, TrialId};
use crate::workload::Workload;
use crate::{Error, Result};

/// What a person asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These workloads; empty for all.
    pub only: Vec<String>,
    /// These drivers; empty for all.
    pub drivers: Vec<String>,
    /// So many repeats, instead of 5.
    pub repeats: Option<u32>,
    /// The short set.
    pub quick: bool,
}

impl Selection {
    /// What stands of it in the results.
    pub fn options(&self) -> RunOptions {
        RunOptions {
            repeats: self.repeats.unwrap_or(5),
            warm_ups: u32::from(!self.quick),
            quick: self.quick,
            drivers: self.drivers.clone(),
            only: self.only.clone(),
        }
    }
}

/// A driver, and why it cannot be used here, if it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// Its name.
    pub name: String,
    /// What is missing.
    pub lacks: Option<String>,
}

/// A trial to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub trial: TrialId,
    /// The workload's place in the list that the plan was made of.
    pub workload: usize,
    /// Its results are not kept.
    pub warm_up: bool,
    /// Its place in the order, from 0; warm-ups stand before the first.
    pub position: u64,
}

impl Planned {
    /// Is it another driver's turn at the same?
    pub fn is_beside(&self, other: &Self) -> bool {
        let (trial, other_trial) = (&self.trial, &other.trial);
        self.warm_up == other.warm_up
            && trial.repeat == other_trial.repeat
            && trial.workload == other_trial.workload
            && trial.parameters == other_trial.parameters
    }
}

/// All trials of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are run.
    pub trials: Vec<Planned>,
    /// What is left out, and why: to be said before the start.
    pub skipped: Vec<Skipped>,
}

fn skipped(workload: Option<&str>, driver: Option<&str>, reason: String) -> Skipped {
    Skipped {
        workload: workload.map(str::to_owned),
        parameters: None,
        driver: driver.map(str::to_owned),
        reason,
        emulated: false,
    }
}

/// A name that nobody knows is an error; what there is, is said.
fn check_names<'a>(
    what: &str,
    asked: &[String],
    known: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let known: BTreeSet<&str> = known.collect();
    match asked.iter().find(|name| !known.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let known: Vec<&str> = known.into_iter().collect();
            Err(Error::Invalid(format!("no {what} '{name}'; there are {}", known.join(", "))))
        }
    }
}

impl Plan {
    /// Plans a run. `lacks` says of a program whether it is missing.
    pub fn new(
        workloads: &[Workload],
        drivers: &[Available],
        selection: &Selection,
        seed: u64,
        lacks: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        check_names(
            "workload",
            &selection.only,
            workloads.iter().map(|known| known.name.as_str()),
        )?;
        check_names("driver", &selection.drivers, drivers.iter().map(|known| known.name.as_str()))?;
        let chosen =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|asked| asked == name);
        let mut plan = Self::default();
        let mut usable: Vec<&str> = Vec::new();
        for driver in drivers.iter().filter(|driver| chosen(&selection.drivers, &driver.name)) {
            match &driver.lacks {
                None => usable.push(&driver.name),
                Some(reason) => {
                    plan.skipped.push(skipped(None, Some(&driver.name), reason.clone()))
                }
            }
        }
        let mut cells: Vec<(usize, &Workload, Parameters)> = Vec::new();
        for (place, workload) in workloads.iter().enumerate() {
            if !chosen(&selection.only, &workload.name) {
                continue;
            }
            let name = Some(workload.name.as_str());
            let missing: Vec<&str> = workload
                .needs
                .iter()
                .map(String::as_str)
                .filter(|program| lacks(program))
                .collect();
            let combinations = workload.combinations(selection.quick);
            if !missing.is_empty() {
                let reason = format!("needs {}, which is not installed", missing.join(" and "));
                plan.skipped.push(skipped(name, None, reason));
            } else if combinations.is_empty() {
                plan.skipped.push(skipped(name, None, "is not in the quick set".to_owned()));
            } else {
                cells.extend(
                    combinations.into_iter().map(|parameters| (place, workload, parameters)),
                );
            }
        }
        if usable.is_empty() || cells.is_empty() {
            let what = if usable.is_empty() { "driver" } else { "workload" };
            let reasons: Vec<&str> = plan.skipped.iter().map(|line| line.reason.as_str()).collect();
            return Err(Error::Invalid(format!("no {what} is left: {}", reasons.join("; "))));
        }
        let options = selection.options();
        for warm_up in 0..options.warm_ups {
            plan.round(&cells, &usable, seed, warm_up, true);
        }
        for repeat in 0..options.repeats {
            plan.round(&cells, &usable, seed, repeat, false);
        }
        Ok(plan)
    }

    /// Once through everything.
    fn round(
        &mut self,
        cells: &[(usize, &Workload, Parameters)],
        drivers: &[&str],
        seed: u64,
        repeat: u32,
        warm_up: bool,
    ) {
        let round = if warm_up { format!("warm-up {repeat}") } else { format!("repeat {repeat}") };
        let mut order: Vec<&(usize, &Workload, Parameters)> = cells.iter().collect();
        Random::named(seed, &round).shuffle(&mut order);
        for (place, workload, parameters) in order {
            let mut turns: Vec<&str> = drivers.to_vec();
            let name = format!("{round} {} {parameters}", workload.name);
            Random::named(seed, &name).shuffle(&mut turns);
            for driver in turns {
                let measured = self.trials.iter().rev().find(|trial| !trial.warm_up);
                let position = measured.map_or(0, |trial| trial.position + 1);
                self.trials.push(Planned {
                    trial: TrialId {
                        workload: workload.name.clone(),
                        parameters: parameters.clone(),
                        driver: driver.to_owned(),
                        repeat,
                        emulated: false,
                    },
                    workload: *place,
                    warm_up,
                    position,
                });
            }
        }
    }

    /// Marks all of it as run in a guest.
    #[must_use]
    pub fn in_guest(mut self) -> Self {
        for planned in &mut self.trials {
            planned.trial.emulated = true;
        }
        for skipped in &mut self.skipped {
            skipped.emulated = true;
        }
        self
    }

    /// Leaves out what is done already, and the warm-ups of what needs none any more.
    #[must_use]
    pub fn without(mut self, done: &BTreeSet<TrialId>) -> Self {
        self.trials.retain(|planned| planned.warm_up || !done.contains(&planned.trial));
        let cell = |trial: &TrialId| {
            (trial.workload.clone(), trial.parameters.clone(), trial.driver.clone())
        };
        let open: BTreeSet<_> = self
            .trials
            .iter()
            .filter(|planned| !planned.warm_up)
            .map(|planned| cell(&planned.trial))
            .collect();
        self.trials.retain(|planned| open.contains(&cell(&planned.trial)));
        self
    }
}
