//! Which blocks of the pool are free: groups, their bitmaps, and the rules of reuse.
//!
//! Invariants:
//!  - `used` is set exactly for what the maps, the tables and the group heads hold;
//!  - a block that was freed stays `busy` until its freeing can no longer be undone by a crash, and is
//!    handed out only then;
//!  - blocks of data are never taken from the reserve, so that pages can still be written when the pool
//!    is full, and space freed.
//!
//! Nothing here does I/O: a bitmap that is not in memory is asked for by [`Need::Group`], and space of the
//! host's, which everything but data has before it is used, by [`Need::PageRun`] and [`Need::Head`].

mod bitmap;
mod pages;
pub(crate) mod runs;
mod saving;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use self::bitmap::GroupBits;
pub(crate) use self::saving::BitmapImage;
use crate::convert::{low_u32, to_u64, to_usize};
use crate::format::geometry::{Geometry, GroupIndex};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::need::{Attempt, Need};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::types::PoolBlock;

/// Contiguous blocks of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: PoolBlock,
    pub(crate) count: u32,
}

impl Extent {
    pub(crate) const fn one(start: PoolBlock) -> Extent {
        Extent { start, count: 1 }
    }

    /// Adds `next` to a list, joining it to the last extent where they touch.
    pub(crate) fn push_joined(list: &mut Vec<Extent>, next: Extent) {
        if let Some(last) = list.last_mut()
            && last.start.plus(u64::from(last.count)) == next.start
            && let Some(count) = last.count.checked_add(next.count)
        {
            last.count = count;
            return;
        }
        list.push(next);
    }
}

/// What is known of a group without its bitmap.
#[derive(Clone, Copy)]
struct GroupInfo {
    /// Blocks with neither bit set.
    available: u32,
    /// Blocks without `used`: what is saved as the free count.
    free: u32,
    /// Where the bitmap was last saved; null while nothing but the head is in use.
    saved: BlockPtr,
    /// The bits differ from what was saved.
    dirty: bool,
    /// No free run is longer than this. A bound, not the exact length.
    longest_run: u32,
    /// The host has set space aside for the head.
    head_reserved: bool,
}

struct Inner {
    geometry: Geometry,
    groups: Vec<GroupInfo>,
    available: u64,
    used: u64,
    reserve: u64,
    /// No group before this one has a free block: space is taken from the front, so that a pool file
    /// stays short and what is freed is used again.
    lowest_free: GroupIndex,
    /// Blocks set aside for pages, for which the host has set space aside as well: a checkpoint must not
    /// find the host's disk full.
    page_stock: VecDeque<Extent>,
    /// How many these are.
    stocked: u64,
    /// How often a run was set aside.
    runs_stocked: u64,
    /// Blocks that a replay would have left: those available at the last cut, less all that was taken
    /// since. What was freed since is not among them, for replay cannot use it. First since the newest
    /// cut, then since the one before until the newest is durable.
    replay_room: [u64; 2],
    /// Is nothing held back? In recovery: what it does was done before.
    recovering: bool,
}

impl Inner {
    /// What pages can be made of.
    fn free_for_pages(&self) -> u64 {
        self.available + self.stocked
    }

    fn least_replay_room(&self) -> u64 {
        let [newest, before] = self.replay_room;
        newest.min(before)
    }

    fn take_replay_room(&mut self, blocks: u64) {
        for room in &mut self.replay_room {
            *room = room.saturating_sub(blocks);
        }
    }

    fn pass_full_groups(&mut self) {
        while self
            .groups
            .get(to_usize(self.lowest_free.get()))
            .is_some_and(|info| info.available == 0)
        {
            self.lowest_free = GroupIndex::new(self.lowest_free.get() + 1);
        }
    }
}

/// Counts of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpaceCounts {
    pub(crate) available: u64,
    /// Set aside for pages.
    pub(crate) stocked: u64,
    pub(crate) used: u64,
    pub(crate) reserve: u64,
}

/// The allocator.
pub(crate) struct Space {
    inner: Mutex<Inner>,
    /// The geometry's, for those who must not wait for the lock.
    pool_blocks: AtomicU64,
    journal_blocks: u64,
    bits: RwLock<Vec<Arc<OnceLock<GroupBits>>>>,
}

