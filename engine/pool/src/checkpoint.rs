//! Checkpoints: the maps as they are at one batch, written out, so that replay can start there.
//!
//! Order, and why:
//!  0. The pages that the tables will want have the host's space, or the checkpoint is not begun.
//!  1. *Cut.* With all change shut out, in memory only: the pending records become the last batch that
//!     the checkpoint contains, every page that changed gets its CRC, leaves first, and the interval ends:
//!     later changes go to copies. Nothing is written under the cut.
//!  2. The batch, the pages and the bitmaps are written, to blocks that no durable superblock reaches and
//!     to the homes that the newest superblock does not use. A crash up to here finds the old superblock,
//!     its pages and its journal whole.
//!  3. *Flush.* Everything that the new superblock leads to, data included, is durable.
//!  4. The superblock is written over the older of the two, and flushed. A torn one has a bad CRC, and the
//!     other is still valid.
//!  5. Blocks of pages that only the superblock just overwritten reached are free now. Those that the
//!     superblock before this one reaches wait one checkpoint longer: the ring keeps what that one needs,
//!     so a damaged newest superblock loses nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use thinstore_storage::{Error, Result};

use crate::convert::to_usize;
use crate::core::Core;
use crate::format::geometry::{GroupIndex, SUPERBLOCK_HOMES};
use crate::format::layer::{LAYER_RECORD_BYTES, LAYER_RECORDS_PER_PAGE};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::format::superblock::{JournalPosition, Superblock};
use crate::map::ownership::Ownership;
use crate::map::page::Page;
use crate::map::tree::{Change, Tree};
use crate::planted::{Fault, planted};
use crate::space::{BitmapImage, Extent};
use crate::sync::atomic::Ordering;
use crate::types::{BLOCK_LENGTH, Epoch, LayerId, LogicalBlock, PoolBlock};

/// Pages are written together up to this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// What checkpoints keep from one to the next.
pub(crate) struct CheckpointState {
    pub(crate) newest: Superblock,
    /// Which of the two homes the newest superblock has.
    pub(crate) newest_home: usize,
    pub(crate) layer_table: Tree,
    pub(crate) space_map: Tree,
    /// Blocks of pages by the checkpoint that let them go, oldest first.
    pub(crate) held: VecDeque<Vec<PoolBlock>>,
}

/// What a cut leaves to be written.
struct Cut {
    superblock: Superblock,
    pages: Vec<Arc<Page>>,
    bitmaps: Vec<BitmapImage>,
}

impl Core {
    /// Takes a checkpoint. One at a time; reads and writes go on meanwhile.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.check_writable()?;
        let mut state = self.checkpoints.lock();
        let mut writer = self.writer.lock();
        self.check_latch()?;
        let (staged, cut) = loop {
            let alone = self.cut.write();
            if !self.has_pages_for_cut() {
                // Nothing is cut yet: on a full host this is an answer, and tried again another time.
                let stocked_before = self.pages.space.runs_stocked();
                drop(alone);
                self.stock_pages(stocked_before)?;
                continue;
            }
            let staged = writer.stage_if_any(self.pending.take());
            let cut =
                self.cut_pages(&mut state, writer.position()).map_err(|error| self.latch(error))?;
            break (staged, cut);
        };
        if let Some(staged) = staged {
            self.check_ring(&writer)?;
            self.write_journal(staged.position, &staged.bytes)?;
        }
        let durable = writer.after_flush();
        drop(writer);

        self.write_pages(&cut)?;
        if !planted(Fault::NoFlushBeforeSuperblock) {
            self.sync_storage()?;
        }
        let mut writer = self.writer.lock();
        let releasing = self.releasing.read();
        let freed = self.settle_flushed(&mut writer, durable);
        drop(writer);
        self.release(freed);
        drop(releasing);

        let mut home = 1 - state.newest_home;
        if planted(Fault::SuperblockOverNewest) {
            home = state.newest_home;
        }
        self.write_superblock(home, &cut.superblock)?;
        self.sync_storage()?;

