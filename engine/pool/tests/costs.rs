//! What operations cost, in flushes, writes and bytes: counts, never times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::sync::Arc;
use std::time::Duration;

use thinstore_pool::{BLOCK_BYTES, LayerId, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, CountingStorage, DiskCounters, MemoryStorage, Storage};

const POOL_BYTES: u64 = 1 << 30;

struct Bench {
    storage: Arc<CountingStorage<MemoryStorage>>,
    pool: Pool,
}

impl Bench {
    fn new() -> Bench {
        let storage = Arc::new(CountingStorage::new(MemoryStorage::new(POOL_BYTES)));
        let options = PoolOptions {
            size_bytes: POOL_BYTES,
            default_device_size_bytes: 1 << 40,
            ..PoolOptions::default()
        };
        Pool::create(&*storage, &options).unwrap();
        let open = OpenOptions { background: false, ..OpenOptions::default() };
        let pool = Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &open).unwrap();
        Bench { storage, pool }
    }

    fn device(&self) -> LayerId {
        self.pool.create_layer(NewLayer::default()).unwrap()
    }

    /// What `work` did to the storage.
    fn cost(&self, work: impl FnOnce()) -> DiskCounters {
        let before = self.storage.counters();
        work();
        self.storage.counters() - before
    }
}

#[test]
fn a_flush_after_new_blocks_is_one_journal_write_and_one_sync() {
    let bench = Bench::new();
    let device = bench.pool.device(bench.device()).unwrap();
    device.flush().unwrap();
    for block in 0..100 {
        device.write(block * 64 * BLOCK_BYTES, &[7; 4096]).unwrap();
    }
    let cost = bench.cost(|| device.flush().unwrap());
    assert_eq!((cost.syncs, cost.writes, cost.reads), (1, 1, 0));
}

#[test]
fn a_flush_after_overwrites_alone_writes_no_journal() {
    let bench = Bench::new();
    let device = bench.pool.device(bench.device()).unwrap();
    device.write(0, &[1; 1 << 20]).unwrap();
    device.flush().unwrap();
    let settling = bench.cost(|| device.flush().unwrap());
    assert_eq!((settling.syncs, settling.writes, settling.bytes_written), (1, 1, 4096));
    for round in 0..10 {
        let cost = bench.cost(|| {
            device.write(8192, &[round; 65_536]).unwrap();
            device.flush().unwrap();
        });
        assert_eq!((cost.syncs, cost.writes, cost.bytes_written, cost.reads), (1, 1, 65_536, 0));
    }
}

/// A storage that is not like memory.
struct Unlike<S> {
    inner: S,
    /// Flushes take a while, as a disk's do.
    sync_takes: Duration,
    /// Data that is all ones is not kept: what is counted is how much is written, also where that is more than the
    /// machine has.
    forgets_ones: bool,
}

impl<S: Storage> Storage for Unlike<S> {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.inner.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> std::io::Result<()> {
        match self.forgets_ones && data.iter().all(|byte| *byte == 1) {
            true => Ok(()),
            false => self.inner.write_at(offset_bytes, data),
        }
    }

    fn sync(&self) -> std::io::Result<()> {
        std::thread::sleep(self.sync_takes);
        self.inner.sync()
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
        self.inner.punch_hole(offset_bytes, length_bytes)
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
        self.inner.reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> std::io::Result<()> {
        self.inner.grow(size_bytes)
    }

    fn drop_cache(&self) -> std::io::Result<()> {
        self.inner.drop_cache()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

#[test]
fn sixteen_threads_that_flush_together_need_two_syncs_at_most() {
    let inner = CountingStorage::new(MemoryStorage::new(POOL_BYTES));
    let sync_takes = Duration::from_millis(200);
    let storage = Arc::new(Unlike { inner, sync_takes, forgets_ones: false });
    let options = PoolOptions { size_bytes: POOL_BYTES, ..PoolOptions::default() };
    Pool::create(&*storage, &options).unwrap();
    let open = OpenOptions { background: false, ..OpenOptions::default() };
    let pool = Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &open).unwrap();
    let device = pool.device(pool.create_layer(NewLayer::default()).unwrap()).unwrap();
    let barrier = std::sync::Barrier::new(16);
    let before = storage.inner.counters();
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let (device, barrier) = (device.clone(), &barrier);
            scope.spawn(move || {
                device.write(thread << 20, &[1; 4096]).unwrap();
                barrier.wait();
                device.flush().unwrap();
            });
        }
    });
    let cost = storage.inner.counters() - before;
    assert!(cost.syncs <= 2, "{cost:?}");
}

#[test]
fn a_write_to_a_shared_block_is_one_write_of_its_size_and_an_unaligned_one_reads_once() {
    let bench = Bench::new();
    let base = bench.device();
    bench.pool.device(base).unwrap().write(0, &[1; 1 << 20]).unwrap();
    bench.pool.seal(base).unwrap();
    let child = bench.pool.snapshot(base, NewLayer::default()).unwrap();
    let device = bench.pool.device(child).unwrap();
    let cost = bench.cost(|| device.write(40_960, &[2; 4096]).unwrap());
    assert_eq!((cost.reads, cost.writes, cost.bytes_written, cost.syncs), (0, 1, 4096, 0));
    let cost = bench.cost(|| device.write(81_920 + 100, &[3; 512]).unwrap());
    assert_eq!((cost.reads, cost.writes, cost.bytes_written), (1, 1, 4096));
}

