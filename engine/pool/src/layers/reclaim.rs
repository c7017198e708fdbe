//! Freeing what removed layers leave behind, in portions, in the order of their blocks.
//!
//!  - A removed layer without children is walked, and what it owns is freed.
//!  - One with a single child is taken over by it: what the child does not see is freed, the rest changes
//!    its owner by a change of the child's `base_epoch`.
//!  - With several children, what none of them sees is freed. Such an entry stands in a page that no child
//!    shares, so it is taken out like a discard.
//!
//! Each portion is one record: where the walk has come to. Replay repeats the walk up to there, from the
//! pages that the checkpoint kept. What a portion frees is reusable once its record is settled.

use std::sync::Arc;

use thinstore_storage::{ErrorKind, Result};

use super::layer::Layer;
use super::table::Table;
use crate::core::Core;
use crate::format::record::Record;
use crate::map::tree::Tree;
use crate::map::walk::{Portion, own_blocks, tree_end};
use crate::need::Need;
use crate::planted::{Fault, planted};
use crate::types::{LayerId, LogicalBlock};

/// What can be done about a removed layer now.
enum Work {
    Delete,
    Absorb,
    Trim,
}

impl Core {
    /// After a removal: the maintenance thread does the rest, or this thread where there is none.
    pub(crate) fn reclaim_soon(&self) -> Result<()> {
        if self.background {
            self.maintenance.wake();
            return Ok(());
        }
        match self.reclaim_all() {
            // The removal itself is durable; in a pool so full, the rest is done when there is space.
            Err(error) if error.kind() == ErrorKind::Full => Ok(()),
            other => other,
        }
    }

    /// Frees all that can be freed now.
    pub(crate) fn reclaim_all(&self) -> Result<()> {
        while self.reclaim_portion()? {}
        Ok(())
    }

    /// One portion of one layer. False: there is nothing to do.
    pub(crate) fn reclaim_portion(&self) -> Result<bool> {
        let _one = self.reclaiming.lock();
        let Some((id, work)) = self.next_work() else { return Ok(false) };
        match work {
            Work::Delete | Work::Absorb => self.walk_portion(id, &work)?,
            Work::Trim => self.trim(id)?,
        }
        self.spill_if_long()?;
        Ok(true)
    }

    fn next_work(&self) -> Option<(LayerId, Work)> {
        let mut table = self.table.write();
        let mut idle = Vec::new();
        let mut chosen = None;
        for id in table.reclaimable.iter().copied() {
            let mut children = table.children(id);
            let Ok(entry) = table.get(id) else { continue };
            let (first, second) = (children.next(), children.next());
            // A layer that still takes over its own origin must come to the end of that first.
            let is_absorbing_origin = entry.layer.map.read().absorption.is_some();
            let work = match (first, second) {
                (None, _) => Some(Work::Delete),
                (Some(_), _) if is_absorbing_origin => continue,
                (Some(child), None) => match table.get(child) {
                    // It goes itself: what it owns is freed first.
                    Ok(child) if child.meta.deleting => continue,
                    _ => Some(Work::Absorb),
                },
                _ if entry.meta.trimmed => None,
                _ => Some(Work::Trim),
            };
            match work {
                Some(work) => {
                    chosen = Some((id, work));
                    break;
                }
                None => idle.push(id),
            }
        }
        for id in idle {
            table.reclaimable.remove(&id);
        }
        chosen
    }

