//! Repairing damaged pools. Whatever is damaged: a repaired pool is sound, all that is read from it is
//! right, and what is lost is no more than what was damaged, and named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions, clippy::panic)]

mod damage;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use damage::{DATA_MARK, Listening, Random, data, options, read_only};
use parking_lot::Mutex;
use thinstore_pool::{
    BLOCK_BYTES, Finding, LayerId, Namespace, NewLayer, Pool, PoolOptions, Repair, RepairReport,
};
use thinstore_storage::{BlockDevice, CrashPolicy, ErrorKind, SimulatedDisk, Storage};

const POOL_BYTES: u64 = 160 << 20;
const DEVICE_BLOCKS: u64 = 70_000;
const JOURNAL_BYTES: u64 = 256 << 10;
/// Superblocks, and the ring after the head of group 0 (docs/format.md).
const SUPERBLOCKS: [u64; 2] = [0, 35];
const RING: std::ops::Range<u64> = 36..36 + JOURNAL_BYTES / BLOCK_BYTES;
fn named(name: &str) -> NewLayer {
    NewLayer { namespace: Namespace(1), name: name.to_owned(), ..NewLayer::default() }
}

/// A pool as a process leaves it that was killed: two lineages of sealed layers that stand on each other, some
/// removed and kept by those above them, writable layers on every one of them, documents, and changes that
/// are in the journal alone.
fn pool_of_lineages() -> SimulatedDisk {
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
    let mut number = 0;
    let mut write = |layer: LayerId, block: u64, blocks: u64| {
        number += 1;
        pool.device(layer).unwrap().write(block * BLOCK_BYTES, &data(number, blocks)).unwrap();
    };
    let mut leaves = Vec::new();
    let mut sealed = Vec::new();
    for lineage in 0..2 {
        let mut below = None;
        for depth in 0..6 {
            let layer = match below {
                None => pool.create_layer(named(&format!("layer {lineage}.{depth}"))),
                Some(below) => pool.snapshot(below, named(&format!("layer {lineage}.{depth}"))),
            };
            let layer = layer.unwrap();
            for place in 0..6 {
                write(layer, [3, 255, 300, 520, 66_000, 69_000][place] + depth * 3, 4 + depth);
            }
            pool.seal(layer).unwrap();
            for leaf in 0..2 {
                let name = format!("leaf {lineage}.{depth}.{leaf}");
                let leaf = pool.snapshot(layer, named(&name)).unwrap();
                write(leaf, 10 + depth, 3);
                write(leaf, 60_000, 2);
                leaves.push(leaf);
            }
            sealed.push(layer);
            below = Some(layer);
        }
    }
    let document = pool.store_document(&[b'd'; 9000]).unwrap();
    let mut transaction = pool.begin();
    transaction.set_document(sealed[0], Some(document));
    pool.commit(transaction).unwrap();
    pool.sum_sealed().unwrap();
    // Kept by the leaf and the layer that stand on them.
    pool.remove(sealed[2]).unwrap();
    pool.remove(sealed[8]).unwrap();
    pool.wait_for_frees().unwrap();
    // Both superblocks lead to this.
    pool.checkpoint().unwrap();
    write(leaves[0], 800, 1);
    pool.checkpoint().unwrap();
    for leaf in &leaves[..8] {
        write(*leaf, 400, 3);
    }
    let copy = pool.seal_snapshot(leaves[1], named("copy")).unwrap();
    write(leaves[1], 402, 5);
    pool.remove(leaves[3]).unwrap();
    pool.device(leaves[4]).unwrap().discard(0, 2 << 20).unwrap();
    let late = pool.snapshot(copy, named("late")).unwrap();
    write(late, 7, 2);
    for _ in 0..3 {
        pool.flush().unwrap();
    }
    disk.crash_with(CrashPolicy::KeepAll)
}

/// What a layer's name is, and what its blocks hold, holes left out. `Err`: reading says that it is lost.
type Blocks = BTreeMap<u64, Result<Vec<u8>, ()>>;
type Contents = BTreeMap<LayerId, (String, Blocks)>;

