//! The pages of the pool: the cache, those not written yet, and where new ones get their blocks.

use std::sync::Arc;

use super::cache::PageCache;
use super::page::{Page, PageState};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::need::{Attempt, Need};
use crate::space::{Extent, Space};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::types::{Epoch, PoolBlock};

/// All metadata pages.
pub(crate) struct PageStore {
    pub(crate) cache: PageCache,
    pub(crate) space: Space,
    /// Counts checkpoints that have begun. A page changes in the interval of its birth only.
    interval: AtomicU64,
    /// Pages that the next checkpoint writes. Dropped ones are left out then.
    dirty: Mutex<Vec<Arc<Page>>>,
    dirty_count: AtomicUsize,
    /// Blocks of pages that the next superblock no longer reaches, but the present one does.
    held: Mutex<Vec<PoolBlock>>,
    /// Pages that went out of use and whose blocks are not free yet.
    held_count: AtomicUsize,
    /// The page behind every lost pointer.
    lost: Arc<Page>,
}

impl PageStore {
    pub(crate) fn new(space: Space, cache_bytes: u64) -> PageStore {
        PageStore {
            cache: PageCache::new(cache_bytes),
            space,
            interval: AtomicU64::new(1),
            dirty: Mutex::default(),
            dirty_count: AtomicUsize::new(0),
            held: Mutex::default(),
            held_count: AtomicUsize::new(0),
            lost: Arc::new(Page::lost()),
        }
    }

    pub(crate) fn interval(&self) -> u64 {
        self.interval.load(Ordering::Acquire)
    }

    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty_count.load(Ordering::Relaxed)
    }

    /// The page that a pointer leads to.
    pub(crate) fn get(&self, pointer: BlockPtr) -> Attempt<Arc<Page>> {
        if !pointer.is_lost()
            && let Some(page) = self.cache.get(pointer)
        {
            return Ok(page);
        }
        match pointer.kind() {
            Some(PointerKind::Page | PointerKind::Records) => Err(Need::Page(pointer)),
            Some(PointerKind::Lost) => Ok(Arc::clone(&self.lost)),
            _ => Err(Need::Corrupt {
                what: format!("a pointer of the wrong kind, to {}", pointer.block()),
            }),
        }
    }

    /// Puts a new page of this interval in, and gives the pointer to it.
    pub(crate) fn add(&self, page: Arc<Page>, birth: Epoch) -> BlockPtr {
        let kind = if page.level() == 0 { PointerKind::Records } else { PointerKind::Page };
        let pointer = BlockPtr::new(kind, page.block(), birth, 0);
        self.dirty_count.fetch_add(1, Ordering::Relaxed);
        self.dirty.lock().push(Arc::clone(&page));
        self.cache.insert(page);
        pointer
    }

    /// A page goes out of use: at once if it never reached the disk, else when no superblock reaches it.
    pub(crate) fn drop_page(&self, block: PoolBlock) {
        match self.cache.remove(block) {
            Some(page) if page.interval() == self.interval() => {
                page.set_state(PageState::Dropped);
                self.space.free_unwritten(block);
            }
            _ => {
                self.space.free(Extent::one(block));
                self.held.lock().push(block);
                self.held_count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends the interval: gives the pages to write and the blocks to hold. Called with all change shut
    /// out.
    pub(crate) fn end_interval(&self) -> (Vec<Arc<Page>>, Vec<PoolBlock>) {
        let mut pages = std::mem::take(&mut *self.dirty.lock());
        pages.retain(|page| page.state() == PageState::Dirty);
        self.dirty_count.store(0, Ordering::Relaxed);
        self.interval.fetch_add(1, Ordering::AcqRel);
        (pages, std::mem::take(&mut *self.held.lock()))
    }

    /// The pages of this interval so far, dropped ones left out. Called with all change shut out.
    pub(crate) fn dirty_pages(&self) -> Vec<Arc<Page>> {
        let pages = self.dirty.lock();
        pages.iter().filter(|page| page.state() == PageState::Dirty).map(Arc::clone).collect()
    }

    /// Blocks of pages that wait for a checkpoint to be free again.
    pub(crate) fn held_blocks(&self) -> usize {
        self.held_count.load(Ordering::Relaxed)
    }

    /// A held block is free.
    pub(crate) fn note_page_released(&self) {
        self.held_count.fetch_sub(1, Ordering::Relaxed);
    }
}
