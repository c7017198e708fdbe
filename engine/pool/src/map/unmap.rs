//! Taking blocks out of a map: discards, write-zeroes, and the trimming of removed layers.

use super::ownership::{OwnDelta, Owner};
use super::page::{index_at, span};
use super::tree::{Change, Tree};
use crate::convert::to_u64;
use crate::format::pointer::BlockPtr;
use crate::need::Attempt;
use crate::space::Extent;
use crate::types::{LogicalBlock, PoolBlock};

/// How far one step of an unmapping came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnmapStep {
    /// Where the next step starts.
    pub(crate) next: LogicalBlock,
    pub(crate) delta: OwnDelta,
    /// Was anything there?
    pub(crate) changed: bool,
}

impl UnmapStep {
    fn skip(next: u64) -> UnmapStep {
        UnmapStep { next: LogicalBlock::new(next), delta: OwnDelta::default(), changed: false }
    }
}

impl Tree {
    /// Unmaps from `from` towards `end`, one leaf or one subtree at the most: empty subtrees are passed
    /// over, subtrees of ancestors are let go whole, and of the layer's own blocks those in the range
    /// are freed. Every step either happens whole or changes nothing.
    pub(crate) fn unmap_step(
        &mut self,
        change: &Change<'_>,
        from: LogicalBlock,
        end: u64,
        freed: &mut Vec<Extent>,
    ) -> Attempt<UnmapStep> {
        let mut pointer = self.root;
        let mut level = self.height;
        if from.get() >= span(level) {
            return Ok(UnmapStep::skip(end));
        }
        loop {
            let start = from.get() / span(level) * span(level);
            let subtree_end = start + span(level);
            if pointer.is_null() {
                return Ok(UnmapStep::skip(subtree_end.min(end)));
            }
            let whole = from.get() == start && end >= subtree_end;
            let owner = change.ownership.of(pointer.birth(), subtree_end);
            if whole && owner == Owner::Ancestor {
                let delta = self.cut(change, from, level, None)?;
                return Ok(UnmapStep {
                    next: LogicalBlock::new(subtree_end),
                    delta,
                    changed: true,
                });
            }
            if level == 1 {
                return self.unmap_in_leaf(change, from, end.min(subtree_end), whole, freed);
            }
            pointer = change.pages.get(pointer)?.pointer(index_at(level, from.get()));
            level -= 1;
        }
    }

    /// Nulls the pointer to the subtree of `level` that starts at `from`; `owned` is its page, if that
    /// goes out of use with it.
    fn cut(
        &mut self,
        change: &Change<'_>,
        from: LogicalBlock,
        level: u8,
        owned: Option<(PoolBlock, Owner)>,
    ) -> Attempt<OwnDelta> {
        let mut delta = OwnDelta::default();
        if level == self.height {
            self.root = BlockPtr::NULL;
        } else {
            let path = self.path(change.pages, from, level + 1)?;
            let open = self.open_path(change, from, &path, &mut delta)?;
            if let Some(parent) = open.last() {
                parent.set_pointer(index_at(level + 1, from.get()), BlockPtr::NULL);
            }
            self.collapse(change, from, open, level + 1, &mut delta);
        }
        if let Some((block, owner)) = owned {
            delta.lose_page(owner);
            change.pages.drop_page(block);
        }
        Ok(delta)
    }

    fn unmap_in_leaf(
        &mut self,
        change: &Change<'_>,
        from: LogicalBlock,
        end: u64,
        whole: bool,
        freed: &mut Vec<Extent>,
    ) -> Attempt<UnmapStep> {
        let path = self.path(change.pages, from, 1)?;
        let Some(leaf) = path.lowest() else { return Ok(UnmapStep::skip(end)) };
        let present: Vec<(usize, PoolBlock, Owner)> = (from.get()..end)
            .filter_map(|logical| {
                let index = index_at(1, logical);
                let pointer = leaf.pointer(index);
                let owner = change.ownership.of(pointer.birth(), logical + 1);
                (!pointer.is_null()).then(|| (index, pointer.block(), owner))
            })
            .collect();
        if present.is_empty() {
            return Ok(UnmapStep::skip(end));
        }
        let owned = || present.iter().filter(|(_, _, owner)| *owner != Owner::Ancestor);
        change.pages.space.require_loaded(owned().map(|(_, block, _)| *block))?;
        let all = to_u64(present.len()) == to_u64(leaf.pointers().filter(|p| !p.is_null()).count());
        let leaf_end = (from.get() / span(1) + 1) * span(1);
        let mut delta;
        let leaf_pointer = self.leaf_pointer(change, from)?;
        let leaf_owner = change.ownership.of(leaf_pointer.birth(), leaf_end);
        if (whole || all) && leaf_owner != Owner::Ancestor {
            change.pages.space.require_loaded([leaf_pointer.block()])?;
            delta = self.cut(change, from, 1, Some((leaf_pointer.block(), leaf_owner)))?;
        } else {
            delta = OwnDelta::default();
            let open = self.open_path(change, from, &path, &mut delta)?;
            if let Some(leaf) = open.last() {
                for (index, _, _) in &present {
                    leaf.set_pointer(*index, BlockPtr::NULL);
                }
            }
            self.collapse(change, from, open, 1, &mut delta);
        }
        for (_, block, owner) in owned() {
            delta.lose_data(*owner);
            change.pages.space.free(Extent::one(*block));
            Extent::push_joined(freed, Extent::one(*block));
        }
        Ok(UnmapStep { next: LogicalBlock::new(end), delta, changed: true })
    }

    /// The pointer to the leaf that holds `logical`.
    fn leaf_pointer(&self, change: &Change<'_>, logical: LogicalBlock) -> Attempt<BlockPtr> {
        if self.height == 1 {
            return Ok(self.root);
        }
        let path = self.path(change.pages, logical, 2)?;
        Ok(path.lowest().map_or(BlockPtr::NULL, |page| page.pointer(index_at(2, logical.get()))))
    }
}
