//! Replay: from a superblock and the batches after it to the state that was lost.
//!
//!  1. The longest chain of batches is read: each must have the sequence number after the one before, carry
//!     its CRC, and have a right CRC itself.
//!  2. Batches above the highest `settled` may have been written by a flush that never returned: the data
//!     of the blocks they name is checked against the CRCs. From the first that does not match on, batches
//!     count as not written, whole.
//!  3. Beyond the end of the chain no batch may stand that says the missing one was durable: that would be
//!     damage, not a loss of power.
//!  4. Every block that a batch names is kept from other use, and the records are applied in their order.
//!     Nothing is written.

use std::sync::Arc;

use thinstore_storage::{Error, Result, Storage};

use super::ring::Ring;
use super::writer::largest_batch_blocks;
use crate::convert::{to_u64, to_usize};
use crate::core::Core;
use crate::format::batch::{self, BatchHeader};
use crate::format::geometry::Geometry;
use crate::format::record::Record;
use crate::format::superblock::JournalPosition;
use crate::layers::layer::Layer;
use crate::map::page::span;
use crate::need::{Attempt, Need};
use crate::planted::{Fault, planted};
use crate::space::Extent;
use crate::sync::atomic::Ordering;
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH, Epoch, LayerId, LogicalBlock, PoolBlock};

/// The batches after a checkpoint.
pub(crate) struct Journal {
    pub(crate) records: Vec<Record>,
    /// Where the next batch goes.
    pub(crate) position: JournalPosition,
}

struct ReadBatch {
    header: BatchHeader,
    records: Vec<Record>,
    end: JournalPosition,
}

/// Reads what the journal holds after `start`. The text of an error says what is damaged.
pub(crate) fn read_journal(
    storage: &dyn Storage,
    ring: Ring,
    pool_tag: u64,
    start: JournalPosition,
) -> Result<Journal> {
    let (journal, damage) = read_until_damage(storage, ring, pool_tag, start)?;
    damage.map(|()| journal)
}

/// The same, and where the journal is damaged what comes before that, with the damage beside it.
pub(crate) fn read_until_damage(
    storage: &dyn Storage,
    ring: Ring,
    pool_tag: u64,
    start: JournalPosition,
) -> Result<(Journal, Result<()>)> {
    let failed =
        |source| Error::io(format!("cannot read the journal of {}", storage.name()), source);
    let mut batches = Vec::new();
    let mut position = start;
    while position.head_blocks - start.head_blocks < ring.blocks {
        match read_batch(storage, ring, pool_tag, position).map_err(failed)? {
            Some(batch) => {
                position = batch.end;
                batches.push(batch);
            }
            None => break,
        }
    }
    let damage = refuse_damage(storage, ring, pool_tag, position).map_err(failed)?;
    let settled = batches.iter().map(|batch| batch.header.settled).max().unwrap_or(0);
    let mut kept = batches.len();
    for (index, batch) in batches.iter().enumerate() {
        if batch.header.sequence > settled
            && !planted(Fault::DataNotChecked)
            && !data_is_there(storage, &batch.records).map_err(failed)?
        {
            kept = index;
            break;
        }
    }
    batches.truncate(kept);
    let journal = Journal {
        position: batches.last().map_or(start, |batch| batch.end),
        records: batches.into_iter().flat_map(|batch| batch.records).collect(),
    };
    Ok((journal, damage))
}

/// The highest number of any batch whose header stands in the ring, whole or not.
pub(crate) fn highest_sequence(
    storage: &dyn Storage,
    ring: Ring,
    pool_tag: u64,
) -> std::io::Result<u64> {
    const READ_BLOCKS: u64 = 256;
    let mut highest = 0;
    for position in (0..ring.blocks).step_by(to_usize(READ_BLOCKS)) {
        let bytes = ring.read(storage, position, READ_BLOCKS.min(ring.blocks - position))?;
        let headers = bytes
            .chunks_exact(BLOCK_LENGTH)
            .filter_map(|block| batch::decode_header(pool_tag, block));
        highest = headers.map(|header| header.sequence).max().unwrap_or(0).max(highest);
    }
    Ok(highest)
}

