//! Taking the checksums of sealed layers, in portions.
//!
//! Order of a portion, and why:
//!  1. What the layer owns is read, from its cursor on, and its CRCs go to their places in the heads of
//!     groups. No lock is held. Nothing counts yet: a crash leaves entries that nobody asks for.
//!  2. *Flush.* The checksums are durable, and so is the data that they were taken of, for it was written
//!     before.
//!  3. If the layer still is what it was, the record says how far its checksums have come. It stands behind
//!     the layer's seal in the journal: with the seal, the record is lost.
//!
//! Blocks that are freed meanwhile leave an entry that is stale when they are used again; whatever owns
//! them then is sealed later, and its own pass writes the entry anew before anyone asks for it.

use std::sync::Arc;

use thinstore_storage::{Error, Result};

use super::{SumBlock, joined};
use crate::convert::to_usize;
use crate::core::Core;
use crate::format::geometry::SumHome;
use crate::format::record::Record;
use crate::layers::layer::Layer;
use crate::layers::table::Table;
use crate::map::walk::{Portion, own_blocks, tree_end};
use crate::planted::{Fault, planted};
use crate::types::{BLOCK_LENGTH, Epoch, LayerId, LogicalBlock, PoolBlock};

/// Blocks of a portion, give or take a leaf: 4 MiB.
const PORTION_BLOCKS: usize = 1024;

/// A part of a layer's data.
struct Part {
    layer: Arc<Layer>,
    seal: Epoch,
    base: Epoch,
    from: LogicalBlock,
    until: LogicalBlock,
    /// In the order of the pool.
    blocks: Vec<PoolBlock>,
}

/// Can the pass work on this layer now? One that is about to be taken over, or takes over its origin, has
/// other owners for its blocks soon; one that is freed needs nothing.
fn is_ready(table: &Table, id: LayerId) -> bool {
    let Ok(entry) = table.get(id) else { return false };
    let map = entry.layer.map.read();
    let goes = entry.meta.is_removed() && table.children(id).nth(1).is_none();
    map.sealed
        && !map.is_summed(entry.meta.summed_blocks)
        && !entry.meta.deleting
        && !entry.meta.absorbing
        && map.absorption.is_none()
        && !goes
}

impl Core {
    /// Takes all checksums that are missing, and makes them durable.
    pub(crate) fn sum_all(&self) -> Result<()> {
        self.check_writable()?;
        let mut any = false;
        while self.sum_portion()? {
            any = true;
        }
        if any { self.flush() } else { Ok(()) }
    }

    /// One portion of one layer. False: there is nothing to do.
    pub(crate) fn sum_portion(&self) -> Result<bool> {
        let _one = self.summing.lock();
        let Some(part) = self.next_part()? else { return Ok(false) };
        self.check_writable()?;
        match self.sums_of(&part.blocks) {
            Ok(sums) => {
                self.write_sums(&sums)?;
                if !sums.is_empty() && !planted(Fault::SummedBeforeFlush) {
                    self.sync_storage()?;
                }
                self.record_summed(&part)?;
                self.spill_if_long()?;
            }
            Err(error) => {
                // What cannot be read has no checksum. The next open tries again.
                tracing::warn!("{} stays without checksums: {error}", part.layer.id);
                self.table.write().unsummed.remove(&(part.seal, part.layer.id));
            }
        }
        Ok(true)
    }

    fn next_part(&self) -> Result<Option<Part>> {
        self.attempt(|| {
            let table = self.table.read();
            let next = table.unsummed.iter().find(|(_, id)| is_ready(&table, *id));
            let Some((seal, id)) = next.copied() else { return Ok(None) };
            let Ok(entry) = table.get(id) else { return Ok(None) };
            let map = entry.layer.map.read();
            let from = entry.meta.summed_blocks;
            let portion = Portion { from, until: tree_end(&map.tree), most_blocks: PORTION_BLOCKS };
            let found = own_blocks(&self.pages, &map.tree, &map.ownership(), &[], portion)?;
            let mut blocks: Vec<PoolBlock> = found.data.iter().map(|(_, block)| *block).collect();
            blocks.sort_unstable();
            let until = LogicalBlock::new(found.next);
            let layer = Arc::clone(&entry.layer);
            Ok(Some(Part { layer, seal, base: map.base, from, until, blocks }))
        })
    }

    /// Reads blocks, and gives the CRC of each.
    fn sums_of(&self, blocks: &[PoolBlock]) -> Result<Vec<(PoolBlock, u32)>> {
        let mut sums = Vec::with_capacity(blocks.len());
        let mut buffer = Vec::new();
        for extent in joined(blocks) {
            buffer.resize(to_usize(u64::from(extent.count)) * BLOCK_LENGTH, 0);
            self.storage.read_at(extent.start.offset_bytes(), &mut buffer).map_err(|source| {
                Error::io(format!("cannot read {} of {}", extent.start, self.name), source)
            })?;
            let crcs = buffer.chunks_exact(BLOCK_LENGTH).map(crc32fast::hash);
            sums.extend((0..).zip(crcs).map(|(index, crc)| (extent.start.plus(index), crc)));
        }
        Ok(sums)
    }

    /// Enters CRCs, in the order of the pool, in the heads of their groups.
    fn write_sums(&self, sums: &[(PoolBlock, u32)]) -> Result<()> {
        let home_of = |entry: &(PoolBlock, u32)| SumHome::of(entry.0).block;
        for entries in sums.chunk_by(|a, b| home_of(a) == home_of(b)) {
            let Some(home) = entries.first().map(home_of) else { continue };
            let mut sums: SumBlock = self.read_sums(home)?;
            for (block, crc) in entries {
                sums.set_entry(SumHome::of(*block).index, *crc);
            }
            self.storage.write_at(home.offset_bytes(), &sums.0[..]).map_err(|source| {
                let what = format!("cannot write checksums at {home} of {}", self.name);
                self.latch(Error::io(what, source))
            })?;
            self.sums.insert(home, Arc::new(sums));
        }
        Ok(())
    }

    /// Says how far a layer is summed, if it has not changed since the part was chosen.
    fn record_summed(&self, part: &Part) -> Result<()> {
        let id = part.layer.id;
        self.attempt(|| {
            let _shared = self.cut.read();
            let mut table = self.table.write();
            let Ok(entry) = table.get(id) else { return Ok(()) };
            // While the data was read it may have been taken over, taken its origin over, or gone and left
            // its slot to another.
            let is_the_same = Arc::ptr_eq(&entry.layer, &part.layer)
                && entry.meta.summed_blocks == part.from
                && entry.layer.map.read().base == part.base;
            if !is_the_same || !is_ready(&table, id) {
                return Ok(());
            }
            self.apply_summed(&mut table, id, part.until)?;
            let record = Record::Summed { layer: id, cursor: part.until };
            self.pending.append(&[record], &[], &[], false);
            Ok(())
        })
    }
}