    /// Nobody verifies what a writable layer owns: it overwrites it in place. So the checksums of what it is
    /// about to take over stop to count, and durably: else a loss of power would bring back an origin that
    /// counts them, with data that the child has overwritten since. If none count, they may have ceased to by
    /// what is not durable yet: the layer may just have taken over an origin that had some.
    fn forget_sums(&self, id: LayerId) -> Result<()> {
        let must_be_durable = self.attempt(|| {
            let _shared = self.cut.read();
            let mut table = self.table.write();
            let mut children = table.children(id);
            let (Some(child), None) = (children.next(), children.next()) else { return Ok(false) };
            drop(children);
            let gone = Need::Missing;
            if table.get(child).map_err(gone)?.layer.map.read().sealed {
                return Ok(false);
            }
            let none = LogicalBlock::new(0);
            let meta = &table.get(id).map_err(gone)?.meta;
            if meta.summed_blocks == none {
                let begins = !meta.absorbing;
                return Ok(begins);
            }
            self.apply_summed(&mut table, id, none)?;
            self.pending.append(&[Record::Summed { layer: id, cursor: none }], &[], &[], false);
            Ok(true)
        })?;
        if must_be_durable { self.flush() } else { Ok(()) }
    }

    fn walk_portion(&self, id: LayerId, work: &Work) -> Result<()> {
        if matches!(work, Work::Absorb) && !planted(Fault::SumsNotForgotten) {
            self.forget_sums(id)?;
        }
        let most_blocks = self.reclaim_portion_blocks;
        self.attempt(|| {
            let _shared = self.cut.read();
            let mut table = self.table.write();
            let recorded = |cursor| {
                if planted(Fault::WalkWithoutCursor) { LogicalBlock::new(0) } else { cursor }
            };
            let (step, record) = match work {
                Work::Delete => {
                    let step = self.apply_delete_walk(&mut table, id, None, most_blocks)?;
                    let record = Record::DeleteWalk { layer: id, cursor: recorded(step.cursor) };
                    (step, record)
                }
                _ => {
                    let step = self.apply_absorb_walk(&mut table, id, None, most_blocks)?;
                    let record = Record::AbsorbWalk { layer: id, cursor: recorded(step.cursor) };
                    (step, record)
                }
            };
            self.note_freed(step.freed.iter().map(|extent| u64::from(extent.count)).sum());
            self.pending.append(&[record], &[], &step.freed, true);
            Ok(())
        })
    }

    /// Frees what no child of a hidden layer sees.
    fn trim(&self, id: LayerId) -> Result<()> {
        let mut from = LogicalBlock::new(0);
        let children = |table: &Table| table.children(id).collect::<Vec<_>>();
        let children_before = children(&self.table.read());
        loop {
            let found = self.attempt(|| {
                let table = self.table.read();
                let Ok(entry) = table.get(id) else { return Ok(None) };
                let layer = Arc::clone(&entry.layer);
                let children: Vec<Arc<Layer>> = table
                    .children(id)
                    .filter_map(|child| table.get(child).ok().map(|child| Arc::clone(&child.layer)))
                    .collect();
                let map = layer.map.read();
                let child_maps: Vec<_> = children.iter().map(|child| child.map.read()).collect();
                let trees: Vec<Tree> = child_maps.iter().map(|map| map.tree).collect();
                let end = tree_end(&map.tree);
                let most_blocks = self.reclaim_portion_blocks;
                let portion = Portion { from, until: end, most_blocks };
                let found = own_blocks(&self.pages, &map.tree, &map.ownership(), &trees, portion)?;
                drop(map);
                Ok(Some((Arc::clone(&layer), found, end)))
            })?;
            let Some((layer, found, end)) = found else { return Ok(()) };
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for (logical, _) in &found.data {
                match runs.last_mut() {
                    Some((start, count)) if *start + *count == logical.get() => *count += 1,
                    _ => runs.push((logical.get(), 1)),
                }
            }
            for (start, count) in runs {
                // Nobody can come to see these blocks meanwhile: a child that let one go never gets it back.
                self.unmap_range(&layer, LogicalBlock::new(start), start + count)?;
            }
            from = LogicalBlock::new(found.next);
            if from >= end {
                break;
            }
        }
        let _shared = self.cut.read();
        let mut table = self.table.write();
        // A child that went meanwhile may have been the last to see what was passed already.
        if table.get(id).is_ok() && children(&table) == children_before {
            self.attempt(|| self.apply_trimmed(&mut table, id))?;
            self.pending.append(&[Record::Trimmed { layer: id }], &[], &[], false);
        }
        Ok(())
    }

