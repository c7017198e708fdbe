//! Where things with a fixed place lie: groups, their heads, the journal's ring.
//!
//! The pool is divided into groups of 32,768 blocks (128 MiB), each as large as one bitmap page can
//! describe. A group begins with its head of 36 blocks:
//!
//! | block of the head | what |
//! |---|---|
//! | 0 | group 0: superblock A; elsewhere unused |
//! | 1, 2 | the two homes of the group's bitmap, written alternately |
//! | 3 to 34 | CRC-32 of each block of the group, 1,024 a block: data of sealed layers |
//! | 35 | group 0: superblock B; elsewhere unused |
//!
//! The journal follows the head of group 0 and stays inside group 0.

use crate::types::{BLOCK_BYTES, PoolBlock};

/// Blocks described by one bitmap page.
pub(crate) const BLOCKS_PER_GROUP: u64 = 32_768;
/// Blocks at the start of each group that are never allocated.
pub(crate) const GROUP_HEAD_BLOCKS: u64 = 36;
/// The two superblocks, written in turn, 140 KiB apart.
pub(crate) const SUPERBLOCK_HOMES: [PoolBlock; 2] = [PoolBlock::new(0), PoolBlock::new(35)];
/// The journal's first block.
pub(crate) const JOURNAL_START: PoolBlock = PoolBlock::new(GROUP_HEAD_BLOCKS);
/// The smallest and the largest journal: what fits in group 0 beside some data.
pub(crate) const JOURNAL_BLOCKS: std::ops::RangeInclusive<u64> = 64..=24_576;
/// The smallest pool: 4 MiB.
pub(crate) const MINIMUM_POOL_BLOCKS: u64 = 1024;
/// The largest pool: as many groups as the space map of height 3 has entries (2 PiB).
pub(crate) const MAXIMUM_POOL_BLOCKS: u64 = BLOCKS_PER_GROUP << 24;
/// The largest device: 1 PiB.
pub(crate) const MAXIMUM_DEVICE_BLOCKS: u64 = (1 << 50) / BLOCK_BYTES;
/// Levels of pages in the layer table above the record pages, and in the space map. They never change,
/// so that a table that grew and shrank takes exactly the space it took before.
pub(crate) const TABLE_HEIGHT: u8 = 3;

/// A group of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupIndex(u64);

/// CRC-32s in a block of them.
pub(crate) const SUMS_PER_BLOCK: u64 = BLOCK_BYTES / 4;
/// The first block of a head that holds CRC-32s.
const FIRST_SUM_BLOCK: u64 = 3;

/// Where the CRC-32 of a block's data has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SumHome {
    pub(crate) block: PoolBlock,
    /// Which entry of that block.
    pub(crate) index: u64,
}

impl SumHome {
    pub(crate) const fn of(data: PoolBlock) -> SumHome {
        let start = GroupIndex::of(data).first_block();
        let index = data.get() - start.get();
        SumHome {
            block: start.plus(FIRST_SUM_BLOCK + index / SUMS_PER_BLOCK),
            index: index % SUMS_PER_BLOCK,
        }
    }
}

impl GroupIndex {
    pub(crate) const fn new(index: u64) -> GroupIndex {
        GroupIndex(index)
    }

    pub(crate) const fn of(block: PoolBlock) -> GroupIndex {
        GroupIndex(block.get() / BLOCKS_PER_GROUP)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn first_block(self) -> PoolBlock {
        PoolBlock::new(self.0 * BLOCKS_PER_GROUP)
    }

    /// The two places of the group's bitmap.
    pub(crate) const fn bitmap_homes(self) -> [PoolBlock; 2] {
        [self.first_block().plus(1), self.first_block().plus(2)]
    }
}

/// The sizes that fix where everything lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Blocks in the pool; a last part too small to hold a head and a block is left out.
    pub(crate) pool_blocks: u64,
    /// Blocks in the journal's ring.
    pub(crate) journal_blocks: u64,
}

