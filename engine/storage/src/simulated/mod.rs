//! A disk in memory that loses power, for searching through what a crash can leave.
//!
//! # The model
//!
//! A disk has durable bytes and a volatile cache of writes since the last sync. What is assumed of it
//! is what Linux promises of a block device with a write-back cache ("Explicit volatile write back
//! cache control", Documentation/block/writeback_cache_control.rst): a flush makes durable every write
//! that was completed before the flush began, and nothing else is promised. So after a loss of power
//!
//!  - what was synced is there, unless it was written again;
//!  - each 512-byte sector ([`SECTOR_BYTES`]) that has unsynced writes holds what was durable, or what
//!    one of those writes left in it: writes can be missing, torn between sectors, and out of order,
//!    those of one sector included;
//!  - a sector itself is never torn, and no other sector changes;
//!  - a punched hole is a write of zeroes;
//!  - growing is durable when it returns, as it is for a file ([`crate::FileStorage`]).
//!
//! File systems below a pool's file do keep some order; Pillai et al. ("All File Systems Are Not
//! Created Equal", OSDI 2014) show how differently each of them does, and what breaks on the next one
//! if an application relies on it. Here nothing is kept that the disk does not promise.
//!
//! Writes are taken in whole sectors: of a sector that is written in part, the rest goes with it as a
//! read would have shown it, as the page cache or a read-modify-write sends it down.
//!
//! # Searching
//!
//! Every write, punched hole, growth and sync that begins gets a number, from 1. Two ways to try them
//! all:
//!
//!  - run a scenario once and see [`SimulatedDisk::operations`]; run it again for each number with
//!    [`SimulatedDisk::power_fails_at`], and look at [`SimulatedDisk::crash`] under some seeds;
//!  - run it once with [`SimulatedDisk::observe`] and keep, or look at, the image after each
//!    operation. In the midst of an operation nothing else can be found than after it, or after the
//!    one before: an unsynced write is in, out or torn in both.
//!
//! ```
//! use thinstore_storage::{SimulatedDisk, Storage};
//!
//! // Two sectors that must never be seen with the second one alone: the first is synced before.
//! let scenario = |disk: &SimulatedDisk| -> std::io::Result<()> {
//!     disk.write_at(0, &[1; 512])?;
//!     disk.sync()?;
//!     disk.write_at(512, &[1; 512])?;
//!     disk.sync()
//! };
//! let whole = SimulatedDisk::new(4096);
//! scenario(&whole)?;
//! for operation in 1..=whole.operations() {
//!     let disk = SimulatedDisk::new(4096);
//!     disk.power_fails_at(operation);
//!     assert!(scenario(&disk).is_err());
//!     for seed in 0..20 {
//!         let mut found = [0; 1024];
//!         disk.crash(seed).read_at(0, &mut found)?;
//!         assert!(found[0] == 1 || found[512] == 0, "operation {operation}, seed {seed}");
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Everything follows from the seed and the order of operations. With several threads that order is
//! the one in which they reach the disk.

mod crash;
mod fault;
mod random;
#[cfg(test)]
mod tests;
mod unsynced;

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::Storage;
use crate::counting::{Counters, DiskCounters};
use crate::pages::SparsePages;
use crate::range::{check_within, length_bytes};

pub use crash::{CrashImage, CrashPolicy};
pub use fault::{DiskOperation, FailedSync, FailedWrite, Fault, FaultPlan};
#[cfg(test)]
pub(crate) use random::Random;
pub use unsynced::SECTOR_BYTES;

use fault::Faults;
#[cfg(not(test))]
use random::Random;
use unsynced::{Unsynced, UnsyncedList};

/// Larger than any disk; leaves room for rounding up without overflow.
const LARGEST_BYTES: u64 = 1 << 62;

type Observer = dyn Fn(DiskOperation, CrashImage) + Send + Sync;

/// A disk in memory that loses power: see the [module](self).
pub struct SimulatedDisk {
    state: RwLock<State>,
    counters: Counters,
}

struct State {
    size_bytes: u64,
    /// What a loss of power cannot take.
    durable: SparsePages,
    /// What was written since the last sync, oldest first.
    unsynced: UnsyncedList,
    /// What reads show: the durable bytes and all that was written over them, with what a failed sync
    /// has lost and nobody has dropped from the cache yet.
    visible: SparsePages,
    operations: u64,
    power: Power,
    interrupted_growth_bytes: Option<u64>,
    faults: Faults,
    observer: Option<Arc<Observer>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    FailsAt(u64),
    Off,
}

/// How an operation that has begun goes on.
enum Course {
    Done,
    PowerFails,
    Fault(Fault),
}

fn power_is_off() -> io::Error {
    io::Error::other("power is off")
}

impl State {
    fn check(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        if self.power == Power::Off {
            return Err(power_is_off());
        }
        check_within(|| NAME.to_owned(), offset_bytes, length_bytes, self.size_bytes)
    }

