//! Loss of power at every write and every flush of random scenarios. What was acknowledged is there; what
//! was not is old, or one of the values written since; a snapshot is a state that its origin had; `check`
//! finds nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use thinstore_pool::{
    BLOCK_BYTES, Device, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions,
};
use thinstore_storage::{
    BlockDevice, CrashImage, CrashPolicy, DiskOperation, ErrorKind, FailedSync, FailedWrite, Fault,
    FaultPlan, SimulatedDisk, Storage,
};

const POOL_BYTES: u64 = 8 << 20;
const DEVICE_BLOCKS: u64 = 700;
const NAMES: Namespace = Namespace(1);
const SECTOR: usize = 512;
/// Where docs/format.md says the superblocks lie.
const SUPERBLOCK_BLOCKS: [u64; 2] = [0, 35];

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

/// What a value looks like: 0 is a hole.
fn block_of(value: u64) -> Vec<u8> {
    if value == 0 {
        return vec![0; 4096];
    }
    let mut random = Random(value.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..512).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// The values that a block may have: the durable one, then those written since.
type Values = Vec<u64>;

#[derive(Clone, Default)]
struct ModelLayer {
    sealed: bool,
    blocks: BTreeMap<u64, Values>,
    /// Its making, or its removal, was not acknowledged.
    uncertain: bool,
}

/// What may be found after a crash at this moment.
#[derive(Clone, Default)]
struct Model {
    layers: BTreeMap<String, ModelLayer>,
}

impl Model {
    fn settle(&mut self) {
        for layer in self.layers.values_mut() {
            for values in layer.blocks.values_mut() {
                values.drain(..values.len() - 1);
            }
        }
    }
}

fn options() -> OpenOptions {
    OpenOptions { background: false, cache_bytes: 1 << 20, ..OpenOptions::default() }
}

fn open(disk: SimulatedDisk) -> Pool {
    Pool::open(Arc::new(disk), &options()).expect("a pool opens after a loss of power")
}

/// The disk after a loss of power, and after a second one in the midst of the recovery from it.
fn survivor(image: &CrashImage, policy: CrashPolicy, second: u64) -> SimulatedDisk {
    let disk = Arc::new(image.disk(policy));
    if second.is_multiple_of(3) {
        disk.power_fails_at(1 + (second / 3) % 12);
        drop(Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()));
    }
    disk.crash(second / 36)
}

/// Looks at what a crash left.
fn verify(image: &CrashImage, policy: CrashPolicy, second: u64, model: &Model) {
    verify_pool(&open(survivor(image, policy, second)), model);
}

fn verify_pool(pool: &Pool, model: &Model) {
    let report = pool.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    let mut found = BTreeMap::new();
    for info in pool.layers().into_iter().filter(|info| info.namespace == NAMES) {
        found.insert(info.name.clone(), info.id);
    }
    for (name, layer) in &model.layers {
        match found.remove(name) {
            Some(id) => verify_layer(pool, id, name, layer),
            None => assert!(layer.uncertain, "{name} is gone"),
        }
    }
    assert!(found.is_empty(), "{found:?} should be gone");
}

fn verify_layer(pool: &Pool, id: LayerId, name: &str, layer: &ModelLayer) {
    let device = pool.device(id).unwrap();
    let mut block_bytes = vec![0; 4096];
    let hole = vec![0];
    for block in 0..DEVICE_BLOCKS {
        let values = layer.blocks.get(&block).unwrap_or(&hole);
        device.read(block * BLOCK_BYTES, &mut block_bytes).unwrap();
        let candidates: Vec<Vec<u8>> = values.iter().map(|value| block_of(*value)).collect();
        let whole = candidates.contains(&block_bytes);
        // A block that was written before may be torn between sectors; a new one is there or not.
        let torn = values.iter().filter(|value| **value != 0).count() > 1
            && block_bytes.chunks(SECTOR).enumerate().all(|(index, sector)| {
                let range = index * SECTOR..(index + 1) * SECTOR;
                candidates.iter().any(|candidate| &candidate[range.clone()] == sector)
            });
        assert!(whole || torn, "{name} block {block} is none of {values:?}");
    }
}

struct Scenario {
    pool: Pool,
    model: Arc<Mutex<Model>>,
    random: Random,
    next_value: u64,
    next_name: u64,
}

