//! Bits flipped anywhere. Damage to what the pool stands on is found when it is opened, checked or read,
//! and named; nothing panics; and what is read without a word is right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions, clippy::panic)]

mod damage;
mod everything;

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use damage::{DATA_MARK, Listening, Random, data, options, read_only};
use everything::{DEVICE_BLOCKS, GROUP_BLOCKS, POOL_BYTES, RING, SUMS, pool_of_everything};
use parking_lot::Mutex;
use thinstore_pool::{BLOCK_BYTES, Finding, LayerId, Pool, Repair, ScrubReport};
use thinstore_storage::{BlockDevice, CrashPolicy, ErrorKind, SimulatedDisk, Storage};

type Contents = BTreeMap<LayerId, (String, BTreeMap<u64, Vec<u8>>)>;

/// All that can be read of a pool, holes left out.
fn contents(pool: &Pool) -> thinstore_storage::Result<Contents> {
    let mut contents = Contents::new();
    for info in pool.layers() {
        let device = match pool.device(info.id) {
            Ok(device) => device,
            // Removed: nobody can read it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut blocks = BTreeMap::new();
        let mut at = 0;
        while let Some(range) = device.next_mapped(at)? {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            device.read(range.start, &mut bytes)?;
            for (index, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
                blocks.insert(range.start / BLOCK_BYTES + index as u64, block.to_vec());
            }
            at = range.end;
        }
        contents.insert(info.id, (info.name, blocks));
    }
    Ok(contents)
}

/// What came of looking at a damaged pool.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Opening says so.
    Opening(String),
    /// Checking says so, as one of so many findings.
    Checking(String),
    /// Only reading says so.
    Reading(String),
    /// Nothing says so: this is what is read.
    Nothing(Contents),
}

fn look(disk: Arc<dyn Storage>) -> Seen {
    let pool = match Pool::open(disk, &read_only()) {
        Ok(pool) => pool,
        Err(error) => {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible), "{error}");
            return Seen::Opening(error.to_string());
        }
    };
    let report = pool.check().unwrap();
    if let Some(finding) = report.findings.first() {
        return Seen::Checking(format!("{finding:?}"));
    }
    match contents(&pool) {
        Ok(contents) => Seen::Nothing(contents),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            Seen::Reading(error.to_string())
        }
    }
}

/// Opens a pool to read, and scrubs it.
fn scrub(disk: Arc<dyn Storage>) -> thinstore_storage::Result<(Pool, ScrubReport)> {
    let pool = Pool::open(disk, &read_only())?;
    let report = pool.scrub(&[], &mut |_| ControlFlow::Continue(()));
    assert!(report.complete);
    Ok((pool, report))
}

struct Search {
    disk: SimulatedDisk,
    whole: Contents,
    /// Blocks that are read when all of the pool is looked at.
    live: Vec<u64>,
    data: HashSet<u64>,
    /// Data that has checksums.
    summed: Vec<u64>,
}

impl Search {
    fn new() -> Search {
        Search::of(pool_of_everything())
    }

    /// A pool without a journal to replay: every map stands in its pages.
    fn settled() -> Search {
        let disk = Arc::new(pool_of_everything());
        let storage = Arc::clone(&disk) as Arc<dyn Storage>;
        Pool::open(storage, &options()).unwrap().close().unwrap();
        Search::of(disk.crash_with(CrashPolicy::KeepAll))
    }

