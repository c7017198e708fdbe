//! Where the journal stands: positions, sequence numbers, and the blocks that wait for a batch to be
//! settled.
//!
//! Order, and why: (1) data is written; (2) the batch that names it is written; (3) one fdatasync covers
//! both; (4) a later batch says that this one is durable; (5) only then may a block named in it be
//! overwritten in place, and a block freed by it be used again. Until (4) is durable itself, replay
//! checks the data against the batch's CRCs: before (3) either may be missing.

use std::collections::VecDeque;

use super::pending::{Freed, Records};
use super::ring::Ring;
use crate::convert::{to_u64, to_usize};
use crate::format::batch;
use crate::format::superblock::JournalPosition;
use crate::planted::{Fault, planted};
use crate::space::Extent;
use crate::types::BLOCK_BYTES;

/// Blocks that wait for a batch to be settled.
#[derive(Debug)]
struct Outstanding {
    sequence: u64,
    named: Vec<Extent>,
    freed: Vec<Freed>,
}

/// Bytes to be written to the ring at a position.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) position: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What becomes true once a flush of the storage, begun after the batches were written, has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    sequence: u64,
    settled: u64,
}

/// What was settled: blocks that may be overwritten in place, blocks that may be used again.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pub(crate) named: Vec<Extent>,
    pub(crate) freed: Vec<Freed>,
}

/// The journal's end.
#[derive(Debug)]
pub(crate) struct Writer {
    ring: Ring,
    pool_tag: u64,
    /// New each time the pool is opened.
    life: u64,
    position: JournalPosition,
    /// The highest batch that is durable.
    durable: u64,
    /// The highest batch that a durable batch says is durable.
    settled: u64,
    /// What the last batch written says.
    settled_on_disk: u64,
    outstanding: VecDeque<Outstanding>,
    /// Where the newest superblock, and the older one, start their replay.
    pub(crate) newest_start_blocks: u64,
    pub(crate) oldest_start_blocks: u64,
}

impl Writer {
    pub(crate) fn new(
        ring: Ring,
        pool_tag: u64,
        life: u64,
        position: JournalPosition,
        oldest_start_blocks: u64,
    ) -> Writer {
        Writer {
            ring,
            pool_tag,
            life,
            position,
            durable: position.sequence,
            settled: position.sequence,
            settled_on_disk: position.sequence,
            outstanding: VecDeque::new(),
            newest_start_blocks: position.head_blocks,
            oldest_start_blocks,
        }
    }

    pub(crate) fn position(&self) -> JournalPosition {
        self.position
    }

    fn batch_limit_bytes(&self) -> u64 {
        batch_limit_bytes(self.ring)
    }

    /// Blocks in the ring that so many bytes of records take at the most.
    fn blocks_for(&self, length_bytes: u64) -> u64 {
        batch::blocks_for(length_bytes) + 2 * length_bytes.div_ceil(self.batch_limit_bytes())
    }

    /// Has the ring filled past so many sixteenths since the last checkpoint, with so many bytes more?
    pub(crate) fn is_past(&self, sixteenths: u64, pending_bytes: u64) -> bool {
        let since = self.position.head_blocks - self.newest_start_blocks;
        (since + self.blocks_for(pending_bytes)) * 16 > self.ring.blocks * sixteenths
    }

    /// Is there something that one more batch would settle?
    pub(crate) fn can_settle(&self) -> bool {
        self.outstanding.front().is_some_and(|batch| batch.sequence <= self.durable)
    }