impl Scenario {
    fn pick(&mut self, writable: bool) -> Option<(String, LayerId)> {
        let names: Vec<String> = {
            let model = self.model.lock();
            let fits = |layer: &&ModelLayer| !(writable && layer.sealed);
            model
                .layers
                .iter()
                .filter(|(_, layer)| fits(layer))
                .map(|(name, _)| name.clone())
                .collect()
        };
        if names.is_empty() {
            return None;
        }
        let index = self.random.below(u64::try_from(names.len()).unwrap());
        let name = names[usize::try_from(index).unwrap()].clone();
        let id = self.pool.find(NAMES, &name).unwrap();
        Some((name, id))
    }

    fn new_layer(&mut self) -> NewLayer {
        self.next_name += 1;
        NewLayer {
            namespace: NAMES,
            name: format!("layer-{}", self.next_name),
            ..NewLayer::default()
        }
    }

    fn begin(&self, name: &str, layer: ModelLayer) {
        self.model.lock().layers.insert(name.to_owned(), ModelLayer { uncertain: true, ..layer });
    }

    fn acknowledge(&self, name: &str) {
        let mut model = self.model.lock();
        model.layers.get_mut(name).unwrap().uncertain = false;
        model.settle();
    }

    fn create(&mut self) {
        let new = self.new_layer();
        let name = new.name.clone();
        self.begin(&name, ModelLayer::default());
        self.pool.create_layer(new).unwrap();
        self.acknowledge(&name);
    }

    fn write(&mut self) {
        let start = match self.random.below(3) {
            0 => self.random.below(8),
            1 => 250 + self.random.below(12),
            _ => self.random.below(DEVICE_BLOCKS - 20),
        };
        let count = 1 + self.random.below(12);
        self.write_range(start, count);
    }

    fn write_range(&mut self, start: u64, count: u64) {
        let Some((name, id)) = self.pick(true) else { return };
        let mut data = Vec::new();
        {
            let mut model = self.model.lock();
            let layer = model.layers.get_mut(&name).unwrap();
            for block in start..start + count {
                self.next_value += 1;
                layer.blocks.entry(block).or_insert_with(|| vec![0]).push(self.next_value);
                data.extend(block_of(self.next_value));
            }
        }
        self.pool.device(id).unwrap().write(start * BLOCK_BYTES, &data).unwrap();
    }

    fn discard(&mut self) {
        let Some((name, id)) = self.pick(true) else { return };
        let start = self.random.below(DEVICE_BLOCKS - 300);
        let count = 1 + self.random.below(300);
        {
            let mut model = self.model.lock();
            for (_, values) in
                model.layers.get_mut(&name).unwrap().blocks.range_mut(start..start + count)
            {
                values.push(0);
            }
        }
        self.pool.device(id).unwrap().discard(start * BLOCK_BYTES, count * BLOCK_BYTES).unwrap();
    }

    fn flush(&mut self) {
        let Some((_, id)) = self.pick(true) else { return };
        self.pool.device(id).unwrap().flush().unwrap();
        self.model.lock().settle();
    }

    fn state_of(&self, name: &str) -> ModelLayer {
        let mut layer = self.model.lock().layers[name].clone();
        layer.sealed = false;
        for values in layer.blocks.values_mut() {
            values.drain(..values.len() - 1);
        }
        layer
    }

    fn snapshot(&mut self) {
        let Some((source, id)) = self.pick(false) else { return };
        let new = self.new_layer();
        let name = new.name.clone();
        self.begin(&name, self.state_of(&source));
        self.pool.snapshot(id, new).unwrap();
        self.acknowledge(&name);
    }

    fn commit(&mut self) {
        let Some((source, id)) = self.pick(true) else { return };
        let new = self.new_layer();
        let name = new.name.clone();
        self.begin(&name, ModelLayer { sealed: true, ..self.state_of(&source) });
        self.pool.seal_snapshot(id, new).unwrap();
        self.acknowledge(&name);
    }

    fn remove(&mut self) {
        let Some((name, id)) = self.pick(false) else { return };
        self.remove_layer(&name, id);
    }

