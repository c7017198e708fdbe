//! What the pool's superblocks lead to: the layer table, the space map, the bitmaps.
//!
//! The tables are taken as the newest superblock has them: until the second checkpoint after it nothing of them
//! is used again. First without a lock. If something does not match, once more with checkpoints shut out, and
//! only that counts.

use super::pages::damage_of;
use super::{Damage, Scrub, ScrubFinding};
use crate::convert::to_u64;
use crate::core::Core;
use crate::format::geometry::{SUPERBLOCK_HOMES, TABLE_HEIGHT};
use crate::format::pointer::BlockPtr;
use crate::format::superblock::Superblock;
use crate::map::page::Page;
use crate::open::read_superblock;
use crate::types::{BLOCK_BYTES, PoolBlock};

#[derive(Default)]
struct Seen {
    blocks: u64,
    damaged: Vec<(&'static str, PoolBlock, Damage)>,
}

impl Scrub<'_> {
    pub(super) fn tables(&mut self) {
        let newest = self.core.checkpoints.lock().newest.clone();
        let mut seen = self.core.look_at_tables(&newest);
        {
            let state = self.core.checkpoints.lock();
            if !seen.damaged.is_empty() {
                seen = self.core.look_at_tables(&state.newest);
            }
            self.core.look_at_superblocks(&mut seen);
        }
        self.report.metadata_bytes += seen.blocks * BLOCK_BYTES;
        for (structure, block, damage) in seen.damaged {
            self.add(ScrubFinding {
                structure,
                layer: None,
                blocks: None,
                pool_block: block.get(),
                damage,
                affected: Vec::new(),
            });
        }
    }
}

impl Core {
    /// Both are whole between two checkpoints.
    fn look_at_superblocks(&self, seen: &mut Seen) {
        for home in SUPERBLOCK_HOMES {
            let why = match read_superblock(&*self.storage, home) {
                Ok(Ok(_)) => continue,
                Ok(Err(fault)) => format!("it is damaged ({fault:?})"),
                Err(error) => error.to_string(),
            };
            seen.damaged.push(("superblock", home, Damage::Unreadable { why }));
        }
        seen.blocks += to_u64(SUPERBLOCK_HOMES.len());
    }

    fn look_at_tables(&self, superblock: &Superblock) -> Seen {
        let mut seen = Seen::default();
        self.look_at_table(["layer table"; 2], superblock.layer_table, &mut seen);
        self.look_at_table(["space map", "bitmap"], superblock.space_map, &mut seen);
        seen
    }

    /// A table, level by level; `structures` names its pages, and what these lead to.
    fn look_at_table(&self, structures: [&'static str; 2], root: BlockPtr, seen: &mut Seen) {
        let [pages, lowest] = structures;
        let mut row = vec![root];
        for level in (0..=TABLE_HEIGHT).rev() {
            row.retain(|pointer| !pointer.is_null());
            row.sort_unstable_by_key(|pointer| pointer.block());
            // In a sound table no block is pointed at twice.
            row.dedup_by_key(|pointer| pointer.block());
            let blocks: Vec<PoolBlock> = row.iter().map(|pointer| pointer.block()).collect();
            let mut pointers = row.iter();
            let mut below = Vec::new();
            self.read_each(&blocks, |block, read| {
                let Some(pointer) = pointers.next() else { return };
                let page = match &read {
                    Ok(bytes) if level > 0 => Some(Page::from_disk(block, pointer.crc(), bytes)),
                    _ => None,
                };
                match damage_of(read, pointer.crc()) {
                    Some(damage) => {
                        let structure = if level == 0 { lowest } else { pages };
                        seen.damaged.push((structure, block, damage));
                    }
                    None => below.extend(page.iter().flat_map(Page::pointers)),
                }
            });
            seen.blocks += to_u64(blocks.len());
            row = below;
        }
    }
}