    fn of(disk: SimulatedDisk) -> Search {
        let copy = || disk.crash_with(CrashPolicy::KeepAll);
        let listening = Arc::new(Listening { disk: copy(), read: Mutex::default() });
        let Seen::Nothing(whole) = look(Arc::clone(&listening) as Arc<dyn Storage>) else {
            panic!("a whole pool is found damaged");
        };
        let mut live: Vec<u64> = listening.read.lock().iter().copied().collect();
        live.sort_unstable();
        let is_data = |block: &u64| {
            let mut mark = [0; 8];
            disk.read_at(block * BLOCK_BYTES, &mut mark).unwrap();
            mark == DATA_MARK || mark == *b"dddddddd"
        };
        let data: HashSet<u64> = live.iter().copied().filter(is_data).collect();
        let listening = Arc::new(Listening { disk: copy(), read: Mutex::default() });
        let (_, report) = scrub(Arc::clone(&listening) as Arc<dyn Storage>).unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
        let mut summed: Vec<u64> = listening.read.lock().intersection(&data).copied().collect();
        summed.sort_unstable();
        assert_eq!(summed.len() as u64, report.data_bytes / BLOCK_BYTES);
        Search { disk, whole, live, data, summed }
    }

    /// Live blocks but for data, its checksums and the journal.
    fn metadata(&self) -> Vec<u64> {
        let is_metadata = |block: &u64| {
            let is_sums = SUMS.contains(&(block % GROUP_BLOCKS));
            !self.data.contains(block) && !RING.contains(block) && !is_sums
        };
        self.live.iter().copied().filter(is_metadata).collect()
    }

    /// The pool with bits of one byte flipped.
    fn flipped(&self, at: u64, bits: u8) -> Arc<SimulatedDisk> {
        let copy = self.disk.crash_with(CrashPolicy::KeepAll);
        let mut byte = [0];
        copy.read_at(at, &mut byte).unwrap();
        copy.corrupt(at, &[byte[0] ^ bits]).unwrap();
        Arc::new(copy)
    }

    /// Flips bits of one byte and looks. Gives whether it was found.
    fn flip(&self, at: u64, bits: u8) -> bool {
        let copy = self.flipped(at, bits);
        let seen = catch_unwind(AssertUnwindSafe(|| look(copy)))
            .unwrap_or_else(|_| panic!("byte {at} of the pool, bits {bits:#x}: a panic"));
        let block = at / BLOCK_BYTES;
        let Seen::Nothing(found) = seen else { return true };
        let is_data = self.data.contains(&block);
        // Data of layers that are written has no checksum but that of an unsettled batch.
        let right = is_data || found == self.whole;
        assert!(right, "byte {at} (block {block}), bits {bits:#x}: read without a word, and wrong");
        false
    }
}

/// How many samples: a multiple by `THINSTORE_CORRUPTION_TIMES`.
fn samples(count: u64) -> u64 {
    let times =
        std::env::var("THINSTORE_CORRUPTION_TIMES").map_or(1, |times| times.parse().unwrap());
    count * times
}

fn flip_at_random(seed: u64, count: u64) {
    let search = Search::new();
    let mut random = Random(seed);
    let metadata = search.metadata();
    for _ in 0..samples(count) {
        let block = metadata[random.below(metadata.len() as u64) as usize];
        let at = block * BLOCK_BYTES + random.below(BLOCK_BYTES);
        let found = search.flip(at, 1 << random.below(8));
        assert!(found, "byte {} of block {block}: damage is not found", at % BLOCK_BYTES);
    }
}

#[test]
fn every_flipped_bit_of_live_metadata_is_found() {
    flip_at_random(1, 25_000);
}

#[test]
fn every_flipped_bit_of_live_metadata_is_found_with_other_places() {
    flip_at_random(2, 25_000);
}

#[test]
fn every_byte_of_either_superblock_is_watched() {
    let search = Search::new();
    for home in [0, 35] {
        for byte in 0..BLOCK_BYTES {
            let at = home * BLOCK_BYTES + byte;
            assert!(search.flip(at, 1 << (byte % 8)), "byte {byte} of the superblock at {home}");
        }
    }
}

