//! A pool that is full: who is told, who waits, and that everything else goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use thinstore_pool::{
    BLOCK_BYTES, Device, LayerId, Namespace, NewLayer, OnFull, OpenOptions, Pool, PoolOptions,
};
use thinstore_storage::{
    BlockDevice, DiskOperation, ErrorKind, Fault, FaultPlan, Result, SimulatedDisk, Storage,
};

const POOL_BYTES: u64 = 32 << 20;
const NAMES: Namespace = Namespace(1);
/// Longer than any test: who waits so long, waits for what the test does.
const FOR_EVER: OnFull = OnFull::Wait(Duration::from_secs(3600));

struct Full {
    disk: Arc<SimulatedDisk>,
    pool: Pool,
    /// Holds nearly everything.
    big: LayerId,
    /// Has some blocks of its own.
    device: Device,
}

fn named(name: &str) -> NewLayer {
    NewLayer { namespace: NAMES, name: name.to_owned(), ..NewLayer::default() }
}

impl Full {
    fn new(on_full: OnFull, background: bool) -> Full {
        let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
        let options = PoolOptions {
            size_bytes: POOL_BYTES,
            journal_bytes: Some(1 << 20),
            default_device_size_bytes: 1 << 30,
            ..PoolOptions::default()
        };
        Pool::create(&*disk, &options).unwrap();
        let open = OpenOptions { background, on_full, ..OpenOptions::default() };
        let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &open).unwrap();
        let device = pool.device(pool.create_layer(named("web")).unwrap()).unwrap();
        device.write(0, &[1; 1 << 20]).unwrap();
        device.flush().unwrap();
        let big = pool.create_layer(named("big")).unwrap();
        let filling = pool.device(big).unwrap();
        let mut at = 0;
        while filling.write_at_once(at, &[7; 65_536]).is_ok() {
            at += 65_536;
        }
        while filling.write_at_once(at, &[7; 4096]).is_ok() {
            at += BLOCK_BYTES;
        }
        filling.flush().unwrap();
        drop(filling);
        Full { disk, pool, big, device }
    }

    /// A write of 256 KiB in a place that is not mapped.
    fn write<'a>(
        &'a self,
        scope: &'a Scope<'a, '_>,
        done: &'a AtomicBool,
    ) -> ScopedJoinHandle<'a, Result<()>> {
        let writer = scope.spawn(move || {
            let result = self.device.write(512 << 20, &[9; 256 << 10]);
            done.store(true, Ordering::Release);
            result
        });
        std::thread::sleep(Duration::from_millis(100));
        writer
    }

    fn assert_written(&self) {
        let mut found = vec![0; 256 << 10];
        self.device.read(512 << 20, &mut found).unwrap();
        assert!(found.iter().all(|byte| *byte == 9));
        let report = self.pool.check().unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
    }
}

#[test]
fn a_waiting_writer_keeps_nobody_from_anything_and_goes_on_when_something_is_removed() {
    for background in [false, true] {
        let full = Full::new(FOR_EVER, background);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = full.write(scope, &done);
            // The same device, and the very range.
            let mut block = [0; 4096];
            full.device.read(512 << 20, &mut block).unwrap();
            full.device.write(0, &[2; 4096]).unwrap();
            full.device.discard(512 << 20, 1 << 20).unwrap();
            full.device.flush().unwrap();
            full.pool.checkpoint().unwrap();
            full.pool.snapshot(full.device.layer(), named("copy")).unwrap();
            assert!(!done.load(Ordering::Acquire), "there was no room to write to");
            full.pool.remove(full.big).unwrap();
            writer.join().unwrap().unwrap();
        });
        full.assert_written();
    }
}

#[test]
fn a_waiting_writer_goes_on_when_the_pool_grows() {
    let full = Full::new(FOR_EVER, false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = full.write(scope, &done);
        assert!(!done.load(Ordering::Acquire));
        full.pool.grow(2 * POOL_BYTES).unwrap();
        writer.join().unwrap().unwrap();
    });
    full.assert_written();
}

