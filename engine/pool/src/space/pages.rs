//! Blocks for pages, and what is kept so that a full pool can still be written out, recovered and freed.

use super::{Extent, Space};
use crate::convert::{low_u32, to_u64, to_usize};
use crate::format::geometry::GroupIndex;
use crate::need::{Attempt, Need};
use crate::types::PoolBlock;

/// Of what is set aside, so much is left to the tables: with it a checkpoint is taken, and removed layers
/// are freed, on a host without space. No more than a quarter of the smallest reserve.
const TABLE_STOCK_BLOCKS: u64 = 32;

impl Space {
    /// A cut: what is available now is what its replay starts with.
    pub(crate) fn begin_replay_room(&self) {
        let mut inner = self.inner.lock();
        inner.replay_room = [inner.free_for_pages(), inner.replay_room[0]];
    }

    /// The newest superblock is durable: replay starts there.
    pub(crate) fn end_replay_room(&self) {
        self.inner.lock().replay_room[1] = u64::MAX;
    }

    /// Recovery is over: from here on space is kept for the next one.
    pub(crate) fn end_recovery(&self) {
        let mut inner = self.inner.lock();
        inner.recovering = false;
        inner.replay_room = [inner.free_for_pages(), u64::MAX];
    }

    /// Has so much been taken since the last cut that a replay could come to want space, and would a
    /// checkpoint help? `coming` is what it would make available.
    pub(crate) fn is_replay_room_short(&self, coming: u64) -> bool {
        let inner = self.inner.lock();
        let room = inner.least_replay_room();
        room < inner.reserve / 4 * 3 && inner.free_for_pages() + coming >= room + inner.reserve / 4
    }

    /// Is there space for the pages of another layer's record, besides what removals need?
    pub(crate) fn has_room_for_layer(&self) -> bool {
        let inner = self.inner.lock();
        inner.free_for_pages() >= inner.reserve / 4 * 3
    }

    /// Takes blocks for pages of maps. A quarter of the reserve is left for the tables, without which no
    /// checkpoint can be taken, and so no pool opened.
    pub(crate) fn allocate_map_pages(&self, count: usize) -> Attempt<Vec<PoolBlock>> {
        {
            let inner = self.inner.lock();
            let room = inner.least_replay_room().min(inner.free_for_pages());
            if !inner.recovering && count > 0 {
                if room < to_u64(count) + inner.reserve / 4 {
                    return Err(Need::Room);
                }
                if inner.stocked < to_u64(count) + TABLE_STOCK_BLOCKS && inner.available > 0 {
                    return Err(Need::PageRun { stocked_before: inner.runs_stocked });
                }
            }
        }
        self.allocate_pages(count)
    }

    /// Takes blocks for pages, all or none, of those that were set aside. These may come from the reserve.
    pub(crate) fn allocate_pages(&self, count: usize) -> Attempt<Vec<PoolBlock>> {
        let mut inner = self.inner.lock();
        if inner.stocked < to_u64(count) {
            let stocked_before = inner.runs_stocked;
            return Err(if inner.available == 0 {
                Need::Room
            } else {
                Need::PageRun { stocked_before }
            });
        }
        let mut blocks = Vec::with_capacity(count);
        while blocks.len() < count
            && let Some(run) = inner.page_stock.front_mut()
        {
            let block = run.start;
            run.start = block.plus(1);
            run.count -= 1;
            if run.count == 0 {
                inner.page_stock.pop_front();
            }
            inner.stocked -= 1;
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

    /// Takes a run of `most` blocks or fewer for pages. The caller has the host set space aside for it, and then gives it to
    /// [`Space::stock`], or back to [`Space::release`].
    pub(crate) fn take_for_pages(&self, most: u32) -> Attempt<Extent> {
        let mut inner = self.inner.lock();
        if inner.available == 0 {
            return Err(Need::Room);
        }
        let cursor = inner.lowest_free.first_block();
        let want = low_u32(u64::from(most).min(inner.available));
        self.find(&mut inner, cursor, want)
    }

    /// Pages can be made of this run.
    pub(crate) fn stock(&self, run: Extent) {
        let mut inner = self.inner.lock();
        inner.stocked += u64::from(run.count);
        inner.runs_stocked += 1;
        inner.page_stock.push_back(run);
    }

    /// How often a run was set aside for pages.
    pub(crate) fn runs_stocked(&self) -> u64 {
        self.inner.lock().runs_stocked
    }

    /// The host has set space aside for the head of this group.
    pub(crate) fn note_head_reserved(&self, group: GroupIndex) {
        let mut inner = self.inner.lock();
        if let Some(info) = inner.groups.get_mut(to_usize(group.get())) {
            info.head_reserved = true;
        }
    }

    /// Is space for a replay not kept back yet?
    pub(crate) fn is_recovering(&self) -> bool {
        self.inner.lock().recovering
    }
}
