//! A host whose disk runs full below the pool. Whoever asks for more is told so; nothing acknowledged is
//! lost, nothing latches, removing goes on, and so does everything else when there is space again, without
//! the pool being opened anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_pool::{
    BLOCK_BYTES, Device, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions,
};
use thinstore_storage::{BlockDevice, CrashPolicy, ErrorKind, Result, SimulatedDisk, Storage};

const POOL_BYTES: u64 = 256 << 20;
const NAMES: Namespace = Namespace(1);
const ENOSPC: i32 = 28;

/// Blocks of the pool's file that the host has given, and how many it has.
#[derive(Clone, Default)]
struct Given {
    blocks: HashSet<u64>,
    capacity: usize,
}

/// A sparse file on a small disk. As ext4 does, it gives what it has left before it says that there is no
/// more.
struct SmallHost {
    disk: SimulatedDisk,
    given: Mutex<Given>,
}

fn blocks_of(offset_bytes: u64, length_bytes: u64) -> std::ops::Range<u64> {
    offset_bytes / BLOCK_BYTES..(offset_bytes + length_bytes).div_ceil(BLOCK_BYTES)
}

impl SmallHost {
    fn new(capacity: usize) -> Arc<SmallHost> {
        let given = Mutex::new(Given { blocks: HashSet::new(), capacity });
        Arc::new(SmallHost { disk: SimulatedDisk::new(POOL_BYTES), given })
    }

    fn set_capacity(&self, capacity: usize) {
        self.given.lock().capacity = capacity;
    }

    fn given_blocks(&self) -> usize {
        self.given.lock().blocks.len()
    }

    fn take(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let mut given = self.given.lock();
        for block in blocks_of(offset_bytes, length_bytes) {
            if given.blocks.contains(&block) {
                continue;
            }
            if given.blocks.len() >= given.capacity {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            given.blocks.insert(block);
        }
        Ok(())
    }

    /// The same file after a loss of power that took all that was not synced.
    fn crash(&self) -> Arc<SmallHost> {
        let given = Mutex::new(self.given.lock().clone());
        Arc::new(SmallHost { disk: self.disk.crash_with(CrashPolicy::DropAll), given })
    }
}

impl Storage for SmallHost {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.take(offset_bytes, data.len() as u64)?;
        self.disk.write_at(offset_bytes, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.disk.punch_hole(offset_bytes, length_bytes)?;
        let mut given = self.given.lock();
        for block in blocks_of(offset_bytes, length_bytes) {
            given.blocks.remove(&block);
        }
        Ok(())
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.take(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.disk.grow(size_bytes)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.drop_cache()
    }

    fn name(&self) -> String {
        "the small host".to_owned()
    }
}

fn create(host: &Arc<SmallHost>) -> Result<()> {
    let options = PoolOptions {
        size_bytes: POOL_BYTES,
        journal_bytes: Some(256 << 10),
        default_device_size_bytes: 16 << 30,
        allocation_run_bytes: 16 << 10,
        uuid: Some([3; 16]),
    };
    Pool::create(&**host, &options)
}

fn open(host: &Arc<SmallHost>) -> Result<Pool> {
    let options = OpenOptions { background: false, ..OpenOptions::default() };
    Pool::open(Arc::clone(host) as Arc<dyn Storage>, &options)
}

fn named(name: &str) -> NewLayer {
    NewLayer { namespace: NAMES, name: name.to_owned(), ..NewLayer::default() }
}

fn block_of(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(512)
}

fn is_full<T>(result: Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            true
        }
    }
}

/// What one container's blocks must hold.
#[derive(Clone, Default)]
struct Expected(BTreeMap<u64, u64>);

impl Expected {
    fn assert(&self, device: &Device) {
        let mut found = vec![0; 4096];
        for (block, value) in &self.0 {
            device.read(block * BLOCK_BYTES, &mut found).unwrap();
            assert!(found == block_of(*value), "block {block} lost {value}");
        }
    }
}

/// Writes scattered blocks, each leaf by itself, until there is no space; then some flushes and
/// checkpoints, which must not fail for want of it.
fn write_until_full(pool: &Pool, device: &Device, expected: &mut Expected, spread: u64) -> bool {
    for number in 0..4000_u64 {
        let block = number * spread % 65_536;
        let value = number + 1;
        if is_full(device.write(block * BLOCK_BYTES, &block_of(value))) {
            return true;
        }
        expected.0.insert(block, value);
        if number % 64 == 63 && is_full(device.flush()) {
            return true;
        }
        if number % 500 == 499 && is_full(pool.checkpoint()) {
            return true;
        }
    }
    false
}