/// Blocks that are kept back for pages: a hundredth of the pool, 128 blocks to 64 MiB.
fn reserve_blocks(geometry: Geometry) -> u64 {
    (geometry.pool_blocks / 100).clamp(128, 16_384).min(geometry.pool_blocks / 8)
}

impl Space {
    /// An allocator over `geometry`; `saved` gives the pointer of each group's bitmap.
    pub(crate) fn new(
        geometry: Geometry,
        mut saved: impl FnMut(GroupIndex) -> BlockPtr,
    ) -> Result<Space, String> {
        let mut inner = Inner {
            geometry,
            groups: Vec::new(),
            available: 0,
            used: 0,
            reserve: reserve_blocks(geometry),
            lowest_free: GroupIndex::new(0),
            page_stock: VecDeque::new(),
            stocked: 0,
            runs_stocked: 0,
            replay_room: [u64::MAX; 2],
            recovering: true,
        };
        for index in 0..geometry.group_count() {
            let group = GroupIndex::new(index);
            let pointer = saved(group);
            let most = low_u32(geometry.blocks_in(group) - geometry.fixed_in(group));
            let free = if pointer.is_null() { most } else { pointer.birth().get() };
            let homed = pointer.is_null()
                || (pointer.kind() == Some(PointerKind::Bitmap)
                    && group.bitmap_homes().contains(&pointer.block()));
            if free > most || !homed {
                return Err(format!(
                    "the space map's entry of group {index} cannot be: {free} of {most} blocks free"
                ));
            }
            inner.available += u64::from(free);
            inner.used += u64::from(most - free);
            inner.groups.push(GroupInfo {
                available: free,
                free,
                saved: pointer,
                dirty: false,
                longest_run: free,
                head_reserved: index == 0 || !pointer.is_null(),
            });
        }
        let bits = (0..geometry.group_count()).map(|_| Arc::default()).collect();
        Ok(Space {
            inner: Mutex::new(inner),
            pool_blocks: AtomicU64::new(geometry.pool_blocks),
            journal_blocks: geometry.journal_blocks,
            bits: RwLock::new(bits),
        })
    }

    /// Can all of these blocks be data? Groups begin with heads, so what begins and ends in one group's
    /// data lies in it whole.
    pub(crate) fn can_be_data(&self, start: PoolBlock, count: u64) -> bool {
        let pool_blocks = self.pool_blocks.load(Ordering::Relaxed);
        let geometry = Geometry { pool_blocks, journal_blocks: self.journal_blocks };
        let last = start.plus(count.saturating_sub(1));
        geometry.is_allocatable(start)
            && geometry.is_allocatable(last)
            && GroupIndex::of(start) == GroupIndex::of(last)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.inner.lock().geometry
    }

    pub(crate) fn counts(&self) -> SpaceCounts {
        let inner = self.inner.lock();
        SpaceCounts {
            available: inner.available,
            stocked: inner.stocked,
            used: inner.used,
            reserve: inner.reserve,
        }
    }

    fn slot(&self, group: GroupIndex) -> Option<Arc<OnceLock<GroupBits>>> {
        self.bits.read().get(to_usize(group.get())).cloned()
    }

    /// Where the bitmap of a group is saved; null for one that needs no reading.
    pub(crate) fn saved_pointer(&self, group: GroupIndex) -> BlockPtr {
        let inner = self.inner.lock();
        inner.groups.get(to_usize(group.get())).map_or(BlockPtr::NULL, |info| info.saved)
    }

    /// Takes a group's bitmap into memory. `image` is what its saved pointer leads to, verified; none
    /// where that is null. The text says what is wrong with it.
    pub(crate) fn load(&self, group: GroupIndex, image: Option<&[u8]>) -> Result<(), String> {
        let Some(slot) = self.slot(group) else {
            return Err(format!("group {} is past the end of the pool", group.get()));
        };
        let inner = self.inner.lock();
        if slot.get().is_some() {
            return Ok(());
        }
        let geometry = inner.geometry;
        let bits = GroupBits::new(image.unwrap_or(&[]));
        if image.is_none() {
            for block in 0..geometry.fixed_in(group) {
                bits.set_used(block, true);
            }
        }
        let expected = inner
            .groups
            .get(to_usize(group.get()))
            .map_or(0, |info| low_u32(geometry.blocks_in(group)) - info.free);
        let used = bits.count_used(geometry.blocks_in(group));
        let head_used = (0..geometry.fixed_in(group)).all(|block| bits.is_used(block));
        if used != expected || !head_used {
            return Err(format!(
                "the bitmap of group {} has {used} blocks in use, its entry says {expected}",
                group.get()
            ));
        }
        // A second loader may have come first; its bits are the same.
        let _ = slot.set(bits);
        Ok(())
    }