    /// Takes a range of blocks out of a layer's map, step by step.
    pub(crate) fn unmap_range(&self, layer: &Layer, from: LogicalBlock, end: u64) -> Result<()> {
        let mut at = from;
        while at.get() < end {
            self.keep_replay_room()?;
            at = self.attempt(|| {
                let _shared = self.cut.read();
                let mut map = layer.map.write();
                let mut freed = Vec::new();
                let step = self.apply_unmap_step(layer, &mut map, at, end, &mut freed)?;
                if step.changed {
                    self.note_freed(freed.iter().map(|extent| u64::from(extent.count)).sum());
                    let count = step.next.get() - at.get();
                    let record = Record::Unmap { layer: layer.id, logical: at, count };
                    self.pending.append(&[record], &[], &freed, true);
                }
                Ok(step.next)
            })?;
        }
        Ok(())
    }

    /// Waits until nothing that was removed or freed before this call is pending.
    pub(crate) fn wait_for_frees(&self) -> Result<()> {
        // A layer that is summed between the two checkpoints would leave pages held by the second.
        let _no_sums = self.summing.lock();
        self.reclaim_all()?;
        self.settle()?;
        self.checkpoint_twice()?;
        // What the portions above put down last is settled by now; the checkpoint may have freed more.
        self.settle()
    }
}

#[cfg(test)]
mod tests {
    use thinstore_storage::{BlockDevice, MemoryStorage, Storage};

    use crate::layers::change::NewLayer;
    use crate::pool::{OpenOptions, Pool, PoolOptions};
    use crate::types::BLOCK_BYTES;

    use super::*;

    /// A layer that is taking over its removed origin, and has come to the sixth of ten leaves.
    fn half_absorbed() -> (Pool, LayerId) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(16 << 20));
        let pool_options = PoolOptions {
            size_bytes: 16 << 20,
            default_device_size_bytes: 70_000 * BLOCK_BYTES,
            ..PoolOptions::default()
        };
        Pool::create(&*storage, &pool_options).unwrap();
        let options = OpenOptions { background: false, ..OpenOptions::default() };
        let pool = Pool::open(storage, &options).unwrap();
        let id = pool.create_layer(NewLayer::default()).unwrap();
        let device = pool.device(id).unwrap();
        for leaf in 0..10 {
            device.write(leaf * 256 * BLOCK_BYTES, &[5; 8192]).unwrap();
        }
        let origin = pool.seal_snapshot(id, NewLayer::default()).unwrap();
        // Its own pages from the root to the first leaf: a walk passes over shared ones whole.
        device.write(0, &[6; 4096]).unwrap();
        let core = pool.core();
        {
            let mut table = core.table.write();
            core.apply_remove(&mut table, origin).unwrap();
            core.pending.append(&[Record::Remove { layer: origin }], &[], &[], false);
            let until = LogicalBlock::new(5 * 256);
            let step = core.apply_absorb_walk(&mut table, origin, Some(until), usize::MAX).unwrap();
            assert_eq!(step.cursor, until);
            let record = Record::AbsorbWalk { layer: origin, cursor: step.cursor };
            core.pending.append(&[record], &[], &step.freed, true);
        }
        (pool, id)
    }

    fn assert_all_came_back(pool: &Pool) {
        pool.wait_for_frees().unwrap();
        let report = pool.check().unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
        assert_eq!(pool.usage().data_bytes, 0);
    }

    #[test]
    fn what_was_taken_over_is_freed_by_a_discard_of_the_whole_page_above_it() {
        let (pool, id) = half_absorbed();
        pool.device(id).unwrap().discard(0, 65_536 * BLOCK_BYTES).unwrap();
        assert_all_came_back(&pool);
    }

    #[test]
    fn what_was_taken_over_is_freed_with_the_layer_that_took_it_over() {
        let (pool, id) = half_absorbed();
        pool.remove(id).unwrap();
        assert_all_came_back(&pool);
        assert!(pool.layers().is_empty());
    }
}
