//! The time that a run may take.

use std::time::{Duration, Instant};

use crate::plan::{Planned, TimeLeft};
use crate::workload::Workload;

/// So long, from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// When it began.
    pub begun: Instant,
    /// How long.
    pub limit: Duration,
}

impl Budget {
    /// Would the next trials use more than is left? The first repeat is run whole, however long it takes, and of later ones no
    /// cell is begun that is not likely to be done by all drivers in time: a pair is whole or not there. `before` is
    /// the trial that was run last, `rest` what comes now.
    pub(super) fn ends_before(
        &self,
        before: Option<&Planned>,
        rest: &[Planned],
        time_left: &TimeLeft,
        workloads: &[Workload],
    ) -> bool {
        let Some(next) = rest.first() else { return false };
        if next.warm_up
            || next.trial.repeat == 0
            || before.is_some_and(|before| before.is_beside(next))
        {
            return false;
        }
        let beside = rest.iter().position(|planned| !planned.is_beside(next));
        let cell = rest.get(..beside.unwrap_or(rest.len())).unwrap_or_default();
        let needed = time_left.of(cell, workloads).unwrap_or_default();
        self.begun.elapsed() + needed > self.limit
    }
}