    fn remove_layer(&self, name: &str, id: LayerId) {
        self.model.lock().layers.get_mut(name).unwrap().uncertain = true;
        self.pool.remove(id).unwrap();
        let mut model = self.model.lock();
        model.layers.remove(name);
        model.settle();
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.create(),
            1..=9 => self.write(),
            10 => self.discard(),
            11..=13 => self.flush(),
            14..=15 => self.snapshot(),
            16 => self.commit(),
            17..=18 => self.remove(),
            _ => self.pool.checkpoint().unwrap(),
        }
    }

    /// Few blocks, overwritten in place again and again, and forks between.
    fn overwrite_and_fork(&mut self) {
        match self.random.below(8) {
            0..=3 => {
                let start = self.random.below(3);
                self.write_range(start, 1);
            }
            4..=5 => self.flush(),
            6 => self.commit(),
            _ => self.remove_sealed(),
        }
    }

    /// The only writable layer then owns what it shared with the sealed ones, and overwrites it again.
    fn remove_sealed(&mut self) {
        let sealed: Vec<String> = {
            let model = self.model.lock();
            let sealed = model.layers.iter().filter(|(_, layer)| layer.sealed);
            sealed.map(|(name, _)| name.clone()).collect()
        };
        for name in sealed {
            let id = self.pool.find(NAMES, &name).unwrap();
            self.remove_layer(&name, id);
        }
    }
}

/// Between two operations either superblock alone leads to everything.
fn look_through_either_superblock(disk: &SimulatedDisk, model: &Model) {
    for superblock in SUPERBLOCK_BLOCKS {
        let left = disk.image().disk(CrashPolicy::KeepAll);
        left.corrupt(superblock * BLOCK_BYTES + 100, &[0xa5; 64]).unwrap();
        verify_pool(&open(left), model);
    }
}

/// Runs one scenario and looks at `looks` possible outcomes of a crash after each operation of the disk.
/// Gives how many outcomes were looked at.
fn search(seed: u64, steps: u32, looks: u64, step: fn(&mut Scenario)) -> u64 {
    let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
    let pool_options = PoolOptions {
        size_bytes: POOL_BYTES,
        allocation_run_bytes: 4096 << (seed % 9),
        journal_bytes: Some(256 << 10),
        default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
        uuid: Some([3; 16]),
    };
    Pool::create(&*disk, &pool_options).unwrap();
    let model = Arc::new(Mutex::new(Model::default()));
    let cuts = Arc::new(AtomicU64::new(0));
    // A look that fails must not unwind through the pool that is being watched: it is kept for later.
    let failed = Arc::new(AtomicBool::new(false));
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    {
        let (model, cuts, failed) = (Arc::clone(&model), Arc::clone(&cuts), Arc::clone(&failed));
        disk.observe(move |_, image| {
            let model = model.lock().clone();
            for _ in 0..looks {
                if failed.load(Ordering::Relaxed) {
                    return;
                }
                let number = cuts.fetch_add(1, Ordering::Relaxed);
                let policy = CrashPolicy::from_seed(if number % 4 == 0 {
                    number % 3
                } else {
                    seed ^ number
                });
                let second = Random(seed << 32 | number | 1).next() >> 20;
                let look = AssertUnwindSafe(|| verify(&image, policy, second, &model));
                failed.store(catch_unwind(look).is_err(), Ordering::Relaxed);
            }
        });
    }
    let random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let mut scenario = Scenario { pool, model, random, next_value: 0, next_name: 0 };
    scenario.create();
    for _ in 0..steps {
        step(&mut scenario);
        look_through_either_superblock(&disk, &scenario.model.lock());
        if failed.load(Ordering::Relaxed) {
            break;
        }
    }
    scenario.pool.close().unwrap();
    assert!(!failed.load(Ordering::Relaxed), "seed {seed} fails at cut {cuts:?}");
    cuts.load(Ordering::Relaxed)
}

#[test]
fn acknowledged_writes_and_layers_survive_any_loss_of_power() {
    let mut cuts = 0;
    for seed in seeds() {
        cuts += search(seed, 60, 2, Scenario::step);
    }
    println!("{cuts} cuts");
    assert!(cuts > 4000, "{cuts} cuts are too few to say anything");
}

#[test]
fn a_snapshot_of_blocks_that_were_overwritten_in_place_survives_any_loss_of_power() {
    for seed in seeds() {
        search(seed, 60, 4, Scenario::overwrite_and_fork);
    }
}

