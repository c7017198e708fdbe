//! No container ever reads what another one wrote. Every writer fills what it writes with words of its own;
//! a device is read whole, and a word of anybody but itself and those that it is a snapshot of is a leak.
//!
//! `THINSTORE_ISOLATION_SEEDS=100..500` for longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{
    BlockDevice, CrashPolicy, DiskOperation, ErrorKind, FailedWrite, Fault, FaultPlan, Result,
    SimulatedDisk, Storage,
};

const POOL_BYTES: u64 = 16 << 20;
const DEVICE_BYTES: u64 = 4 << 20;
const NAMES: Namespace = Namespace(1);
const STEPS: u64 = 200;

/// A small generator with a seed (xorshift64*; Vigna, 2016).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

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

/// A container, and whose words it may hold.
#[derive(Clone)]
struct Container {
    name: String,
    id: LayerId,
    word: u64,
    may_hold: BTreeSet<u64>,
}

struct World {
    disk: Arc<SimulatedDisk>,
    pool: Pool,
    containers: Vec<Container>,
    /// All that ever were: power that fails in a removal may leave what was to go.
    known: BTreeMap<String, Container>,
    words: u64,
    seed: u64,
}

fn options() -> OpenOptions {
    OpenOptions { background: false, cache_bytes: 1 << 20, ..OpenOptions::default() }
}

fn named(name: &str) -> NewLayer {
    NewLayer { namespace: NAMES, name: name.to_owned(), ..NewLayer::default() }
}

impl World {
    fn new(seed: u64, allocation_run_bytes: u64) -> World {
        let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
        // A disk that held something else before: none of it is to be seen either.
        for at in (0..POOL_BYTES).step_by(1 << 20) {
            disk.corrupt(at, &u64::MAX.to_le_bytes().repeat(1 << 17)).unwrap();
        }
        let pool_options = PoolOptions {
            size_bytes: POOL_BYTES,
            allocation_run_bytes,
            journal_bytes: Some(256 << 10),
            default_device_size_bytes: DEVICE_BYTES,
            uuid: Some([3; 16]),
        };
        Pool::create(&*disk, &pool_options).unwrap();
        let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
        World { disk, pool, containers: Vec::new(), known: BTreeMap::new(), words: 0, seed }
    }

    fn new_word(&mut self) -> u64 {
        self.words += 1;
        0x7468_696e_0000_0000 | self.words
    }

    /// Room may be lacking, and power may have failed; nothing else may go wrong.
    fn accept(&self, result: Result<()>) {
        if let Err(error) = result {
            assert!(error.kind() == ErrorKind::Full || self.disk.is_off(), "{error}");
        }
    }

    fn add(&mut self, origin: Option<usize>) {
        let word = self.new_word();
        let name = format!("c{}", self.words);
        let mut may_hold =
            origin.map_or_else(BTreeSet::new, |index| self.containers[index].may_hold.clone());
        may_hold.insert(word);
        let made = match origin {
            None => self.pool.create_layer(named(&name)),
            Some(index) => self.pool.snapshot(self.containers[index].id, named(&name)),
        };
        let id = made.as_ref().map_or(LayerId::new(1).unwrap(), |id| *id);
        let container = Container { name: name.clone(), id, word, may_hold };
        self.known.insert(name, container.clone());
        if made.is_ok() {
            self.containers.push(container);
            // A new one is looked at before anybody writes to it.
            self.scan(self.containers.len() - 1);
        }
        self.accept(made.map(drop));
    }

