//! Reading a damaged pool: everything that can still be believed from one superblock on, and what cannot.
//!
//! Unlike opening, nothing here ends at the first damage. A page that cannot be read hides what is below
//! it, and only that.

use std::collections::{HashMap, HashSet};

use thinstore_storage::Storage;

use crate::check::{Finding, MOST_FINDINGS};
use crate::convert::{to_u64, to_usize};
use crate::format::geometry::{Geometry, GroupIndex, TABLE_HEIGHT};
use crate::format::layer::{LAYER_RECORD_BYTES, LAYER_RECORDS_PER_PAGE, LayerRecord};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::format::superblock::Superblock;
use crate::map::page::{Page, span};
use crate::types::{BLOCK_LENGTH, LayerId, LogicalBlock, PoolBlock};

/// A part of a layer's map that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LostSubtree {
    pub(super) layer: LayerId,
    pub(super) level: u8,
    pub(super) start: LogicalBlock,
    /// It was an ancestor's: what the origin has there is what the layer had.
    pub(super) is_inherited: bool,
}

/// What one superblock still leads to.
pub(super) struct Survey {
    pub(super) records: Vec<LayerRecord>,
    pub(super) findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub(super) more_findings: u64,
    /// Slots of the layer table that nobody can say anything about.
    pub(super) lost_slots: u64,
    pub(super) lost_subtrees: Vec<LostSubtree>,
    /// Where each group's bitmap was saved, as far as that is known.
    pub(super) saved_bitmaps: Vec<BlockPtr>,
    reachable: Vec<u64>,
}

impl Survey {
    /// Follows every pointer of `superblock`.
    pub(super) fn of(storage: &dyn Storage, superblock: &Superblock) -> Survey {
        let geometry = superblock.geometry;
        let mut walk = Walk {
            storage,
            geometry,
            damaged_pages: HashMap::new(),
            seen: HashSet::new(),
            survey: Survey {
                records: Vec::new(),
                findings: Vec::new(),
                more_findings: 0,
                lost_slots: 0,
                lost_subtrees: Vec::new(),
                saved_bitmaps: vec![BlockPtr::NULL; to_usize(geometry.group_count())],
                reachable: vec![0; to_usize(geometry.pool_blocks.div_ceil(64))],
            },
        };
        walk.space_map(superblock.space_map, TABLE_HEIGHT, 0);
        walk.seen.clear();
        walk.layer_table(superblock.layer_table, TABLE_HEIGHT, 0);
        for record in walk.survey.records.clone() {
            walk.seen.clear();
            walk.map(&record, record.root, record.height, 0);
        }
        walk.survey.origins();
        walk.survey
    }

    /// Does the map of any layer lead to this block?
    pub(super) fn is_reachable(&self, block: PoolBlock) -> bool {
        let word = self.reachable.get(to_usize(block.get() / 64)).copied().unwrap_or(0);
        word >> (block.get() % 64) & 1 != 0
    }

    /// Blocks of devices that cannot be reached.
    pub(super) fn lost_blocks(&self) -> u64 {
        self.lost_subtrees.iter().map(|lost| span(lost.level)).sum()
    }

    fn reach(&mut self, block: PoolBlock) {
        if let Some(word) = self.reachable.get_mut(to_usize(block.get() / 64)) {
            *word |= 1 << (block.get() % 64);
        }
    }

    fn add(&mut self, structure: &'static str, layer: Option<LayerId>, message: String) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding::new(structure, layer, message));
        } else {
            self.more_findings += 1;
        }
    }

    fn origins(&mut self) {
        let seals: HashMap<LayerId, _> =
            self.records.iter().map(|record| (record.id, record.seal_epoch)).collect();
        let orphans: Vec<(LayerId, LayerId)> = self
            .records
            .iter()
            .filter_map(|record| {
                let origin = record.origin?;
                (seals.get(&origin) != Some(&record.base_epoch)).then_some((record.id, origin))
            })
            .collect();
        for (id, origin) in orphans {
            self.add("layer table", Some(id), format!("it stands on {origin}, which is not there"));
        }
    }
}

/// Can this be the record of a layer?
fn is_possible(record: &LayerRecord, geometry: Geometry) -> bool {
    let root = record.root;
    (1..=5).contains(&record.height)
        && record.size_blocks <= span(record.height)
        && (root.is_null() || root.is_lost() || geometry.is_allocatable(root.block()))
        && !(record.flags.sealed && record.seal_epoch <= record.base_epoch)
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    /// Pages that were visited: is anything lost at or below them?
    damaged_pages: HashMap<PoolBlock, bool>,
    /// Pages of the tree that is walked over. None stands in it twice, or a walk would go through the same pages
    /// again and again, and never end.
    seen: HashSet<PoolBlock>,
    survey: Survey,
}

