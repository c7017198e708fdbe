//! What a layer owns, with the pages that lead to it as they are on the disk.
//!
//! As in `map/walk.rs`, but pages come from the disk even where they are in memory, and one that is damaged is
//! passed over. A page that was not written yet is taken from memory: there is nothing on the disk to look at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::pages::{Key, Missing};
use crate::convert::to_u64;
use crate::format::pointer::{BlockPtr, POINTERS_PER_PAGE, PointerKind};
use crate::layers::table::Entry;
use crate::map::cache::PageCache;
use crate::map::ownership::{Owner, Ownership};
use crate::map::page::{Page, PageState, span};
use crate::types::{Epoch, LogicalBlock, PoolBlock};

/// Blocks of data of a portion, give or take a leaf: 16 MiB.
const PORTION_BLOCKS: usize = 4096;
/// Leaves of a portion, where there is little data below each.
const PORTION_PAGES: u64 = 1024;
/// Pages that are asked for at once.
const MOST_MISSING: usize = 256;

/// A block of data that has a checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datum {
    pub(super) logical: LogicalBlock,
    pub(super) block: PoolBlock,
}

/// What a portion of a walk found.
#[derive(Default)]
pub(super) struct Found {
    /// Where the next portion starts.
    pub(super) next: u64,
    /// Data that has checksums.
    pub(super) data: Vec<Datum>,
    /// Blocks of data that have none.
    pub(super) unsummed: u64,
    /// Pages that were looked at on the disk.
    pub(super) pages: u64,
    /// Pages that must be read first: what else was found is of no use then.
    pub(super) missing: Vec<Missing>,
    /// Pointers that make no sense, with their level and the block that they stand for.
    pub(super) senseless: Vec<Missing>,
}

/// Which of a layer's own data has checksums.
#[derive(Clone, Copy)]
pub(super) struct Summed {
    /// All that it owns.
    own: bool,
    /// What it took over from an origin and was born up to here.
    inherited: Epoch,
}

impl Summed {
    pub(super) fn of(entry: &Entry, is_summed: bool) -> Summed {
        if entry.meta.deleting {
            // Nobody reads it any more.
            return Summed { own: false, inherited: Epoch::ZERO };
        }
        Summed { own: is_summed, inherited: entry.layer.summed_until() }
    }

    pub(super) fn has(self, owner: Owner, birth: Epoch) -> bool {
        match owner {
            Owner::Own => self.own,
            Owner::Inherited => birth <= self.inherited,
            Owner::Ancestor => false,
        }
    }
}

/// A walk over a layer's map, whose lock is held.
pub(super) struct Walk<'a> {
    pub(super) cache: &'a PageCache,
    pub(super) on_disk: &'a HashMap<PoolBlock, Arc<Page>>,
    pub(super) damaged: &'a HashSet<Key>,
    pub(super) ownership: Ownership,
    pub(super) summed: Summed,
    pub(super) from: u64,
    pub(super) found: Found,
}

enum Look {
    Page { page: Arc<Page>, is_written: bool },
    Missing,
    Damaged,
}

impl Walk<'_> {
    fn look(&self, pointer: BlockPtr) -> Look {
        if let Some(page) = self.cache.get(pointer).filter(|page| page.state() != PageState::Clean)
        {
            return Look::Page { page, is_written: false };
        }
        if self.damaged.contains(&Key::of(pointer)) {
            return Look::Damaged;
        }
        match self.on_disk.get(&pointer.block()) {
            Some(page) if page.crc() == pointer.crc() => {
                Look::Page { page: Arc::clone(page), is_written: true }
            }
            _ => Look::Missing,
        }
    }

    /// Visits the subtree behind `pointer`, which covers `span(level)` blocks from `start`. False: the
    /// portion is full. Depth is bounded by the height of the tree, at most 5.
    pub(super) fn visit(&mut self, pointer: BlockPtr, level: u8, start: u64) -> bool {
        let end = start + span(level);
        if end <= self.from {
            return true;
        }
        let is_full = self.found.data.len() >= PORTION_BLOCKS || self.found.pages >= PORTION_PAGES;
        let asks_enough = self.found.missing.len() >= MOST_MISSING;
        if (level == 1 && is_full) || (level > 0 && asks_enough) {
            return false;
        }
        let owner = self.ownership.of(pointer.birth(), end);
        if pointer.is_null() || owner == Owner::Ancestor {
            self.found.next = end;
            return true;
        }
        let here = Missing { pointer, level, start };
        let expected = if level == 0 { PointerKind::Data } else { PointerKind::Page };
        if pointer.kind() != Some(expected) {
            self.found.senseless.push(here);
            self.found.next = end;
            return true;
        }
        if level == 0 {
            if self.summed.has(owner, pointer.birth()) {
                let logical = LogicalBlock::new(start);
                self.found.data.push(Datum { logical, block: pointer.block() });
            } else {
                self.found.unsummed += 1;
            }
            self.found.next = end;
            return true;
        }
        let (page, is_written) = match self.look(pointer) {
            Look::Page { page, is_written } => (page, is_written),
            Look::Missing => {
                self.found.missing.push(here);
                return true;
            }
            Look::Damaged => {
                self.found.next = end;
                return true;
            }
        };
        for index in 0..POINTERS_PER_PAGE {
            let inside = start + to_u64(index) * span(level - 1);
            if !self.visit(page.pointer(index), level - 1, inside) {
                return false;
            }
        }
        self.found.pages += u64::from(is_written);
        self.found.next = end;
        true
    }
}
