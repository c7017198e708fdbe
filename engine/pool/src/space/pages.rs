//! Blocks for pages, and what is kept so that a full pool can still be written out, recovered and freed.

use super::{Extent, Space};
use crate::convert::{low_u32, to_u64};
use crate::need::{Attempt, Need};
use crate::types::PoolBlock;

/// Blocks that are set aside for pages at a time, so that a checkpoint writes them side by side.
const PAGE_RUN_BLOCKS: u32 = 64;

impl Space {
    /// A cut: what is available now is what its replay starts with.
    pub(crate) fn begin_replay_room(&self) {
        let mut inner = self.inner.lock();
        inner.replay_room = [inner.available, inner.replay_room[0]];
    }

    /// The newest superblock is durable: replay starts there.
    pub(crate) fn end_replay_room(&self) {
        self.inner.lock().replay_room[1] = u64::MAX;
    }

    /// Recovery is over: from here on space is kept for the next one.
    pub(crate) fn end_recovery(&self) {
        let mut inner = self.inner.lock();
        inner.recovering = false;
        inner.replay_room = [inner.available, u64::MAX];
    }

    /// Has so much been taken since the last cut that a replay could come to want space, and would a
    /// checkpoint help? `coming` is what it would make available.
    pub(crate) fn is_replay_room_short(&self, coming: u64) -> bool {
        let inner = self.inner.lock();
        let room = inner.least_replay_room();
        room < inner.reserve / 4 * 3 && inner.available + coming >= room + inner.reserve / 4
    }

    /// Is there space for the pages of another layer's record, besides what removals need?
    pub(crate) fn has_room_for_layer(&self) -> bool {
        let inner = self.inner.lock();
        inner.available >= inner.reserve / 4 * 3
    }

    /// Takes blocks for pages of maps. A quarter of the reserve is left for the tables, without which no
    /// checkpoint can be taken, and so no pool opened.
    pub(crate) fn allocate_map_pages(&self, count: usize) -> Attempt<Vec<PoolBlock>> {
        {
            let inner = self.inner.lock();
            let room = inner.least_replay_room().min(inner.available);
            if !inner.recovering && count > 0 && room < to_u64(count) + inner.reserve / 4 {
                return Err(Need::Room);
            }
        }
        self.allocate_pages(count)
    }

    /// Takes blocks for pages, all or none. These may come from the reserve.
    pub(crate) fn allocate_pages(&self, count: usize) -> Attempt<Vec<PoolBlock>> {
        let mut inner = self.inner.lock();
        let mut blocks = Vec::with_capacity(count);
        while blocks.len() < count {
            if inner.page_run.count == 0 {
                let cursor = inner.lowest_free.first_block();
                let want = low_u32(u64::from(PAGE_RUN_BLOCKS).min(inner.available.max(1)));
                let found = if inner.available == 0 {
                    Err(Need::Room)
                } else {
                    self.find(&mut inner, cursor, want)
                };
                match found {
                    Ok(extent) => inner.page_run = extent,
                    Err(need) => {
                        drop(inner);
                        for block in blocks {
                            self.free_unwritten(block);
                        }
                        return Err(need);
                    }
                }
            }
            let block = inner.page_run.start;
            inner.page_run.start = block.plus(1);
            inner.page_run.count -= 1;
            let taken = self.each(&mut inner, Extent::one(block), |bits, info, inside| {
                bits.set_used(inside, true);
                bits.set_busy(inside, false);
                info.free -= 1;
                info.dirty = true;
            });
            debug_assert!(taken.is_ok(), "a reserved run without its bitmap");
            inner.used += 1;
            inner.take_replay_room(1);
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// Gives the run that pages are taken from back: for a pool that is all but full.
    pub(crate) fn release_page_run(&self) {
        let run = {
            let mut inner = self.inner.lock();
            let run = inner.page_run;
            inner.page_run.count = 0;
            run
        };
        if run.count > 0 {
            self.release(run);
        }
    }
}