#[test]
fn a_snapshot_is_one_sync_and_one_batch_whatever_is_mapped() {
    let bench = Bench::new();
    let base = bench.device();
    let device = bench.pool.device(base).unwrap();
    for part in 0..300u64 {
        device.write(part << 30, &[5; 65_536]).unwrap();
    }
    device.flush().unwrap();
    drop(device);
    bench.pool.seal(base).unwrap();
    let mut source = base;
    for depth in 0..1000 {
        let cost =
            bench.cost(|| source = bench.pool.snapshot(source, NewLayer::default()).unwrap());
        assert_eq!((cost.syncs, cost.writes, cost.reads), (1, 1, 0), "depth {depth}");
        assert!(cost.bytes_written <= 4096, "depth {depth}: {cost:?}");
    }
}

#[test]
fn contiguous_blocks_are_read_at_once_at_any_depth() {
    let bench = Bench::new();
    let base = bench.device();
    bench.pool.device(base).unwrap().write(0, &[9; 1 << 20]).unwrap();
    bench.pool.seal(base).unwrap();
    let mut top = base;
    for _ in 0..100 {
        top = bench.pool.snapshot(top, NewLayer::default()).unwrap();
        bench.pool.seal(top).unwrap();
    }
    let device = bench.pool.device(top).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let cost = bench.cost(|| device.read(0, &mut buffer).unwrap());
    assert_eq!((cost.reads, cost.writes), (1, 0));
    assert!(buffer.iter().all(|byte| *byte == 9));
}

#[test]
fn synced_random_first_writes_cost_little_more_than_data_and_journal() {
    let bench = Bench::new();
    let device = bench.pool.device(bench.device()).unwrap();
    let blocks = 20_000u64;
    let cost = bench.cost(|| {
        for number in 0..blocks {
            // Every block of the first 65,536 at most once, in a scattered order.
            let block = number.wrapping_mul(40_503) % 65_536;
            device.write(block * BLOCK_BYTES, &[1; 4096]).unwrap();
            device.flush().unwrap();
        }
        bench.pool.checkpoint().unwrap();
    });
    let ratio_percent = cost.bytes_written * 100 / (blocks * BLOCK_BYTES);
    assert!(ratio_percent <= 240, "{ratio_percent} % of the data was written");
    let used = bench.pool.usage();
    assert!(used.used_bytes * 100 <= blocks * BLOCK_BYTES * 105, "{used:?}");
}

/// Writes every block of `size_bytes` once, in a scattered order, and flushes as often as is said: how much was written in
/// hundredths of that, a checkpoint at the end inside, and how much of the pool is used. The journal is as large as that of
/// any pool of 4 GiB and more.
fn random_first_writes(size_bytes: u64, writes_per_flush: u64) -> (u64, u64) {
    let inner = MemoryStorage::new(16 << 30);
    let forgetful = Unlike { inner, sync_takes: Duration::ZERO, forgets_ones: true };
    let storage = Arc::new(CountingStorage::new(forgetful));
    let options = PoolOptions {
        size_bytes: 16 << 30,
        default_device_size_bytes: size_bytes,
        ..PoolOptions::default()
    };
    Pool::create(&*storage, &options).unwrap();
    let open = OpenOptions { background: false, ..OpenOptions::default() };
    let pool = Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &open).unwrap();
    let device = pool.device(pool.create_layer(NewLayer::default()).unwrap()).unwrap();
    let blocks = size_bytes / BLOCK_BYTES;
    let before = storage.counters();
    for number in 0..blocks {
        // An odd factor and a power of two: every block once.
        let block = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % blocks;
        device.write(block * BLOCK_BYTES, &[1; 4096]).unwrap();
        if number % writes_per_flush == writes_per_flush - 1 {
            device.flush().unwrap();
        }
    }
    device.flush().unwrap();
    pool.checkpoint().unwrap();
    let cost = storage.counters() - before;
    (cost.bytes_written * 100 / size_bytes, pool.usage().used_bytes * 100 / size_bytes)
}

#[test]
fn a_gibibyte_of_synced_random_first_writes_is_written_little_more_than_twice() {
    let (written_percent, used_percent) = random_first_writes(1 << 30, 1);
    assert!(written_percent <= 220 && used_percent <= 105, "{written_percent} %, {used_percent} %");
}

#[test]
fn random_first_writes_with_one_flush_are_written_little_more_than_once() {
    let (written_percent, used_percent) = random_first_writes(1 << 30, u64::MAX);
    assert!(written_percent <= 105 && used_percent <= 105, "{written_percent} %, {used_percent} %");
}

