//! The pool against a plain map: random operations, with snapshots, seals, removals, discards, growth,
//! reopening and loss of power, at several allocation runs. After each run every layer reads as the map
//! says, `check` finds nothing, and when all is removed the space is back to the block.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use thinstore_pool::{BLOCK_BYTES, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, MemoryStorage, Storage};

const POOL_BYTES: u64 = 24 << 20;
const DEVICE_BLOCKS: u64 = 70_000;

/// A block's contents: the number that fills it, by block.
type Contents = BTreeMap<u64, u64>;

#[derive(Clone, Debug)]
enum Operation {
    Write { layer: usize, block: u64, count: u64 },
    WriteBytes { layer: usize, offset: u64, length: usize },
    Discard { layer: usize, block: u64, count: u64 },
    Zero { layer: usize, offset: u64, length: u64 },
    Flush { layer: usize },
    Snapshot { layer: usize },
    Commit { layer: usize },
    Seal { layer: usize },
    Remove { layer: usize },
    Sum,
    Checkpoint,
    Reopen,
    PullThePlug,
}

fn block() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..40, 3 => 200u64..300, 2 => 65_500u64..65_600, 1 => 0u64..DEVICE_BLOCKS - 64]
}

fn operation() -> impl Strategy<Value = Operation> {
    let layer = 0usize..64;
    prop_oneof![
        12 => (layer.clone(), block(), 1u64..40)
            .prop_map(|(layer, block, count)| Operation::Write { layer, block, count }),
        3 => (layer.clone(), block(), 0u64..4096, 1usize..9000).prop_map(
            |(layer, block, inside, length)| Operation::WriteBytes {
                layer,
                offset: block * BLOCK_BYTES + inside,
                length
            }
        ),
        4 => (layer.clone(), block(), 1u64..300)
            .prop_map(|(layer, block, count)| Operation::Discard { layer, block, count }),
        2 => (layer.clone(), block(), 0u64..4096, 1u64..20_000).prop_map(
            |(layer, block, inside, length)| Operation::Zero {
                layer,
                offset: block * BLOCK_BYTES + inside,
                length
            }
        ),
        4 => layer.clone().prop_map(|layer| Operation::Flush { layer }),
        5 => layer.clone().prop_map(|layer| Operation::Snapshot { layer }),
        2 => layer.clone().prop_map(|layer| Operation::Commit { layer }),
        2 => layer.clone().prop_map(|layer| Operation::Seal { layer }),
        4 => layer.prop_map(|layer| Operation::Remove { layer }),
        4 => Just(Operation::Sum),
        2 => Just(Operation::Checkpoint),
        2 => Just(Operation::Reopen),
        1 => Just(Operation::PullThePlug),
    ]
}

struct ModelLayer {
    id: LayerId,
    sealed: bool,
    bytes: BTreeMap<u64, Vec<u8>>,
}

impl ModelLayer {
    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        let mut at = offset;
        while out.len() < length {
            let inside = usize::try_from(at % BLOCK_BYTES).unwrap();
            let count = (4096 - inside).min(length - out.len());
            match self.bytes.get(&(at / BLOCK_BYTES)) {
                Some(block) => out.extend_from_slice(&block[inside..inside + count]),
                None => out.resize(out.len() + count, 0),
            }
            at += u64::try_from(count).unwrap();
        }
        out
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let block = self.bytes.entry(at / BLOCK_BYTES).or_insert_with(|| vec![0; 4096]);
            block[usize::try_from(at % BLOCK_BYTES).unwrap()] = *byte;
        }
    }
}

struct World {
    storage: Arc<MemoryStorage>,
    pool: Option<Pool>,
    layers: Vec<ModelLayer>,
    counter: u64,
}

fn options() -> OpenOptions {
    OpenOptions { background: false, cache_bytes: 1 << 20, ..OpenOptions::default() }
}