fn contents(pool: &Pool) -> Contents {
    let mut contents = Contents::new();
    for info in pool.layers() {
        let device = match pool.device(info.id) {
            Ok(device) => device,
            // Removed: nobody can read it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{error}"),
        };
        let mut blocks = Blocks::new();
        let mut at = 0;
        while let Some(range) = device.next_mapped(at).unwrap() {
            for block in range.start / BLOCK_BYTES..range.end / BLOCK_BYTES {
                let mut bytes = vec![0; BLOCK_BYTES as usize];
                let read = device.read(block * BLOCK_BYTES, &mut bytes).map_err(|error| {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                });
                blocks.insert(block, read.map(|()| bytes));
            }
            at = range.end;
        }
        contents.insert(info.id, (info.name, blocks));
    }
    contents
}

struct Patient {
    disk: SimulatedDisk,
    whole: Contents,
    /// Pages, records and bitmaps that are in use.
    metadata: Vec<u64>,
}

impl Patient {
    fn new() -> Patient {
        let disk = pool_of_lineages();
        let listening = Arc::new(Listening {
            disk: disk.crash_with(CrashPolicy::KeepAll),
            read: Mutex::default(),
        });
        let pool = Pool::open(Arc::clone(&listening) as Arc<dyn Storage>, &read_only()).unwrap();
        assert!(pool.check().unwrap().is_clean());
        let mut metadata: Vec<u64> = listening.read.lock().iter().copied().collect();
        let whole = contents(&pool);
        let group_blocks = 32_768;
        let is_metadata = |block: &u64| {
            let mut mark = [0; 8];
            disk.read_at(block * BLOCK_BYTES, &mut mark).unwrap();
            let is_data = mark == DATA_MARK || mark == *b"dddddddd";
            let is_sum = (3..35).contains(&(block % group_blocks));
            !is_data && !is_sum && !RING.contains(block) && !SUPERBLOCKS.contains(block)
        };
        metadata.retain(is_metadata);
        metadata.sort_unstable();
        Patient { disk, whole, metadata }
    }

    fn copy(&self) -> Arc<SimulatedDisk> {
        Arc::new(self.disk.crash_with(CrashPolicy::KeepAll))
    }

    /// Repairs `disk`, holds what it says and gives against each other, and uses the pool.
    fn repair(&self, disk: &Arc<SimulatedDisk>, what: &str) -> (RepairReport, Contents) {
        let storage = || Arc::clone(disk) as Arc<dyn Storage>;
        let before = disk.counters();
        let repair = Repair::prepare(storage()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(disk.counters().writes, before.writes, "{what}: preparing writes");
        let report = repair.write().unwrap_or_else(|error| panic!("{what}: {error}"));
        let again = Repair::prepare(storage()).unwrap();
        assert!(again.report().findings.is_empty(), "{what}: {:?}", again.report().findings);
        let pool = Pool::open(storage(), &options()).unwrap();
        let findings = pool.check().unwrap().findings;
        assert!(findings.iter().all(Finding::is_lost), "{what}: {findings:?}");
        let found = contents(&pool);
        use_it(&pool, what);
        (report, found)
    }

    /// Nothing but the right bytes is read; gives how many blocks, and layers, are lost.
    fn lost(&self, found: &Contents, what: &str) -> (u64, u64) {
        let mut lost_blocks = 0;
        let mut lost_layers = 0;
        for (id, (name, blocks)) in &self.whole {
            let Some((found_name, found_blocks)) = found.get(id) else {
                lost_layers += 1;
                continue;
            };
            assert_eq!(found_name, name, "{what}: {id}");
            for (block, bytes) in blocks {
                match found_blocks.get(block) {
                    Some(Ok(found)) => assert!(
                        Ok(found) == bytes.as_ref(),
                        "{what}: {id} ({name}) block {block} is wrong"
                    ),
                    Some(Err(())) => lost_blocks += 1,
                    None => panic!("{what}: {id} ({name}) block {block} is a hole"),
                }
            }
            let new = found_blocks.iter().filter(|(block, _)| !blocks.contains_key(block));
            for (block, bytes) in new {
                assert!(bytes.is_err(), "{what}: {id} ({name}) block {block} is new");
            }
        }
        (lost_blocks, lost_layers)
    }
}

/// What was lost can be written over, all can be removed, and nothing is left behind then.
fn use_it(pool: &Pool, what: &str) {
    let layers = pool.layers();
    for info in &layers {
        let Ok(device) = pool.device(info.id) else { continue };
        if device.read_only() {
            continue;
        }
        let bytes = data(9_999, 1);
        for block in [3, 400, 66_000] {
            device.write(block * BLOCK_BYTES, &bytes).unwrap();
            let mut found = vec![0; BLOCK_BYTES as usize];
            device.read(block * BLOCK_BYTES, &mut found).unwrap();
            assert_eq!(found, bytes, "{what}: what was lost cannot be written");
        }
    }
    pool.flush().unwrap();
    let mut left: Vec<_> = layers.into_iter().filter(|info| !info.hidden).collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|info| {
            match pool.remove(info.id) {
                Ok(()) => false,
                // A document goes with its layer.
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) if error.kind() == ErrorKind::InUse => true,
                Err(error) => panic!("{what}: {} cannot be removed: {error}", info.id),
            }
        });
        assert!(left.len() < before, "{what}: {left:?} cannot be removed");
    }
    pool.wait_for_frees().unwrap();
    pool.checkpoint().unwrap();
    assert!(pool.layers().is_empty(), "{what}: {:?}", pool.layers());
    assert_eq!(pool.usage().data_bytes, 0, "{what}");
    assert_eq!(pool.check().unwrap().findings, [], "{what}");
}

