//! How many blocks were overwritten in place, and how many of these overwrites are durable: no record in the
//! journal tells of them.
//!
//! An overwrite is counted when it has come to its end, and a flush covers what was counted before it began.
//! Counting at its start, or clearing a mark when a flush begins, would let a fork believe in a flush that
//! came too early for the overwrite, or has not returned yet.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts of one layer.
#[derive(Default)]
pub(crate) struct Overwrites {
    ended: AtomicU64,
    durable: AtomicU64,
}

impl Overwrites {
    /// An overwrite has come to its end, well or not.
    pub(crate) fn has_ended(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// How many have ended: what a flush that begins now will cover.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// A flush has returned that began when so many had ended.
    pub(crate) fn are_durable(&self, ended: u64) {
        self.durable.fetch_max(ended, Ordering::AcqRel);
    }

    /// Has some overwrite ended that no flush covers?
    pub(crate) fn wait_for_flush(&self) -> bool {
        self.ended() > self.durable.load(Ordering::Acquire)
    }
}