impl Geometry {
    /// Checks the sizes against each other; the text says what is wrong.
    pub(crate) fn validate(self) -> Result<(), String> {
        if self.pool_blocks < MINIMUM_POOL_BLOCKS || self.pool_blocks > MAXIMUM_POOL_BLOCKS {
            return Err(format!(
                "{} blocks: a pool has {MINIMUM_POOL_BLOCKS} to {MAXIMUM_POOL_BLOCKS}",
                self.pool_blocks
            ));
        }
        if !JOURNAL_BLOCKS.contains(&self.journal_blocks) {
            return Err(format!(
                "a journal of {} blocks: it has {} to {}",
                self.journal_blocks,
                JOURNAL_BLOCKS.start(),
                JOURNAL_BLOCKS.end()
            ));
        }
        if GROUP_HEAD_BLOCKS + self.journal_blocks > self.pool_blocks / 2 {
            return Err(format!(
                "a journal of {} blocks takes more than half of {} blocks",
                self.journal_blocks, self.pool_blocks
            ));
        }
        Ok(())
    }

    pub(crate) const fn group_count(self) -> u64 {
        self.pool_blocks.div_ceil(BLOCKS_PER_GROUP)
    }

    /// Blocks of a group that exist: all but in the last one.
    pub(crate) fn blocks_in(self, group: GroupIndex) -> u64 {
        self.pool_blocks.saturating_sub(group.first_block().get()).min(BLOCKS_PER_GROUP)
    }

    /// Blocks at the start of a group that are taken by its head, and in group 0 by the journal.
    pub(crate) fn fixed_in(self, group: GroupIndex) -> u64 {
        let journal = if group.get() == 0 { self.journal_blocks } else { 0 };
        (GROUP_HEAD_BLOCKS + journal).min(self.blocks_in(group))
    }

    /// Blocks that are taken from the start by heads and the journal.
    pub(crate) fn fixed_blocks(self) -> u64 {
        let groups = self.group_count();
        let last = GroupIndex::new(groups - 1);
        let heads_before = (groups - 1) * GROUP_HEAD_BLOCKS;
        let journal = if groups > 1 { self.journal_blocks } else { 0 };
        heads_before + journal + self.fixed_in(last)
    }

    /// Can this block hold data or a page?
    pub(crate) fn is_allocatable(self, block: PoolBlock) -> bool {
        let group = GroupIndex::of(block);
        block.get() < self.pool_blocks
            && block.get() - group.first_block().get() >= self.fixed_in(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_blocks_are_the_sum_over_all_groups() {
        for pool_blocks in [1024, 32_768, 32_769, 32_768 + 35, 32_768 + 36, 32_768 + 37, 200_000] {
            let geometry = Geometry { pool_blocks, journal_blocks: 256 };
            let sum: u64 = (0..geometry.group_count())
                .map(|index| geometry.fixed_in(GroupIndex::new(index)))
                .sum();
            assert_eq!(geometry.fixed_blocks(), sum, "{pool_blocks} blocks");
        }
    }

    #[test]
    fn every_block_has_a_checksum_of_its_own_inside_the_head() {
        for group in [0, 1, 7] {
            let start = GroupIndex::new(group).first_block();
            let home = |index| SumHome::of(start.plus(index));
            assert_eq!(home(0), SumHome { block: start.plus(3), index: 0 });
            assert_eq!(home(1023), SumHome { block: start.plus(3), index: 1023 });
            assert_eq!(home(1024), SumHome { block: start.plus(4), index: 0 });
            assert_eq!(home(32_767), SumHome { block: start.plus(34), index: 1023 });
        }
    }

    #[test]
    fn heads_journal_and_the_end_are_not_allocatable() {
        let geometry = Geometry { pool_blocks: 40_000, journal_blocks: 64 };
        for (block, expected) in [
            (0, false),
            (35, false),
            (36, false),
            (99, false),
            (100, true),
            (32_767, true),
            (32_768, false),
            (32_803, false),
            (32_804, true),
            (39_999, true),
            (40_000, false),
        ] {
            assert_eq!(geometry.is_allocatable(PoolBlock::new(block)), expected, "block {block}");
        }
    }
}
