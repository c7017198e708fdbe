//! Bytes: the bottom floor of thinstore.
//!
//! [`Storage`] is what a pool lies on, and there are three of it:
//!
//!  - [`FileStorage`]: a regular file or a block device, owned by one process at a time, by default
//!    past the page cache. [`AlignedBuffer`] is memory that it need not copy;
//!  - [`MemoryStorage`]: memory, for tests that ask nothing of durability;
//!  - [`SimulatedDisk`]: memory that loses power, for tests that ask what a crash can leave. Its
//!    [module](simulated) states what is assumed of a real disk, and is the only place that does.
//!
//! [`CountingStorage`] stands in front of any of them and counts what is asked of it.
//!
//! [`BlockDevice`] is what the pool gives to the floors above: a thin device, and for tests a
//! [`MemoryDevice`]. [`Error`] is the error type of all floors. This floor knows nothing of pools,
//! layers or containers.

#![forbid(unsafe_code)]

mod aligned;
mod counting;
mod device;
mod error;
mod file;
mod memory;
mod pages;
mod range;
pub mod simulated;

pub use aligned::{AlignedBuffer, DIRECT_ALIGNMENT_BYTES};
pub use counting::{CountingStorage, DiskCounters};
pub use device::BlockDevice;
pub use error::{Error, ErrorKind, Result};
pub use file::{FileOptions, FileStorage, lock_holder_of};
pub use memory::{MemoryDevice, MemoryStorage};
pub use simulated::{
    CrashImage, CrashPolicy, DiskOperation, FailedSync, FailedWrite, Fault, FaultPlan,
    SECTOR_BYTES, SimulatedDisk,
};

use std::io;
use std::sync::Arc;

/// The bytes that a pool lies on.
///
/// A write is durable once a [`Storage::sync`] that began after it has returned. Before that, a loss of
/// power may keep it, lose it, or keep any subset of its 512-byte sectors, in any order among the
/// unsynced writes ([`simulated`] has this in full). A sync that has failed has made nothing durable,
/// and one that succeeds after it does not make up for it.
///
/// All methods may be called from many threads at once. Of writes to overlapping ranges that are under
/// way at the same time, each sector ends with one of them.
pub trait Storage: Send + Sync {
    /// How many bytes can be addressed now.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` from `offset_bytes`. Reading past the end is an error.
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset_bytes`. Writing past the end is an error.
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()>;

    /// Makes every completed write durable (fdatasync).
    fn sync(&self) -> io::Result<()>;

    /// Gives the space of a range back to the host; it reads as zeroes afterwards. Where the host
    /// cannot, this does nothing, and the range may read as anything. Durable as a write is.
    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()>;

    /// Takes space from the host for a range, so that writing to it cannot fail for want of room.
    /// Where the host cannot, this does nothing.
    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()>;

    /// Makes the storage larger, durably; what is new reads as zeroes. If it is that large already,
    /// nothing happens. A block device answers with an error if it is not that large itself, and what
    /// is new there reads as anything.
    fn grow(&self, size_bytes: u64) -> io::Result<()>;

    /// Drops what the host has cached, so that the next read comes from the disk: after a failed
    /// fdatasync Linux may show pages that never reached it.
    fn drop_cache(&self) -> io::Result<()>;

    /// What to call this storage in messages: its path.
    fn name(&self) -> String;
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(offset_bytes, data)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        (**self).punch_hole(offset_bytes, length_bytes)
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        (**self).reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        (**self).grow(size_bytes)
    }

    fn drop_cache(&self) -> io::Result<()> {
        (**self).drop_cache()
    }

    fn name(&self) -> String {
        (**self).name()
    }
}
