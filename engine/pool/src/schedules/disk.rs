//! A disk for schedules: every operation is a point where another thread may go on, and a flush makes durable
//! what was complete when it began, and not a write more.

use std::io;

use shuttle::rand::Rng;
use thinstore_storage::{MemoryStorage, Storage};

use crate::sync::atomic::{AtomicU64, Ordering};

/// A write, or a hole.
enum Change {
    Write(u64, Vec<u8>),
    Hole(u64, u64),
}

impl Change {
    fn apply(&self, storage: &MemoryStorage) {
        match self {
            Change::Write(offset_bytes, data) => storage.write_at(*offset_bytes, data).unwrap(),
            Change::Hole(offset_bytes, length_bytes) => {
                storage.punch_hole(*offset_bytes, *length_bytes).unwrap();
            }
        }
    }
}

/// The disk. Its own lock is never held at a point where another thread goes on.
pub(super) struct StrictDisk {
    size_bytes: u64,
    visible: MemoryStorage,
    state: parking_lot::Mutex<State>,
    point: AtomicU64,
}

struct State {
    /// All changes in their order, and how many of them are durable.
    changes: Vec<Change>,
    durable: usize,
    syncs: u64,
    /// The flush of this number fails, and what it should have made durable is lost.
    failing_sync: Option<u64>,
    lost: Vec<std::ops::Range<usize>>,
    failure: Option<Failure>,
}

/// A loss of power to come, or that has come.
struct Failure {
    /// After so many changes.
    at: usize,
    /// Chooses the change that is lost.
    seed: usize,
    /// Which changes are left.
    kept: Option<Vec<bool>>,
}

impl State {
    fn push(&mut self, change: Change) {
        self.changes.push(change);
        let all = self.changes.len();
        if let Some(failure) = self.failure.as_mut().filter(|failure| failure.at == all) {
            let lost = self.durable + failure.seed % (all - self.durable);
            failure.kept = Some((0..all).map(|index| index != lost).collect());
        }
    }
}

impl StrictDisk {
    pub(super) fn new(size_bytes: u64) -> StrictDisk {
        StrictDisk {
            size_bytes,
            visible: MemoryStorage::new(size_bytes),
            state: parking_lot::Mutex::new(State {
                changes: Vec::new(),
                durable: 0,
                syncs: 0,
                failing_sync: None,
                lost: Vec::new(),
                failure: None,
            }),
            point: AtomicU64::new(0),
        }
    }

    /// Flushes that have begun.
    pub(super) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// The flush after so many more fails.
    pub(super) fn fail_sync_after(&self, count: u64) {
        let mut state = self.state.lock();
        state.failing_sync = Some(state.syncs + count + 1);
    }

    /// The disk as a loss of power now leaves it, if it takes all that it may.
    pub(super) fn after_power_loss(&self) -> StrictDisk {
        let durable = self.state.lock().durable;
        self.with_changes(|index| index < durable)
    }

    /// Lets power fail after one of the next `most` writes, and take one write alone: any of those that are
    /// not durable then. [`StrictDisk::left`] is what is left; this disk goes on.
    pub(super) fn lose_one_within(&self, most: usize) {
        let mut state = self.state.lock();
        let now = state.changes.len();
        let at = now + shuttle::rand::thread_rng().gen_range(1..=most);
        state.failure = Some(Failure {
            at,
            seed: shuttle::rand::thread_rng().gen_range(0..1 << 32),
            kept: None,
        });
    }

    /// What the loss of power left; none if it did not come to it.
    pub(super) fn left(&self) -> Option<StrictDisk> {
        let kept = self.state.lock().failure.as_ref()?.kept.clone()?;
        Some(self.with_changes(|index| kept.get(index) == Some(&true)))
    }

    fn with_changes(&self, kept: impl Fn(usize) -> bool) -> StrictDisk {
        let left = StrictDisk::new(self.size_bytes);
        let state = self.state.lock();
        for (index, change) in state.changes.iter().enumerate() {
            if kept(index) && !state.lost.iter().any(|lost| lost.contains(&index)) {
                change.apply(&left.visible);
            }
        }
        left
    }

    fn schedule(&self) {
        self.point.load(Ordering::SeqCst);
    }

    fn change(&self, change: Change) {
        self.schedule();
        change.apply(&self.visible);
        self.state.lock().push(change);
        self.schedule();
    }
}

impl Storage for StrictDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.schedule();
        self.visible.read_at(offset_bytes, buffer)?;
        self.schedule();
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset_bytes, data.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (complete, number) = {
            let mut state = self.state.lock();
            state.syncs += 1;
            (state.changes.len(), state.syncs)
        };
        self.schedule();
        let mut state = self.state.lock();
        let before = state.durable;
        state.durable = before.max(complete);
        if state.failing_sync == Some(number) {
            state.lost.push(before..complete);
            return Err(io::Error::other("the flush failed"));
        }
        drop(state);
        self.schedule();
        Ok(())
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.change(Change::Hole(offset_bytes, length_bytes));
        Ok(())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, _: u64) -> io::Result<()> {
        Err(io::Error::other("this disk does not grow"))
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "a strict disk".to_owned()
    }
}
