//! Checksums of data: the CRC-32 of each block that a sealed layer owns, in the head of the block's group.
//!
//! [`pass`] takes them, [`verify`] looks at them. Which of them count is told in `layers/sums.rs`. They have
//! fixed places and are written in place: a torn write leaves, sector by sector, old or new entries, and
//! an entry that counts is written again only as what it was.

mod pass;
mod verify;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use thinstore_storage::{Error, Result};

use crate::convert::{to_u64, to_usize};
use crate::core::Core;
use crate::space::Extent;
use crate::sync::Mutex;
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH, PoolBlock};

pub(crate) use verify::Place;

/// Blocks that are read at once: 1 MiB.
const READ_BLOCKS: u32 = 256;
/// The cache is never smaller: one scan over a small pool finds all in it.
const LEAST_BLOCKS: usize = 16;

/// A block of CRC-32s.
pub(crate) struct SumBlock(Box<[u8; BLOCK_LENGTH]>);

impl SumBlock {
    fn entry(&self, index: u64) -> u32 {
        let at = to_usize(index) * 4;
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }

    fn set_entry(&mut self, index: u64, crc: u32) {
        let at = to_usize(index) * 4;
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }
}

#[derive(Default)]
struct Cached {
    blocks: HashMap<PoolBlock, Arc<SumBlock>>,
    /// The oldest first.
    order: VecDeque<PoolBlock>,
}

/// Blocks of CRC-32s in memory; the oldest go first. An entry may be older than the one on the disk: who
/// finds data that does not match reads both again.
pub(crate) struct SumCache {
    cached: Mutex<Cached>,
    most_blocks: usize,
}

impl SumCache {
    pub(crate) fn new(budget_bytes: u64) -> SumCache {
        let most_blocks = to_usize(budget_bytes / BLOCK_BYTES).max(LEAST_BLOCKS);
        SumCache { cached: Mutex::default(), most_blocks }
    }

    fn get(&self, block: PoolBlock) -> Option<Arc<SumBlock>> {
        self.cached.lock().blocks.get(&block).map(Arc::clone)
    }

    fn insert(&self, block: PoolBlock, sums: Arc<SumBlock>) {
        let mut cached = self.cached.lock();
        if cached.blocks.insert(block, sums).is_none() {
            cached.order.push_back(block);
        }
        while cached.blocks.len() > self.most_blocks {
            let Some(oldest) = cached.order.pop_front() else { return };
            cached.blocks.remove(&oldest);
        }
    }
}

impl Core {
    fn read_sums(&self, block: PoolBlock) -> Result<SumBlock> {
        let mut bytes = Box::new([0; BLOCK_LENGTH]);
        self.storage.read_at(block.offset_bytes(), &mut bytes[..]).map_err(|source| {
            Error::io(format!("cannot read the checksums at {block} of {}", self.name), source)
        })?;
        Ok(SumBlock(bytes))
    }
}

/// Contiguous stretches of sorted blocks, none longer than what is read at once.
pub(crate) fn joined(blocks: &[PoolBlock]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for block in blocks {
        match extents.last_mut() {
            Some(last)
                if last.count < READ_BLOCKS && last.start.plus(u64::from(last.count)) == *block =>
            {
                last.count += 1;
            }
            _ => extents.push(Extent::one(*block)),
        }
    }
    debug_assert_eq!(
        extents.iter().map(|extent| u64::from(extent.count)).sum::<u64>(),
        to_u64(blocks.len())
    );
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_budget() {
        let cache = SumCache::new(0);
        for block in 0..1000 {
            let mut sums = SumBlock(Box::new([0; BLOCK_LENGTH]));
            sums.set_entry(1023, 7);
            assert_eq!((sums.entry(1022), sums.entry(1023)), (0, 7));
            cache.insert(PoolBlock::new(block), Arc::new(sums));
        }
        assert_eq!(cache.cached.lock().blocks.len(), LEAST_BLOCKS);
        assert_eq!(cache.cached.lock().order.len(), LEAST_BLOCKS);
        assert!(cache.get(PoolBlock::new(999)).is_some());
        assert!(cache.get(PoolBlock::new(0)).is_none());
    }
}
