//! What of the space is saved by a checkpoint, and what a pool that grows adds to it.

use std::sync::Arc;

use super::{GroupInfo, Space, reserve_blocks};
use crate::convert::{low_u32, to_usize};
use crate::format::geometry::{Geometry, GroupIndex};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::need::Attempt;
use crate::sync::atomic::Ordering;
use crate::types::{BLOCK_LENGTH, Epoch, PoolBlock};

/// A saved bitmap: what a checkpoint writes, and the pointer to it.
pub(crate) struct BitmapImage {
    pub(crate) group: GroupIndex,
    pub(crate) home: PoolBlock,
    pub(crate) bytes: Box<[u8; BLOCK_LENGTH]>,
}

impl Space {
    /// Repair: an allocator whose bitmaps say what `is_used` does, and want saving. `saved` is where each
    /// was saved last, as far as that is known, so that it goes to its other home.
    pub(crate) fn rebuilt(
        geometry: Geometry,
        saved: &[BlockPtr],
        is_used: impl Fn(PoolBlock) -> bool,
    ) -> Result<Space, String> {
        let space = Space::new(geometry, |_| BlockPtr::NULL)?;
        for index in 0..geometry.group_count() {
            let group = GroupIndex::new(index);
            let mut blocks = geometry.fixed_in(group)..geometry.blocks_in(group);
            let is_used = |block: &u64| is_used(group.first_block().plus(*block));
            if index > 0 && !blocks.clone().any(|block| is_used(&block)) {
                continue;
            }
            space.load(group, None)?;
            let mut inner = space.inner.lock();
            let mut taken = 0;
            let changed = space.with_group(&mut inner, group, |bits, info| {
                for block in blocks.by_ref().filter(is_used) {
                    bits.set_used(block, true);
                    taken += 1;
                }
                info.available -= taken;
                info.free -= taken;
                info.longest_run = u32::MAX;
                info.dirty = true;
                if let Some(pointer) = saved.get(to_usize(index)) {
                    info.saved = *pointer;
                }
                info.head_reserved = true;
            });
            changed.map_err(|_| format!("group {index} is past the end of the pool"))?;
            inner.available -= u64::from(taken);
            inner.used += u64::from(taken);
        }
        Ok(space)
    }

    /// Groups whose bits differ from what was saved.
    pub(crate) fn dirty_groups(&self) -> Vec<GroupIndex> {
        let inner = self.inner.lock();
        (0..)
            .zip(&inner.groups)
            .filter(|(_, info)| info.dirty)
            .map(|(index, _)| GroupIndex::new(index))
            .collect()
    }

    /// Has the bitmap of group 0 saved by the next checkpoint, though nothing is in use: the space map's
    /// own pages are then there from the start, and an empty pool is as large as one that was emptied.
    pub(crate) fn mark_first_group_dirty(&self) -> Attempt<()> {
        let mut inner = self.inner.lock();
        self.with_group(&mut inner, GroupIndex::new(0), |_, info| info.dirty = true)
    }

    /// Is nothing of the group in use but its head?
    pub(crate) fn is_empty_group(&self, group: GroupIndex) -> bool {
        let inner = self.inner.lock();
        let most = inner.geometry.blocks_in(group) - inner.geometry.fixed_in(group);
        inner.groups.get(to_usize(group.get())).is_some_and(|info| u64::from(info.free) == most)
    }

    /// What to save of a dirty group, and the new pointer to it: null where nothing but the head is in
    /// use. The group counts as clean from here on.
    pub(crate) fn save(&self, group: GroupIndex) -> Attempt<(BlockPtr, Option<BitmapImage>)> {
        let mut inner = self.inner.lock();
        let geometry = inner.geometry;
        let most = low_u32(geometry.blocks_in(group) - geometry.fixed_in(group));
        self.with_group(&mut inner, group, |bits, info| {
            info.dirty = false;
            // Group 0 is always saved: see `mark_first_group_dirty`.
            if info.free == most && group.get() > 0 {
                info.saved = BlockPtr::NULL;
                return (BlockPtr::NULL, None);
            }
            let [first, second] = group.bitmap_homes();
            let home = if info.saved.block() == first { second } else { first };
            let bytes = bits.image();
            let crc = crc32fast::hash(&bytes[..]);
            info.saved = BlockPtr::new(PointerKind::Bitmap, home, Epoch::new(info.free), crc);
            (info.saved, Some(BitmapImage { group, home, bytes }))
        })
    }

    /// Takes in the space of a pool that has grown. The last group must be in memory.
    pub(crate) fn grow(&self, geometry: Geometry) -> Attempt<()> {
        let mut inner = self.inner.lock();
        let old = inner.geometry;
        let last = GroupIndex::new(old.group_count() - 1);
        let room = |geometry: Geometry, group| {
            low_u32(geometry.blocks_in(group) - geometry.fixed_in(group))
        };
        let more = room(geometry, last) - room(old, last);
        self.with_group(&mut inner, last, |bits, info| {
            for block in old.fixed_in(last)..geometry.fixed_in(last) {
                bits.set_used(block, true);
            }
            info.free += more;
            info.available += more;
            info.longest_run = u32::MAX;
            // Saved again in any case: a null pointer to a group that was all head stays right.
            info.dirty = true;
        })?;
        inner.available += u64::from(more);
        for index in old.group_count()..geometry.group_count() {
            let free = room(geometry, GroupIndex::new(index));
            inner.available += u64::from(free);
            inner.groups.push(GroupInfo {
                available: free,
                free,
                saved: BlockPtr::NULL,
                dirty: false,
                longest_run: free,
                head_reserved: false,
            });
            self.bits.write().push(Arc::default());
        }
        inner.geometry = geometry;
        self.pool_blocks.store(geometry.pool_blocks, Ordering::Relaxed);
        inner.reserve = reserve_blocks(geometry);
        Ok(())
    }
}
