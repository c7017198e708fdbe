//! Holding data that was read against its checksums.

use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result};

use super::SumBlock;
use crate::core::Core;
use crate::format::geometry::SumHome;
use crate::types::{BLOCK_LENGTH, LayerId, LogicalBlock, PoolBlock};

/// What was read: blocks that are contiguous in the layer and in the pool, by the first of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) layer: LayerId,
    pub(crate) logical: LogicalBlock,
    pub(crate) block: PoolBlock,
}

/// Data and checksum that do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) found: u32,
    pub(crate) recorded: u32,
}

impl Core {
    /// The checksums in a block of them, from memory if they are there.
    fn sums(&self, block: PoolBlock) -> Result<Arc<SumBlock>> {
        if let Some(sums) = self.sums.get(block) {
            return Ok(sums);
        }
        let sums = Arc::new(self.read_sums(block)?);
        self.sums.insert(block, Arc::clone(&sums));
        Ok(sums)
    }

    /// Looks at whole blocks that were read from `place` on, each of which has a checksum. No lock is
    /// needed but what keeps the blocks from being overwritten.
    pub(crate) fn verify(&self, place: Place, bytes: &mut [u8]) -> Result<()> {
        let mut sums: Option<(PoolBlock, Arc<SumBlock>)> = None;
        for (index, data) in (0..).zip(bytes.chunks_exact_mut(BLOCK_LENGTH)) {
            let block = place.block.plus(index);
            let home = SumHome::of(block);
            let entries = match &sums {
                Some((at, entries)) if *at == home.block => Arc::clone(entries),
                _ => self.sums(home.block)?,
            };
            if entries.entry(home.index) != crc32fast::hash(data)
                && let Some(mismatch) = self.read_again(block, data)?
            {
                return Err(self.mismatched(
                    place.layer,
                    place.logical.plus(index),
                    block,
                    mismatch,
                ));
            }
            sums = Some((home.block, entries));
        }
        Ok(())
    }

    /// Reads a block and its checksum once more, past what is cached here: a checksum in memory may be older
    /// than the data.
    pub(crate) fn read_again(&self, block: PoolBlock, data: &mut [u8]) -> Result<Option<Mismatch>> {
        let home = SumHome::of(block);
        let sums = Arc::new(self.read_sums(home.block)?);
        self.storage.read_at(block.offset_bytes(), data).map_err(|source| {
            Error::io(format!("cannot read {block} of {} again", self.name), source)
        })?;
        let mismatch = Mismatch { found: crc32fast::hash(data), recorded: sums.entry(home.index) };
        self.sums.insert(home.block, sums);
        Ok((mismatch.found != mismatch.recorded).then_some(mismatch))
    }

    fn mismatched(
        &self,
        layer: LayerId,
        logical: LogicalBlock,
        block: PoolBlock,
        mismatch: Mismatch,
    ) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "block {} of {layer} of {} is damaged: the data at {block} has checksum {:08x}, recorded is \
                 {:08x}; either the data or its checksum has changed: restore it from another copy",
                logical.get(),
                self.name,
                mismatch.found,
                mismatch.recorded
            ),
        )
    }
}
