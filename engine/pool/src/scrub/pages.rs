//! The pages of a layer's map: the next portion of the walk over it, with the pages that it lacks.

use std::sync::Arc;

use super::read::Block;
use super::walk::{Found, Summed, Walk};
use super::{Candidate, Damage, Scrub, ScrubFinding};
use crate::format::pointer::BlockPtr;
use crate::layers::layer::Layer;
use crate::map::page::{Page, span};
use crate::map::walk::tree_end;
use crate::types::{LayerId, PoolBlock};

/// Pages beyond this many are forgotten between two portions.
const MOST_PAGES: usize = 4096;

/// A pointer by what it says, checksum and birth included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

impl Key {
    pub(super) fn of(pointer: BlockPtr) -> Key {
        let (address, check) = pointer.words();
        Key(address, check)
    }
}

/// A pointer in a map that a walk could not follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) pointer: BlockPtr,
    pub(super) level: u8,
    pub(super) start: u64,
}

/// A part of what a layer owns.
pub(super) struct Portion {
    pub(super) layer: Arc<Layer>,
    pub(super) found: Found,
    /// Where the layer's map ends.
    pub(super) end: u64,
}

/// What is wrong with what was read of a block with this checksum.
pub(super) fn damage_of(block: Block<'_>, recorded: u32) -> Option<Damage> {
    match block.map(crc32fast::hash) {
        Ok(found) if found == recorded => None,
        Ok(found) => Some(Damage::Mismatch { found, recorded }),
        Err(why) => Some(Damage::Unreadable { why }),
    }
}

impl Scrub<'_> {
    /// What comes next of a layer from `from` on, or nothing if the layer is gone.
    pub(super) fn next_portion(&mut self, candidate: Candidate, from: u64) -> Option<Portion> {
        if self.pages.len() > MOST_PAGES {
            self.pages.clear();
        }
        loop {
            let portion = self.look_for_portion(candidate, from)?;
            if !portion.found.missing.is_empty() {
                self.bring(candidate.id, &portion.found.missing);
                continue;
            }
            for senseless in &portion.found.senseless {
                let why = "the pointer to it is of the wrong kind".to_owned();
                self.add_page(candidate.id, *senseless, Damage::Unreadable { why });
            }
            return Some(portion);
        }
    }

    fn look_for_portion(&self, candidate: Candidate, from: u64) -> Option<Portion> {
        let table = self.core.table.read();
        let entry = table.get(candidate.id).ok()?;
        if entry.meta.serial != candidate.serial {
            return None;
        }
        let map = entry.layer.map.read();
        // What lies before the cursor of a removed layer was freed, or is the child's.
        let from = from.max(entry.meta.cursor.get());
        let mut walk = Walk {
            cache: &self.core.pages.cache,
            on_disk: &self.pages,
            damaged: &self.damaged,
            ownership: map.ownership(),
            summed: Summed::of(entry, map.is_summed(entry.meta.summed_blocks)),
            from,
            found: Found { next: from, ..Found::default() },
        };
        walk.visit(map.tree.root, map.tree.height, 0);
        let found = walk.found;
        let end = tree_end(&map.tree).get();
        Some(Portion { layer: Arc::clone(&entry.layer), found, end })
    }

    /// Reads pages. One that does not match may have gone out of use while it was read: it is damaged if it is
    /// asked for again, and does not match again.
    fn bring(&mut self, layer: LayerId, missing: &[Missing]) {
        let mut missing = missing.to_vec();
        missing.sort_unstable_by_key(|page| page.pointer.block());
        missing.dedup_by_key(|page| page.pointer.block());
        let blocks: Vec<PoolBlock> = missing.iter().map(|page| page.pointer.block()).collect();
        let mut wanted = missing.iter();
        let mut failed = Vec::new();
        let pages = &mut self.pages;
        self.core.read_each(&blocks, |block, read| {
            let Some(page) = wanted.next() else { return };
            let crc = page.pointer.crc();
            let on_disk = read.as_ref().ok().map(|bytes| Page::from_disk(block, crc, bytes));
            match damage_of(read, crc) {
                None => pages.extend(on_disk.map(|page| (block, Arc::new(page)))),
                Some(damage) => failed.push((*page, damage)),
            }
        });
        for (page, damage) in failed {
            let key = Key::of(page.pointer);
            if !self.suspects.insert(key) && self.damaged.insert(key) {
                self.add_page(layer, page, damage);
            }
        }
    }

    /// What is not damaged has no more blocks of its own than the pool, give or take what is written while
    /// it is walked. A map that leads to the same pages again and again would be walked almost for ever.
    pub(super) fn add_endless(&mut self, layer: LayerId, portion: &Portion) {
        let tree = portion.layer.map.read().tree;
        let root = Missing { pointer: tree.root, level: tree.height, start: 0 };
        let why = "what it leads to is more than the pool has".to_owned();
        self.add_page(layer, root, Damage::Unreadable { why });
    }

    fn add_page(&mut self, layer: LayerId, page: Missing, damage: Damage) {
        let Missing { pointer, level, start } = page;
        let affected = if self.is_full() {
            Vec::new()
        } else {
            self.core.seen_by(layer, pointer, level, start)
        };
        self.add(ScrubFinding {
            structure: "map",
            layer: Some(layer),
            blocks: Some(start..start + span(level)),
            pool_block: pointer.block().get(),
            damage,
            affected,
        });
    }
}