fn read_batch(
    storage: &dyn Storage,
    ring: Ring,
    pool_tag: u64,
    position: JournalPosition,
) -> std::io::Result<Option<ReadBatch>> {
    let first = ring.read(storage, position.head_blocks, 1)?;
    let expected = |header: &BatchHeader| {
        header.sequence == position.sequence + 1
            && (header.previous_crc == position.chain_crc || planted(Fault::ChainNotChecked))
            && header.blocks() <= ring.blocks
    };
    let Some(header) = batch::decode_header(pool_tag, &first).filter(expected) else {
        return Ok(None);
    };
    let bytes = match header.blocks() {
        1 => first,
        blocks => ring.read(storage, position.head_blocks, blocks)?,
    };
    let Some(records) = batch::verified_records(&header, &bytes).and_then(Record::decode_all)
    else {
        return Ok(None);
    };
    let end = JournalPosition {
        sequence: header.sequence,
        head_blocks: position.head_blocks + header.blocks(),
        chain_crc: header.crc,
    };
    Ok(Some(ReadBatch { header, records, end }))
}

/// Looks past the end of the chain for a batch that knows the missing one to have been durable. Its
/// successor begins no further away than the largest batch is long.
fn refuse_damage(
    storage: &dyn Storage,
    ring: Ring,
    pool_tag: u64,
    position: JournalPosition,
) -> std::io::Result<Result<()>> {
    let missing = position.sequence + 1;
    let window = ring.read(storage, position.head_blocks, largest_batch_blocks(ring) + 1)?;
    for (index, block) in window.chunks_exact(BLOCK_LENGTH).enumerate() {
        let Some(header) = batch::decode_header(pool_tag, block) else { continue };
        if header.sequence <= missing || header.settled < missing || header.blocks() > ring.blocks {
            continue;
        }
        let at = position.head_blocks + to_u64(index);
        let bytes = ring.read(storage, at, header.blocks())?;
        if batch::verified_records(&header, &bytes).is_some() {
            return Ok(Err(Error::new(
                thinstore_storage::ErrorKind::Corrupt,
                format!(
                    "the journal of {} is damaged: batch {missing} is not whole, but batch {} says it was \
                     durable; run `thinstore check`",
                    storage.name(),
                    header.sequence
                ),
            )));
        }
    }
    Ok(Ok(()))
}