    /// Numbers an operation and tells how it goes on.
    fn begin(&mut self, operation: DiskOperation) -> Course {
        self.operations += 1;
        if self.power == Power::FailsAt(self.operations) {
            self.power = Power::Off;
            return Course::PowerFails;
        }
        self.faults.next(operation).map_or(Course::Done, Course::Fault)
    }

    /// Takes an unsynced write or hole. In the midst of a loss of power it is a candidate like the
    /// others, which nobody will read any more.
    fn take(&mut self, unsynced: Unsynced) {
        unsynced.apply(&mut self.visible);
        self.unsynced.push(Arc::new(unsynced));
    }

    fn write(&mut self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        match self.begin(DiskOperation::Write) {
            Course::Done => {
                self.take_write(offset_bytes, data);
                Ok(())
            }
            Course::PowerFails => {
                self.take_write(offset_bytes, data);
                Err(power_is_off())
            }
            Course::Fault(fault) => match fault.error() {
                None => Ok(()),
                Some(error) => {
                    self.leave_prefix(offset_bytes, data);
                    Err(error)
                }
            },
        }
    }

    fn take_write(&mut self, offset_bytes: u64, data: &[u8]) {
        self.take(Unsynced::write(self.operations, &self.visible, offset_bytes, data));
    }

    fn leave_prefix(&mut self, offset_bytes: u64, data: &[u8]) {
        let FailedWrite::LeavesPrefix { seed } = self.faults.plan.failed_write else {
            return;
        };
        let whole_sectors = length_bytes(data).div_ceil(SECTOR_BYTES);
        let kept_bytes = Random::new(seed).below(whole_sectors) * SECTOR_BYTES;
        // Below the length of `data`, for at least its last sector is missing.
        let kept = usize::try_from(kept_bytes).unwrap_or(0).min(data.len());
        self.take_write(offset_bytes, &data[..kept]);
    }

