//! Checksums of data: what is damaged is found by whoever reads it, and nothing sound ever is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, LayerId, NewLayer, OpenOptions, Pool, PoolOptions, Transaction};
use thinstore_storage::{
    BlockDevice, CountingStorage, CrashPolicy, ErrorKind, MemoryStorage, SimulatedDisk, Storage,
};

const POOL_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;

type Disk = Arc<CountingStorage<MemoryStorage>>;

fn options() -> OpenOptions {
    OpenOptions { background: false, ..OpenOptions::default() }
}

fn open(disk: &Disk, options: &OpenOptions) -> Pool {
    Pool::open(Arc::clone(disk) as Arc<dyn Storage>, options).unwrap()
}

fn new_pool() -> (Disk, Pool) {
    let disk = Arc::new(CountingStorage::new(MemoryStorage::new(POOL_BYTES)));
    let pool_options = PoolOptions {
        size_bytes: POOL_BYTES,
        default_device_size_bytes: 32 << 20,
        ..PoolOptions::default()
    };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = open(&disk, &options());
    (disk, pool)
}

fn layer(pool: &Pool, fill: u8, blocks: usize) -> LayerId {
    let id = pool.create_layer(NewLayer::default()).unwrap();
    let device = pool.device(id).unwrap();
    for block in 0..blocks {
        device.write(block as u64 * BLOCK_BYTES, &contents(fill, block)).unwrap();
    }
    id
}

/// Each block says whose it is, so that it can be found on the disk.
fn contents(fill: u8, block: usize) -> Vec<u8> {
    let mut bytes = vec![fill; BLOCK];
    bytes[..8].copy_from_slice(&(block as u64).to_le_bytes());
    bytes
}

/// Changes one bit of the data that lies like this on the disk.
fn damage(disk: &Disk, fill: u8, block: usize) -> u64 {
    let wanted = contents(fill, block);
    let mut bytes = vec![0; BLOCK];
    let mut found = None;
    for offset in (0..POOL_BYTES).step_by(BLOCK) {
        disk.read_at(offset, &mut bytes).unwrap();
        if bytes == wanted {
            assert!(found.replace(offset).is_none(), "the data lies on the disk twice");
        }
    }
    let offset = found.expect("the data lies on the disk");
    bytes.copy_from_slice(&wanted);
    bytes[2000] ^= 1;
    disk.write_at(offset, &bytes).unwrap();
    offset / BLOCK_BYTES
}

fn read(pool: &Pool, id: LayerId, block: u64) -> thinstore_storage::Result<Vec<u8>> {
    let mut bytes = vec![0; BLOCK];
    pool.device(id).unwrap().read(block * BLOCK_BYTES, &mut bytes).map(|()| bytes)
}

#[test]
fn damaged_data_of_a_sealed_layer_is_not_read_through_it_nor_through_a_child() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 40);
    pool.seal(base).unwrap();
    let child = pool.snapshot(base, NewLayer::default()).unwrap();
    let device = pool.device(child).unwrap();
    device.write(8 * BLOCK_BYTES, &contents(2, 8)).unwrap();
    pool.sum_sealed().unwrap();
    assert_eq!(pool.layer(base).unwrap().checksummed_bytes, 40 * BLOCK_BYTES);
    let pool_block = damage(&disk, 1, 7);
    damage(&disk, 1, 8);

    for id in [base, child] {
        let error = read(&pool, id, 7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains(&format!("block 7 of {id} ")), "{text}");
        assert!(text.contains(&format!("pool block {pool_block} ")), "{text}");
        assert!(read(&pool, id, 6).is_ok());
    }
    assert!(read(&pool, base, 8).is_err());
    assert_eq!(read(&pool, child, 8).unwrap(), contents(2, 8), "the child has a block of its own");
    let mut long = vec![0; 40 * BLOCK];
    assert!(device.read(0, &mut long).is_err(), "a long read looks at every block");
}

#[test]
fn what_has_no_checksums_yet_and_what_is_writable_is_read_as_it_is() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 4);
    pool.seal(base).unwrap();
    let writable = layer(&pool, 2, 4);
    damage(&disk, 1, 1);
    damage(&disk, 2, 1);
    assert!(read(&pool, base, 1).is_ok());
    assert!(read(&pool, writable, 1).is_ok());
    assert_eq!(pool.layer(base).unwrap().checksummed_bytes, 0);
}