impl World {
    fn new(run_bytes: u64) -> World {
        let storage = Arc::new(MemoryStorage::new(POOL_BYTES));
        let pool_options = PoolOptions {
            size_bytes: POOL_BYTES,
            allocation_run_bytes: run_bytes,
            journal_bytes: Some(256 << 10),
            default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
            uuid: Some([7; 16]),
        };
        Pool::create(&*storage, &pool_options).unwrap();
        let pool = Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &options()).unwrap();
        let mut world = World { storage, pool: Some(pool), layers: Vec::new(), counter: 0 };
        world.add_empty();
        world
    }

    fn pool(&self) -> &Pool {
        self.pool.as_ref().unwrap()
    }

    fn add_empty(&mut self) {
        let id = self.pool().create_layer(NewLayer::default()).unwrap();
        self.layers.push(ModelLayer { id, sealed: false, bytes: BTreeMap::new() });
    }

    fn fill(&mut self, length: usize) -> Vec<u8> {
        self.counter += 1;
        let mut word = self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..length)
            .map(|_| {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                word.to_le_bytes()[3]
            })
            .collect()
    }

    fn write(&mut self, index: usize, offset: u64, length: usize) {
        let data = self.fill(length);
        if self.layers[index].sealed {
            let device = self.pool().device(self.layers[index].id).unwrap();
            assert!(device.write(offset, &data).is_err());
            return;
        }
        let device = self.pool().device(self.layers[index].id).unwrap();
        device.write(offset, &data).unwrap();
        self.layers[index].write(offset, &data);
    }

    fn apply(&mut self, operation: &Operation) {
        let count = self.layers.len();
        match *operation {
            Operation::Write { layer, block, count: blocks } => {
                let length = usize::try_from(blocks * BLOCK_BYTES).unwrap();
                self.write(layer % count, block * BLOCK_BYTES, length);
            }
            Operation::WriteBytes { layer, offset, length } => {
                self.write(layer % count, offset, length);
            }
            Operation::Discard { layer, block, count: blocks } => {
                let index = layer % count;
                if self.layers[index].sealed {
                    return;
                }
                let device = self.pool().device(self.layers[index].id).unwrap();
                let blocks = blocks.min(DEVICE_BLOCKS - block);
                device.discard(block * BLOCK_BYTES, blocks * BLOCK_BYTES).unwrap();
                for block in block..block + blocks {
                    self.layers[index].bytes.remove(&block);
                }
            }
            Operation::Zero { layer, offset, length } => {
                let index = layer % count;
                if self.layers[index].sealed {
                    return;
                }
                let device = self.pool().device(self.layers[index].id).unwrap();
                device.write_zeroes(offset, length).unwrap();
                let zeroes = vec![0; usize::try_from(length).unwrap()];
                self.layers[index].write(offset, &zeroes);
            }
            Operation::Flush { layer } => {
                let device = self.pool().device(self.layers[layer % count].id).unwrap();
                device.flush().unwrap();
            }
            Operation::Snapshot { layer } => {
                if count >= 24 {
                    return;
                }
                let source = &self.layers[layer % count];
                let bytes = source.bytes.clone();
                let id = self.pool().snapshot(source.id, NewLayer::default()).unwrap();
                self.layers.push(ModelLayer { id, sealed: false, bytes });
            }
            Operation::Commit { layer } => {
                let source = &self.layers[layer % count];
                if source.sealed || count >= 24 {
                    return;
                }
                let bytes = source.bytes.clone();
                let id = self.pool().seal_snapshot(source.id, NewLayer::default()).unwrap();
                self.layers.push(ModelLayer { id, sealed: true, bytes });
            }
            Operation::Seal { layer } => {
                let index = layer % count;
                if !self.layers[index].sealed {
                    self.pool().seal(self.layers[index].id).unwrap();
                    self.layers[index].sealed = true;
                }
            }
            Operation::Remove { layer } => {
                let removed = self.layers.swap_remove(layer % count);
                self.pool().remove(removed.id).unwrap();
                if self.layers.is_empty() {
                    self.add_empty();
                }
            }
            Operation::Sum => self.pool().sum_sealed().unwrap(),
            Operation::Checkpoint => self.pool().checkpoint().unwrap(),
            Operation::Reopen => {
                self.pool.take().unwrap().close().unwrap();
                self.open();
            }
            Operation::PullThePlug => {
                // Everything completed is durable in memory; but nothing was closed or checkpointed.
                self.pool().flush().unwrap();
                let image = copy_of(&self.storage);
                drop(self.pool.take());
                self.storage = image;
                self.open();
            }
        }
    }

    fn open(&mut self) {
        let storage = Arc::clone(&self.storage) as Arc<dyn Storage>;
        self.pool = Some(Pool::open(storage, &options()).unwrap());
    }

    fn verify(&self) {
        let report = self.pool().check().unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
        for layer in &self.layers {
            let device = self.pool().device(layer.id).unwrap();
            let mut blocks: Contents = BTreeMap::new();
            blocks.extend(layer.bytes.keys().map(|block| (*block, 0)));
            for block in (0..64).chain(200..310).chain(65_490..65_610).chain(blocks.into_keys()) {
                let mut found = vec![0; 4096];
                device.read(block * BLOCK_BYTES, &mut found).unwrap();
                let expected = layer.read(block * BLOCK_BYTES, 4096);
                assert!(found == expected, "{} block {block} differs", layer.id);
            }
            let mut long = vec![0; 700_000];
            device.read(100, &mut long).unwrap();
            assert!(long == layer.read(100, 700_000), "{} differs in a long read", layer.id);
        }
    }
}

