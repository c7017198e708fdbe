//! Allocation runs: when a part of a device is first written, contiguous space for all of that part is
//! set aside, so that what is written there later lies beside it.
//!
//! A run lives in memory only. What it sets aside is `busy`, not `used`, and goes back to the pool when
//! the run is dropped.

use std::collections::{HashMap, VecDeque};

use super::{Extent, Space};
use crate::convert::{low_u32, to_usize};
use crate::need::Attempt;
use crate::types::{LogicalBlock, PoolBlock};

/// Runs that a device keeps at most: with runs of 64 KiB they cover 1 GiB of random writes.
const MOST_RUNS: usize = 16_384;
/// The longest extent that one request takes at once: 1 MiB.
const LONGEST_EXTENT_BLOCKS: u32 = 256;

/// The space set aside for one aligned part of a device.
struct Run {
    start: PoolBlock,
    /// Which blocks of the part still have theirs waiting: bit i for the i-th.
    waiting: [u64; 4],
}

impl Run {
    fn new(start: PoolBlock, count: u32) -> Run {
        let mut waiting = [0; 4];
        for position in 0..u64::from(count) {
            waiting[to_usize(position / 64)] |= 1 << (position % 64);
        }
        Run { start, waiting }
    }

    fn is_waiting(&self, position: u64) -> bool {
        self.waiting
            .get(to_usize(position / 64))
            .is_some_and(|word| word >> (position % 64) & 1 != 0)
    }

    fn take(&mut self, position: u64) {
        if let Some(word) = self.waiting.get_mut(to_usize(position / 64)) {
            *word &= !(1 << (position % 64));
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting == [0; 4]
    }
}

/// The runs of one device.
pub(crate) struct Runs {
    run_blocks: u64,
    runs: HashMap<u64, Run>,
    /// Parts in the order in which their runs were made; may name some that are gone.
    order: VecDeque<u64>,
    /// Where the device's last extent ended: the next one is wanted there.
    goal: Option<PoolBlock>,
}

impl Runs {
    pub(crate) fn new(run_blocks: u32) -> Runs {
        Runs {
            run_blocks: u64::from(run_blocks),
            runs: HashMap::new(),
            order: VecDeque::new(),
            goal: None,
        }
    }

    /// Takes contiguous blocks for a write of `count` blocks at `logical`: as many as it can, at least
    /// one, from the run of that part of the device or in a new one.
    pub(crate) fn reserve(
        &mut self,
        space: &Space,
        logical: LogicalBlock,
        count: u32,
    ) -> Attempt<Extent> {
        let part = logical.get() / self.run_blocks;
        let position = logical.get() % self.run_blocks;
        if let Some(run) = self.runs.get_mut(&part) {
            if run.is_waiting(position) {
                let start = run.start.plus(position);
                let mut taken = 0;
                while taken < count && run.is_waiting(position + u64::from(taken)) {
                    run.take(position + u64::from(taken));
                    taken += 1;
                }
                if run.is_empty() {
                    self.runs.remove(&part);
                }
                return Ok(Extent { start, count: taken });
            }
            // The run's own block for this place is taken: this is a rewrite. It lies elsewhere.
            return space.reserve_data(self.goal, count.min(LONGEST_EXTENT_BLOCKS));
        }
        let end = logical.get() + u64::from(count);
        let whole_parts = position == 0 && u64::from(count) >= self.run_blocks;
        if whole_parts {
            // Whole parts need no run: all of each is written now.
            let blocks = (end / self.run_blocks - part) * self.run_blocks;
            let want = low_u32(blocks.min(u64::from(LONGEST_EXTENT_BLOCKS)));
            let extent = space.reserve_data(self.goal, want)?;
            self.goal = Some(extent.start.plus(u64::from(extent.count)));
            return Ok(extent);
        }
        let extent = space.reserve_data(self.goal, low_u32(self.run_blocks))?;
        self.goal = Some(extent.start.plus(u64::from(extent.count)));
        if u64::from(extent.count) < self.run_blocks {
            // No run of full length is left: take what is needed of this one, at its start.
            let wanted = count.min(low_u32(self.run_blocks - position)).min(extent.count);
            if wanted < extent.count {
                space.release(Extent {
                    start: extent.start.plus(u64::from(wanted)),
                    count: extent.count - wanted,
                });
            }
            return Ok(Extent { start: extent.start, count: wanted });
        }
        self.make_room(space);
        self.runs.insert(part, Run::new(extent.start, extent.count));
        self.order.push_back(part);
        self.reserve(space, logical, count)
    }