#[test]
fn ten_gibibytes_of_synced_random_first_writes_are_written_less_than_three_times() {
    let (written_percent, used_percent) = random_first_writes(10 << 30, 1);
    assert!(written_percent <= 280 && used_percent <= 105, "{written_percent} %, {used_percent} %");
}

#[test]
fn a_discard_frees_and_the_space_is_reused() {
    let bench = Bench::new();
    let device = bench.pool.device(bench.device()).unwrap();
    device.flush().unwrap();
    let before = bench.pool.usage();
    for round in 0..20 {
        device.write(0, &vec![round; 64 << 20]).unwrap();
        device.discard(0, 64 << 20).unwrap();
        device.flush().unwrap();
    }
    bench.pool.wait_for_frees().unwrap();
    let after = bench.pool.usage();
    assert_eq!((after.data_bytes, after.pending_free_bytes), (0, 0));
    assert_eq!(before.data_bytes, 0);
    // The pool has 1 GiB: 20 rounds of 64 MiB fit only because space comes back.
    assert!(bench.pool.check().unwrap().is_clean());
}

#[test]
fn a_full_pool_says_so_and_goes_on_after_a_removal() {
    let bench = Bench::new();
    let keep = bench.device();
    let kept = bench.pool.device(keep).unwrap();
    kept.write(0, &[4; 1 << 20]).unwrap();
    kept.flush().unwrap();
    let big = bench.device();
    let device = bench.pool.device(big).unwrap();
    let mut written = 0u64;
    let error = loop {
        match device.write(written, &[8; 1 << 20]) {
            Ok(()) => written += 1 << 20,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), thinstore_storage::ErrorKind::Full);
    assert!(written > 900 << 20, "{written}");
    kept.write(4096, &[5; 4096]).unwrap();
    kept.discard(0, 4096).unwrap();
    kept.flush().unwrap();
    drop(device);
    bench.pool.remove(big).unwrap();
    bench.pool.wait_for_frees().unwrap();
    kept.write(1 << 30, &[6; 1 << 20]).unwrap();
    kept.flush().unwrap();
    assert!(bench.pool.check().unwrap().is_clean());
}

#[test]
fn a_pool_and_a_device_grow() {
    let storage = Arc::new(MemoryStorage::new(8 << 20));
    let options = PoolOptions {
        size_bytes: 8 << 20,
        default_device_size_bytes: 1 << 20,
        ..PoolOptions::default()
    };
    Pool::create(&*storage, &options).unwrap();
    let open = OpenOptions { background: false, ..OpenOptions::default() };
    let pool = Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &open).unwrap();
    let id = pool.create_layer(NewLayer::default()).unwrap();
    pool.device(id).unwrap().write(0, &[1; 4096]).unwrap();
    pool.grow(300 << 20).unwrap();
    pool.resize(id, 1 << 50).unwrap();
    let device = pool.device(id).unwrap();
    assert_eq!(device.size_bytes(), 1 << 50);
    device.write((1 << 50) - 4096, &[2; 4096]).unwrap();
    device.write(0x10_0000, &vec![3; 100 << 20]).unwrap();
    device.flush().unwrap();
    assert!(pool.check().unwrap().is_clean());
    drop(device);
    // As after a crash: the growth is in the journal.
    pool.close().unwrap();
    let pool = Pool::open(storage as Arc<dyn Storage>, &open).unwrap();
    let device = pool.device(id).unwrap();
    let mut block = [0; 4096];
    device.read((1 << 50) - 4096, &mut block).unwrap();
    assert_eq!(block, [2; 4096]);
    assert!(pool.check().unwrap().is_clean());
}

#[test]
fn many_threads_on_many_devices_with_snapshots_and_removals_leave_a_sound_pool() {
    let storage = Arc::new(MemoryStorage::new(POOL_BYTES));
    let options = PoolOptions {
        size_bytes: POOL_BYTES,
        default_device_size_bytes: 64 << 20,
        ..PoolOptions::default()
    };
    Pool::create(&*storage, &options).unwrap();
    let pool = Pool::open(storage as Arc<dyn Storage>, &OpenOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let pool = pool.clone();
            scope.spawn(move || {
                let id = pool.create_layer(NewLayer::default()).unwrap();
                let device = pool.device(id).unwrap();
                let mut last = None;
                for round in 0..40u64 {
                    let at = (round * 37 % 64) << 18;
                    device.write(at, &vec![thread; 100_000]).unwrap();
                    let snapshot = pool.snapshot(id, NewLayer::default()).unwrap();
                    let copy = pool.device(snapshot).unwrap();
                    let mut found = vec![0; 100_000];
                    copy.read(at, &mut found).unwrap();
                    assert!(found.iter().all(|byte| *byte == thread));
                    copy.write(at + 50, &[255; 10_000]).unwrap();
                    drop(copy);
                    if let Some(old) = last.replace(snapshot) {
                        pool.remove(old).unwrap();
                    }
                    if round % 5 == 0 {
                        device.flush().unwrap();
                    }
                    device.read(at, &mut found).unwrap();
                    assert!(found.iter().all(|byte| *byte == thread));
                }
            });
        }
    });
    pool.wait_for_frees().unwrap();
    let report = pool.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}