fn copy_of(storage: &MemoryStorage) -> Arc<MemoryStorage> {
    let copy = MemoryStorage::new(storage.size_bytes());
    let mut buffer = vec![0; 1 << 20];
    for offset in (0..storage.size_bytes()).step_by(buffer.len()) {
        storage.read_at(offset, &mut buffer).unwrap();
        if buffer.iter().any(|byte| *byte != 0) {
            copy.write_at(offset, &buffer).unwrap();
        }
    }
    Arc::new(copy)
}

fn run(run_bytes: u64, operations: &[Operation]) {
    let mut world = World::new(run_bytes);
    for operation in operations {
        world.apply(operation);
    }
    world.verify();
    world.pool().sum_sealed().unwrap();
    world.verify();
    world.pool.take().unwrap().close().unwrap();
    world.open();
    world.verify();
    // Whatever stands on what: in the end all of it comes back.
    while let Some(layer) = world.layers.pop() {
        world.pool().remove(layer.id).unwrap();
    }
    world.pool().wait_for_frees().unwrap();
    let report = world.pool().check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    let usage = world.pool().usage();
    assert_eq!((usage.data_bytes, usage.pending_free_bytes), (0, 0), "{usage:?}");
    assert!(world.pool().layers().is_empty());
    let empty = World::new(run_bytes);
    empty.pool().remove(empty.layers[0].id).unwrap();
    empty.pool().wait_for_frees().unwrap();
    assert_eq!(usage.used_bytes, empty.pool().usage().used_bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_agree_with_a_plain_map(
        run_shift in 12u32..=20,
        operations in prop::collection::vec(operation(), 1..120),
    ) {
        run(1 << run_shift, &operations);
    }
}

#[test]
fn a_name_is_unique_in_its_namespace_and_free_after_removal() {
    let world = World::new(65_536);
    let new = |namespace| NewLayer {
        namespace: Namespace(namespace),
        name: "web".to_owned(),
        ..NewLayer::default()
    };
    let first = world.pool().create_layer(new(1)).unwrap();
    assert!(world.pool().create_layer(new(1)).is_err());
    world.pool().create_layer(new(2)).unwrap();
    assert_eq!(world.pool().find(Namespace(1), "web"), Some(first));
    world.pool().remove(first).unwrap();
    world.pool().create_layer(new(1)).unwrap();
}
