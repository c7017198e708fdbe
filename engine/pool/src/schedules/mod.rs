//! The pool under a scheduler that decides at every lock, atomic and I/O which thread goes on: thousands of
//! interleavings each, chosen at random and by probabilistic concurrency testing (Burckhardt et al., "A
//! Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010). A deadlock is a failure.
//!
//!     cargo test -p thinstore-pool --features shuttle --lib schedules
//!
//! `THINSTORE_SCHEDULES=50` runs fifty times as many; `SHUTTLE_RANDOM_SEED` other ones. Only these tests run
//! with that feature: outside of a schedule, its locks do nothing but panic.

#![allow(clippy::unwrap_used, clippy::as_conversions)]

mod cache;
mod disk;
mod flushing;
mod locks;
mod whole_pool;

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use thinstore_storage::Storage;

use self::disk::StrictDisk;
use crate::pool::{OpenOptions, Pool, PoolOptions};
use crate::types::BLOCK_BYTES;

const SEED: u64 = 0x7468_696e;
/// How many changes of priority a schedule by probabilistic concurrency testing has.
const CHANGES: usize = 3;
const POOL_BYTES: u64 = 4 << 20;

/// Runs `test` under `schedules` schedules of each kind.
fn explore(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
    let times = std::env::var("THINSTORE_SCHEDULES").map_or(1, |times| times.parse().unwrap());
    let count = schedules * times;
    let test = Arc::new(test);
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        config.stack_size = 512 << 10;
        config.max_steps = MaxSteps::FailAfter(5_000_000);
        config.failure_persistence = FailurePersistence::None;
        config.silence_warnings = true;
        let test = Arc::clone(&test);
        Runner::new(scheduler, config).run(move || test());
    };
    run(Box::new(RandomScheduler::new_from_seed(SEED, count)));
    run(Box::new(PctScheduler::new_from_seed(SEED, CHANGES, count)));
}

fn open_options(background: bool) -> OpenOptions {
    OpenOptions { background, cache_bytes: 0, ..OpenOptions::default() }
}

/// A new pool on a disk that keeps nothing that was not flushed.
fn new_pool(background: bool) -> (Arc<StrictDisk>, Pool) {
    let disk = Arc::new(StrictDisk::new(POOL_BYTES));
    let options = PoolOptions {
        size_bytes: POOL_BYTES,
        allocation_run_bytes: 4 * BLOCK_BYTES,
        journal_bytes: Some(256 << 10),
        default_device_size_bytes: 600 * BLOCK_BYTES,
        uuid: Some([7; 16]),
    };
    Pool::create(&*disk, &options).unwrap();
    let pool = open(Arc::clone(&disk), background);
    (disk, pool)
}

fn open(disk: Arc<StrictDisk>, background: bool) -> Pool {
    Pool::open(disk as Arc<dyn Storage>, &open_options(background)).unwrap()
}
