//! A pool with something of everything.

use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, Namespace, NewLayer, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, CrashPolicy, SimulatedDisk, Storage};

use crate::damage::{data, options};

pub const POOL_BYTES: u64 = 160 << 20;
pub const DEVICE_BLOCKS: u64 = 70_000;
const JOURNAL_BYTES: u64 = 256 << 10;
/// Where the ring lies: after the head of group 0 (docs/format.md).
pub const RING: std::ops::Range<u64> = 36..36 + JOURNAL_BYTES / BLOCK_BYTES;
/// Where checksums of data lie in a group of so many blocks.
pub const SUMS: std::ops::Range<u64> = 3..35;
pub const GROUP_BLOCKS: u64 = 32_768;
/// A pool with something of everything, as a process that was killed leaves it: a journal to replay, hidden
/// and half freed layers, documents, bitmaps of two groups, both superblocks.
pub fn pool_of_everything() -> SimulatedDisk {
    let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
    let pool_options = PoolOptions {
        size_bytes: POOL_BYTES,
        journal_bytes: Some(JOURNAL_BYTES),
        default_device_size_bytes: DEVICE_BLOCKS * BLOCK_BYTES,
        allocation_run_bytes: 4096,
        uuid: Some([7; 16]),
    };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    let named = |name: &str| NewLayer {
        namespace: Namespace(1),
        name: name.to_owned(),
        ..NewLayer::default()
    };
    let base = pool.create_layer(named("base")).unwrap();
    let device = pool.device(base).unwrap();
    for (number, block) in (0..).zip([0, 255, 300, 66_000, 69_000]) {
        device.write(block * BLOCK_BYTES, &data(number * 100, 12)).unwrap();
    }
    drop(device);
    let document = pool.store_document(&[b'd'; 9000]).unwrap();
    let mut transaction = pool.begin();
    transaction.set_document(base, Some(document));
    pool.commit(transaction).unwrap();
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    let mut children = Vec::new();
    for number in 0..20 {
        let child = pool.snapshot(base, named(&format!("child-{number}"))).unwrap();
        let start = number * 13 % 300;
        pool.device(child).unwrap().write(start * BLOCK_BYTES, &data(1000 + number, 6)).unwrap();
        children.push(child);
    }
    pool.checkpoint().unwrap();
    // Some of it in the journal alone.
    for child in &children[..6] {
        pool.device(*child).unwrap().write(400 * BLOCK_BYTES, &data(5000, 3)).unwrap();
        pool.seal_snapshot(*child, named(&format!("copy of {child}"))).unwrap();
    }
    pool.remove(children[7]).unwrap();
    pool.remove(children[8]).unwrap();
    pool.device(children[9]).unwrap().discard(0, 2 << 20).unwrap();
    for _ in 0..3 {
        pool.flush().unwrap();
    }
    disk.crash_with(CrashPolicy::KeepAll)
}
