//! Locks on ranges of a device's blocks: the only lock that is held while data moves.
//!
//! A write, a discard and a walk hold their range alone; reads share. So a block cannot be freed, and
//! given to somebody else, while a read or a write of it is under way; and a partly written block can be
//! copied without another write coming in between.

use crate::sync::{Condvar, Mutex};

#[derive(Clone, Copy)]
struct Held {
    start: u64,
    end: u64,
    alone: bool,
    ticket: u64,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    waiting: usize,
    next_ticket: u64,
}

impl State {
    fn conflicts(&self, start: u64, end: u64, alone: bool) -> bool {
        self.held.iter().any(|held| held.start < end && start < held.end && (alone || held.alone))
    }
}

/// The ranges of one device that are in use.
#[derive(Default)]
pub(crate) struct RangeLock {
    state: Mutex<State>,
    released: Condvar,
}

/// A range is held until this is dropped.
pub(crate) struct RangeGuard<'a> {
    lock: &'a RangeLock,
    ticket: u64,
}

impl RangeLock {
    fn take(&self, start: u64, end: u64, alone: bool) -> RangeGuard<'_> {
        let mut state = self.state.lock();
        while state.conflicts(start, end, alone) {
            state.waiting += 1;
            self.released.wait(&mut state);
            state.waiting -= 1;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.held.push(Held { start, end, alone, ticket });
        RangeGuard { lock: self, ticket }
    }

    /// Waits until nobody else holds any of `start..end`.
    pub(crate) fn alone(&self, start: u64, end: u64) -> RangeGuard<'_> {
        self.take(start, end, true)
    }

    /// Waits until nobody holds any of `start..end` alone.
    pub(crate) fn shared(&self, start: u64, end: u64) -> RangeGuard<'_> {
        self.take(start, end, false)
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.lock.state.lock();
        if let Some(place) = state.held.iter().position(|held| held.ticket == self.ticket) {
            state.held.swap_remove(place);
        }
        if state.waiting > 0 {
            self.lock.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn disjoint_ranges_and_shared_ranges_do_not_wait() {
        let lock = RangeLock::default();
        let _first = lock.alone(0, 10);
        let _second = lock.alone(10, 20);
        let _third = lock.shared(20, 30);
        let _fourth = lock.shared(25, 35);
    }

    #[test]
    fn overlapping_changes_never_run_together() {
        let lock = RangeLock::default();
        let inside = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (lock, inside) = (&lock, &inside);
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let _guard = lock.alone(start, start + 10);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