#[test]
fn flipped_bits_of_the_journal_are_found_or_change_nothing() {
    let search = Search::new();
    let mut random = Random(3);
    let is_written = |block: &u64| {
        let mut bytes = [0; 512];
        search.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        bytes != [0; 512]
    };
    let written: Vec<u64> = RING.filter(is_written).collect();
    let mut found = 0;
    for _ in 0..samples(6000) {
        let block = written[random.below(written.len() as u64) as usize];
        let at = block * BLOCK_BYTES + random.below(BLOCK_BYTES);
        found += u64::from(search.flip(at, 1 << random.below(8)));
    }
    assert!(found > 100, "{found}");
}

/// Where the checksum of a block's data has its place.
fn entry_of(block: u64) -> u64 {
    let (group, index) = (block / GROUP_BLOCKS, block % GROUP_BLOCKS);
    (group * GROUP_BLOCKS + SUMS.start) * BLOCK_BYTES + index * 4
}

#[test]
fn every_flipped_bit_of_summed_data_and_of_its_checksums_is_found_by_a_scrub() {
    let search = Search::new();
    let mut random = Random(6);
    for sample in 0..samples(2000) {
        let block = search.summed[random.below(search.summed.len() as u64) as usize];
        let at = match sample % 2 {
            0 => block * BLOCK_BYTES + random.below(BLOCK_BYTES),
            _ => entry_of(block) + random.below(4),
        };
        let (pool, report) = scrub(search.flipped(at, 1 << random.below(8))).unwrap();
        let [finding] = &report.findings[..] else { panic!("byte {at}: {:#?}", report.findings) };
        assert_eq!((finding.structure, finding.pool_block), ("data", block), "byte {at}");
        // And by whoever reads it, and by nobody else.
        let (layer, blocks) = (finding.layer.unwrap(), finding.blocks.clone().unwrap());
        let affected = &finding.affected;
        assert!(affected.contains(&layer), "{finding:?}");
        for info in pool.layers() {
            if blocks.end * BLOCK_BYTES > info.size_bytes {
                assert!(!affected.contains(&info.id), "{info:?}, {finding:?}");
                continue;
            }
            let Ok(device) = pool.device(info.id) else { continue };
            let mut bytes = vec![0; BLOCK_BYTES as usize];
            let seen = device.read(blocks.start * BLOCK_BYTES, &mut bytes);
            let is_owner_of_document = info.has_document && seen.is_ok();
            if !is_owner_of_document {
                assert_eq!(seen.is_err(), affected.contains(&info.id), "{info:?}, {finding:?}");
            }
        }
    }
}

#[test]
fn flipped_bits_of_checksums_that_do_not_count_change_nothing() {
    let search = Search::new();
    let mut random = Random(7);
    let entries: HashSet<u64> = search.summed.iter().map(|block| entry_of(*block) / 4).collect();
    for _ in 0..samples(500) {
        let at = (SUMS.start + random.below(SUMS.end - SUMS.start)) * BLOCK_BYTES
            + random.below(BLOCK_BYTES);
        if !entries.contains(&(at / 4)) {
            let (pool, report) = scrub(search.flipped(at, 1 << random.below(8))).unwrap();
            assert!(report.is_clean(), "byte {at}: {:#?}", report.findings);
            assert_eq!(contents(&pool).unwrap(), search.whole);
        }
    }
}

#[test]
fn every_flipped_bit_of_live_metadata_is_found_by_opening_or_by_a_scrub() {
    let search = Search::new();
    let mut random = Random(8);
    let metadata = search.metadata();
    let mut found_by_scrub = 0;
    for _ in 0..samples(2000) {
        let block = metadata[random.below(metadata.len() as u64) as usize];
        let at = block * BLOCK_BYTES + random.below(BLOCK_BYTES);
        let Ok((_, report)) = scrub(search.flipped(at, 1 << random.below(8))) else { continue };
        let [finding] = &report.findings[..] else { panic!("byte {at}: {:#?}", report.findings) };
        assert_eq!(finding.pool_block, block, "byte {at}");
        found_by_scrub += 1;
    }
    assert!(found_by_scrub > 250, "{found_by_scrub}");
}