        for page in &cut.pages {
            self.pages.cache.mark_clean(page);
        }
        let mut writer = self.writer.lock();
        writer.oldest_start_blocks = state.newest.journal.head_blocks;
        writer.newest_start_blocks = cut.superblock.journal.head_blocks;
        drop(writer);
        state.newest = cut.superblock;
        state.newest_home = home;
        self.pages.space.end_replay_room();
        let kept = if planted(Fault::PageReusedEarly) { 0 } else { 1 };
        let has_come = state.held.len() > kept;
        while state.held.len() > kept {
            for block in state.held.pop_front().unwrap_or_default() {
                self.pages.space.release(Extent::one(block));
                self.pages.note_page_released();
            }
        }
        if has_come {
            self.room.has_come();
        }
        Ok(())
    }

    /// Brings both superblocks to the same state, so that either leads to everything, and nothing is held
    /// for the older one.
    pub(crate) fn checkpoint_twice(&self) -> Result<()> {
        self.checkpoint()?;
        self.checkpoint()
    }

    /// The part of a checkpoint that shuts out change: memory only, but for pages of the tables that have
    /// left the cache.
    fn cut_pages(&self, state: &mut CheckpointState, journal: JournalPosition) -> Result<Cut> {
        let mut crcs = HashMap::new();
        seal_pages(self.pages.dirty_pages(), &mut crcs);
        self.save_layers(state, &crcs)?;
        let bitmaps = self.save_space(state)?;
        seal_pages(self.pages.dirty_pages(), &mut crcs);
        for tree in [&mut state.layer_table, &mut state.space_map] {
            tree.root = sealed_pointer(tree.root, &crcs);
        }
        let counts = self.pages.space.counts();
        let superblock = Superblock {
            geometry: self.pages.space.geometry(),
            checkpoint: state.newest.checkpoint + 1,
            epoch: self.epoch(),
            next_serial: self.table.read().next_serial,
            journal,
            used_blocks: counts.used,
            data_blocks: u64::try_from(self.data_blocks.load(Ordering::Relaxed)).unwrap_or(0),
            layer_table: state.layer_table.root,
            space_map: state.space_map.root,
            ..state.newest.clone()
        };
        let (pages, held) = self.pages.end_interval();
        self.pages.space.begin_replay_room();
        state.held.push_back(held);
        Ok(Cut { superblock, pages, bitmaps })
    }

    fn table_change(&self) -> Change<'_> {
        // Tables have one owner and no births: everything in them is theirs.
        Change {
            pages: &self.pages,
            ownership: Ownership::EVERYTHING,
            epoch: Epoch::FIRST,
            is_table: true,
        }
    }

    /// Brings the records of changed layers into the pages of the table.
    fn save_layers(
        &self,
        state: &mut CheckpointState,
        crcs: &HashMap<PoolBlock, u32>,
    ) -> Result<()> {
        let mut table = self.table.write();
        let place = |id: LayerId| {
            let slot = u64::from(id.get());
            let offset = to_usize(slot % LAYER_RECORDS_PER_PAGE) * LAYER_RECORD_BYTES;
            (slot / LAYER_RECORDS_PER_PAGE, offset)
        };
        for id in std::mem::take(&mut table.removed) {
            let (index, offset) = place(id);
            let page =
                self.attempt(|| state.layer_table.open_records(&self.table_change(), index))?;
            page.set_bytes(offset, &[0; LAYER_RECORD_BYTES]);
            if page.is_empty() {
                self.attempt(|| state.layer_table.collapse_records(&self.table_change(), index))?;
            }
        }
        for (id, entry) in table.iter() {
            if !entry.layer.changed.swap(false, Ordering::AcqRel) {
                continue;
            }
            let mut map = entry.layer.map.write();
            map.tree.root = sealed_pointer(map.tree.root, crcs);
            if planted(Fault::RootRestamped) && !map.tree.root.is_null() {
                map.tree.root = map.tree.root.with_birth(self.epoch());
            }
            let record = entry.meta.record(&entry.layer, &map).encode();
            let (index, offset) = place(*id);
            let page =
                self.attempt(|| state.layer_table.open_records(&self.table_change(), index))?;
            page.set_bytes(offset, &record);
        }
        Ok(())
    }

    /// Saves the bitmaps of all groups that changed, and points the space map at them. Pages of the space
    /// map take blocks themselves, and so change groups: these are added until no more come.
    fn save_space(&self, state: &mut CheckpointState) -> Result<Vec<BitmapImage>> {
        let space = &self.pages.space;
        let change = self.table_change();
        loop {
            let mut progress = false;
            for group in space.dirty_groups() {
                let index = group.get();
                let logical = LogicalBlock::new(index);
                let now = self.attempt(|| state.space_map.lookup(&self.pages, logical))?;
                let open = self.attempt(|| state.space_map.is_open(&self.pages, logical))?;
                if space.is_empty_group(group) && index > 0 {
                    if !now.is_null() {
                        self.attempt(|| state.space_map.set(&change, index, BlockPtr::NULL))?;
                        progress = true;
                    }
                } else if now.is_null() || !open {
                    let placeholder = placeholder_for(group);
                    self.attempt(|| state.space_map.set(&change, index, placeholder))?;
                    progress = true;
                }
            }
            if !progress {
                break;
            }
        }
        let mut images = Vec::new();
        for group in space.dirty_groups() {
            let (pointer, image) = self.attempt(|| space.save(group))?;
            if let Some(image) = image {
                // The path is open: this takes no block, and so changes no bitmap any more.
                self.attempt(|| state.space_map.set(&change, group.get(), pointer))?;
                images.push(image);
            }
        }
        Ok(images)
    }

    fn write_pages(&self, cut: &Cut) -> Result<()> {
        let failed = |source| {
            self.latch(Error::io(format!("cannot write a map page of {}", self.name), source))
        };
        let mut pages: Vec<&Arc<Page>> = cut.pages.iter().collect();
        pages.sort_by_key(|page| page.block());
        let mut buffer = vec![0; WRITE_BYTES];
        let mut start = None;
        let mut length = 0;
        for page in pages {
            let follows = start.is_some_and(|start: PoolBlock| {
                start.offset_bytes() + crate::convert::to_u64(length) == page.block().offset_bytes()
            });
            if !follows || length == buffer.len() {
                if let Some(start) = start {
                    let bytes = buffer.get(..length).unwrap_or(&[]);
                    self.storage.write_at(start.offset_bytes(), bytes).map_err(failed)?;
                }
                start = Some(page.block());
                length = 0;
            }
            if let Some(target) = buffer.get_mut(length..length + BLOCK_LENGTH) {
                page.copy_bytes(target);
            }
            length += BLOCK_LENGTH;
        }
        if let Some(start) = start {
            let bytes = buffer.get(..length).unwrap_or(&[]);
            self.storage.write_at(start.offset_bytes(), bytes).map_err(failed)?;
        }
        let left_out = usize::from(planted(Fault::BitmapLeftOut));
        for image in cut.bitmaps.iter().skip(left_out) {
            debug_assert!(image.group.bitmap_homes().contains(&image.home));
            self.storage.write_at(image.home.offset_bytes(), &image.bytes[..]).map_err(failed)?;
        }
        Ok(())
    }

    fn write_superblock(&self, home: usize, superblock: &Superblock) -> Result<()> {
        let block = SUPERBLOCK_HOMES.get(home).copied().unwrap_or_default();
        self.storage.write_at(block.offset_bytes(), &superblock.encode()).map_err(|source| {
            self.latch(Error::io(format!("cannot write the superblock of {}", self.name), source))
        })
    }
}