#[test]
fn reads_are_not_verified_where_that_was_not_asked_for() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 4);
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    pool.close().unwrap();
    damage(&disk, 1, 1);
    let pool = open(&disk, &OpenOptions { verify_reads: false, ..options() });
    assert!(read(&pool, base, 1).is_ok());
    pool.close().unwrap();
    let pool = open(&disk, &options());
    assert!(read(&pool, base, 1).is_err(), "checksums are there after another open");
}

#[test]
fn a_layer_without_checksums_leaves_those_on_top_of_it_without() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 4);
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    let middle = pool.snapshot(base, NewLayer::default()).unwrap();
    pool.device(middle).unwrap().write(0, &contents(2, 0)).unwrap();
    pool.seal(middle).unwrap();
    let top = pool.snapshot(middle, NewLayer::default()).unwrap();
    damage(&disk, 2, 0);
    damage(&disk, 1, 1);
    assert!(read(&pool, top, 0).is_ok(), "the middle layer has no checksums yet");
    assert!(read(&pool, top, 1).is_err(), "the lowest one has");
}

#[test]
fn a_writable_layer_that_takes_over_its_origin_overwrites_what_had_checksums() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 20);
    let kept = layer(&pool, 9, 1);
    pool.seal(base).unwrap();
    let child = pool.snapshot(base, NewLayer::default()).unwrap();
    pool.sum_sealed().unwrap();
    pool.remove(base).unwrap();
    pool.wait_for_frees().unwrap();
    let device = pool.device(child).unwrap();
    for block in 0..20 {
        device.write(block * BLOCK_BYTES, &contents(3, block as usize)).unwrap();
    }
    let used = pool.usage().data_bytes;
    assert_eq!(used, 21 * BLOCK_BYTES, "they were overwritten where they lie");
    for block in 0..20 {
        assert_eq!(read(&pool, child, block).unwrap(), contents(3, block as usize));
    }
    drop(device);
    // Its own checksums come with its own seal.
    pool.seal(child).unwrap();
    assert_eq!(pool.layer(child).unwrap().checksummed_bytes, 0);
    pool.sum_sealed().unwrap();
    assert_eq!(pool.layer(child).unwrap().checksummed_bytes, 20 * BLOCK_BYTES);
    for block in 0..20 {
        assert_eq!(read(&pool, child, block).unwrap(), contents(3, block as usize));
    }
    damage(&disk, 3, 19);
    assert!(read(&pool, child, 19).is_err());
    assert!(read(&pool, kept, 0).is_ok());
}

#[test]
fn a_sealed_layer_that_takes_over_a_summed_origin_keeps_its_checksums() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 20);
    pool.seal(base).unwrap();
    let middle = pool.snapshot(base, NewLayer::default()).unwrap();
    pool.device(middle).unwrap().write(0, &contents(2, 0)).unwrap();
    pool.seal(middle).unwrap();
    pool.sum_sealed().unwrap();
    pool.remove(base).unwrap();
    pool.wait_for_frees().unwrap();
    assert_eq!(pool.layer(middle).unwrap().checksummed_bytes, 20 * BLOCK_BYTES);
    damage(&disk, 1, 5);
    assert!(read(&pool, middle, 5).is_err());
    assert_eq!(read(&pool, middle, 0).unwrap(), contents(2, 0));
}

#[test]
fn a_sealed_layer_that_takes_over_an_origin_without_checksums_is_summed_anew() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 20);
    pool.seal(base).unwrap();
    let middle = pool.snapshot(base, NewLayer::default()).unwrap();
    pool.device(middle).unwrap().write(0, &contents(2, 0)).unwrap();
    pool.seal(middle).unwrap();
    pool.remove(base).unwrap();
    pool.wait_for_frees().unwrap();
    pool.sum_sealed().unwrap();
    assert_eq!(pool.layer(middle).unwrap().checksummed_bytes, 20 * BLOCK_BYTES);
    damage(&disk, 1, 5);
    assert!(read(&pool, middle, 5).is_err());
}

