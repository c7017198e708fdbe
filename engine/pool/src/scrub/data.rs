//! The data of a portion, held against its checksums as they are on the disk.

use std::collections::HashMap;
use std::sync::Arc;

use thinstore_storage::AlignedBuffer;

use super::pages::{Portion, damage_of};
use super::read::Block;
use super::walk::{Datum, Summed};
use super::{Damage, Scrub, ScrubFinding};
use crate::convert::{to_u64, to_usize};
use crate::core::Core;
use crate::format::geometry::SumHome;
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::layers::layer::Layer;
use crate::types::{BLOCK_BYTES, PoolBlock};

/// Blocks of checksums as they are on the disk.
#[derive(Default)]
struct Sums(HashMap<PoolBlock, Result<AlignedBuffer, String>>);

impl Sums {
    /// What is wrong with a block of data.
    fn damage(&mut self, core: &Core, block: PoolBlock, read: Block<'_>) -> Option<Damage> {
        let home = SumHome::of(block);
        let sums = self.0.entry(home.block).or_insert_with(|| core.read_one(home.block));
        match sums {
            Ok(sums) => {
                let at = to_usize(home.index) * 4;
                let entry = sums.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                damage_of(read, u32::from_le_bytes(entry.unwrap_or_default()))
            }
            Err(why) => {
                let why = format!("its checksum, in {}, cannot be read: {why}", home.block);
                Some(Damage::Unreadable { why })
            }
        }
    }
}

impl Scrub<'_> {
    pub(super) fn data(&mut self, portion: Portion) {
        let Portion { layer, found, .. } = portion;
        let mut data = found.data;
        data.sort_unstable_by_key(|datum| datum.block);
        // Two entries of a map that lead to one block are damage that `check` tells.
        data.dedup_by_key(|datum| datum.block);
        let blocks: Vec<PoolBlock> = data.iter().map(|datum| datum.block).collect();
        let mut suspects = Vec::new();
        let mut looked_at = data.into_iter();
        let mut sums = Sums::default();
        self.core.read_each(&blocks, |block, read| {
            let is_damaged = sums.damage(self.core, block, read).is_some();
            suspects.extend(looked_at.next().filter(|_| is_damaged));
        });
        self.report.data_bytes += to_u64(blocks.len()) * BLOCK_BYTES;
        for datum in suspects {
            if let Some((damage, pointer)) = self.core.confirmed(&layer, datum) {
                self.add_datum(&layer, datum, pointer, damage);
            }
        }
    }

    fn add_datum(&mut self, layer: &Layer, datum: Datum, pointer: BlockPtr, damage: Damage) {
        let start = datum.logical.get();
        let affected = if self.is_full() {
            Vec::new()
        } else {
            self.core.seen_by(layer.id, pointer, 0, start)
        };
        self.add(ScrubFinding {
            structure: "data",
            layer: Some(layer.id),
            blocks: Some(start..start + 1),
            pool_block: datum.block.get(),
            damage,
            affected,
        });
    }
}

impl Core {
    /// What is wrong with a block that did not match, and the pointer to it, if it is still the layer's, with
    /// a checksum that counts, and does not match when it is read once more.
    ///
    /// What has a checksum that counts does not change for as long as that is so. If it is so before and after
    /// the second read, nobody has written to the block in between.
    fn confirmed(&self, layer: &Arc<Layer>, datum: Datum) -> Option<(Damage, BlockPtr)> {
        self.summed_pointer(layer, datum)?;
        let read = self.read_one(datum.block);
        let read = read.as_deref().map_err(Clone::clone);
        let damage = Sums::default().damage(self, datum.block, read)?;
        Some((damage, self.summed_pointer(layer, datum)?))
    }

    /// The pointer of a layer to this block, if it is there and its checksum counts.
    fn summed_pointer(&self, layer: &Arc<Layer>, datum: Datum) -> Option<BlockPtr> {
        let found = self.attempt(|| {
            let table = self.table.read();
            let Ok(entry) = table.get(layer.id) else { return Ok(None) };
            if !Arc::ptr_eq(&entry.layer, layer) {
                return Ok(None);
            }
            let map = entry.layer.map.read();
            let pointer = map.tree.lookup(&self.pages, datum.logical)?;
            let leads_there =
                pointer.kind() == Some(PointerKind::Data) && pointer.block() == datum.block;
            let owner = map.ownership().of(pointer.birth(), datum.logical.get() + 1);
            let summed = Summed::of(entry, map.is_summed(entry.meta.summed_blocks));
            let counts = leads_there && summed.has(owner, pointer.birth());
            Ok(counts.then_some(pointer))
        });
        // A page on the way that has become unreadable since is damage too, and told by the next scrub.
        found.ok().flatten()
    }
}
