//! Many threads on a few devices, with snapshots and removals in flight and the maintenance thread on, against
//! an exact oracle: every thread knows what its blocks hold, in its device and in the snapshots it took. In the
//! end `check` is clean and the space is exact, to the block.
//!
//! `THINSTORE_STRESS_ROUNDS=500` for longer; each round ends with the pool opened anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use thinstore_pool::{
    BLOCK_BYTES, Device, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions,
};
use thinstore_storage::{BlockDevice, MemoryStorage, Storage};

const DEVICES: u64 = 8;
const THREADS: u64 = 16;
const DEVICE_BLOCKS: u64 = 3000;
const POOL_BYTES: u64 = 1 << 30;
const OPERATIONS: u64 = 500;
/// Stripes of a device, this many blocks each, belong to its two threads in turn.
const STRIPE_BLOCKS: u64 = 4;
const STRIPES: u64 = DEVICE_BLOCKS / STRIPE_BLOCKS / 2;
const KEPT_COPIES: usize = 2;
const NAMES: Namespace = Namespace(1);

/// A small generator with a seed (xorshift64*; Vigna, 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// What the mapped blocks of one thread hold; the others are holes.
type Blocks = BTreeMap<u64, Vec<u8>>;

fn fill(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(512)
}

/// A thread's part of a device.
struct Worker {
    pool: Pool,
    layer: LayerId,
    device: Device,
    /// 0 or 1: which stripes are its own.
    half: u64,
    random: Random,
    blocks: Blocks,
    copies: Vec<(LayerId, Blocks)>,
}

impl Worker {
    /// A run of blocks in one of the thread's own stripes.
    fn pick(&mut self) -> (u64, u64) {
        let stripe = 2 * self.random.below(STRIPES) + self.half;
        let inside = self.random.below(STRIPE_BLOCKS);
        let count = 1 + self.random.below(STRIPE_BLOCKS - inside);
        (stripe * STRIPE_BLOCKS + inside, count)
    }

    fn write(&mut self) {
        let (first, count) = self.pick();
        let mut data = Vec::new();
        for block in first..first + count {
            let bytes = fill(self.random.next() | 1);
            data.extend_from_slice(&bytes);
            self.blocks.insert(block, bytes);
        }
        self.device.write(first * BLOCK_BYTES, &data).unwrap();
    }

    fn write_part(&mut self) {
        let (block, _) = self.pick();
        let start = self.random.below(4000) as usize;
        let length = 1 + self.random.below(4096 - start as u64) as usize;
        let byte = self.random.next() as u8;
        self.device.write(block * BLOCK_BYTES + start as u64, &vec![byte; length]).unwrap();
        let bytes = self.blocks.entry(block).or_insert_with(|| vec![0; 4096]);
        bytes[start..start + length].fill(byte);
    }

    fn discard(&mut self) {
        let (first, count) = self.pick();
        let (offset_bytes, length_bytes) = (first * BLOCK_BYTES, count * BLOCK_BYTES);
        if self.random.below(2) == 0 {
            self.device.discard(offset_bytes, length_bytes).unwrap();
        } else {
            self.device.write_zeroes(offset_bytes, length_bytes).unwrap();
        }
        (first..first + count).for_each(|block| drop(self.blocks.remove(&block)));
    }

    fn read(&mut self) {
        let (first, count) = self.pick();
        assert_holds(&self.device, &self.blocks, first, count);
    }

    fn copy(&mut self) {
        if self.copies.len() == KEPT_COPIES {
            let at = self.random.below(KEPT_COPIES as u64) as usize;
            let (layer, blocks) = self.copies.swap_remove(at);
            self.assert_copy(layer, &blocks);
            self.pool.remove(layer).unwrap();
        }
        let new = NewLayer::default();
        let layer = match self.random.below(2) {
            0 => self.pool.snapshot(self.layer, new).unwrap(),
            _ => self.pool.seal_snapshot(self.layer, new).unwrap(),
        };
        self.copies.push((layer, self.blocks.clone()));
    }

    fn assert_copy(&self, layer: LayerId, blocks: &Blocks) {
        self.assert_own(&self.pool.device(layer).unwrap(), blocks);
    }

