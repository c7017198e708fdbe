//! A small pool with threads that write, flush, snapshot, discard, remove and checkpoint at once.

use std::sync::Arc;
use std::time::Duration;

use thinstore_storage::{BlockDevice, Storage};

use super::disk::StrictDisk;
use super::{explore, new_pool, open, open_options};
use crate::device::Device;
use crate::layers::change::NewLayer;
use crate::pool::{OpenOptions, Pool};
use crate::room::OnFull;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;
use crate::types::{BLOCK_BYTES, LayerId, Namespace};

/// The two blocks that a writer writes, one after the other, with the same value.
const BLOCKS: [u64; 2] = [3, 300];

fn value_at(device: &Device, block: u64) -> u8 {
    let mut bytes = [0; 4096];
    device.read(block * BLOCK_BYTES, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a block is torn");
    bytes[0]
}

fn values(device: &Device) -> [u8; 2] {
    BLOCKS.map(|block| value_at(device, block))
}

/// A state that the writer's device had: the second block is as new as the first, or one older.
fn assert_was_there([first, second]: [u8; 2]) {
    assert!(first == second || first == second + 1, "{first} and {second} were never there");
}

fn write_rounds(device: &Device, rounds: u8, flushed: &AtomicU64) {
    for round in 1..=rounds {
        for block in BLOCKS {
            device.write(block * BLOCK_BYTES, &[round; 4096]).unwrap();
        }
        if round % 2 == 1 {
            // The second one settles them: the next round overwrites them where they are.
            device.flush().unwrap();
            device.flush().unwrap();
            flushed.store(u64::from(round), Ordering::SeqCst);
        }
    }
}

/// Takes a sealed copy, and looks whether it stays what it is.
fn take_copy(pool: &Pool, source: LayerId) -> (LayerId, [u8; 2]) {
    let copy = pool.seal_snapshot(source, NewLayer::default()).unwrap();
    let device = pool.device(copy).unwrap();
    let seen = values(&device);
    assert_was_there(seen);
    (copy, seen)
}

fn assert_copies_are_unchanged(pool: &Pool, copies: &[(LayerId, [u8; 2])]) {
    for (copy, seen) in copies {
        assert_eq!(values(&pool.device(*copy).unwrap()), *seen, "a sealed layer changed");
    }
}

fn assert_clean(pool: &Pool) {
    let report = pool.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}

/// All layers go, and all space comes back.
fn assert_all_comes_back(pool: &Pool) {
    while let Some(info) = pool.layers().into_iter().find(|info| !info.hidden) {
        pool.remove(info.id).unwrap();
    }
    pool.wait_for_frees().unwrap();
    assert_clean(pool);
    assert_eq!(pool.usage().data_bytes, 0);
    assert!(pool.layers().is_empty());
}

fn assert_survives(left: StrictDisk, source: LayerId, flushed: u64, copies: &[(LayerId, [u8; 2])]) {
    let pool = open(Arc::new(left), false);
    assert_clean(&pool);
    let found = values(&pool.device(source).unwrap());
    assert!(u64::from(found[0].min(found[1])) >= flushed, "{found:?} after {flushed}");
    assert_copies_are_unchanged(&pool, copies);
}

#[test]
fn a_fork_takes_a_state_that_was_there_and_nothing_changes_it() {
    explore(1000, fork_beside_a_writer);
}

fn fork_beside_a_writer() {
    let (disk, pool) = new_pool(false);
    let source = pool.create_layer(NewLayer::default()).unwrap();
    let flushed = Arc::new(AtomicU64::new(0));
    let writer = {
        let (device, flushed) = (pool.device(source).unwrap(), Arc::clone(&flushed));
        thread::spawn(move || write_rounds(&device, 6, &flushed))
    };
    let forker = {
        let pool = pool.clone();
        thread::spawn(move || (0..2).map(|_| take_copy(&pool, source)).collect::<Vec<_>>())
    };
    let copies = forker.join().unwrap();
    let promised = flushed.load(Ordering::SeqCst);
    assert_survives(disk.after_power_loss(), source, promised, &copies);
    writer.join().unwrap();
    assert_copies_are_unchanged(&pool, &copies);
    assert_all_comes_back(&pool);
}

#[test]
fn a_snapshot_has_what_was_overwritten_though_another_thread_flushes_its_origin() {
    explore(1000, || {
        let (disk, pool) = new_pool(false);
        let source = pool.create_layer(NewLayer::default()).unwrap();
        let device = pool.device(source).unwrap();
        let [overwritten, new] = BLOCKS;
        device.write(overwritten * BLOCK_BYTES, &[1; 4096]).unwrap();
        // Settled: from here on it is overwritten where it is, and no record tells of it.
        device.flush().unwrap();
        device.flush().unwrap();
        device.write(overwritten * BLOCK_BYTES, &[2; 4096]).unwrap();
        device.write(new * BLOCK_BYTES, &[2; 4096]).unwrap();
        let flusher = thread::spawn(move || device.flush().unwrap());
        disk.lose_one_within(6);
        let copy = NewLayer { name: "copy".to_owned(), ..NewLayer::default() };
        pool.seal_snapshot(source, copy).unwrap();
        flusher.join().unwrap();
        let Some(left) = disk.left() else { return };
        let left = open(Arc::new(left), false);
        if let Some(copy) = left.find(Namespace::INTERNAL, "copy") {
            assert_eq!(values(&left.device(copy).unwrap()), [2; 2], "what it was sealed with");
        }
    });
}

#[test]
fn what_was_written_beside_a_seal_that_was_lost_is_its_layers_own_and_stays_its_snapshots() {
    explore(1000, || {
        let (disk, pool) = new_pool(false);
        let sealed = pool.create_layer(NewLayer::default()).unwrap();
        let written = pool.create_layer(NewLayer::default()).unwrap();
        pool.flush().unwrap();
        let sealer = {
            let pool = pool.clone();
            thread::spawn(move || pool.seal_snapshot(sealed, NewLayer::default()).unwrap())
        };
        let device = pool.device(written).unwrap();
        device.write(0, &[1; 4096]).unwrap();
        device.flush().unwrap();
        let left = open(Arc::new(disk.after_power_loss()), false);
        sealer.join().unwrap();
        assert_clean(&left);
        let copy = left.seal_snapshot(written, NewLayer::default()).unwrap();
        left.device(written).unwrap().write(0, &[2; 4096]).unwrap();
        assert_eq!(value_at(&left.device(copy).unwrap(), 0), 1, "a sealed layer changed");
        assert_clean(&left);
    });
}

fn discard_and_write(device: &Device) {
    for round in 1..4 {
        device.write(4 * BLOCK_BYTES, &[round; 8 * 4096]).unwrap();
        device.discard(4 * BLOCK_BYTES, 4 * BLOCK_BYTES).unwrap();
        assert_eq!(value_at(device, 5), 0);
        assert_eq!(value_at(device, 9), round);
    }
}

fn everything_at_once(background: bool) {
    let (disk, pool) = new_pool(background);
    let source = pool.create_layer(NewLayer::default()).unwrap();
    let other = pool.create_layer(NewLayer::default()).unwrap();
    disk.lose_one_within(40);
    let flushed = Arc::new(AtomicU64::new(0));
    let writer = {
        let (device, flushed) = (pool.device(source).unwrap(), Arc::clone(&flushed));
        thread::spawn(move || write_rounds(&device, 3, &flushed))
    };
    let discarder = {
        let device = pool.device(other).unwrap();
        thread::spawn(move || discard_and_write(&device))
    };
    let remover = {
        let pool = pool.clone();
        thread::spawn(move || {
            let child = pool.snapshot(source, NewLayer::default()).unwrap();
            assert_was_there(values(&pool.device(child).unwrap()));
            let copies = vec![take_copy(&pool, source)];
            pool.checkpoint().unwrap();
            pool.remove(child).unwrap();
            copies
        })
    };
    let copies = remover.join().unwrap();
    pool.checkpoint().unwrap();
    let promised = flushed.load(Ordering::SeqCst);
    assert_survives(disk.after_power_loss(), source, promised, &copies);
    writer.join().unwrap();
    discarder.join().unwrap();
    assert_copies_are_unchanged(&pool, &copies);
    assert_clean(&pool);
    assert_eq!(values(&pool.device(source).unwrap()), [3; 2]);
    assert_all_comes_back(&pool);
    if let Some(left) = disk.left() {
        let pool = open(Arc::new(left), false);
        assert_clean(&pool);
        assert_all_comes_back(&pool);
    }
}

#[test]
fn writes_discards_snapshots_removals_and_checkpoints_at_once() {
    explore(600, || everything_at_once(false));
}

#[test]
fn the_same_beside_the_maintenance_thread() {
    explore(400, || everything_at_once(true));
}

#[test]
fn a_writer_that_waits_for_room_gets_what_a_removal_brings_while_its_device_is_forked() {
    explore(400, || {
        let (disk, pool) = new_pool(false);
        drop(pool);
        let on_full = OnFull::Wait(Duration::from_secs(3600));
        let options = OpenOptions { on_full, ..open_options(false) };
        let pool = Pool::open(disk as Arc<dyn Storage>, &options).unwrap();
        let new = || NewLayer { size_bytes: Some(4 << 20), ..NewLayer::default() };
        let hog = pool.create_layer(new()).unwrap();
        let source = pool.create_layer(new()).unwrap();
        pool.device(hog).unwrap().write(0, &[9; 400 * 4096]).unwrap();
        let writer = {
            let device = pool.device(source).unwrap();
            thread::spawn(move || device.write(0, &[1; 600 * 4096]).unwrap())
        };
        let forker = {
            let pool = pool.clone();
            thread::spawn(move || pool.seal_snapshot(source, NewLayer::default()).unwrap())
        };
        pool.remove(hog).unwrap();
        forker.join().unwrap();
        writer.join().unwrap();
        assert_eq!(value_at(&pool.device(source).unwrap(), 599), 1);
        assert_all_comes_back(&pool);
    });
}

/// The schedules find a fork that does not wait for writes under way.
#[cfg(feature = "planted-faults")]
#[test]
fn a_fork_that_does_not_drain_is_found() {
    let _planted = crate::planted::plant(crate::planted::Fault::ForkDoesNotDrain);
    let found = std::panic::catch_unwind(|| explore(2000, fork_beside_a_writer));
    assert!(found.is_err());
}
