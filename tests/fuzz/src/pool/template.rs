//! The whole pool that inputs are held against.

use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, Storage};

use super::{DATA_MARK, JOURNAL_BYTES, POOL_BYTES, UUID};
use crate::overlay::{Blocks, Overlay};

const DEVICE_BLOCKS: u64 = 70_000;
/// The largest device there can be.
const TALL_BLOCKS: u64 = 1 << 38;

pub(super) fn options(read_only: bool) -> OpenOptions {
    OpenOptions { background: false, cache_bytes: 1 << 20, read_only, ..OpenOptions::default() }
}

fn named(name: &str) -> NewLayer {
    NewLayer { namespace: Namespace(1), name: name.to_owned(), ..NewLayer::default() }
}

fn data(number: u64, blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; (blocks * BLOCK_BYTES) as usize];
    for (index, block) in bytes.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        block.fill((number + index as u64) as u8 | 1);
        block[..8].copy_from_slice(&DATA_MARK);
    }
    bytes
}

fn put(pool: &Pool, layer: LayerId, block: u64, number: u64, blocks: u64) {
    pool.device(layer).unwrap().write(block * BLOCK_BYTES, &data(number, blocks)).unwrap();
}

/// A pool with something of everything, as a process that was killed leaves it. With a journal: its last
/// changes stand in the journal alone. Without: the journal is empty.
pub(super) fn build(with_journal: bool) -> Blocks {
    let disk = Arc::new(Overlay::new(POOL_BYTES, Arc::default()));
    let pool_options = PoolOptions {
        size_bytes: POOL_BYTES,
        journal_bytes: Some(JOURNAL_BYTES),
        default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
        allocation_run_bytes: 4096,
        uuid: Some(UUID),
    };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options(false)).unwrap();
    let base = pool.create_layer(named("base")).unwrap();
    for (number, block) in (0..).zip([0, 255, 300, 66_000, 69_000]) {
        put(&pool, base, block, number * 100, 6);
    }
    let document = pool.store_document(&[b'd'; 5000]).unwrap();
    let mut transaction = pool.begin();
    transaction.set_document(base, Some(document));
    pool.commit(transaction).unwrap();
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    let children: Vec<LayerId> = (0..10)
        .map(|number| {
            let child = pool.snapshot(base, named(&format!("child-{number}"))).unwrap();
            put(&pool, child, number * 13 % 300, 1000 + number, 4);
            child
        })
        .collect();
    // A map as high as maps are: what goes through it without end does not come back.
    let tall = NewLayer { size_bytes: Some(TALL_BLOCKS * BLOCK_BYTES), ..named("tall") };
    let tall = pool.create_layer(tall).unwrap();
    put(&pool, tall, 0, 4000, 2);
    put(&pool, tall, TALL_BLOCKS - 2, 4100, 2);
    // A walk that has begun, a layer that stays for its children, references.
    pool.seal(children[5]).unwrap();
    let below = pool.snapshot(children[5], named("grandchild")).unwrap();
    pool.snapshot(children[5], named("other grandchild")).unwrap();
    put(&pool, below, 66_001, 3000, 2);
    let marker = NewLayer { reference: Some(base), ..named("marker") };
    let mut transaction = pool.begin();
    transaction.create(marker, true, None);
    pool.commit(transaction).unwrap();
    pool.remove(children[5]).unwrap();
    pool.checkpoint().unwrap();
    if with_journal {
        for child in &children[..3] {
            put(&pool, *child, 400, 5000, 3);
            pool.seal_snapshot(*child, named(&format!("copy of {child}"))).unwrap();
        }
        pool.remove(children[7]).unwrap();
        pool.device(children[9]).unwrap().discard(0, 2 << 20).unwrap();
        for _ in 0..3 {
            pool.flush().unwrap();
        }
    }
    // The process ends here: what closing would write is not in the copy.
    disk.flattened()
}