#[test]
fn a_waiting_writer_goes_on_when_a_discard_makes_room() {
    let full = Full::new(FOR_EVER, true);
    let done = AtomicBool::new(false);
    let big = full.pool.device(full.big).unwrap();
    std::thread::scope(|scope| {
        let writer = full.write(scope, &done);
        big.discard(0, 8 << 20).unwrap();
        big.flush().unwrap();
        writer.join().unwrap().unwrap();
    });
    full.assert_written();
}

#[test]
fn waiting_ends_at_once_when_the_pool_latches_or_nobody_wants_to_wait() {
    let full = Full::new(FOR_EVER, false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = full.write(scope, &done);
        assert!(full.device.waits_for_room());
        full.device.hurry(true);
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::Full);
        full.device.hurry(false);
        let writer = full.write(scope, &done);
        full.disk.set_faults(FaultPlan::new().from(DiskOperation::Sync, 1, Fault::InputOutput));
        full.device.write(0, &[2; 4096]).unwrap();
        full.pool.flush().unwrap_err();
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::ReadOnly);
    });
    let full = Full::new(FOR_EVER, false);
    std::thread::scope(|scope| {
        let writer = full.write(scope, &done);
        full.pool.stop_waiting();
        assert_eq!(writer.join().unwrap().unwrap_err().kind(), ErrorKind::Full);
    });
}

#[test]
fn a_wait_in_vain_ends_with_an_error_and_what_was_written_before_stays() {
    let full = Full::new(OnFull::Wait(Duration::from_secs(1)), true);
    let error = full.device.write(512 << 20, &[9; 256 << 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let mut found = [0; 4096];
    full.device.read(4096, &mut found).unwrap();
    assert_eq!(found, [1; 4096]);
    full.pool.remove(full.big).unwrap();
    full.pool.wait_for_frees().unwrap();
    full.device.write(512 << 20, &[9; 256 << 10]).unwrap();
    full.assert_written();
}

#[test]
fn without_waiting_a_full_pool_is_an_error_at_once_and_everything_else_works() {
    let full = Full::new(OnFull::Error, false);
    assert!(!full.device.waits_for_room());
    let error = full.device.write(512 << 20, &[9; 256 << 10]).unwrap_err();
    assert_eq!((error.kind(), error.kind().errno()), (ErrorKind::Full, 28));
    assert!(error.to_string().contains("thinstore grow"), "{error}");
    full.device.write(0, &[3; 4096]).unwrap();
    full.device.write_zeroes(8192, 65_536).unwrap();
    full.device.flush().unwrap();
    full.pool.checkpoint().unwrap();
    assert!(full.pool.check().unwrap().is_clean());
    full.pool.remove(full.big).unwrap();
    full.pool.wait_for_frees().unwrap();
    full.device.write(512 << 20, &[9; 256 << 10]).unwrap();
    full.assert_written();
}

#[test]
fn a_pool_warns_at_80_and_at_95_percent_and_again_only_after_it_was_well_below() {
    let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
    let options = PoolOptions { size_bytes: POOL_BYTES, ..PoolOptions::default() };
    Pool::create(&*disk, &options).unwrap();
    let open = OpenOptions { background: false, ..OpenOptions::default() };
    let pool = Pool::open(disk as Arc<dyn Storage>, &open).unwrap();
    let device = pool.device(pool.create_layer(named("web")).unwrap()).unwrap();
    let block = [1; 65_536];
    let mut end = 0;
    let mut fill_to = |percent: u8| {
        while pool.usage().full_percent < percent {
            device.write(end, &block).unwrap();
            end += 65_536;
        }
        while pool.usage().full_percent > percent {
            end -= 65_536;
            device.discard(end, 65_536).unwrap();
            pool.wait_for_frees().unwrap();
        }
        device.flush().unwrap();
        pool.usage().full_warning_percent
    };
    assert_eq!(fill_to(79), None);
    assert_eq!(fill_to(80), Some(80));
    assert_eq!(fill_to(76), Some(80));
    assert_eq!(fill_to(74), None);
    assert_eq!(fill_to(79), None);
    assert_eq!(fill_to(95), Some(95));
    assert_eq!(fill_to(91), Some(95));
    assert_eq!(fill_to(89), Some(80));
    assert_eq!(fill_to(99), Some(95));
}
