//! Counting what is asked of a storage, so that tests can say what an operation may cost.

use std::io;
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Storage;
use crate::range::length_bytes;

/// What a storage was asked for up to one moment. Calls count whether or not they succeeded, bytes
/// only if they did. The difference of two is what happened between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Calls of [`Storage::read_at`].
    pub reads: u64,
    /// Calls of [`Storage::write_at`].
    pub writes: u64,
    /// Calls of [`Storage::punch_hole`].
    pub punches: u64,
    /// Calls of [`Storage::sync`].
    pub syncs: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Bytes in which holes were punched.
    pub bytes_punched: u64,
}

impl Sub for DiskCounters {
    type Output = DiskCounters;

    /// What was counted since `earlier`. A counter that is larger there gives 0.
    fn sub(self, earlier: DiskCounters) -> DiskCounters {
        DiskCounters {
            reads: self.reads.saturating_sub(earlier.reads),
            writes: self.writes.saturating_sub(earlier.writes),
            punches: self.punches.saturating_sub(earlier.punches),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
            bytes_punched: self.bytes_punched.saturating_sub(earlier.bytes_punched),
        }
    }
}

/// Counters that many threads add to.
#[derive(Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    punches: AtomicU64,
    syncs: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    bytes_punched: AtomicU64,
}

fn count(calls: &AtomicU64, bytes: &AtomicU64, length_bytes: u64, succeeded: bool) {
    calls.fetch_add(1, Ordering::Relaxed);
    if succeeded {
        bytes.fetch_add(length_bytes, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn count_read(&self, length_bytes: u64, result: &io::Result<()>) {
        count(&self.reads, &self.bytes_read, length_bytes, result.is_ok());
    }

    pub(crate) fn count_write(&self, length_bytes: u64, result: &io::Result<()>) {
        count(&self.writes, &self.bytes_written, length_bytes, result.is_ok());
    }

    pub(crate) fn count_punch(&self, length_bytes: u64, result: &io::Result<()>) {
        count(&self.punches, &self.bytes_punched, length_bytes, result.is_ok());
    }

    pub(crate) fn count_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> DiskCounters {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            reads: now(&self.reads),
            writes: now(&self.writes),
            punches: now(&self.punches),
            syncs: now(&self.syncs),
            bytes_read: now(&self.bytes_read),
            bytes_written: now(&self.bytes_written),
            bytes_punched: now(&self.bytes_punched),
        }
    }
}

/// Any storage, with counters in front of it.
pub struct CountingStorage<S> {
    storage: S,
    counters: Counters,
}

impl<S: Storage> CountingStorage<S> {
    /// Counts from zero what is asked of `storage` from now on.
    pub fn new(storage: S) -> CountingStorage<S> {
        CountingStorage { storage, counters: Counters::default() }
    }

    /// What was asked for up to now.
    pub fn counters(&self) -> DiskCounters {
        self.counters.snapshot()
    }

    /// The storage behind the counters; what is asked of it directly is not counted.
    pub fn inner(&self) -> &S {
        &self.storage
    }

    /// The storage without its counters.
    pub fn into_inner(self) -> S {
        self.storage
    }
}

impl<S: Storage> Storage for CountingStorage<S> {
    fn size_bytes(&self) -> u64 {
        self.storage.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let result = self.storage.read_at(offset_bytes, buffer);
        self.counters.count_read(length_bytes(buffer), &result);
        result
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let result = self.storage.write_at(offset_bytes, data);
        self.counters.count_write(length_bytes(data), &result);
        result
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.storage.sync();
        self.counters.count_sync();
        result
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let result = self.storage.punch_hole(offset_bytes, length_bytes);
        self.counters.count_punch(length_bytes, &result);
        result
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.storage.reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.storage.grow(size_bytes)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.storage.drop_cache()
    }

    fn name(&self) -> String {
        self.storage.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;
    use std::sync::Arc;

    #[test]
    fn calls_and_bytes_are_counted_and_subtracted() {
        let storage = CountingStorage::new(MemoryStorage::new(8192));
        storage.write_at(0, &[1; 5000]).unwrap();
        let before = storage.counters();
        storage.read_at(0, &mut [0; 100]).unwrap();
        storage.punch_hole(0, 4096).unwrap();
        storage.sync().unwrap();
        storage.write_at(8191, &[0; 2]).unwrap_err();
        storage.reserve(0, 4096).unwrap();
        storage.drop_cache().unwrap();
        let expected = DiskCounters {
            reads: 1,
            writes: 1,
            punches: 1,
            syncs: 1,
            bytes_read: 100,
            bytes_written: 0,
            bytes_punched: 4096,
        };
        assert_eq!(storage.counters() - before, expected);
        assert_eq!(before, DiskCounters { writes: 1, bytes_written: 5000, ..Default::default() });
        assert_eq!(before - storage.counters(), DiskCounters::default());
    }

    #[test]
    fn what_is_behind_the_counters_stays_reachable() {
        let shared: Arc<dyn Storage> = Arc::new(MemoryStorage::new(4096));
        let storage = CountingStorage::new(shared.clone());
        storage.grow(8192).unwrap();
        assert_eq!(storage.size_bytes(), 8192);
        assert_eq!(storage.name(), shared.name());
        shared.write_at(0, &[1]).unwrap();
        storage.inner().write_at(0, &[1]).unwrap();
        assert_eq!(storage.counters(), DiskCounters::default());
        assert_eq!(storage.into_inner().size_bytes(), 8192);
    }
}
