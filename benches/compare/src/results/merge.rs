//! A run in a guest beside one of the host: its lines keep the mark that they are never compared with others.

use std::path::Path;

use super::{Failure, Guest, Measurement, Results, Skipped, Trial, TrialId};
use crate::{Error, Result};

impl Results {
    /// Was this run made in a guest?
    pub fn is_of_guest(&self) -> bool {
        self.run.environment.guest.is_some()
    }

    /// Reads a run of a machine and one in a guest as one. Which is which is looked at: figures that were taken for the
    /// other's would be compared with those of another machine.
    pub fn read_with_guest(host: &Path, guest: &Path) -> Result<Self> {
        let (mut results, of_guest) = (Self::read(host)?, Self::read(guest)?);
        if results.is_of_guest() {
            return Err(Error::Invalid(format!(
                "{}: these results were taken in a guest; give those of the host first, and those of the guest with \
                 --guest",
                host.display()
            )));
        }
        if !results.guests.is_empty() {
            return Err(Error::Invalid(format!(
                "{}: a guest's results are in this file already; give the host's own file",
                host.display()
            )));
        }
        if !of_guest.is_of_guest() {
            return Err(Error::Invalid(format!(
                "{}: these results were not taken in a guest: their environment names none. 'tools/guest bench' makes \
                 such results; two runs of machines are compared with 'thinstore bench report A B'",
                guest.display()
            )));
        }
        results.merge_guest(of_guest);
        Ok(results)
    }

    /// Figures of a guest are never held against those of a machine.
    pub fn check_comparable(names: (&str, &str), results: (&Self, &Self)) -> Result<()> {
        let (guest, other) = match (results.0.is_of_guest(), results.1.is_of_guest()) {
            (true, false) => (names.0, names.1),
            (false, true) => (names.1, names.0),
            _ => return Ok(()),
        };
        Err(Error::Invalid(format!(
            "{guest} was run in a guest and {other} was not: emulated figures are not compared with others. \
             'thinstore bench report {other} --guest {guest}' shows both in one page, each with its own"
        )))
    }

    /// Adds the results of a run in a guest, all marked as emulated.
    pub fn merge_guest(&mut self, guest: Self) {
        for workload in guest.run.workloads {
            if self.run.workloads.iter().all(|known| known.name != workload.name) {
                self.run.workloads.push(workload);
            }
        }
        for driver in guest.run.drivers {
            if self.run.drivers.iter().all(|known| known.name != driver.name) {
                self.run.drivers.push(driver);
            }
        }
        let (run_id, started) = (guest.run.run_id, guest.run.started);
        self.guests.push(Guest { run_id, started, environment: guest.run.environment });
        self.guests.extend(guest.guests);
        let marked = |trial: TrialId| TrialId { emulated: true, ..trial };
        self.measurements.extend(
            guest
                .measurements
                .into_iter()
                .map(|line| Measurement { trial: marked(line.trial), ..line }),
        );
        self.trials.extend(
            guest.trials.into_iter().map(|line| Trial { trial: marked(line.trial), ..line }),
        );
        self.failures.extend(
            guest.failures.into_iter().map(|line| Failure { trial: marked(line.trial), ..line }),
        );
        self.skipped
            .extend(guest.skipped.into_iter().map(|line| Skipped { emulated: true, ..line }));
        self.warnings.extend(guest.warnings);
    }
}
