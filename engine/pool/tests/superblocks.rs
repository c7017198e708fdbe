//! Either superblock leads to everything: the older one with a longer way through the journal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, LayerId, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, CrashPolicy, ErrorKind, SimulatedDisk, Storage};

const POOL_BYTES: u64 = 16 << 20;
/// Where docs/format.md says they lie.
const SUPERBLOCK_BLOCKS: [u64; 2] = [0, 35];

fn options() -> OpenOptions {
    OpenOptions { background: false, ..OpenOptions::default() }
}

/// A pool at work, as a loss of power leaves it with all writes kept, and what its device holds.
fn at_work(checkpoints: u64) -> (SimulatedDisk, LayerId, Vec<u8>) {
    let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
    let pool_options = PoolOptions {
        size_bytes: POOL_BYTES,
        default_device_size_bytes: 8 << 20,
        ..PoolOptions::default()
    };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    let id = pool.create_layer(NewLayer::default()).unwrap();
    let device = pool.device(id).unwrap();
    for round in 0..=checkpoints {
        for block in 0..40u64 {
            // Overwrites in place, new blocks, and blocks of a snapshot that was taken between.
            let fill = u8::try_from(round * 40 + block).unwrap_or(255);
            device.write((round * 7 + block) * 5 * BLOCK_BYTES, &[fill; 4096]).unwrap();
        }
        device.discard(round * 100 * BLOCK_BYTES, 50 * BLOCK_BYTES).unwrap();
        device.flush().unwrap();
        if round < checkpoints {
            let snapshot = pool.snapshot(id, NewLayer::default()).unwrap();
            pool.checkpoint().unwrap();
            pool.remove(snapshot).unwrap();
        }
    }
    device.flush().unwrap();
    let mut contents = vec![0; 8 << 20];
    device.read(0, &mut contents).unwrap();
    (disk.image().disk(CrashPolicy::KeepAll), id, contents)
}

#[test]
fn with_either_superblock_damaged_nothing_is_lost() {
    for checkpoints in 0..5 {
        for superblock in SUPERBLOCK_BLOCKS {
            let (disk, id, contents) = at_work(checkpoints);
            disk.corrupt(superblock * BLOCK_BYTES + 100, &[0xa5; 64]).unwrap();
            let pool = Pool::open(Arc::new(disk), &options()).unwrap();
            let report = pool.check().unwrap();
            assert!(report.is_clean(), "{:#?}", report.findings);
            let mut found = vec![0; contents.len()];
            pool.device(id).unwrap().read(0, &mut found).unwrap();
            assert!(found == contents, "{checkpoints} checkpoints, superblock {superblock}");
            pool.close().unwrap();
        }
    }
}

#[test]
fn with_both_superblocks_damaged_the_pool_says_so() {
    let (disk, _, _) = at_work(1);
    for superblock in SUPERBLOCK_BLOCKS {
        disk.corrupt(superblock * BLOCK_BYTES + 100, &[0xa5; 64]).unwrap();
    }
    let error = Pool::open(Arc::new(disk), &options()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("superblocks"), "{error}");
}
