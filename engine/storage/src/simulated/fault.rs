//! Errors to order.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// The operations that a [`FaultPlan`] can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskOperation {
    /// [`crate::Storage::read_at`]
    Read,
    /// [`crate::Storage::write_at`]
    Write,
    /// [`crate::Storage::punch_hole`]
    Punch,
    /// [`crate::Storage::reserve`]
    Reserve,
    /// [`crate::Storage::grow`]
    Grow,
    /// [`crate::Storage::sync`]
    Sync,
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It fails with EIO.
    InputOutput,
    /// It fails with ENOSPC.
    NoSpace,
    /// It answers success and has done nothing: a lost write, or a disk that lies about a flush. A
    /// read leaves the caller's memory as it was.
    Ignored,
}

impl Fault {
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            Fault::InputOutput => Some(Errno::EIO.into()),
            Fault::NoSpace => Some(Errno::ENOSPC.into()),
            Fault::Ignored => None,
        }
    }
}

/// What a failed sync has done to the writes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailedSync {
    /// Nothing: they are unsynced as before, and a later sync makes them durable.
    #[default]
    KeepsUnsynced,
    /// They never reach the disk, yet reads show them until [`crate::Storage::drop_cache`]; a later
    /// sync succeeds without them. This is what ext4 and XFS do: after a failed fsync pages are marked
    /// clean (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
    LosesUnsynced,
    /// As [`FailedSync::LosesUnsynced`], but each sector may have reached the disk before the error.
    LosesSome {
        /// Chooses the sectors that are lost.
        seed: u64,
    },
}

/// What a failed write has left in its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailedWrite {
    /// Nothing.
    #[default]
    LeavesNothing,
    /// Its first sectors, and not the last one: a long write that ran out of space or luck.
    LeavesPrefix {
        /// Chooses how many.
        seed: u64,
    },
}

#[derive(Clone, Debug)]
struct Rule {
    operation: DiskOperation,
    first: u64,
    last: u64,
    fault: Fault,
}

/// Which operations of a [`super::SimulatedDisk`] go wrong, and how. Operations are counted for each
/// kind by itself, from 1, since the plan was set; of several rules for one the first counts.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    rules: Vec<Rule>,
    pub(super) failed_sync: FailedSync,
    pub(super) failed_write: FailedWrite,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn new() -> FaultPlan {
        FaultPlan::default()
    }

    /// The `number`th operation of this kind goes wrong, and no other.
    #[must_use]
    pub fn once(self, operation: DiskOperation, number: u64, fault: Fault) -> FaultPlan {
        self.with(Rule { operation, first: number, last: number, fault })
    }

    /// The `number`th operation of this kind goes wrong, and every later one.
    #[must_use]
    pub fn from(self, operation: DiskOperation, number: u64, fault: Fault) -> FaultPlan {
        self.with(Rule { operation, first: number, last: u64::MAX, fault })
    }

    /// What a failed sync does to the writes before it.
    #[must_use]
    pub fn failed_sync(mut self, failed_sync: FailedSync) -> FaultPlan {
        self.failed_sync = failed_sync;
        self
    }

    /// What a failed write leaves in its range.
    #[must_use]
    pub fn failed_write(mut self, failed_write: FailedWrite) -> FaultPlan {
        self.failed_write = failed_write;
        self
    }

    fn with(mut self, rule: Rule) -> FaultPlan {
        self.rules.push(rule);
        self
    }
}

/// A plan, and how far the disk has come in it.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) plan: FaultPlan,
    reads: AtomicU64,
    writes: AtomicU64,
    punches: AtomicU64,
    reserves: AtomicU64,
    grows: AtomicU64,
    syncs: AtomicU64,
}

impl Faults {
    pub(super) fn new(plan: FaultPlan) -> Faults {
        Faults { plan, ..Faults::default() }
    }

    /// Counts an operation, and tells how it goes wrong if it does.
    pub(super) fn next(&self, operation: DiskOperation) -> Option<Fault> {
        let count = match operation {
            DiskOperation::Read => &self.reads,
            DiskOperation::Write => &self.writes,
            DiskOperation::Punch => &self.punches,
            DiskOperation::Reserve => &self.reserves,
            DiskOperation::Grow => &self.grows,
            DiskOperation::Sync => &self.syncs,
        };
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut rules = self.plan.rules.iter();
        rules
            .find(|rule| rule.operation == operation && (rule.first..=rule.last).contains(&number))
            .map(|rule| rule.fault)
    }
}