#[test]
fn a_sound_pool_is_left_as_it_is() {
    let patient = Patient::new();
    let disk = patient.copy();
    let writes = disk.counters().writes;
    let report = Repair::prepare(Arc::clone(&disk) as Arc<dyn Storage>).unwrap().write().unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.losses, []);
    assert_eq!(disk.counters().writes, writes);
}

/// Every block of metadata in turn.
#[test]
fn any_damaged_block_of_metadata_costs_no_more_than_what_it_described() {
    let patient = Patient::new();
    let mut seen: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
    for block in &patient.metadata {
        let what = format!("block {block}");
        let disk = patient.copy();
        disk.corrupt(block * BLOCK_BYTES + 1000, &[0x5a; 600]).unwrap();
        let (report, found) = patient.repair(&disk, &what);
        let structure = report.findings.first().map_or("nothing", |finding| finding.structure);
        let (blocks, layers) = patient.lost(&found, &what);
        let counts = seen.entry(structure).or_default();
        counts[0] += 1;
        counts[1] += blocks;
        counts[2] += layers;
        counts[3] += report.made_parents;
        assert!(
            !report.losses.is_empty() || blocks + layers == 0,
            "{what}: what is lost is not said"
        );
        match structure {
            "map" => assert_eq!(layers, 0, "{what}"),
            "layer table" => assert_eq!(blocks, 0, "{what}"),
            _ => assert_eq!(report.losses, [], "{what}"),
        }
    }
    println!("structure: damaged, blocks lost, layers lost, parents made: {seen:?}");
    for structure in ["map", "layer table", "bitmap", "space map"] {
        assert!(seen.contains_key(structure), "{structure} was never damaged: {seen:?}");
    }
}

#[test]
fn damage_in_many_places_at_once_makes_nothing_wrong() {
    let patient = Patient::new();
    let mut random = Random(5);
    let mut untouched = 0;
    for number in 0..60 {
        let disk = patient.copy();
        let mut blocks = Vec::new();
        for _ in 0..2 + random.below(8) {
            let block = patient.metadata[random.below(patient.metadata.len() as u64) as usize];
            disk.corrupt(block * BLOCK_BYTES + random.below(4000), &[0x5a; 64]).unwrap();
            blocks.push(block);
        }
        let what = format!("sample {number}, blocks {blocks:?}");
        let (report, found) = patient.repair(&disk, &what);
        let (blocks, layers) = patient.lost(&found, &what);
        assert!(
            !report.losses.is_empty() || blocks + layers == 0,
            "{what}: what is lost is not said"
        );
        untouched += u64::from(blocks + layers == 0);
    }
    println!("{untouched} of 60 without a loss");
}