/// Computes the CRCs of pages, leaves first, and enters each in the pointers to it.
fn seal_pages(mut pages: Vec<Arc<Page>>, crcs: &mut HashMap<PoolBlock, u32>) {
    pages.sort_by_key(|page| page.level());
    for page in pages {
        if crcs.contains_key(&page.block()) {
            continue;
        }
        if page.level() > 0 {
            seal_pointers(&page, crcs);
        }
        crcs.insert(page.block(), page.seal());
    }
}

fn seal_pointers(page: &Page, crcs: &HashMap<PoolBlock, u32>) {
    for (index, pointer) in page.pointers().enumerate() {
        match pointer.kind() {
            // A page of data pointers holds nothing else.
            Some(PointerKind::Data) => return,
            Some(PointerKind::Page | PointerKind::Records) => {
                let sealed = sealed_pointer(pointer, crcs);
                if sealed != pointer {
                    page.set_pointer(index, sealed);
                }
            }
            _ => {}
        }
    }
}

fn sealed_pointer(pointer: BlockPtr, crcs: &HashMap<PoolBlock, u32>) -> BlockPtr {
    match crcs.get(&pointer.block()) {
        Some(crc) if !pointer.is_null() => pointer.with_crc(*crc),
        _ => pointer,
    }
}

/// What stands in the space map between opening its pages and saving the bitmaps.
fn placeholder_for(group: GroupIndex) -> BlockPtr {
    let [home, _] = group.bitmap_homes();
    BlockPtr::new(PointerKind::Bitmap, home, Epoch::ZERO, 0)
}
