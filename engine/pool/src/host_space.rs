//! Space of the host's: taken before anything but data is written, so that a full disk below is an answer
//! to whoever asked for more, and never the end of a checkpoint.
//!
//! The journal and the head of group 0 have theirs from the making of the pool, the head of every other
//! group from the moment that something of the group is taken, and pages in runs, before their blocks are
//! given out. Blocks of pages are never punched, so what was taken once stays. Data is written where it
//! lies before anything names it: there the write itself may fail.

use thinstore_storage::{Error, ErrorKind, Result};

use crate::convert::to_u64;
use crate::core::Core;
use crate::format::geometry::{GROUP_HEAD_BLOCKS, Geometry, GroupIndex, TABLE_HEIGHT};
use crate::format::layer::LAYER_RECORDS_PER_PAGE;
use crate::space::Extent;
use crate::sync::atomic::Ordering;
use crate::types::BLOCK_BYTES;

/// Blocks that are set aside for pages at a time, so that a checkpoint writes them side by side, and the
/// host is asked for space seldom.
const PAGE_RUN_BLOCKS: u32 = 64;
/// Blocks that are tried on a full disk when a pool is recovered, and how many found are enough.
const BLOCKS_TRIED_IN_RECOVERY: usize = 65_536;
const BLOCKS_FOUND_IN_RECOVERY: usize = 64;

impl Core {
    fn reserve_on_host(&self, extent: Extent) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let length_bytes = u64::from(extent.count) * BLOCK_BYTES;
        self.storage.reserve(extent.start.offset_bytes(), length_bytes).map_err(|source| {
            Error::io(format!("cannot take space for the maps of {}", self.name), source)
        })
    }

    /// Sets a run aside for pages, with the host's space for it, unless another has come since
    /// `stocked_before`. All that write at once lack one at once: if each took one, a pool would hold many that nobody
    /// needs, of its own space and of the host's.
    pub(crate) fn stock_pages(&self, stocked_before: u64) -> Result<()> {
        let _one = self.stocking.lock();
        if self.pages.space.runs_stocked() != stocked_before {
            return Ok(());
        }
        let run = self.attempt(|| self.pages.space.take_for_pages(PAGE_RUN_BLOCKS))?;
        match self.reserve_on_host(run) {
            Ok(()) => {
                self.pages.space.stock(run);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Full && self.pages.space.is_recovering() => {
                self.pages.space.release(run);
                self.stock_remains(error)
            }
            Err(error) => {
                self.pages.space.release(run);
                Err(error)
            }
        }
    }

    /// Recovery on a full disk: what the pool took for pages before the crash is still the file's. It lies
    /// among the free blocks, and for such a block the host has nothing to give: so each is tried.
    fn stock_remains(&self, error: Error) -> Result<()> {
        let mut refused = Vec::new();
        let mut found = 0;
        while found < BLOCKS_FOUND_IN_RECOVERY && refused.len() < BLOCKS_TRIED_IN_RECOVERY {
            let Ok(block) = self.attempt(|| self.pages.space.take_for_pages(1)) else { break };
            if self.reserve_on_host(block).is_ok() {
                self.pages.space.stock(block);
                found += 1;
            } else {
                refused.push(block);
            }
        }
        for extent in refused {
            self.pages.space.release(extent);
        }
        if found > 0 { Ok(()) } else { Err(error) }
    }

    pub(crate) fn reserve_head(&self, group: GroupIndex) -> Result<()> {
        // A group of which something can be taken has a whole head.
        let count = u32::try_from(GROUP_HEAD_BLOCKS).unwrap_or(u32::MAX);
        self.reserve_on_host(Extent { start: group.first_block(), count })?;
        self.pages.space.note_head_reserved(group);
        Ok(())
    }

    /// Is enough set aside for the pages of the tables that a cut now would make? Called with all change
    /// shut out. A pool without any block left has to do with what there is.
    pub(crate) fn has_pages_for_cut(&self) -> bool {
        let counts = self.pages.space.counts();
        counts.available == 0 || counts.stocked >= self.pages_of_cut()
    }

    /// Pages of the tables that a cut makes, at the most.
    fn pages_of_cut(&self) -> u64 {
        let records = {
            let table = self.table.read();
            let changed = table
                .iter()
                .filter(|(_, entry)| entry.layer.changed.load(Ordering::Acquire))
                .map(|(id, _)| *id);
            let mut pages: Vec<u64> = changed
                .chain(table.removed.iter().copied())
                .map(|id| u64::from(id.get()) / LAYER_RECORDS_PER_PAGE)
                .collect();
            pages.sort_unstable();
            path_pages(&pages, 0)
        };
        let geometry = self.pages.space.geometry();
        // What is replaced, and what is new, may each lie in a group of its own.
        let groups = to_u64(self.pages.space.dirty_groups().len()) + 2 * records + 2;
        let levels = 2 * u64::from(TABLE_HEIGHT);
        records + (groups * levels).min(space_map_pages(geometry))
    }
}

/// How many pages of a table, from level `lowest` up, lie on the paths to these entries, in order.
fn path_pages(entries: &[u64], lowest: u8) -> u64 {
    (lowest..=TABLE_HEIGHT)
        .map(|level| {
            let mut pages: Vec<u64> =
                entries.iter().map(|entry| entry >> (8 * u32::from(level))).collect();
            pages.dedup();
            to_u64(pages.len())
        })
        .sum()
}

/// How many pages a space map has in which every group is in use.
fn space_map_pages(geometry: Geometry) -> u64 {
    (1..=TABLE_HEIGHT)
        .map(|level| geometry.group_count().div_ceil(1 << (8 * u32::from(level))))
        .sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use thinstore_storage::{MemoryStorage, Storage};

    use super::*;
    use crate::need::Need;
    use crate::pool::{OpenOptions, Pool, PoolOptions};

    #[test]
    fn all_who_lack_a_run_at_once_get_one() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(16 << 20));
        let pool_options = PoolOptions { size_bytes: 16 << 20, ..PoolOptions::default() };
        Pool::create(&*storage, &pool_options).unwrap();
        let options = OpenOptions { background: false, ..OpenOptions::default() };
        let pool = Pool::open(storage, &options).unwrap();
        let core = pool.core();
        let stocked = || core.pages.space.counts().stocked;
        let (before, stocked_before) = (stocked(), core.pages.space.runs_stocked());
        for _ in 0..16 {
            core.satisfy(Need::PageRun { stocked_before }).unwrap();
        }
        assert_eq!(stocked(), before + u64::from(PAGE_RUN_BLOCKS));
        // Who lacks one after that gets another.
        let stocked_before = core.pages.space.runs_stocked();
        core.satisfy(Need::PageRun { stocked_before }).unwrap();
        assert_eq!(stocked(), before + 2 * u64::from(PAGE_RUN_BLOCKS));
    }
}