fn data_is_there(storage: &dyn Storage, records: &[Record]) -> std::io::Result<bool> {
    let mut buffer = Vec::new();
    for record in records {
        let Record::Map { block, crcs, .. } = record else { continue };
        buffer.resize(crcs.len() * BLOCK_LENGTH, 0);
        let end = block.offset_bytes().saturating_add(to_u64(buffer.len()));
        if end > storage.size_bytes() {
            return Ok(false);
        }
        storage.read_at(block.offset_bytes(), &mut buffer)?;
        let found = buffer.chunks_exact(BLOCK_LENGTH).map(crc32fast::hash);
        if found.ne(crcs.iter().copied()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Records whose blocks nobody else gets.
pub(crate) struct Kept<'a> {
    records: Vec<&'a Record>,
    busy: Vec<Extent>,
}

impl Core {
    /// Applies records to a pool that was just opened. Nobody else uses it yet. Gives the blocks that the
    /// records named and freed: they are to be released when no superblock needs these records any more.
    /// Before that, a page that was written to one of them would look as if the data of an acknowledged
    /// batch had never arrived.
    pub(crate) fn replay(&self, records: &[Record]) -> Result<Vec<Extent>> {
        let mut failed = |_: &Record, error| Err(error);
        let kept = self.keep_named(records, &mut failed)?;
        self.replay_kept(kept, &mut failed)
    }

    /// Keeps all blocks that records name from other use, which comes before any block is taken. `failed`
    /// decides whether a record that cannot be ends it, or is left out.
    pub(crate) fn keep_named<'a>(
        &self,
        records: &'a [Record],
        failed: &mut impl FnMut(&Record, Error) -> Result<()>,
    ) -> Result<Kept<'a>> {
        for record in records {
            if let Record::Grow { pool_blocks } = record {
                self.grow_space(*pool_blocks).or_else(|error| failed(record, error))?;
            }
        }
        let mut kept = Kept { records: Vec::with_capacity(records.len()), busy: Vec::new() };
        for record in records {
            match self.keep_blocks_of(record, &mut kept.busy) {
                Ok(()) => kept.records.push(record),
                Err(error) => failed(record, error)?,
            }
        }
        Ok(kept)
    }

    /// Applies records; gives the blocks that they named and freed.
    pub(crate) fn replay_kept(
        &self,
        kept: Kept<'_>,
        failed: &mut impl FnMut(&Record, Error) -> Result<()>,
    ) -> Result<Vec<Extent>> {
        let mut busy = kept.busy;
        for record in &kept.records {
            self.replay_record(record, &mut busy).or_else(|error| failed(record, error))?;
        }
        self.catch_up_with_births(&kept.records);
        self.unreleased_blocks.store(0, Ordering::Relaxed);
        Ok(busy)
    }

    fn keep_blocks_of(&self, record: &Record, busy: &mut Vec<Extent>) -> Result<()> {
        let Record::Map { block, crcs, .. } = record else { return Ok(()) };
        let extent = extent_of(*block, crcs.len());
        if !self.pages.space.can_be_data(*block, u64::from(extent.count)) {
            return Err(self.corrupt(format!("the journal maps to {block}, where no data can be")));
        }
        if !planted(Fault::NamedNotMarkedFirst) {
            self.attempt(|| self.pages.space.mark_named(extent))?;
        }
        busy.push(extent);
        Ok(())
    }

    /// A seal moves the clock on before its record is in a batch. What another thread wrote in between was
    /// born after a seal that the loss of power may have taken back: the clock must not come to that epoch
    /// again, or a later seal would leave such blocks to whoever stands on it.
    fn catch_up_with_births(&self, records: &[&Record]) {
        let births = records.iter().filter_map(|record| match record {
            Record::Map { birth, .. } => Some(birth.get()),
            _ => None,
        });
        let latest = births.max().unwrap_or(0).max(self.epoch().get());
        self.epoch.store(latest, Ordering::Release);
    }

    fn replay_record(&self, record: &Record, freed: &mut Vec<Extent>) -> Result<()> {
        match record {
            Record::Map { layer, logical, block, birth, crcs } => {
                self.replay_map(*layer, *logical, extent_of(*block, crcs.len()), *birth, freed)
            }
            Record::Unmap { layer, logical, count } => {
                self.replay_unmap(*layer, *logical, *count, freed)
            }
            Record::Grow { .. } => Ok(()),
            _ => self.attempt(|| self.replay_layer_record(record, freed)),
        }
    }

    fn replay_layer_record(&self, record: &Record, freed: &mut Vec<Extent>) -> Attempt<()> {
        let table = &mut *self.table.write();
        match record {
            Record::Create(record) => self.apply_create(table, record),
            Record::Fork { source, sealed } => self.apply_fork(table, *source, sealed),
            Record::Seal { layer } => self.apply_seal(table, *layer),
            Record::Describe(record) => self.apply_describe(table, record),
            Record::Resize { layer, size_blocks } => self.apply_resize(table, *layer, *size_blocks),
            Record::Remove { layer } => self.apply_remove(table, *layer),
            Record::DeleteWalk { layer, cursor } => {
                let step = self.apply_delete_walk(table, *layer, Some(*cursor), usize::MAX)?;
                freed.extend(step.freed);
                same_cursor(*layer, step.cursor, *cursor)
            }
            Record::AbsorbWalk { layer, cursor } => {
                let step = self.apply_absorb_walk(table, *layer, Some(*cursor), usize::MAX)?;
                freed.extend(step.freed);
                same_cursor(*layer, step.cursor, *cursor)
            }
            Record::Trimmed { layer } => self.apply_trimmed(table, *layer),
            Record::Summed { layer, cursor } => self.apply_summed(table, *layer, *cursor),
            Record::Map { .. } | Record::Unmap { .. } | Record::Grow { .. } => Ok(()),
        }
    }

    /// The layer that a record speaks of.
    fn replayed_layer(&self, id: LayerId) -> Result<Arc<Layer>> {
        let table = self.table.read();
        let entry = table.get(id).map_err(|error| {
            self.corrupt(format!("the journal speaks of a layer that is not there ({error})"))
        })?;
        Ok(Arc::clone(&entry.layer))
    }

    fn replay_map(
        &self,
        id: LayerId,
        logical: LogicalBlock,
        extent: Extent,
        birth: Epoch,
        freed: &mut Vec<Extent>,
    ) -> Result<()> {
        let layer = self.replayed_layer(id)?;
        let end = logical.get().checked_add(u64::from(extent.count));
        let in_leaf = end.is_some_and(|end| (end - 1) / 256 == logical.get() / 256);
        let unused = self.attempt(|| self.pages.space.is_unused(extent))?;
        let fits = end.is_some_and(|end| end <= layer.map.read().size_blocks);
        if !in_leaf || !unused || !fits {
            return Err(self.corrupt(format!(
                "the journal maps block {} of {id} to {}, which cannot be",
                logical.get(),
                extent.start
            )));
        }
        if planted(Fault::NamedNotMarkedFirst) {
            self.attempt(|| self.pages.space.mark_named(extent))?;
        }
        self.attempt(|| {
            let mut map = layer.map.write();
            self.apply_map(&layer, &mut map, logical, extent, birth, freed)
        })
    }

    fn replay_unmap(
        &self,
        id: LayerId,
        logical: LogicalBlock,
        count: u64,
        freed: &mut Vec<Extent>,
    ) -> Result<()> {
        let layer = self.replayed_layer(id)?;
        let end =
            logical.get().checked_add(count).filter(|end| *end <= span(5)).ok_or_else(|| {
                self.corrupt(format!("the journal unmaps blocks past the end of {id}"))
            })?;
        let mut at = logical;
        while at.get() < end {
            at = self.attempt(|| {
                let mut map = layer.map.write();
                Ok(self.apply_unmap_step(&layer, &mut map, at, end, freed)?.next)
            })?;
        }
        Ok(())
    }

    /// Takes in the space of a pool that has grown, as far as it has not yet.
    pub(crate) fn grow_space(&self, pool_blocks: u64) -> Result<()> {
        let old = self.pages.space.geometry();
        let geometry = Geometry { pool_blocks, ..old };
        if pool_blocks <= old.pool_blocks {
            return Ok(());
        }
        geometry.validate().map_err(|what| self.corrupt(what))?;
        if pool_blocks * BLOCK_BYTES > self.storage.size_bytes() {
            return Err(self.corrupt(format!(
                "it is cut off: {} bytes of {}",
                self.storage.size_bytes(),
                pool_blocks * BLOCK_BYTES
            )));
        }
        self.attempt(|| self.pages.space.grow(geometry))
    }
}

fn extent_of(block: PoolBlock, blocks: usize) -> Extent {
    // A record names at most 1024 blocks.
    Extent { start: block, count: u32::try_from(blocks).unwrap_or(0) }
}

fn same_cursor(layer: LayerId, found: LogicalBlock, recorded: LogicalBlock) -> Attempt<()> {
    if found == recorded {
        return Ok(());
    }
    Err(Need::Corrupt {
        what: format!(
            "a walk over {layer} came to block {}, the journal says {}",
            found.get(),
            recorded.get()
        ),
    })
}