/// The seeds of a run: `THINSTORE_CRASH_SEEDS` is how many, or `first..end`.
fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("THINSTORE_CRASH_SEEDS").unwrap_or_else(|_| "24".to_owned());
    match wanted.split_once("..") {
        Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
        None => 1..wanted.parse::<u64>().unwrap() + 1,
    }
}

/// Works on a pool until something fails; the model says what must be there then. An operation that
/// failed may have happened or not.
fn work_until_failure(pool: &Pool, model: &mut Model) -> Option<ErrorKind> {
    let attempt = |model: &mut Model| -> thinstore_storage::Result<()> {
        let mut value = 0;
        for round in 0..4_u64 {
            let name = format!("layer-{round}");
            model
                .layers
                .insert(name.clone(), ModelLayer { uncertain: true, ..ModelLayer::default() });
            let new = NewLayer { namespace: NAMES, name: name.clone(), ..NewLayer::default() };
            let id = pool.create_layer(new)?;
            model.layers.get_mut(&name).unwrap().uncertain = false;
            let device = pool.device(id)?;
            for start in [0, 250, 600, 252, 0] {
                let mut data = Vec::new();
                for block in start..start + 8 {
                    value += 1;
                    let layer = model.layers.get_mut(&name).unwrap();
                    layer.blocks.entry(block).or_insert_with(|| vec![0]).push(value);
                    data.extend(block_of(value));
                }
                device.write(start * BLOCK_BYTES, &data)?;
                device.flush()?;
                model.settle();
            }
            for values in model.layers.get_mut(&name).unwrap().blocks.range_mut(250..260) {
                values.1.push(0);
            }
            device.discard(250 * BLOCK_BYTES, 10 * BLOCK_BYTES)?;
            let copy = format!("copy-{round}");
            let mut taken = model.layers[&name].clone();
            taken.blocks.values_mut().for_each(|values| drop(values.drain(..values.len() - 1)));
            model.layers.insert(copy.clone(), ModelLayer { uncertain: true, ..taken });
            let new = NewLayer { namespace: NAMES, name: copy.clone(), ..NewLayer::default() };
            pool.snapshot(id, new)?;
            model.layers.get_mut(&copy).unwrap().uncertain = false;
            model.settle();
            pool.checkpoint()?;
            drop(device);
            if round % 2 == 1 {
                model.layers.get_mut(&name).unwrap().uncertain = true;
                pool.remove(id)?;
                model.layers.remove(&name);
            }
        }
        Ok(())
    };
    attempt(model).err().map(|error| error.kind())
}

/// Something has failed. Whatever is acknowledged all the same must be there.
fn go_on(pool: &Pool, model: &mut Model) {
    let names: Vec<String> = model.layers.keys().cloned().collect();
    for (value, name) in (1_000_000..).zip(names) {
        let Some(id) = pool.find(NAMES, &name) else { continue };
        let device = pool.device(id).unwrap();
        let values =
            model.layers.get_mut(&name).unwrap().blocks.entry(1).or_insert_with(|| vec![0]);
        values.push(value);
        let data = block_of(value);
        if device.write(BLOCK_BYTES, &data).and_then(|()| device.flush()).is_ok() {
            values.drain(..values.len() - 1);
        }
    }
}

/// Lets the operation of each number fail in turn; gives how many runs it took until none failed.
fn fail_each(operation: DiskOperation, fault: Fault, plan: &FaultPlan) -> u64 {
    for number in 1.. {
        let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
        let pool_options = PoolOptions {
            size_bytes: POOL_BYTES,
            journal_bytes: Some(256 << 10),
            default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
            uuid: Some([3; 16]),
            ..PoolOptions::default()
        };
        Pool::create(&*disk, &pool_options).unwrap();
        disk.set_faults(plan.clone().once(operation, number, fault));
        let mut model = Model::default();
        let opened = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options());
        let failed = match &opened {
            Ok(pool) => work_until_failure(pool, &mut model).is_some(),
            Err(_) => true,
        };
        if let (Ok(pool), true) = (&opened, failed) {
            go_on(pool, &mut model);
        }
        // First as if the process had been killed, then as if power had failed as well.
        drop(opened);
        disk.set_faults(FaultPlan::new());
        for policy in
            [CrashPolicy::KeepAll, CrashPolicy::DropAll, CrashPolicy::from_seed(number + 2)]
        {
            verify(&disk.image(), policy, 1, &model);
        }
        // A full host disk under data is answered by making room and trying again: no failure yet.
        if !failed && (fault != Fault::NoSpace || number > disk.operations()) {
            return number;
        }
    }
    0
}