#[test]
fn a_damaged_checksum_is_told_as_what_it_may_be() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 4);
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    pool.close().unwrap();
    // The CRC-32 of one block, in the head of group 0.
    let crc = crc32fast::hash(&contents(1, 2)).to_le_bytes();
    let mut head = vec![0; 32 * BLOCK];
    disk.read_at(3 * BLOCK_BYTES, &mut head).unwrap();
    let at = head.chunks_exact(4).position(|entry| entry == crc).expect("the entry is there");
    head[at * 4] ^= 0x10;
    disk.write_at(3 * BLOCK_BYTES, &head).unwrap();
    let pool = open(&disk, &options());
    let error = read(&pool, base, 2).unwrap_err().to_string();
    assert!(error.contains("either the data or its checksum"), "{error}");
    assert!(read(&pool, base, 1).is_ok());
}

#[test]
fn checksums_cost_one_more_read_for_four_mebibytes_and_nothing_where_there_are_none() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 64);
    let before = disk.counters();
    pool.sum_sealed().unwrap();
    let nothing = disk.counters() - before;
    assert_eq!((nothing.reads, nothing.writes, nothing.syncs), (0, 0, 0));

    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    pool.close().unwrap();
    let pool = open(&disk, &options());
    let device = pool.device(base).unwrap();
    let mut bytes = vec![0; 16 * BLOCK];
    // The map's pages come into memory with a read of a block that is not there.
    device.read(200 * BLOCK_BYTES, &mut bytes[..BLOCK]).unwrap();
    let mut counts = Vec::new();
    for part in 0..4 {
        let before = disk.counters();
        device.read(part * 16 * BLOCK_BYTES, &mut bytes).unwrap();
        counts.push((disk.counters() - before).reads);
    }
    assert_eq!(counts, [2, 1, 1, 1], "the checksums once, and each stretch in one read");
    let before = disk.counters();
    pool.sum_sealed().unwrap();
    let again = disk.counters() - before;
    assert_eq!((again.reads, again.writes, again.syncs), (0, 0, 0));
}

#[test]
fn the_pools_own_thread_takes_checksums_by_itself() {
    let (disk, pool) = new_pool();
    let base = layer(&pool, 1, 40);
    pool.seal(base).unwrap();
    pool.close().unwrap();
    let pool = open(&disk, &OpenOptions::default());
    let begin = std::time::Instant::now();
    while pool.layer(base).unwrap().checksummed_bytes == 0 {
        assert!(begin.elapsed().as_secs() < 60, "the checksums never came");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    damage(&disk, 1, 3);
    assert!(read(&pool, base, 3).is_err());
    pool.close().unwrap();
}

#[test]
fn what_a_chain_of_removed_layers_had_is_overwritten_only_when_its_checksums_are_durably_gone() {
    let disk = Arc::new(SimulatedDisk::new(POOL_BYTES));
    let pool_options = PoolOptions { size_bytes: POOL_BYTES, ..PoolOptions::default() };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    let base = layer(&pool, 1, 4);
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    let middle = pool.snapshot(base, NewLayer::default()).unwrap();
    pool.device(middle).unwrap().write(3 * BLOCK_BYTES, &contents(2, 3)).unwrap();
    pool.seal(middle).unwrap();
    let top = pool.snapshot(middle, NewLayer::default()).unwrap();

    // The first is taken over by the second, which loses its checksums by that; then the second by the top.
    let mut transaction = Transaction::default();
    transaction.remove(base);
    transaction.remove(middle);
    pool.commit(transaction).unwrap();
    assert_eq!(pool.layer(top).unwrap().origin, None, "it stands alone");
    let device = pool.device(top).unwrap();
    device.write(0, &contents(9, 0)).unwrap();
    let after_power_loss = disk.image().disk(CrashPolicy::KeepAll);
    drop(device);

    let read_only = OpenOptions { read_only: true, ..options() };
    let pool = Pool::open(Arc::new(after_power_loss), &read_only).unwrap();
    assert_eq!(read(&pool, top, 0).unwrap(), contents(9, 0));
    assert_eq!(read(&pool, top, 1).unwrap(), contents(1, 1));
}