    /// Runs `change` on the bits and counts of a loaded group.
    fn with_group<T>(
        &self,
        inner: &mut Inner,
        group: GroupIndex,
        change: impl FnOnce(&GroupBits, &mut GroupInfo) -> T,
    ) -> Attempt<T> {
        let slot = self.slot(group).ok_or(Need::Corrupt {
            what: format!("a block of group {}, past the end of the pool", group.get()),
        })?;
        let bits = slot.get().ok_or(Need::Group(group))?;
        let info = inner.groups.get_mut(to_usize(group.get())).ok_or(Need::Group(group))?;
        Ok(change(bits, info))
    }

    /// Asks for the first bitmap that is not in memory among those of `extents`.
    pub(crate) fn require_loaded(
        &self,
        extents: impl IntoIterator<Item = PoolBlock>,
    ) -> Attempt<()> {
        let mut last = None;
        for block in extents {
            let group = GroupIndex::of(block);
            if last == Some(group) {
                continue;
            }
            let slot = self
                .slot(group)
                .ok_or(Need::Corrupt { what: format!("{block}, past the end of the pool") })?;
            if slot.get().is_none() {
                return Err(Need::Group(group));
            }
            last = Some(group);
        }
        Ok(())
    }

    /// May this block, which is in use, not be overwritten in place yet?
    pub(crate) fn is_unsettled(&self, block: PoolBlock) -> bool {
        let group = GroupIndex::of(block);
        let groups = self.bits.read();
        // Bits that are not in memory have no `busy` among them.
        groups
            .get(to_usize(group.get()))
            .and_then(|slot| slot.get())
            .is_some_and(|bits| bits.is_busy(block.get() - group.first_block().get()))
    }

    /// Sets aside up to `want` contiguous blocks for data, at `goal` where that is free. They are
    /// `busy` until they are used or given back.
    pub(crate) fn reserve_data(&self, goal: Option<PoolBlock>, want: u32) -> Attempt<Extent> {
        let mut inner = self.inner.lock();
        // What is set aside for pages already is part of the reserve.
        let room = inner
            .free_for_pages()
            .saturating_sub(inner.reserve)
            .min(inner.available)
            .min(inner.least_replay_room().saturating_sub(inner.reserve / 2));
        let want = low_u32(room.min(u64::from(want)));
        if want == 0 {
            return Err(Need::Room);
        }
        let cursor = goal.unwrap_or(inner.lowest_free.first_block());
        self.find(&mut inner, cursor, want)
    }

    /// Finds and marks a run: at `cursor`, else the first long enough after it, else a shorter one.
    fn find(&self, inner: &mut Inner, cursor: PoolBlock, want: u32) -> Attempt<Extent> {
        let groups = to_u64(inner.groups.len());
        let start_group = GroupIndex::of(cursor).get() % groups.max(1);
        let mut want = want;
        loop {
            // The group of the cursor comes twice: from the cursor on, and at last from its start.
            for step in 0..=groups {
                let group = GroupIndex::new((start_group + step) % groups);
                let geometry = inner.geometry;
                let info = inner.groups.get(to_usize(group.get())).copied();
                if info.is_none_or(|info| info.available < want || info.longest_run < want) {
                    continue;
                }
                let limit = geometry.blocks_in(group);
                let inside = cursor.get().saturating_sub(group.first_block().get());
                let from = if step == 0 { inside.min(limit) } else { 0 };
                let found = self.with_group(inner, group, |bits, info| {
                    let result = bits.find_run(from, limit, want);
                    if let Err(longest) = result
                        && from == 0
                    {
                        info.longest_run = longest;
                    }
                    result.ok()
                })?;
                if let Some(start) = found {
                    if !info.is_some_and(|info| info.head_reserved) {
                        return Err(Need::Head(group));
                    }
                    let extent = Extent { start: group.first_block().plus(start), count: want };
                    self.with_group(inner, group, |bits, info| {
                        for block in start..start + u64::from(want) {
                            bits.set_busy(block, true);
                        }
                        info.available -= want;
                    })?;
                    inner.available -= u64::from(want);
                    inner.pass_full_groups();
                    return Ok(extent);
                }
            }
            if want == 1 {
                return Err(Need::Room);
            }
            want = want.div_ceil(2);
        }
    }

