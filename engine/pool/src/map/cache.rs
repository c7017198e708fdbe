//! The cache of metadata pages, by their block in the pool: bounded for clean pages, complete for
//! dirty ones.
//!
//! Replacement is second chance (the clock of Corbató, "A Paging Experiment with the Multics System",
//! 1968), in shards of their own locks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::page::{Page, PageState};
use crate::convert::to_usize;
use crate::format::pointer::BlockPtr;
use crate::sync::Mutex;
use crate::types::{BLOCK_BYTES, PoolBlock};

const SHARDS: u64 = 16;
/// A cache is never smaller than this: an operation that needs several pages at once must find room.
const LEAST_PAGES: u64 = 1024;
/// Clean pages that find room in a shard beside any number of unwritten ones: more than the paths of all
/// the threads that may work in it at once.
const LEAST_CLEAN_PER_SHARD: usize = 64;

#[derive(Default)]
struct Shard {
    pages: HashMap<PoolBlock, Arc<Page>>,
    clock: VecDeque<PoolBlock>,
    /// How many of the pages are not written yet: these cannot make room for others.
    unwritten: usize,
}

/// The cache.
pub(crate) struct PageCache {
    shards: Vec<Mutex<Shard>>,
    pages_per_shard: usize,
}

impl PageCache {
    pub(crate) fn new(budget_bytes: u64) -> PageCache {
        let pages = (budget_bytes / BLOCK_BYTES).max(LEAST_PAGES);
        PageCache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            pages_per_shard: to_usize(pages / SHARDS),
        }
    }

    /// Pages that the cache holds when it is full.
    pub(crate) fn capacity_pages(&self) -> usize {
        self.pages_per_shard * self.shards.len()
    }

    fn shard(&self, block: PoolBlock) -> Option<&Mutex<Shard>> {
        self.shards.get(to_usize(block.get() % SHARDS))
    }

    /// The page that a pointer leads to, if it is here and the very one: a clean page must have the CRC
    /// that the pointer asks for.
    pub(crate) fn get(&self, pointer: BlockPtr) -> Option<Arc<Page>> {
        let shard = self.shard(pointer.block())?.lock();
        let page = shard.pages.get(&pointer.block())?;
        if page.state() == PageState::Clean && page.crc() != pointer.crc() {
            return None;
        }
        page.touch();
        Some(Arc::clone(page))
    }

    /// Puts a page in. A dirty page stays against a clean one that comes late from the disk.
    pub(crate) fn insert(&self, page: Arc<Page>) {
        let Some(shard) = self.shard(page.block()) else { return };
        let mut shard = shard.lock();
        if page.state() == PageState::Clean
            && shard.pages.get(&page.block()).is_some_and(|old| old.state() != PageState::Clean)
        {
            return;
        }
        let block = page.block();
        shard.unwritten += usize::from(page.state() != PageState::Clean);
        match shard.pages.insert(block, page) {
            Some(old) => shard.unwritten -= usize::from(old.state() != PageState::Clean),
            None => shard.clock.push_back(block),
        }
        self.evict(&mut shard);
    }

    /// A page has been written.
    pub(crate) fn mark_clean(&self, page: &Arc<Page>) {
        let Some(shard) = self.shard(page.block()) else { return };
        let mut shard = shard.lock();
        if page.state() != PageState::Dirty {
            return;
        }
        page.set_state(PageState::Clean);
        let is_here = shard.pages.get(&page.block()).is_some_and(|here| Arc::ptr_eq(here, page));
        shard.unwritten -= usize::from(is_here);
    }

    fn evict(&self, shard: &mut Shard) {
        let mut chances = 2 * shard.clock.len();
        // However many pages are unwritten, some clean ones find room: an operation that needs several
        // would otherwise have the first taken away by the next, and never come to an end.
        let most = self.pages_per_shard.max(shard.unwritten + LEAST_CLEAN_PER_SHARD);
        while shard.pages.len() > most && chances > 0 {
            chances -= 1;
            let Some(block) = shard.clock.pop_front() else { return };
            match shard.pages.get(&block) {
                None => {}
                Some(page) if page.state() == PageState::Clean && !page.take_referenced() => {
                    shard.pages.remove(&block);
                }
                Some(_) => shard.clock.push_back(block),
            }
        }
    }

    /// Forgets a page whose block goes out of use.
    pub(crate) fn remove(&self, block: PoolBlock) -> Option<Arc<Page>> {
        let mut shard = self.shard(block)?.lock();
        let page = shard.pages.remove(&block)?;
        shard.unwritten -= usize::from(page.state() != PageState::Clean);
        // Stale entries of the clock are skipped when they come up; this keeps them from piling up.
        if shard.clock.len() > 2 * shard.pages.len() + 64 {
            let Shard { pages, clock, .. } = &mut *shard;
            clock.retain(|block| pages.contains_key(block));
        }
        Some(page)
    }

    /// Pages in memory now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().pages.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pointer::PointerKind;
    use crate::types::Epoch;

    fn clean(block: u64, crc: u32) -> Arc<Page> {
        Arc::new(Page::from_disk(PoolBlock::new(block), crc, &[0; 4096]))
    }

    fn pointer(block: u64, crc: u32) -> BlockPtr {
        BlockPtr::new(PointerKind::Page, PoolBlock::new(block), Epoch::FIRST, crc)
    }

    #[test]
    fn clean_pages_stay_within_the_budget_and_dirty_ones_stay() {
        let cache = PageCache::new(0);
        let dirty = Arc::new(Page::empty(PoolBlock::new(1), 1, 1));
        cache.insert(dirty);
        for block in 2..20_000 {
            cache.insert(clean(block, 0));
        }
        assert!(cache.len() <= cache.capacity_pages() + 1);
        assert!(cache.get(pointer(1, 0)).is_some());
    }

    #[test]
    fn a_page_with_another_checksum_is_not_taken_for_the_one_asked_for() {
        let cache = PageCache::new(0);
        cache.insert(clean(5, 77));
        assert!(cache.get(pointer(5, 77)).is_some());
        assert!(cache.get(pointer(5, 78)).is_none());
    }
}