    /// Does anything wait to be settled?
    pub(crate) fn has_outstanding(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Turns records into batches: at least one, even if there are none. The caller writes them before
    /// anybody else stages.
    pub(crate) fn stage(&mut self, records: Records) -> Staged {
        let start = self.position.head_blocks;
        let mut bytes = Vec::new();
        let limit = to_usize(self.batch_limit_bytes());
        let mut from = 0;
        let mut end = 0;
        for boundary in &records.boundaries {
            if boundary - from > limit && end > from {
                self.add_batch(&mut bytes, records.bytes.get(from..end).unwrap_or(&[]));
                from = end;
            }
            end = *boundary;
        }
        self.add_batch(&mut bytes, records.bytes.get(from..end).unwrap_or(&[]));
        if !records.named.is_empty() || !records.freed.is_empty() {
            self.outstanding.push_back(Outstanding {
                sequence: self.position.sequence,
                named: records.named,
                freed: records.freed,
            });
        }
        Staged { position: start, bytes }
    }

    /// Like [`Writer::stage`], but nothing where there are no records.
    pub(crate) fn stage_if_any(&mut self, records: Records) -> Option<Staged> {
        (!records.is_empty()).then(|| self.stage(records))
    }

    /// Has what was staged run over what the older superblock needs? It must never come to this: callers
    /// take checkpoints early enough.
    pub(crate) fn overruns_now(&self) -> bool {
        self.position.head_blocks - self.oldest_start_blocks > self.ring.blocks
    }

    fn add_batch(&mut self, out: &mut Vec<u8>, records: &[u8]) {
        let sequence = self.position.sequence + 1;
        let settled = if planted(Fault::SettledTooHigh) { sequence } else { self.durable };
        let (bytes, crc) = batch::encode(
            self.pool_tag,
            self.life,
            sequence,
            settled,
            self.position.chain_crc,
            records,
        );
        out.extend_from_slice(&bytes);
        self.settled_on_disk = self.durable;
        self.position = JournalPosition {
            sequence,
            head_blocks: self.position.head_blocks + to_u64(bytes.len()) / BLOCK_BYTES,
            chain_crc: crc,
        };
    }

    /// What a flush of the storage that begins now will prove.
    pub(crate) fn after_flush(&self) -> Durable {
        Durable { sequence: self.position.sequence, settled: self.settled_on_disk }
    }

    /// The flush has returned: gives what is settled by it.
    pub(crate) fn flushed(&mut self, durable: Durable) -> Released {
        self.durable = self.durable.max(durable.sequence);
        self.settled = self.settled.max(durable.settled);
        if planted(Fault::ReleasedBeforeSettled) {
            self.settled = self.durable;
        }
        let mut released = Released::default();
        while let Some(batch) =
            self.outstanding.pop_front_if(|batch| batch.sequence <= self.settled)
        {
            released.named.extend(batch.named);
            released.freed.extend(batch.freed);
        }
        released
    }
}

/// The most bytes of records in one batch: so small that a damaged batch's successor is found near.
pub(crate) fn batch_limit_bytes(ring: Ring) -> u64 {
    largest_batch_blocks(ring) * BLOCK_BYTES - to_u64(batch::BATCH_HEADER_BYTES)
}

/// The largest batch of a ring: an eighth of it.
pub(crate) fn largest_batch_blocks(ring: Ring) -> u64 {
    ring.blocks / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::Record;
    use crate::journal::pending::Pending;
    use crate::types::{LayerId, PoolBlock};

    fn writer() -> Writer {
        Writer::new(Ring { blocks: 64 }, 1, 2, JournalPosition::default(), 0)
    }

    #[test]
    fn a_block_is_settled_by_the_batch_after_the_durable_one() {
        let mut writer = writer();
        let extent = Extent::one(PoolBlock::new(500));
        let layer = LayerId::new(1).unwrap();
        let pending = Pending::default();
        pending.append(&[Record::Seal { layer }], &[extent], &[], false);
        writer.stage(pending.take());
        let first = writer.after_flush();
        assert!(!writer.can_settle());
        assert!(writer.flushed(first).named.is_empty());
        assert!(writer.can_settle());
        writer.stage(Records::default());
        let second = writer.after_flush();
        assert_eq!(writer.flushed(second).named, [extent]);
        assert!(!writer.has_outstanding());
    }

    #[test]
    fn records_beyond_a_batch_are_divided_at_their_boundaries() {
        let mut writer = writer();
        let pending = Pending::default();
        let layer = LayerId::new(1).unwrap();
        for _ in 0..10_000 {
            pending.append(&[Record::Seal { layer }], &[], &[], false);
        }
        let staged = writer.stage(pending.take());
        let mut at = 0;
        let mut count = 0;
        while at < staged.bytes.len() {
            let header = batch::decode_header(1, &staged.bytes[at..]).unwrap();
            let records = batch::verified_records(&header, &staged.bytes[at..]).unwrap();
            assert!(header.blocks() <= 8);
            count += Record::decode_all(records).unwrap().len();
            at += to_usize(header.blocks() * BLOCK_BYTES);
        }
        assert_eq!(count, 10_000);
    }
}