#[test]
fn flipped_bits_of_data_make_no_panic() {
    let search = Search::new();
    let mut random = Random(4);
    let data: Vec<u64> = search.data.iter().copied().collect();
    for _ in 0..samples(500) {
        let block = data[random.below(data.len() as u64) as usize];
        search.flip(block * BLOCK_BYTES + random.below(BLOCK_BYTES), 1 << random.below(8));
    }
}

/// Puts a changed block into a pool, and brings the checksums up to it in order: in every live page that
/// points to it, and on to the superblocks. So what is wrong lies behind checksums that are right.
fn plant_behind_checksums(search: &Search, disk: &SimulatedDisk, block: u64, changed: &[u8]) {
    let page = |block: u64| {
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        bytes
    };
    let mut waiting = vec![(block, changed.to_vec())];
    // A circle would go on for ever.
    for _ in 0..200 {
        let Some((block, bytes)) = waiting.pop() else { return };
        let (before, after) = (crc32fast::hash(&page(block)), crc32fast::hash(&bytes));
        disk.corrupt(block * BLOCK_BYTES, &bytes).unwrap();
        for parent in search.live.iter().filter(|live| !search.data.contains(live)) {
            let mut content = page(*parent);
            let mut points = false;
            for at in (0..BLOCK_BYTES as usize - 8).step_by(8) {
                let (number, rest) = content[at..].split_at_mut(8);
                let is_pointer = number[..6] == block.to_le_bytes()[..6]
                    && rest.get(4..8) == Some(&before.to_le_bytes());
                if is_pointer {
                    rest[4..8].copy_from_slice(&after.to_le_bytes());
                    points = true;
                }
            }
            let superblock = [0, 35].contains(parent);
            if points && superblock {
                let crc = crc32fast::hash(&content[..508]);
                content[508..512].copy_from_slice(&crc.to_le_bytes());
                disk.corrupt(parent * BLOCK_BYTES, &content).unwrap();
            } else if points && !waiting.iter().any(|(other, _)| other == parent) {
                waiting.push((*parent, content));
            }
        }
    }
}