    /// For each block of an extent, group by group.
    fn each(
        &self,
        inner: &mut Inner,
        extent: Extent,
        mut change: impl FnMut(&GroupBits, &mut GroupInfo, u64),
    ) -> Attempt<()> {
        let mut at = extent.start;
        let end = extent.start.plus(u64::from(extent.count));
        while at < end {
            let group = GroupIndex::of(at);
            let first = group.first_block();
            let stop = end.min(GroupIndex::new(group.get() + 1).first_block());
            self.with_group(inner, group, |bits, info| {
                for block in at.get()..stop.get() {
                    change(bits, info, block - first.get());
                }
            })?;
            at = stop;
        }
        Ok(())
    }

    /// Gives back blocks that were reserved and not used, or makes freed blocks free at last. A block
    /// that is in use merely becomes settled.
    pub(crate) fn release(&self, extent: Extent) {
        let mut inner = self.inner.lock();
        let mut released = 0;
        // Whatever is busy is in memory: busy is never saved.
        let _ = self.each(&mut inner, extent, |bits, info, block| {
            if bits.is_busy(block) {
                bits.set_busy(block, false);
                if !bits.is_used(block) {
                    info.available += 1;
                    info.longest_run = u32::MAX;
                    released += 1;
                }
            }
        });
        inner.available += released;
        if released > 0 {
            inner.lowest_free = inner.lowest_free.min(GroupIndex::of(extent.start));
        }
    }

    /// A durable batch settles these blocks. Those that were freed meanwhile stay busy: the batch that
    /// freed them releases them.
    pub(crate) fn settle(&self, extent: Extent) {
        let mut inner = self.inner.lock();
        let _ = self.each(&mut inner, extent, |bits, _, block| {
            if bits.is_used(block) {
                bits.set_busy(block, false);
            }
        });
    }

    /// Reserved blocks come into use; they stay busy, which is now to say unsettled.
    pub(crate) fn commit_data(&self, extent: Extent) {
        let mut inner = self.inner.lock();
        let mut count = 0;
        let _ = self.each(&mut inner, extent, |bits, info, block| {
            debug_assert!(bits.is_busy(block) && !bits.is_used(block));
            bits.set_used(block, true);
            info.free -= 1;
            info.dirty = true;
            count += 1;
        });
        inner.used += count;
        inner.take_replay_room(count);
    }

    /// Replay: a block named in the journal is kept from all other use.
    pub(crate) fn mark_named(&self, extent: Extent) -> Attempt<()> {
        let mut inner = self.inner.lock();
        let mut taken = 0;
        self.each(&mut inner, extent, |bits, info, block| {
            if bits.is_free(block) {
                info.available -= 1;
                taken += 1;
            }
            bits.set_busy(block, true);
        })?;
        inner.available -= taken;
        Ok(())
    }

    /// Is the whole extent allocatable, and nothing of it in use?
    pub(crate) fn is_unused(&self, extent: Extent) -> Attempt<bool> {
        let mut inner = self.inner.lock();
        let geometry = inner.geometry;
        let last = extent.start.plus(u64::from(extent.count).saturating_sub(1));
        if !geometry.is_allocatable(extent.start) || !geometry.is_allocatable(last) {
            return Ok(false);
        }
        let mut unused = true;
        self.each(&mut inner, extent, |bits, _, block| unused &= !bits.is_used(block))?;
        Ok(unused)
    }

    /// Blocks go out of use. They are busy until [`Space::release`].
    pub(crate) fn free(&self, extent: Extent) {
        let mut inner = self.inner.lock();
        let mut count = 0;
        let result = self.each(&mut inner, extent, |bits, info, block| {
            if bits.is_used(block) {
                bits.set_used(block, false);
                bits.set_busy(block, true);
                info.free += 1;
                info.dirty = true;
                count += 1;
            } else {
                // Maps that contradict each other, as damage leaves them: `check` names them.
                tracing::error!("a block of {} is freed that is not in use", extent.start);
            }
        });
        debug_assert!(result.is_ok(), "freed without its bitmap in memory");
        inner.used -= count;
    }

