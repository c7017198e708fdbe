//! A scrub finds what is damaged on the disk, says whose it is, and finds nothing in a sound pool, whatever goes
//! on meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

mod damage;

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use damage::all_but_reading;
use parking_lot::Mutex;
use thinstore_pool::{
    BLOCK_BYTES, Damage, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions,
    ScrubFinding, ScrubReport, Transaction,
};
use thinstore_storage::{BlockDevice, CountingStorage, MemoryStorage, Storage};

const POOL_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;

/// A disk some blocks of which cannot be read, or are read wrong once, and that knows what was read.
struct BadDisk {
    disk: CountingStorage<MemoryStorage>,
    bad: Mutex<HashSet<u64>>,
    wrong_once: Mutex<HashSet<u64>>,
    times_read: Mutex<Vec<u32>>,
}

impl Storage for BadDisk {
    all_but_reading!();

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let first = offset_bytes / BLOCK_BYTES;
        let end = (offset_bytes + buffer.len() as u64).div_ceil(BLOCK_BYTES);
        let mut times = self.times_read.lock();
        for block in first..end {
            if self.bad.lock().contains(&block) {
                return Err(io::Error::other("a bad sector"));
            }
            times[block as usize] += 1;
        }
        drop(times);
        self.disk.read_at(offset_bytes, buffer)?;
        for (block, bytes) in (first..end).zip(buffer.chunks_mut(BLOCK)) {
            bytes[0] ^= u8::from(self.wrong_once.lock().remove(&block));
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    OpenOptions { background: false, ..OpenOptions::default() }
}

fn new_pool(options: &OpenOptions) -> (Arc<BadDisk>, Pool) {
    new_pool_of(POOL_BYTES, options)
}

fn new_pool_of(size_bytes: u64, options: &OpenOptions) -> (Arc<BadDisk>, Pool) {
    let disk = Arc::new(BadDisk {
        disk: CountingStorage::new(MemoryStorage::new(size_bytes)),
        bad: Mutex::default(),
        wrong_once: Mutex::default(),
        times_read: Mutex::new(vec![0; (size_bytes / BLOCK_BYTES) as usize]),
    });
    let pool_options =
        PoolOptions { size_bytes, default_device_size_bytes: 32 << 20, ..PoolOptions::default() };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, options).unwrap();
    (disk, pool)
}

/// Each block says whose it is, so that it can be found on the disk.
fn contents(fill: u8, block: u64) -> Vec<u8> {
    let mut bytes = vec![fill; BLOCK];
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes
}

fn named(name: &str) -> NewLayer {
    NewLayer { namespace: Namespace(1), name: name.to_owned(), ..NewLayer::default() }
}

fn write(pool: &Pool, id: LayerId, fill: u8, blocks: std::ops::Range<u64>) {
    let device = pool.device(id).unwrap();
    for block in blocks {
        device.write(block * BLOCK_BYTES, &contents(fill, block)).unwrap();
    }
}

