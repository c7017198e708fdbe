//! The cache of pages, full, with pages coming, going and being written at once.

use std::sync::Arc;

use super::explore;
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::map::cache::PageCache;
use crate::map::page::{Page, PageState};
use crate::sync::thread;
use crate::types::{Epoch, PoolBlock};

fn pointer(block: u64) -> BlockPtr {
    BlockPtr::new(PointerKind::Page, PoolBlock::new(block), Epoch::FIRST, 0)
}

/// Blocks of one shard.
fn block(number: u64) -> u64 {
    16 * (number + 1)
}

#[test]
fn an_unwritten_page_is_found_until_it_is_written_or_removed_and_eviction_keeps_count() {
    explore(4000, || {
        let cache = Arc::new(PageCache::new(0));
        for number in 100..164 {
            let page = Page::from_disk(PoolBlock::new(block(number)), 0, &[0; 4096]);
            cache.insert(Arc::new(page));
        }
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let cache = Arc::clone(&cache);
                thread::spawn(move || {
                    let mine = PoolBlock::new(block(number));
                    let page = Arc::new(Page::empty(mine, 1, 1));
                    cache.insert(Arc::clone(&page));
                    // Late from the disk: it must not take the place of the unwritten one.
                    cache.insert(Arc::new(Page::from_disk(mine, 0, &[1; 4096])));
                    let found = cache.get(pointer(block(number))).expect("unwritten pages stay");
                    assert!(Arc::ptr_eq(&found, &page));
                    for other in 0..4 {
                        let other = PoolBlock::new(block(200 + 4 * number + other));
                        cache.insert(Arc::new(Page::from_disk(other, 0, &[0; 4096])));
                    }
                    assert!(cache.get(pointer(block(number))).is_some());
                    if number == 0 {
                        cache.remove(mine);
                        page.set_state(PageState::Dropped);
                    }
                    cache.mark_clean(&page);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // Nothing is unwritten now, so what comes makes all of it go.
        for number in 1000..1200 {
            let page = Page::from_disk(PoolBlock::new(block(number)), 0, &[0; 4096]);
            cache.insert(Arc::new(page));
        }
        assert!(cache.len() <= 64, "{} pages", cache.len());
        assert!(cache.get(pointer(block(0))).is_none());
    });
}