    fn make_room(&mut self, space: &Space) {
        while self.runs.len() >= MOST_RUNS || self.order.len() >= 2 * MOST_RUNS {
            let Some(part) = self.order.pop_front() else { break };
            self.drop_run(space, part);
        }
    }

    fn drop_run(&mut self, space: &Space, part: u64) {
        let Some(run) = self.runs.remove(&part) else { return };
        for position in 0..self.run_blocks {
            if run.is_waiting(position) {
                space.release(Extent::one(run.start.plus(position)));
            }
        }
    }

    /// Gives all that is set aside back to the pool.
    pub(crate) fn clear(&mut self, space: &Space) {
        while let Some(part) = self.order.pop_front() {
            self.drop_run(space, part);
        }
        debug_assert!(self.runs.is_empty());
        self.goal = None;
    }

    /// Blocks that are set aside and not used.
    #[cfg(test)]
    pub(crate) fn waiting_blocks(&self) -> u64 {
        let bits = |run: &Run| run.waiting.iter().map(|word| word.count_ones()).sum::<u32>();
        self.runs.values().map(|run| u64::from(bits(run))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::geometry::{Geometry, GroupIndex};
    use crate::format::pointer::BlockPtr;

    fn space() -> Space {
        let geometry = Geometry { pool_blocks: 32_768, journal_blocks: 64 };
        let space = Space::new(geometry, |_| BlockPtr::NULL).unwrap();
        space.load(GroupIndex::new(0), None).unwrap();
        space
    }

    #[test]
    fn scattered_writes_to_one_part_come_to_lie_side_by_side() {
        let space = space();
        let mut runs = Runs::new(16);
        let first = runs.reserve(&space, LogicalBlock::new(5), 1).unwrap();
        let other_part = runs.reserve(&space, LogicalBlock::new(100), 1).unwrap();
        let second = runs.reserve(&space, LogicalBlock::new(6), 1).unwrap();
        assert_eq!(second.start, first.start.plus(1));
        assert_ne!(other_part.start, first.start.plus(1));
        assert_eq!(runs.waiting_blocks(), 14 + 15);
        let before = space.counts().available;
        runs.clear(&space);
        assert_eq!(space.counts().available, before + 29);
    }

    #[test]
    fn sequential_writes_are_contiguous_over_many_parts() {
        let space = space();
        let mut runs = Runs::new(16);
        let first = runs.reserve(&space, LogicalBlock::new(0), 64).unwrap();
        assert_eq!(first.count, 64);
        let next = runs.reserve(&space, LogicalBlock::new(64), 3).unwrap();
        assert_eq!(next.start, first.start.plus(64));
    }

    #[test]
    fn a_fragmented_pool_still_gives_single_blocks() {
        let space = space();
        let mut runs = Runs::new(16);
        let mut singles = Vec::new();
        while let Ok(extent) = space.reserve_data(None, 1) {
            singles.push(extent);
        }
        // The reserve lies together: pages take it.
        while space.take_for_pages(64).is_ok() {}
        for extent in singles.iter().step_by(2) {
            space.release(*extent);
        }
        let extent = runs.reserve(&space, LogicalBlock::new(3), 8).unwrap();
        assert_eq!(extent.count, 1);
        assert_eq!(runs.waiting_blocks(), 0);
    }
}