#[test]
fn nonsense_behind_right_checksums_makes_no_panic_and_no_hang() {
    let search = Search::new();
    let mut random = Random(5);
    let metadata = search.metadata();
    let mut found = 0;
    let count = samples(1500);
    let mut repaired = 0;
    for sample in 0..count {
        let block = metadata[random.below(metadata.len() as u64) as usize];
        let disk = search.disk.crash_with(CrashPolicy::KeepAll);
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        // Where something is, or anywhere: another field's value, an extreme, a bit.
        let words = BLOCK_BYTES / 8;
        let written: Vec<u64> =
            (0..words).filter(|word| bytes[*word as usize * 8..][..8] != [0; 8]).collect();
        for _ in 0..=random.below(3) {
            let word = match written.is_empty() || random.below(4) == 0 {
                true => random.below(words),
                false => written[random.below(written.len() as u64) as usize],
            } as usize;
            let other = metadata[random.below(metadata.len() as u64) as usize];
            let value = match random.below(6) {
                0 => u64::MAX,
                1 => random.below(POOL_BYTES / BLOCK_BYTES) | 2 << 48,
                2 => other | 2 << 48,
                3 => block | 2 << 48,
                4 => random.below(1 << 20),
                _ => {
                    u64::from_le_bytes(bytes[word * 8..][..8].try_into().unwrap())
                        ^ 1 << random.below(64)
                }
            };
            bytes[word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        if [0, 35].contains(&block) {
            let crc = crc32fast::hash(&bytes[..508]);
            bytes[508..512].copy_from_slice(&crc.to_le_bytes());
        }
        plant_behind_checksums(&search, &disk, block, &bytes);
        let scrubbed = disk.crash_with(CrashPolicy::KeepAll);
        catch_unwind(AssertUnwindSafe(|| drop(scrub(Arc::new(scrubbed)))))
            .unwrap_or_else(|_| panic!("block {block}: a panic in a scrub"));
        if sample % 5 == 0 {
            let damaged = Arc::new(disk.crash_with(CrashPolicy::KeepAll));
            repaired += u64::from(
                catch_unwind(AssertUnwindSafe(|| is_repaired(damaged)))
                    .unwrap_or_else(|_| panic!("block {block}: a panic in a repair")),
            );
        }
        let seen = catch_unwind(AssertUnwindSafe(|| look(Arc::new(disk))))
            .unwrap_or_else(|_| panic!("block {block}: a panic"));
        found += u64::from(!matches!(seen, Seen::Nothing(_)));
    }
    assert!(found * 2 > count, "{found} of {count}");
    assert!(repaired * 10 > count, "{repaired} of {}", count / 5);
}

/// What a repair wrote is sound, but for what it says is lost. Nonsense behind checksums that are right can
/// be beyond repair: then nothing is written.
fn is_repaired(disk: Arc<SimulatedDisk>) -> bool {
    let storage = || Arc::clone(&disk) as Arc<dyn Storage>;
    let before = disk.counters().writes;
    let Ok(repair) = Repair::prepare(storage()) else { return false };
    if repair.write().is_err() {
        assert_eq!(disk.counters().writes, before, "what cannot be repaired was written");
        return false;
    }
    let findings = Pool::open(storage(), &read_only()).unwrap().check().unwrap().findings;
    assert!(findings.iter().all(Finding::is_lost), "{findings:#?}");
    true
}

/// A pointer: which block, of which kind, and the word with birth and CRC.
type Pointer = (u64, u64, u64);

const DATA: u64 = 1;
const PAGE: u64 = 2;
const RECORDS: u64 = 3;

impl Search {
    fn page(&self, block: u64) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        self.disk.read_at(block * BLOCK_BYTES, &mut bytes).unwrap();
        bytes
    }

    fn pointer(bytes: &[u8], slot: usize) -> Pointer {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (address, check) = (word(slot * 16), word(slot * 16 + 8));
        (address & ((1 << 48) - 1), address >> 48, check)
    }

    /// The pointers of a kind that stand in a block, if it is a page of such.
    fn pointers(&self, block: u64, kind: u64) -> Vec<(usize, Pointer)> {
        let bytes = self.page(block);
        let found: Vec<_> = (0..256).map(|slot| (slot, Self::pointer(&bytes, slot))).collect();
        let is_page = found.iter().all(|(_, pointer)| *pointer == (0, 0, 0) || pointer.1 == kind);
        match is_page && ![0, 35].contains(&block) {
            true => found.into_iter().filter(|(_, pointer)| pointer.1 == kind).collect(),
            false => Vec::new(),
        }
    }

    /// The pool with other pointers in one page.
    fn with_pointers(&self, block: u64, pointers: &[(usize, Pointer)]) -> SimulatedDisk {
        let disk = self.disk.crash_with(CrashPolicy::KeepAll);
        let mut bytes = self.page(block);
        for (slot, (target, kind, check)) in pointers {
            bytes[slot * 16..][..8].copy_from_slice(&(target | kind << 48).to_le_bytes());
            bytes[slot * 16 + 8..][..8].copy_from_slice(&check.to_le_bytes());
        }
        plant_behind_checksums(self, &disk, block, &bytes);
        disk
    }

    /// Pages of maps that hold pointers to leaves.
    fn middles(&self) -> Vec<u64> {
        let is_leaf = |block| !self.pointers(block, DATA).is_empty();
        let is_middle =
            |block: &u64| self.pointers(*block, PAGE).iter().any(|(_, below)| is_leaf(below.0));
        self.metadata().into_iter().filter(is_middle).collect()
    }

    /// Pages of maps that hold pointers to data.
    fn leaves(&self) -> Vec<u64> {
        let metadata = self.metadata().into_iter();
        metadata.filter(|block| !self.pointers(*block, DATA).is_empty()).collect()
    }
}

#[test]
fn a_wrong_checksum_for_a_page_of_an_ancestor_is_found_by_checking() {
    let search = Search::settled();
    let mut tried = 0;
    for page in search.metadata() {
        for (slot, (target, kind, check)) in search.pointers(page, PAGE) {
            let wrong = check ^ 1 << 40;
            let disk = search.with_pointers(page, &[(slot, (target, kind, wrong))]);
            let seen = look(Arc::new(disk));
            let found = matches!(seen, Seen::Opening(_) | Seen::Checking(_));
            assert!(found, "pointer {slot} of the page at block {page} is not looked at");
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn a_birth_before_the_first_epoch_is_found_by_checking() {
    let search = Search::settled();
    let mut tried = 0;
    for page in search.metadata() {
        for kind in [DATA, PAGE] {
            let Some((slot, (target, _, check))) = search.pointers(page, kind).pop() else {
                continue;
            };
            let unborn = check & !0xffff_ffff;
            let disk = search.with_pointers(page, &[(slot, (target, kind, unborn))]);
            let seen = look(Arc::new(disk));
            let found = matches!(seen, Seen::Opening(_) | Seen::Checking(_));
            assert!(
                found,
                "pointer {slot} of the page at block {page}: its birth is not looked at"
            );
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn what_a_damaged_map_leads_to_is_neither_read_nor_overwritten_where_no_data_can_be() {
    let search = Search::settled();
    let mut refused = [0, 0];
    for target in [0, 35, 36, 99, POOL_BYTES / BLOCK_BYTES, (1 << 48) - 1] {
        for leaf in search.leaves() {
            // The youngest: its layer's own, if any is.
            let pointers = search.pointers(leaf, DATA);
            let (slot, (_, kind, check)) =
                *pointers.iter().max_by_key(|(_, pointer)| pointer.2 as u32).unwrap();
            let disk = Arc::new(search.with_pointers(leaf, &[(slot, (target, kind, check))]));
            if let Ok(pool) = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &read_only()) {
                assert!(!pool.check().unwrap().is_clean(), "{target}");
                refused[0] += u64::from(contents(&pool).is_err());
            }
            let Ok(pool) = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()) else {
                continue;
            };
            let written = |pool: &Pool| {
                for info in pool.layers().iter().filter(|info| !info.sealed && !info.hidden) {
                    let device = pool.device(info.id)?;
                    device.write(0, &data(9000, 500))?;
                }
                Ok::<_, thinstore_storage::Error>(())
            };
            let mut before = [vec![0; 4096], vec![0; 4096]];
            let mut after = before.clone();
            let head = |into: &mut [Vec<u8>; 2]| {
                disk.read_at(0, &mut into[0]).unwrap();
                disk.read_at(35 * BLOCK_BYTES, &mut into[1]).unwrap();
            };
            head(&mut before);
            refused[1] += u64::from(written(&pool).is_err());
            head(&mut after);
            assert!(before == after, "{target}: data in a superblock");
        }
    }
    assert!(refused[0] > 20 && refused[1] > 20, "{refused:?}");
}

#[test]
fn a_map_that_leads_to_the_same_pages_again_and_again_is_walked_once() {
    let search = Search::settled();
    let mut found = 0;
    let mut endless = 0;
    // 256 times 256 leaves are more than the pool has blocks.
    for middle in search.middles() {
        let (_, below) = search.pointers(middle, PAGE)[0];
        let disk =
            search.with_pointers(middle, &(0..256).map(|slot| (slot, below)).collect::<Vec<_>>());
        // The same with the page that leads to it, on that pool.
        let search = Search {
            disk,
            whole: Contents::new(),
            live: search.live.clone(),
            data: search.data.clone(),
            summed: Vec::new(),
        };
        for top in search.metadata() {
            let pointers = search.pointers(top, PAGE);
            let Some((_, above)) = pointers.iter().find(|(_, pointer)| pointer.0 == middle) else {
                continue;
            };
            let everywhere: Vec<_> = (0..256).map(|slot| (slot, *above)).collect();
            let disk = search.with_pointers(top, &everywhere);
            let Ok((pool, scrubbed)) = scrub(Arc::new(disk)) else { continue };
            endless += scrubbed
                .findings
                .iter()
                .filter(|finding| finding.message().ends_with("more than the pool has"))
                .count();
            let report = pool.check().unwrap();
            assert!(!report.is_clean());
            assert!(report.map_pages < POOL_BYTES / BLOCK_BYTES, "{} pages", report.map_pages);
            for info in pool.layers() {
                for walked in [pool.mapped_bytes(info.id), pool.unique_bytes(info.id)] {
                    let Err(error) = walked else { continue };
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    found += 1;
                }
            }
        }
    }
    assert!(found > 0 && endless > 0, "{found}, {endless}");
}

#[test]
fn what_is_wrong_with_a_table_that_leads_to_the_same_pages_again_and_again_is_counted_not_listed() {
    let search = Search::settled();
    let mut tried = 0;
    for page in search.metadata() {
        let Some((_, records)) = search.pointers(page, RECORDS).first().copied() else { continue };
        let everywhere: Vec<_> = (0..256).map(|slot| (slot, records)).collect();
        let disk: Arc<dyn Storage> = Arc::new(search.with_pointers(page, &everywhere));
        let repair = Repair::prepare(disk).unwrap();
        let found = repair.report().findings.len();
        assert!((1..1100).contains(&found), "{found}");
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn what_a_damaged_map_has_past_the_end_of_its_device_is_not_listed_as_mapped() {
    let search = Search::settled();
    let mut listed = 0;
    for middle in search.middles() {
        // Everywhere below it is what is at one place.
        let (_, pointer) = search.pointers(middle, PAGE)[0];
        let everywhere: Vec<_> = (0..256).map(|slot| (slot, pointer)).collect();
        let disk = search.with_pointers(middle, &everywhere);
        let Ok(pool) = Pool::open(Arc::new(disk), &read_only()) else { continue };
        for info in pool.layers() {
            let Ok(device) = pool.device(info.id) else { continue };
            let mut at = 0;
            while let Ok(Some(range)) = device.next_mapped(at) {
                assert!(range.end <= DEVICE_BLOCKS * BLOCK_BYTES, "{range:?}");
                listed += u64::from(range.end > 69_500 * BLOCK_BYTES);
                at = range.end;
            }
        }
    }
    assert!(listed > 0);
}

#[test]
fn counts_that_cannot_be_are_shown_without_a_panic() {
    let search = Search::settled();
    // Data blocks and pages of the first record in a page of layer records (docs/format.md).
    let is_record = |block: &u64| {
        let bytes = search.page(*block);
        bytes[258..].windows(4).any(|name| name == b"base") || bytes[256..260] == *b"base"
    };
    let records: Vec<u64> = search.metadata().into_iter().filter(is_record).collect();
    assert!(!records.is_empty());
    for block in records {
        let disk = search.disk.crash_with(CrashPolicy::KeepAll);
        let mut bytes = search.page(block);
        for record in bytes.chunks_mut(512).filter(|record| record[..4] != [0; 4]) {
            record[56..64].copy_from_slice(&(i64::MAX as u64).to_le_bytes());
            record[64..72].copy_from_slice(&(i64::MAX as u64).to_le_bytes());
        }
        plant_behind_checksums(&search, &disk, block, &bytes);
        let Ok((pool, _)) = scrub(Arc::new(disk)) else { continue };
        assert!(!pool.check().unwrap().is_clean());
        assert!(pool.layers().iter().any(|info| info.own_data_bytes == u64::MAX));
        pool.usage();
        assert!(pool.scrub(&[], &mut |_| ControlFlow::Continue(())).complete);
    }
}