#[test]
fn either_superblock_leads_to_everything() {
    let patient = Patient::new();
    for home in SUPERBLOCKS {
        let disk = patient.copy();
        disk.corrupt(home * BLOCK_BYTES + 100, &[0x5a; 8]).unwrap();
        let (report, found) = patient.repair(&disk, &format!("superblock {home}"));
        assert_eq!(report.losses, []);
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        assert_eq!(found, patient.whole);
    }
}

#[test]
fn a_pool_without_superblocks_is_refused_with_its_reason() {
    let disk = Patient::new().disk;
    for home in SUPERBLOCKS {
        disk.corrupt(home * BLOCK_BYTES + 60, &[0xa5; 100]).unwrap();
    }
    let error = Repair::prepare(Arc::new(disk)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("both superblocks"), "{error}");
}

/// What is said behind the damage is lost. Whatever is there was there at some time.
#[test]
fn a_damaged_journal_gives_what_comes_before_the_damage() {
    let patient = Patient::new();
    let mut written = HashSet::from([vec![0; BLOCK_BYTES as usize]]);
    for block in 0..POOL_BYTES / BLOCK_BYTES {
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        patient.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        written.insert(bytes);
    }
    let mut damaged = 0;
    for block in RING {
        let disk = patient.copy();
        disk.corrupt(block * BLOCK_BYTES + 20, &[0x5a; 600]).unwrap();
        let what = format!("journal block {block}");
        let opens = Pool::open(patient_storage(&disk), &read_only()).is_ok();
        let (report, found) = patient.repair(&disk, &what);
        assert_eq!(report.findings.is_empty(), opens, "{what}");
        damaged += u64::from(!opens);
        assert_eq!(report.losses.is_empty(), opens, "{what}: {:?}", report.losses);
        for (id, (name, blocks)) in found {
            for (block, bytes) in blocks {
                let bytes =
                    bytes.unwrap_or_else(|()| panic!("{what}: {id} ({name}) {block}: lost"));
                assert!(written.contains(&bytes), "{what}: {id} ({name}) block {block}");
            }
        }
    }
    assert!(damaged > 2, "{damaged}");
}

fn patient_storage(disk: &Arc<SimulatedDisk>) -> Arc<dyn Storage> {
    Arc::clone(disk) as Arc<dyn Storage>
}

#[test]
fn a_repair_that_power_interrupts_can_be_made_again() {
    let patient = Patient::new();
    let mut random = Random(6);
    let mut interrupted = 0;
    for number in 0..40 {
        let damage: Vec<u64> = (0..3)
            .map(|_| patient.metadata[random.below(patient.metadata.len() as u64) as usize])
            .collect();
        let damaged = || {
            let disk = patient.copy();
            for block in &damage {
                disk.corrupt(block * BLOCK_BYTES + 1000, &[0x5a; 600]).unwrap();
            }
            disk
        };
        let whole = damaged();
        let before = whole.operations();
        let what = format!("sample {number}, blocks {damage:?}");
        let (_, expected) = {
            Repair::prepare(patient_storage(&whole)).unwrap().write().unwrap();
            let pool = Pool::open(patient_storage(&whole), &read_only()).unwrap();
            ((), contents(&pool))
        };
        let operations = whole.operations() - before;
        assert!(operations > 3, "{what}");
        for _ in 0..3 {
            let disk = damaged();
            disk.power_fails_at(disk.operations() + random.below(operations));
            let ended = Repair::prepare(patient_storage(&disk)).unwrap().write();
            assert_eq!(ended.is_err(), disk.is_off(), "{what}");
            interrupted += u64::from(disk.is_off());
            let after = Arc::new(disk.crash(random.below(u64::MAX)));
            Repair::prepare(patient_storage(&after)).unwrap().write().unwrap();
            let pool = Pool::open(patient_storage(&after), &read_only()).unwrap();
            assert_eq!(contents(&pool), expected, "{what}");
        }
    }
    assert!(interrupted > 100, "{interrupted}");
}