    /// All of the thread's own stripes hold what they must.
    fn assert_own(&self, device: &Device, blocks: &Blocks) {
        for stripe in 0..STRIPES {
            let first = (2 * stripe + self.half) * STRIPE_BLOCKS;
            assert_holds(device, blocks, first, STRIPE_BLOCKS);
        }
    }

    fn run(mut self) -> (Blocks, Vec<(LayerId, Blocks)>) {
        for _ in 0..OPERATIONS {
            match self.random.below(100) {
                0..50 => self.write(),
                50..60 => self.write_part(),
                60..72 => self.discard(),
                72..90 => self.read(),
                90..96 => self.device.flush().unwrap(),
                96..98 => self.copy(),
                98 => self.pool.checkpoint().unwrap(),
                _ => drop(self.pool.usage()),
            }
        }
        self.assert_own(&self.device, &self.blocks);
        for (layer, blocks) in &self.copies {
            self.assert_copy(*layer, blocks);
        }
        (self.blocks, self.copies)
    }
}

fn assert_holds(device: &Device, blocks: &Blocks, first: u64, count: u64) {
    let mut bytes = vec![0; (count * BLOCK_BYTES) as usize];
    device.read(first * BLOCK_BYTES, &mut bytes).unwrap();
    let hole = vec![0; 4096];
    for (block, found) in (first..).zip(bytes.chunks(4096)) {
        let wanted = blocks.get(&block).unwrap_or(&hole);
        assert!(found == wanted, "block {block} of {} is not what was written", device.layer());
    }
}

fn open(storage: &Arc<MemoryStorage>) -> Pool {
    let options = OpenOptions { cache_bytes: 0, ..OpenOptions::default() };
    Pool::open(Arc::clone(storage) as Arc<dyn Storage>, &options).unwrap()
}

fn assert_clean(pool: &Pool) {
    let report = pool.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}

#[test]
fn sixteen_threads_find_what_they_wrote_and_the_space_is_exact() {
    let rounds = std::env::var("THINSTORE_STRESS_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let storage = Arc::new(MemoryStorage::new(POOL_BYTES));
    let pool_options = PoolOptions {
        size_bytes: POOL_BYTES,
        // Small: checkpoints come often.
        journal_bytes: Some(512 << 10),
        default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
        ..PoolOptions::default()
    };
    Pool::create(&*storage, &pool_options).unwrap();
    let pool = open(&storage);
    let layers: Vec<LayerId> = (0..DEVICES)
        .map(|number| {
            let name = format!("device-{number}");
            pool.create_layer(NewLayer { namespace: NAMES, name, ..NewLayer::default() }).unwrap()
        })
        .collect();
    drop(pool);
    let mut oracle = vec![(Blocks::new(), Vec::new()); THREADS as usize];
    for round in 0..rounds {
        let pool = open(&storage);
        let threads: Vec<_> = (0..THREADS)
            .zip(oracle)
            .map(|(number, (blocks, copies))| {
                let layer = layers[(number % DEVICES) as usize];
                let worker = Worker {
                    pool: pool.clone(),
                    layer,
                    device: pool.device(layer).unwrap(),
                    half: number / DEVICES,
                    random: Random((round * THREADS + number + 1).wrapping_mul(0x9e37_79b9) | 1),
                    blocks,
                    copies,
                };
                thread::spawn(move || worker.run())
            })
            .collect();
        oracle = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_clean(&pool);
    }
    let pool = open(&storage);
    for (layer, _) in oracle.iter().flat_map(|(_, copies)| copies) {
        pool.remove(*layer).unwrap();
    }
    pool.wait_for_frees().unwrap();
    assert_clean(&pool);
    let mapped: usize = oracle.iter().map(|(blocks, _)| blocks.len()).sum();
    assert_eq!(pool.usage().data_bytes, mapped as u64 * BLOCK_BYTES);
    layers.into_iter().for_each(|layer| pool.remove(layer).unwrap());
    pool.wait_for_frees().unwrap();
    assert_clean(&pool);
    assert_eq!(pool.usage().data_bytes, 0);
    assert!(pool.layers().is_empty());
}