    fn punch(&mut self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let course = self.begin(DiskOperation::Punch);
        if let Course::Fault(fault) = course {
            return fault.error().map_or(Ok(()), Err);
        }
        self.take(Unsynced::punch(self.operations, &self.visible, offset_bytes, length_bytes));
        if let Course::PowerFails = course { Err(power_is_off()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.begin(DiskOperation::Sync) {
            Course::Done => {
                for unsynced in self.unsynced.drain(..) {
                    unsynced.apply(&mut self.durable);
                }
                Ok(())
            }
            // Any part of the cache may have been written: the unsynced stay what they are.
            Course::PowerFails => Err(power_is_off()),
            Course::Fault(fault) => match fault.error() {
                None => Ok(()),
                Some(error) => {
                    self.fail_sync();
                    Err(error)
                }
            },
        }
    }

    fn fail_sync(&mut self) {
        match self.faults.plan.failed_sync {
            FailedSync::KeepsUnsynced => {}
            FailedSync::LosesUnsynced => self.unsynced.clear(),
            FailedSync::LosesSome { seed } => {
                let mut random = Random::new(seed);
                for unsynced in self.unsynced.drain(..) {
                    unsynced.apply_torn(&mut self.durable, &mut random, 4);
                }
            }
        }
    }

    fn grow(&mut self, size_bytes: u64) -> io::Result<()> {
        match self.begin(DiskOperation::Grow) {
            Course::Done => {
                self.size_bytes = self.size_bytes.max(size_bytes);
                Ok(())
            }
            Course::PowerFails => {
                self.interrupted_growth_bytes = Some(self.size_bytes.max(size_bytes));
                Err(power_is_off())
            }
            Course::Fault(fault) => fault.error().map_or(Ok(()), Err),
        }
    }

    fn image(&self) -> CrashImage {
        CrashImage {
            size_bytes: self.size_bytes,
            interrupted_growth_bytes: self.interrupted_growth_bytes,
            durable: self.durable.clone(),
            unsynced: self.unsynced.clone(),
            operations: self.operations,
        }
    }
}

const NAME: &str = "the simulated disk";

impl SimulatedDisk {
    /// A disk of `size_bytes` zeroes, all durable, that has power. Larger than 2^62 bytes it will not
    /// be.
    pub fn new(size_bytes: u64) -> SimulatedDisk {
        SimulatedDisk::with_content(size_bytes, SparsePages::default())
    }

    fn with_content(size_bytes: u64, durable: SparsePages) -> SimulatedDisk {
        let state = State {
            size_bytes: size_bytes.min(LARGEST_BYTES),
            visible: durable.clone(),
            durable,
            unsynced: UnsyncedList::new(),
            operations: 0,
            power: Power::On,
            interrupted_growth_bytes: None,
            faults: Faults::default(),
            observer: None,
        };
        SimulatedDisk { state: RwLock::new(state), counters: Counters::default() }
    }

    /// How many writes, punched holes, growths and syncs have begun: the number of the last one.
    pub fn operations(&self) -> u64 {
        self.state.read().operations
    }

    /// Lets power fail in the midst of the operation of this number: that one and everything after it
    /// fails with "power is off". A number that has passed never comes.
    pub fn power_fails_at(&self, operation: u64) {
        self.state.write().power = Power::FailsAt(operation);
    }

    /// Whether power has failed.
    pub fn is_off(&self) -> bool {
        self.state.read().power == Power::Off
    }

    /// Cuts the power between two operations.
    pub fn power_off(&self) {
        self.state.write().power = Power::Off;
    }

    /// Sets which operations fail from now on, in place of what was set before.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.state.write().faults = Faults::new(plan);
    }

    /// Calls `observer` after every numbered operation, failed ones included, in the thread that
    /// asked for it, with what a loss of power would leave to choose from now. It may look at this
    /// disk; if it writes to it, it is called again for that.
    pub fn observe(&self, observer: impl Fn(DiskOperation, CrashImage) + Send + Sync + 'static) {
        self.state.write().observer = Some(Arc::new(observer));
    }

    /// The disk at this moment. Power need not have failed.
    pub fn image(&self) -> CrashImage {
        self.state.read().image()
    }

    /// The disk as it might be found after a loss of power now: [`CrashPolicy::from_seed`] says which
    /// writes are there. This disk stays as it is.
    pub fn crash(&self, seed: u64) -> SimulatedDisk {
        self.crash_with(CrashPolicy::from_seed(seed))
    }

    /// The disk as it is found after a loss of power now under a certain policy.
    pub fn crash_with(&self, policy: CrashPolicy) -> SimulatedDisk {
        self.image().disk(policy)
    }

    /// Changes bytes behind everybody's back, as decay or another program does: at once durable, not
    /// numbered, not counted. Unsynced writes to the same bytes still go over it later. Ranges past
    /// the end are an error.
    pub fn corrupt(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.write();
        check_within(|| NAME.to_owned(), offset_bytes, length_bytes(data), state.size_bytes)?;
        state.durable.write(offset_bytes, data);
        state.visible.write(offset_bytes, data);
        Ok(())
    }

    /// What was asked of this disk up to now. What came after power had failed does not count.
    pub fn counters(&self) -> DiskCounters {
        self.counters.snapshot()
    }

    /// Does a numbered operation and lets the observer see what came of it. The observer is called
    /// without the lock, so that it may look at this disk.
    fn operate(
        &self,
        operation: DiskOperation,
        offset_bytes: u64,
        length_bytes: u64,
        work: impl FnOnce(&mut State) -> io::Result<()>,
    ) -> io::Result<()> {
        let (result, observed) = {
            let mut state = self.state.write();
            state.check(offset_bytes, length_bytes)?;
            let result = work(&mut state);
            (result, state.observer.clone().map(|observer| (observer, state.image())))
        };
        match operation {
            DiskOperation::Write => self.counters.count_write(length_bytes, &result),
            DiskOperation::Punch => self.counters.count_punch(length_bytes, &result),
            DiskOperation::Sync => self.counters.count_sync(),
            DiskOperation::Read | DiskOperation::Reserve | DiskOperation::Grow => {}
        }
        if let Some((observer, image)) = observed {
            observer(operation, image);
        }
        result
    }
}

impl Storage for SimulatedDisk {
    fn size_bytes(&self) -> u64 {
        self.state.read().size_bytes
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state.read();
        state.check(offset_bytes, length_bytes(buffer))?;
        let result = match state.faults.next(DiskOperation::Read) {
            None => {
                state.visible.read(offset_bytes, buffer);
                Ok(())
            }
            Some(fault) => fault.error().map_or(Ok(()), Err),
        };
        self.counters.count_read(length_bytes(buffer), &result);
        result
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let length_bytes = length_bytes(data);
        self.operate(DiskOperation::Write, offset_bytes, length_bytes, |state| {
            state.write(offset_bytes, data)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.operate(DiskOperation::Sync, 0, 0, State::sync)
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.operate(DiskOperation::Punch, offset_bytes, length_bytes, |state| {
            state.punch(offset_bytes, length_bytes)
        })
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let state = self.state.read();
        state.check(offset_bytes, length_bytes)?;
        let fault = state.faults.next(DiskOperation::Reserve);
        fault.and_then(Fault::error).map_or(Ok(()), Err)
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        if size_bytes > LARGEST_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{NAME} cannot have {size_bytes} bytes"),
            ));
        }
        self.operate(DiskOperation::Grow, 0, 0, |state| state.grow(size_bytes))
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.state.write();
        state.check(0, 0)?;
        let mut visible = state.durable.clone();
        for unsynced in &state.unsynced {
            unsynced.apply(&mut visible);
        }
        state.visible = visible;
        Ok(())
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }
}