    /// Reads a device whole.
    fn scan(&self, index: usize) {
        let container = &self.containers[index];
        let device = self.pool.device(container.id).unwrap();
        let mut bytes = vec![0xee; device.size_bytes() as usize];
        if device.read(0, &mut bytes).is_err() {
            assert!(self.disk.is_off());
            return;
        }
        for (at, chunk) in bytes.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(chunk.try_into().unwrap());
            assert!(
                word == 0 || container.may_hold.contains(&word),
                "{} holds {word:#x} at byte {}, which it never wrote (seed {})",
                container.name,
                at * 8,
                self.seed
            );
        }
    }

    fn scan_all(&self) {
        for index in 0..self.containers.len() {
            self.scan(index);
        }
    }

    /// Writes, zeroes or discards a range of whole words, mostly not of whole blocks.
    fn change(&self, index: usize, random: &mut Random) {
        let container = &self.containers[index];
        let device = self.pool.device(container.id).unwrap();
        let size_bytes = device.size_bytes();
        // Mostly in the same part, so that blocks are replaced soon after they were written.
        let part = if random.below(4) == 0 { size_bytes } else { 256 << 10 };
        let start = random.below(part / 8) * 8;
        let most = [64, 4096, 65_536, 1 << 20][random.below(4) as usize];
        let length = (8 + random.below(most) / 8 * 8).min(size_bytes - start);
        let result = match random.below(8) {
            0 => device.discard(start, length),
            1 => device.write_zeroes(start, length),
            _ => device.write(start, &container.word.to_le_bytes().repeat(length as usize / 8)),
        };
        self.accept(result);
    }

    /// A write of data that fails half-way: the host's disk is full.
    fn failing_write(&self, index: usize, random: &mut Random) {
        let plan = FaultPlan::new()
            .once(DiskOperation::Write, 1, Fault::NoSpace)
            .failed_write(FailedWrite::LeavesPrefix { seed: random.next() });
        let container = &self.containers[index];
        let device = self.pool.device(container.id).unwrap();
        let start = random.below(device.size_bytes() / BLOCK_BYTES / 2) * BLOCK_BYTES;
        // Room in the ring, so that the first write is one of data.
        self.accept(self.pool.checkpoint());
        self.disk.set_faults(plan);
        let result = device.write(start, &container.word.to_le_bytes().repeat(8192));
        self.disk.set_faults(FaultPlan::new());
        // A second try may have found room elsewhere.
        self.accept(result);
    }

    /// After a loss of power: whoever is there sees its own alone.
    fn crash(&mut self, policy: CrashPolicy) {
        let disk = Arc::new(self.disk.crash_with(policy));
        self.disk.power_off();
        self.pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
        self.disk = disk;
        self.containers.clear();
        for info in self.pool.layers().into_iter().filter(|info| info.namespace == NAMES) {
            self.containers.push(Container { id: info.id, ..self.known[&info.name].clone() });
        }
        self.scan_all();
    }

    fn step(&mut self, random: &mut Random) {
        let count = self.containers.len() as u64;
        if count == 0 {
            return self.add(None);
        }
        let index = random.below(count) as usize;
        match random.below(24) {
            0 | 1 if count < 8 => self.add(None),
            2 | 3 if count < 8 => self.add(Some(index)),
            0..=4 if count > 1 => {
                let gone = self.containers.swap_remove(index);
                self.accept(self.pool.remove(gone.id));
            }
            5 => {
                let size_bytes = self.pool.layer(self.containers[index].id).unwrap().size_bytes;
                if size_bytes < 2 * DEVICE_BYTES {
                    let larger = size_bytes + (1 + random.below(64)) * BLOCK_BYTES;
                    self.accept(self.pool.resize(self.containers[index].id, larger));
                    self.scan(index);
                }
            }
            6 => self.failing_write(index, random),
            7 => self.accept(self.pool.checkpoint()),
            8 => self.accept(self.pool.wait_for_frees()),
            9..=12 => self.accept(self.pool.flush()),
            // In the midst of something that comes soon.
            13 => self.disk.power_fails_at(self.disk.operations() + 1 + random.below(24)),
            _ => self.change(index, random),
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("THINSTORE_ISOLATION_SEEDS") else { return 0..24 };
    let (first, end) = text.split_once("..").expect("THINSTORE_ISOLATION_SEEDS is FIRST..END");
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn nobody_reads_what_another_wrote() {
    for seed in seeds() {
        let run_bytes = 4096 << (seed % 9);
        let mut world = World::new(seed, run_bytes);
        let mut random = Random::new(seed);
        for step in 0..STEPS {
            world.step(&mut random);
            if world.disk.is_off() {
                let policy = match random.below(3) {
                    0 => CrashPolicy::DropAll,
                    _ => CrashPolicy::from_seed(random.next()),
                };
                world.crash(policy);
            }
            if step % 16 == 15 {
                world.scan_all();
            }
        }
        world.crash(CrashPolicy::KeepAll);
        let report = world.pool.check().unwrap();
        assert!(report.is_clean(), "seed {seed}: {:#?}", report.findings);
    }
}

/// The search must be able to see a leak: planted ones it sees.
#[cfg(feature = "planted-faults")]
#[test]
fn a_planted_leak_is_seen() {
    use thinstore_pool::planted::{Fault as Planted, plant};
    for fault in [Planted::DataNotChecked, Planted::SettledTooHigh] {
        let seen = std::panic::catch_unwind(|| {
            let _planted = plant(fault);
            nobody_reads_what_another_wrote();
        });
        let why = seen.expect_err("a leak").downcast::<String>().unwrap();
        assert!(why.contains("which it never wrote"), "{fault:?}: {why}");
    }
}