/// Where the data that looks like this lies.
fn place_of(disk: &BadDisk, wanted: &[u8]) -> u64 {
    let mut bytes = vec![0; wanted.len()];
    let mut found = Vec::new();
    for block in 0..POOL_BYTES / BLOCK_BYTES {
        disk.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        if bytes == wanted {
            found.push(block);
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn flip(disk: &BadDisk, block: u64, byte: usize) {
    let mut bytes = vec![0; BLOCK];
    disk.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
    bytes[byte] ^= 1;
    disk.disk.write_at(block * BLOCK_BYTES, &bytes).unwrap();
}

fn scrub(pool: &Pool) -> ScrubReport {
    let mut last = None;
    let report = pool.scrub(&[], &mut |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        let before = last.replace(progress).map_or(0, |last| last.done_bytes);
        assert!(before <= progress.done_bytes);
        ControlFlow::Continue(())
    });
    assert!(report.complete && report.more_findings == 0);
    let last = last.unwrap();
    assert_eq!(last.done_bytes, last.total_bytes);
    report
}

fn only(report: &ScrubReport) -> &ScrubFinding {
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    &report.findings[0]
}

struct Family {
    base: LayerId,
    middle: LayerId,
    /// Sees all of both.
    child: LayerId,
    /// Has replaced block 7.
    other: LayerId,
}

/// Two sealed layers with all their checksums, and two that stand on the upper one.
fn family(pool: &Pool) -> Family {
    let base = pool.create_layer(named("base")).unwrap();
    write(pool, base, 1, 0..40);
    pool.seal(base).unwrap();
    let middle = pool.snapshot(base, named("middle")).unwrap();
    write(pool, middle, 2, 20..30);
    pool.seal(middle).unwrap();
    let child = pool.snapshot(middle, named("child")).unwrap();
    let other = pool.snapshot(middle, named("other")).unwrap();
    write(pool, other, 3, 7..8);
    pool.sum_sealed().unwrap();
    pool.checkpoint().unwrap();
    Family { base, middle, child, other }
}

#[test]
fn a_sound_pool_is_found_sound_and_each_block_is_read_once() {
    let (disk, pool) = new_pool(&options());
    let family = family(&pool);
    disk.times_read.lock().fill(0);
    let before = disk.disk.counters();
    let report = scrub(&pool);
    let cost = disk.disk.counters() - before;
    assert!(report.is_clean(), "{:#?}", report.findings);
    assert_eq!(report.layers, 4);
    assert_eq!(report.data_bytes, 50 * BLOCK_BYTES);
    assert_eq!(report.unsummed_bytes, BLOCK_BYTES, "what the writable one has");
    let maps: u64 = pool.layers().iter().map(|layer| layer.own_map_bytes).sum();
    assert!(report.metadata_bytes > maps, "{} and {maps}", report.metadata_bytes);
    assert_eq!((cost.writes, cost.syncs), (0, 0), "it never writes");
    let times = disk.times_read.lock();
    for (fill, block) in [(1, 3), (1, 25), (2, 25)] {
        let place = place_of(&disk, &contents(fill, block));
        assert_eq!(times[place as usize], 1, "block {block} of {fill}");
    }
    assert!(cost.reads < 60, "{} reads: long ones, where blocks are contiguous", cost.reads);
    assert_eq!(pool.layer(family.other).unwrap().checksummed_bytes, 0);
}

#[test]
fn damaged_data_is_named_with_all_who_see_it_and_only_those() {
    let (disk, pool) = new_pool(&options());
    let Family { base, middle, child, other } = family(&pool);
    let place = place_of(&disk, &contents(1, 7));
    flip(&disk, place, 2000);
    let report = scrub(&pool);
    let finding = only(&report);
    assert_eq!((finding.structure, finding.layer), ("data", Some(base)));
    assert_eq!((finding.blocks.clone(), finding.pool_block), (Some(7..8), place));
    let mut found = contents(1, 7);
    found[2000] ^= 1;
    let (found, recorded) = (crc32fast::hash(&found), crc32fast::hash(&contents(1, 7)));
    assert_eq!(finding.damage, Damage::Mismatch { found, recorded });
    assert_eq!(finding.affected, [base, middle, child], "{other} has a block of its own there");
    let text = finding.message();
    for part in ["block 7:", &format!("pool block {place} "), &format!("{found:08x}")] {
        assert!(text.contains(part), "{text}");
    }

    flip(&disk, place, 2000);
    let place = place_of(&disk, &contents(2, 29));
    flip(&disk, place, 0);
    let report = scrub(&pool);
    let finding = only(&report);
    assert_eq!((finding.layer, finding.blocks.clone()), (Some(middle), Some(29..30)));
    assert_eq!(finding.affected, [middle, child, other]);
}

#[test]
fn a_scrub_of_some_layers_looks_at_them_and_at_what_they_stand_on() {
    let (disk, pool) = new_pool(&options());
    let Family { base, middle, child, other } = family(&pool);
    let apart = pool.create_layer(named("apart")).unwrap();
    write(&pool, apart, 9, 0..5);
    pool.seal(apart).unwrap();
    pool.sum_sealed().unwrap();
    let of = |layers: &[LayerId]| pool.scrub(layers, &mut |_| ControlFlow::Continue(()));
    for (layers, count, blocks) in [
        (&[base][..], 1, 40),
        (&[middle], 2, 50),
        (&[child], 3, 50),
        (&[child, other], 4, 50),
        (&[apart], 1, 5),
        (&[], 5, 55),
    ] {
        let report = of(layers);
        assert!(report.complete && report.is_clean());
        let looked_at = (report.layers, report.data_bytes);
        assert_eq!(looked_at, (count, blocks * BLOCK_BYTES), "{layers:?}");
    }
    flip(&disk, place_of(&disk, &contents(2, 25)), 9);
    assert!(of(&[base]).is_clean() && of(&[apart]).is_clean());
    for layers in [&[middle][..], &[other], &[]] {
        assert_eq!(only(&of(layers)).layer, Some(middle));
    }
}

#[test]
fn damage_to_a_document_affects_the_layer_whose_it_is() {
    let (disk, pool) = new_pool(&options());
    let base = pool.create_layer(named("base")).unwrap();
    pool.seal(base).unwrap();
    let document = pool.store_document(&[b'd'; BLOCK]).unwrap();
    let mut transaction = pool.begin();
    transaction.set_document(base, Some(document));
    pool.commit(transaction).unwrap();
    pool.sum_sealed().unwrap();
    pool.flush().unwrap();
    let mut bytes = vec![0; BLOCK];
    let mut place = 0;
    for block in 0..POOL_BYTES / BLOCK_BYTES {
        disk.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        if bytes.iter().filter(|byte| **byte == b'd').count() > BLOCK / 2 {
            place = block;
        }
    }
    flip(&disk, place, 100);
    let report = scrub(&pool);
    let finding = only(&report);
    assert_eq!(finding.layer, Some(document));
    assert!(finding.affected.contains(&base), "{finding:?}");
}

#[test]
fn damaged_checksums_and_pages_are_found_on_the_disk_though_they_are_right_in_memory() {
    let (disk, pool) = new_pool(&options());
    let Family { base, middle, child, .. } = family(&pool);
    // All of it is in memory.
    let device = pool.device(child).unwrap();
    device.read(0, &mut vec![0; 40 * BLOCK]).unwrap();
    let crc = crc32fast::hash(&contents(1, 5)).to_le_bytes();
    let mut bytes = vec![0; BLOCK];
    let (home, at) = (3..35)
        .find_map(|block| {
            disk.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
            let at = bytes.chunks_exact(4).position(|entry| entry == crc)?;
            Some((block, at * 4))
        })
        .unwrap();
    flip(&disk, home, at);
    let report = scrub(&pool);
    let finding = only(&report);
    assert_eq!((finding.layer, finding.blocks.clone()), (Some(base), Some(5..6)));
    device.read(5 * BLOCK_BYTES, &mut bytes).unwrap();
    flip(&disk, home, at);

    // The leaf of the middle layer's map: it points at a block of its own, 25.
    let data = place_of(&disk, &contents(2, 25));
    let leaf = (0..POOL_BYTES / BLOCK_BYTES)
        .filter(|block| {
            disk.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
            bytes[25 * 16..25 * 16 + 6] == data.to_le_bytes()[..6]
        })
        .collect::<Vec<_>>();
    // One is the leaf of the layer that wrote block 7 over it.
    let mut affected = Vec::new();
    for place in leaf {
        flip(&disk, place, 4000);
        let report = scrub(&pool);
        for finding in &report.findings {
            assert_eq!((finding.structure, finding.pool_block), ("map", place));
            assert_eq!(finding.blocks, Some(0..256));
            affected.push(finding.affected.clone());
        }
        flip(&disk, place, 4000);
    }
    assert!(affected.contains(&vec![middle, child]), "{affected:?}");
    assert!(scrub(&pool).is_clean());
}

#[test]
fn damage_to_tables_bitmaps_and_superblocks_is_told_as_that() {
    let (disk, pool) = new_pool(&options());
    family(&pool);
    pool.close().unwrap();
    let listening = Arc::clone(&disk);
    listening.times_read.lock().fill(0);
    let read_only = OpenOptions { read_only: true, ..options() };
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &read_only).unwrap();
    // The tables are what opening reads.
    let read_by_opening: Vec<u64> = (0..POOL_BYTES / BLOCK_BYTES)
        .filter(|block| listening.times_read.lock()[*block as usize] > 0)
        .collect();
    let mut structures = HashSet::new();
    for block in read_by_opening.into_iter().chain([1, 2]) {
        flip(&disk, block, 8);
        let report = scrub(&pool);
        for finding in &report.findings {
            assert_eq!(finding.pool_block, block);
            structures.insert(finding.structure);
        }
        flip(&disk, block, 8);
    }
    for structure in ["superblock", "layer table", "space map", "bitmap"] {
        assert!(structures.contains(structure), "{structure}: {structures:?}");
    }
    assert!(scrub(&pool).is_clean());
}

#[test]
fn a_block_that_cannot_be_read_is_a_finding_and_the_rest_is_looked_at() {
    let (disk, pool) = new_pool(&options());
    let Family { base, .. } = family(&pool);
    let bad = place_of(&disk, &contents(1, 7));
    let damaged = place_of(&disk, &contents(1, 9));
    disk.bad.lock().insert(bad);
    flip(&disk, damaged, 77);
    let report = scrub(&pool);
    assert_eq!(report.findings.len(), 2, "{:#?}", report.findings);
    for finding in &report.findings {
        assert_eq!(finding.layer, Some(base));
        match &finding.damage {
            Damage::Unreadable { why } => {
                assert_eq!((finding.pool_block, why.as_str()), (bad, "a bad sector"));
            }
            Damage::Mismatch { .. } => assert_eq!(finding.pool_block, damaged),
        }
    }
    // The checksums of all of it.
    disk.bad.lock().clear();
    flip(&disk, damaged, 77);
    disk.bad.lock().extend(3..35);
    let report = scrub(&pool);
    assert_eq!(report.findings.len(), 50, "each block of data is one that nothing can be said of");
    assert!(report.findings[0].message().contains("its checksum, in pool block"), "{report:?}");
}

#[test]
fn what_does_not_match_once_and_then_does_is_no_damage() {
    let (disk, pool) = new_pool(&options());
    family(&pool);
    disk.times_read.lock().fill(0);
    assert!(scrub(&pool).is_clean());
    let looked_at: Vec<u64> = (36..)
        .zip(&disk.times_read.lock()[36..])
        .filter(|(_, times)| **times > 0)
        .map(|(b, _)| b)
        .collect();
    assert!(looked_at.len() > 55, "{looked_at:?}");
    for block in looked_at {
        disk.wrong_once.lock().insert(block);
        let report = scrub(&pool);
        assert!(report.is_clean(), "{:#?}", report.findings);
        assert!(disk.wrong_once.lock().is_empty());
    }
}

#[test]
fn what_is_not_summed_yet_is_counted_and_not_told() {
    let (disk, pool) = new_pool(&options());
    let base = pool.create_layer(named("base")).unwrap();
    write(&pool, base, 1, 0..10);
    pool.seal(base).unwrap();
    flip(&disk, place_of(&disk, &contents(1, 3)), 3);
    let report = scrub(&pool);
    assert!(report.is_clean());
    assert_eq!((report.data_bytes, report.unsummed_bytes), (0, 10 * BLOCK_BYTES));
}

#[test]
fn a_scrub_ends_when_it_is_told_to() {
    let (_disk, pool) = new_pool(&options());
    family(&pool);
    let mut calls = 0;
    let report = pool.scrub(&[], &mut |_| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(calls, 2);
    assert!(!report.complete && report.is_clean());
}

#[test]
fn more_damage_than_can_be_listed_is_counted() {
    let (disk, pool) = new_pool(&options());
    let base = pool.create_layer(named("base")).unwrap();
    write(&pool, base, 1, 0..1500);
    pool.seal(base).unwrap();
    pool.sum_sealed().unwrap();
    let first = place_of(&disk, &contents(1, 0));
    for block in first..first + 1500 {
        flip(&disk, block, 9);
    }
    let report = pool.scrub(&[], &mut |_| ControlFlow::Continue(()));
    assert_eq!((report.findings.len(), report.more_findings), (1000, 500));
}

/// Writers, seals, snapshots, removals and takings over, with the pool's thread on, for as long as `going`.
fn disturb(pool: &Pool, seed: u64, going: &AtomicBool) {
    let mut state = seed;
    let mut below = |limit: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut layers: Vec<LayerId> = vec![pool.create_layer(NewLayer::default()).unwrap()];
    while going.load(Ordering::Relaxed) {
        // On a machine that has much else to do, what was removed comes back later than more is written.
        if pool.usage().full_percent > 50 {
            pool.wait_for_frees().unwrap();
        }
        let at = below(layers.len() as u64) as usize;
        let id = layers[at];
        let sealed = pool.layer(id).unwrap().sealed;
        let start = below(600);
        let fill = below(250) as u8;
        match below(10) {
            0..=4 if !sealed => write(pool, id, fill, start..start + below(60)),
            5 if !sealed => {
                let length = below(64) * BLOCK_BYTES;
                pool.device(id).unwrap().discard(start * BLOCK_BYTES, length).unwrap();
            }
            6 if !sealed => layers.push(pool.seal_snapshot(id, NewLayer::default()).unwrap()),
            7 if !sealed => pool.seal(id).unwrap(),
            8 if layers.len() < 12 => layers.push(pool.snapshot(id, NewLayer::default()).unwrap()),
            9 if layers.len() > 4 => {
                layers.swap_remove(at);
                let mut transaction = Transaction::default();
                transaction.remove(id);
                pool.commit(transaction).unwrap();
            }
            _ => pool.flush().unwrap(),
        }
        if layers.iter().all(|id| pool.layer(*id).unwrap().sealed) {
            layers.push(pool.snapshot(layers[0], NewLayer::default()).unwrap());
        }
    }
}

#[test]
fn nothing_is_found_in_a_sound_pool_that_is_written_and_whose_layers_come_and_go() {
    // More than all layers can have, and what waits to be free again beside it.
    let (_disk, pool) = new_pool_of(512 << 20, &OpenOptions::default());
    let seconds = std::env::var("THINSTORE_SCRUB_SECONDS").map_or(4, |text| text.parse().unwrap());
    let going = AtomicBool::new(true);
    let (mut scrubs, mut looked_at) = (0, 0);
    std::thread::scope(|scope| {
        for seed in 1..=3 {
            let (pool, going) = (&pool, &going);
            scope.spawn(move || disturb(pool, seed, going));
        }
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                pool.sum_sealed().unwrap();
                pool.checkpoint().unwrap();
            }
        });
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(seconds) {
            let report = pool.scrub(&[], &mut |_| ControlFlow::Continue(()));
            if !report.is_clean() {
                going.store(false, Ordering::Relaxed);
            }
            assert!(report.is_clean(), "{:#?}", report.findings);
            scrubs += 1;
            looked_at += report.data_bytes;
        }
        going.store(false, Ordering::Relaxed);
    });
    assert!(scrubs > 10 && looked_at > 10 << 20, "{scrubs} scrubs, {looked_at} bytes of data");
    pool.sum_sealed().unwrap();
    assert!(scrub(&pool).is_clean());
    assert!(pool.check().unwrap().is_clean());
    println!("{scrubs} scrubs, {looked_at} bytes of data");
}