#[test]
fn a_full_host_is_an_error_to_the_writer_and_all_goes_on_when_there_is_space() {
    let host = SmallHost::new(2000);
    create(&host).unwrap();
    let pool = open(&host).unwrap();
    let (kept, big) = (pool.create_layer(named("kept")), pool.create_layer(named("big")));
    let (kept, big) = (pool.device(kept.unwrap()).unwrap(), pool.device(big.unwrap()).unwrap());
    let mut kept_blocks = Expected::default();
    for block in 0..100 {
        kept.write(block * BLOCK_BYTES, &block_of(block + 7)).unwrap();
        kept_blocks.0.insert(block, block + 7);
    }
    kept.flush().unwrap();
    pool.flush().unwrap();
    let mut blocks = Expected::default();
    assert!(write_until_full(&pool, &big, &mut blocks, 257));
    // Nothing that needs no new data fails: overwriting, flushing, checkpoints, discards.
    for block in 0..50 {
        kept.write(block * BLOCK_BYTES, &block_of(block + 9)).unwrap();
        kept_blocks.0.insert(block, block + 9);
    }
    kept.flush().unwrap();
    pool.checkpoint().unwrap();
    pool.checkpoint().unwrap();
    kept.discard(90 * BLOCK_BYTES, 10 * BLOCK_BYTES).unwrap();
    for block in 90..100 {
        kept_blocks.0.insert(block, 0);
    }
    kept.flush().unwrap();
    kept_blocks.assert(&kept);
    blocks.assert(&big);
    assert!(pool.check().unwrap().is_clean());
    // Removing gives the host its space back, and the same pool goes on.
    let before = host.given_blocks();
    let id = big.layer();
    drop(big);
    pool.remove(id).unwrap();
    pool.wait_for_frees().unwrap();
    assert!(host.given_blocks() + 500 < before, "{} of {before}", host.given_blocks());
    for block in 200..500 {
        kept.write(block * BLOCK_BYTES, &block_of(block)).unwrap();
        kept_blocks.0.insert(block, block);
    }
    kept.flush().unwrap();
    let again = open(&host.crash()).unwrap();
    kept_blocks.assert(&again.device(kept.layer()).unwrap());
    assert!(again.check().unwrap().is_clean());
}

#[test]
fn a_host_that_is_enlarged_is_used_without_opening_the_pool_again() {
    let host = SmallHost::new(1500);
    create(&host).unwrap();
    let pool = open(&host).unwrap();
    let device = pool.device(pool.create_layer(named("web")).unwrap()).unwrap();
    let mut blocks = Expected::default();
    for capacity in [1500, 1600, 1900, 2600] {
        host.set_capacity(capacity);
        assert!(write_until_full(&pool, &device, &mut blocks, 31 * 256 + 1));
        assert!(host.given_blocks() + 4 > capacity, "{} of {capacity}", host.given_blocks());
        device.flush().unwrap();
        pool.checkpoint().unwrap();
        blocks.assert(&device);
    }
    assert!(pool.check().unwrap().is_clean());
}

/// One life of a pool on a host of so many blocks, wherever that runs out. Gives whether the pool could be
/// opened after a loss of power while the disk was still full.
fn live_on(capacity: usize) -> bool {
    let host = SmallHost::new(capacity);
    if create(&host).is_err() {
        return true;
    }
    let Ok(pool) = open(&host) else { return true };
    let Ok(id) = pool.create_layer(named("web")) else { return true };
    let device = pool.device(id).unwrap();
    let mut blocks = Expected::default();
    let full = write_until_full(&pool, &device, &mut blocks, 257);
    if full && is_full(pool.flush()) {
        // Even that: then it was not acknowledged, but once there is space it must be.
        host.set_capacity(capacity + 200);
        pool.flush().unwrap();
        host.set_capacity(capacity);
    }
    blocks.assert(&device);
    let child: Result<LayerId> = pool.snapshot(id, named("copy"));
    let child = child.map_err(|error| assert_eq!(error.kind(), ErrorKind::Full)).ok();
    let crashed = host.crash();
    let opened = match open(&crashed) {
        Ok(again) => {
            verify(&again, &blocks, child.is_some());
            // What can be removed can be removed now.
            for name in ["web", "copy"] {
                if let Some(id) = again.find(NAMES, name) {
                    again.remove(id).unwrap();
                }
            }
            if is_full(again.wait_for_frees()) {
                assert!(blocks.0.len() < 24, "{} blocks could not be removed", blocks.0.len());
            }
            assert_eq!(again.usage().data_bytes, 0);
            assert!(again.check().unwrap().is_clean());
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            false
        }
    };
    crashed.set_capacity(capacity + 400);
    if !opened {
        verify(&open(&crashed).unwrap(), &blocks, child.is_some());
    }
    opened
}

fn verify(pool: &Pool, blocks: &Expected, has_copy: bool) {
    let report = pool.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    blocks.assert(&pool.device(pool.find(NAMES, "web").unwrap()).unwrap());
    if has_copy {
        blocks.assert(&pool.device(pool.find(NAMES, "copy").unwrap()).unwrap());
    }
}

#[test]
fn wherever_the_host_runs_out_nothing_acknowledged_is_lost() {
    for capacity in (90..500).step_by(7).chain((500..2600).step_by(61)) {
        let opened = live_on(capacity);
        // With less than forty blocks beside what has a fixed place, there is no pool to speak of.
        assert!(opened || capacity < 140, "a full disk of {capacity} blocks keeps the pool closed");
    }
}