    /// A page that never reached the disk goes out of use: its block is free at once.
    pub(crate) fn free_unwritten(&self, block: PoolBlock) {
        self.free(Extent::one(block));
        self.release(Extent::one(block));
    }

    /// Is a block in use? For `check`.
    pub(crate) fn is_used(&self, block: PoolBlock) -> Attempt<bool> {
        let mut inner = self.inner.lock();
        let group = GroupIndex::of(block);
        self.with_group(&mut inner, group, |bits, _| {
            bits.is_used(block.get() - group.first_block().get())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let geometry = Geometry { pool_blocks: 70_000, journal_blocks: 64 };
        let space = Space::new(geometry, |_| BlockPtr::NULL).unwrap();
        for index in 0..geometry.group_count() {
            space.load(GroupIndex::new(index), None).unwrap();
            space.note_head_reserved(GroupIndex::new(index));
        }
        space
    }

    fn take_pages(space: &Space, count: usize) -> Vec<PoolBlock> {
        loop {
            match space.allocate_pages(count) {
                Err(Need::PageRun { .. }) => space.stock(space.take_for_pages(64).unwrap()),
                taken => return taken.unwrap(),
            }
        }
    }

    #[test]
    fn a_reserved_run_that_is_released_leaves_no_trace() {
        let space = space();
        let before = space.counts();
        let extent = space.reserve_data(None, 256).unwrap();
        assert_eq!(extent.count, 256);
        assert_eq!(space.counts().available, before.available - 256);
        space.release(extent);
        assert_eq!(space.counts(), before);
        assert!(space.dirty_groups().is_empty());
    }

    #[test]
    fn a_freed_block_is_not_handed_out_before_it_is_released() {
        let space = space();
        let extent = space.reserve_data(None, 1).unwrap();
        space.commit_data(extent);
        space.free(extent);
        let again = space.reserve_data(Some(extent.start), 1).unwrap();
        assert_ne!(again.start, extent.start);
        space.release(extent);
        assert_eq!(space.reserve_data(Some(extent.start), 1).unwrap().start, extent.start);
    }

    #[test]
    fn settling_a_block_that_was_freed_does_not_free_it_early() {
        let space = space();
        let extent = space.reserve_data(None, 1).unwrap();
        space.commit_data(extent);
        assert!(space.is_unsettled(extent.start));
        space.free(extent);
        space.settle(extent);
        assert_ne!(space.reserve_data(Some(extent.start), 1).unwrap().start, extent.start);
    }

    #[test]
    fn data_stops_at_the_reserve_and_pages_do_not() {
        let space = space();
        let mut taken = 0;
        while let Ok(extent) = space.reserve_data(None, 256) {
            taken += u64::from(extent.count);
        }
        let counts = space.counts();
        assert_eq!(counts.available, counts.reserve);
        assert!(taken > 60_000);
        assert_eq!(take_pages(&space, 100).len(), 100);
    }

    #[test]
    fn a_group_with_only_its_head_in_use_is_saved_as_nothing() {
        let space = space();
        while GroupIndex::of(take_pages(&space, 1)[0]).get() == 0 {}
        let group = GroupIndex::new(1);
        let (pointer, image) = space.save(group).unwrap();
        assert!(!pointer.is_null() && image.is_some());
        space.free_unwritten(group.first_block().plus(crate::format::geometry::GROUP_HEAD_BLOCKS));
        let (pointer, image) = space.save(group).unwrap();
        assert!(pointer.is_null() && image.is_none());
    }

    #[test]
    fn growing_adds_exactly_the_new_blocks() {
        let space = space();
        let before = space.counts();
        let geometry = Geometry { pool_blocks: 200_000, journal_blocks: 64 };
        let old_room = 70_000 - space.geometry().fixed_blocks();
        space.grow(geometry).unwrap();
        let added = 200_000 - geometry.fixed_blocks() - old_room;
        assert_eq!(space.counts().available, before.available + added);
    }
}