impl Walk<'_> {
    /// What a pointer leads to, or why that cannot be believed.
    fn read(
        &self,
        pointer: BlockPtr,
        kind: PointerKind,
    ) -> Result<Box<[u8; BLOCK_LENGTH]>, String> {
        let block = pointer.block();
        let has_home = match kind {
            PointerKind::Bitmap => GroupIndex::of(block).bitmap_homes().contains(&block),
            _ => self.geometry.is_allocatable(block),
        };
        if pointer.kind() != Some(kind) || !has_home || block.get() >= self.geometry.pool_blocks {
            return Err(format!("a pointer to {block} that cannot be"));
        }
        let mut bytes = Box::new([0; BLOCK_LENGTH]);
        self.storage
            .read_at(block.offset_bytes(), &mut bytes[..])
            .map_err(|error| format!("{block} cannot be read ({error})"))?;
        let crc = crc32fast::hash(&bytes[..]);
        if crc != pointer.crc() {
            let expected = pointer.crc();
            return Err(format!(
                "the page at {block} has checksum {crc:08x}, its parent says {expected:08x}"
            ));
        }
        Ok(bytes)
    }

    fn page(&self, pointer: BlockPtr, kind: PointerKind) -> Result<Page, String> {
        let bytes = self.read(pointer, kind)?;
        Ok(Page::from_disk(pointer.block(), pointer.crc(), &bytes[..]))
    }

    /// A page of the tree that is walked over.
    fn tree_page(&mut self, pointer: BlockPtr) -> Result<Page, String> {
        let page = self.page(pointer, PointerKind::Page)?;
        if !self.seen.insert(pointer.block()) {
            return Err(format!("the page at {} stands in it twice", pointer.block()));
        }
        Ok(page)
    }

    /// Depth is that of the table, 3.
    fn space_map(&mut self, pointer: BlockPtr, level: u8, start: u64) {
        if pointer.is_null() {
            return;
        }
        if level == 0 {
            if let Err(why) = self.read(pointer, PointerKind::Bitmap) {
                self.survey.add("bitmap", None, format!("group {start}: {why}"));
            } else if let Some(place) = self.survey.saved_bitmaps.get_mut(to_usize(start)) {
                *place = pointer;
            }
            return;
        }
        match self.tree_page(pointer) {
            Ok(page) => {
                for (index, below) in page.pointers().enumerate() {
                    self.space_map(below, level - 1, start + to_u64(index) * span(level - 1));
                }
            }
            Err(why) => {
                let message = format!("groups from {start} on, level {level}: {why}");
                self.survey.add("space map", None, message);
            }
        }
    }

    /// Depth is that of the table, 3.
    fn layer_table(&mut self, pointer: BlockPtr, level: u8, start: u64) {
        if pointer.is_null() {
            return;
        }
        let slots = span(level) * LAYER_RECORDS_PER_PAGE;
        let first = start * LAYER_RECORDS_PER_PAGE;
        let lost = |why: String| {
            format!("the records of layers {first} to {}, level {level}: {why}", first + slots - 1)
        };
        if level > 0 {
            match self.tree_page(pointer) {
                Ok(page) => {
                    for (index, below) in page.pointers().enumerate() {
                        self.layer_table(below, level - 1, start + to_u64(index) * span(level - 1));
                    }
                }
                Err(why) => {
                    self.survey.lost_slots += slots;
                    self.survey.add("layer table", None, lost(why));
                }
            }
            return;
        }
        let bytes = match self.read(pointer, PointerKind::Records) {
            Ok(bytes) => bytes,
            Err(why) => {
                self.survey.lost_slots += slots;
                self.survey.add("layer table", None, lost(why));
                return;
            }
        };
        for (slot, bytes) in (first..).zip(bytes.chunks_exact(LAYER_RECORD_BYTES)) {
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let record = LayerRecord::decode(bytes).filter(|record| {
                u64::from(record.id.get()) == slot && is_possible(record, self.geometry)
            });
            match record {
                Some(record) => self.survey.records.push(record),
                None => {
                    self.survey.lost_slots += 1;
                    let message = format!("the record of layer {slot} cannot be");
                    self.survey.add("layer table", None, message);
                }
            }
        }
    }

    /// Visits a subtree of a layer's map; true if anything in it is lost. Depth is at most 5.
    fn map(&mut self, record: &LayerRecord, pointer: BlockPtr, level: u8, start: u64) -> bool {
        let end = start + span(level);
        // What lies before the cursor of a removed layer was freed, or has gone over to its child.
        if pointer.is_null() || pointer.is_lost() || end <= record.cursor.get() {
            return false;
        }
        let block = pointer.block();
        let page = if level == 0 {
            if pointer.kind() == Some(PointerKind::Data) && self.geometry.is_allocatable(block) {
                self.survey.reach(block);
                return false;
            }
            Err(format!("a pointer to {block} that cannot be"))
        } else {
            if self.damaged_pages.get(&block) == Some(&false) {
                return false;
            }
            self.tree_page(pointer)
        };
        let page = match page {
            Ok(page) => page,
            Err(why) => {
                let last = end.min(record.size_blocks.max(start + 1)) - 1;
                let message = format!("blocks {start} to {last}, level {level}: {why}");
                self.survey.add("map", Some(record.id), message);
                let start = LogicalBlock::new(start);
                let is_inherited = pointer.birth() <= record.base_epoch;
                let lost = LostSubtree { layer: record.id, level, start, is_inherited };
                self.survey.lost_subtrees.push(lost);
                return true;
            }
        };
        self.survey.reach(block);
        let mut is_damaged = false;
        for (index, below) in page.pointers().enumerate() {
            let inside = start + to_u64(index) * span(level - 1);
            is_damaged |= self.map(record, below, level - 1, inside);
        }
        // A removed layer's cursor hides a part from it that others see.
        if record.cursor.get() == 0 {
            self.damaged_pages.insert(block, is_damaged);
        }
        is_damaged
    }
}