#[test]
fn a_read_a_write_or_a_flush_that_fails_loses_nothing_that_was_acknowledged() {
    let plain = FaultPlan::new();
    assert!(fail_each(DiskOperation::Read, Fault::InputOutput, &plain) > 1);
    for failed_write in [FailedWrite::LeavesNothing, FailedWrite::LeavesPrefix { seed: 7 }] {
        let plan = FaultPlan::new().failed_write(failed_write);
        assert!(fail_each(DiskOperation::Write, Fault::InputOutput, &plan) > 50);
        assert!(fail_each(DiskOperation::Write, Fault::NoSpace, &plan) > 50);
    }
    for failed_sync in
        [FailedSync::KeepsUnsynced, FailedSync::LosesUnsynced, FailedSync::LosesSome { seed: 11 }]
    {
        let plan = FaultPlan::new().failed_sync(failed_sync);
        assert!(fail_each(DiskOperation::Sync, Fault::InputOutput, &plan) > 30);
    }
}

/// Writes block after block, without a flush, until so many batches were written; gives the number of each
/// among the writes.
fn write_batches(disk: &SimulatedDisk, device: &Device, fill: u8, batches: usize) -> Vec<u64> {
    let before = disk.operations();
    let mut found = Vec::new();
    for block in (0..DEVICE_BLOCKS).cycle() {
        let operations = disk.operations();
        device.write(block * BLOCK_BYTES, &[fill; 4096]).unwrap();
        // One write for the data; where there is a second, it is that of a batch.
        if disk.operations() > operations + 1 {
            found.push(disk.operations() - before);
        }
        if found.len() == batches {
            break;
        }
    }
    found
}

fn new_device() -> (SimulatedDisk, LayerId) {
    let disk = Arc::new(SimulatedDisk::new(2 * POOL_BYTES));
    let pool_options = PoolOptions {
        size_bytes: 2 * POOL_BYTES,
        journal_bytes: Some(256 << 10),
        default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
        ..PoolOptions::default()
    };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    let id = pool.create_layer(NewLayer::default()).unwrap();
    // Closed, so that what works on it next allocates as whoever finds it unchanged.
    drop(pool);
    (disk.image().disk(CrashPolicy::KeepAll), id)
}

/// Works on a disk, and gives it as it was then: without what closing the pool does.
fn work_on<T>(
    disk: SimulatedDisk,
    id: LayerId,
    work: impl FnOnce(&SimulatedDisk, &Device) -> T,
) -> (SimulatedDisk, T) {
    let disk = Arc::new(disk);
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    let result = work(&disk, &pool.device(id).unwrap());
    (disk.image().disk(CrashPolicy::KeepAll), result)
}

/// Of two batches the first is lost, and the second stays. After the recovery, another one as long as the first
/// takes its place: what follows it is from another life.
#[test]
fn a_batch_that_a_loss_of_power_left_over_is_not_taken_for_a_later_one() {
    let (disk, id) = new_device();
    let (_, batches) = work_on(disk, id, |disk, device| write_batches(disk, device, 1, 2));
    let (disk, id) = new_device();
    let (disk, _) = work_on(disk, id, |disk, device| {
        let plan = FaultPlan::new();
        disk.set_faults(plan.once(DiskOperation::Write, batches[0], Fault::Ignored));
        write_batches(disk, device, 1, 2)
    });
    let (disk, _) = work_on(disk, id, |disk, device| {
        let mut contents = vec![1; (DEVICE_BLOCKS * BLOCK_BYTES) as usize];
        device.read(0, &mut contents).unwrap();
        assert!(contents.iter().all(|byte| *byte == 0), "nothing was flushed before the loss");
        write_batches(disk, device, 2, 1)
    });
    let (_, contents) = work_on(disk, id, |_, device| {
        let mut contents = vec![1; (DEVICE_BLOCKS * BLOCK_BYTES) as usize];
        device.read(0, &mut contents).unwrap();
        contents
    });
    assert!(contents.contains(&2), "the batch that took its place is there");
    assert!(!contents.contains(&1), "blocks are back from before the first loss");
}

#[cfg(feature = "planted-faults")]
#[path = "power_loss/planted.rs"]
mod planted;
