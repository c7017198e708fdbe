//! A radix tree of pages: looking up, and changing along a path.

use std::sync::Arc;

use super::ownership::{OwnDelta, Owner, Ownership};
use super::page::{Page, index_at, span};
use super::store::PageStore;
use crate::convert::{to_u64, to_usize};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::need::Attempt;
use crate::space::Extent;
use crate::types::{Epoch, LogicalBlock, PoolBlock};

/// The root of a map or a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) root: BlockPtr,
    /// Levels of pointer pages above what the leaves point at.
    pub(crate) height: u8,
}

/// Who changes a tree, and when.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) pages: &'a PageStore,
    pub(crate) ownership: Ownership,
    /// The birth of what is made now.
    pub(crate) epoch: Epoch,
    /// Tables may use up the reserve, maps may not.
    pub(crate) is_table: bool,
}

impl Change<'_> {
    fn allocate_pages(&self, count: usize) -> Attempt<Vec<PoolBlock>> {
        if self.is_table {
            self.pages.space.allocate_pages(count)
        } else {
            self.pages.space.allocate_map_pages(count)
        }
    }
}

/// The pages from the root down to some level, as far as they exist.
pub(super) struct Path {
    /// Page of each level, from the root's down.
    pages: Vec<(u8, BlockPtr, Option<Arc<Page>>)>,
}

impl Path {
    /// The pointer to the lowest page of the path.
    pub(super) fn lowest(&self) -> Option<&Arc<Page>> {
        self.pages.last().and_then(|(_, _, page)| page.as_ref())
    }
}

impl Tree {
    /// The pointer at `logical`: null for a hole.
    pub(crate) fn lookup(&self, pages: &PageStore, logical: LogicalBlock) -> Attempt<BlockPtr> {
        Ok(match self.leaf(pages, logical)? {
            Some(leaf) => leaf.pointer(index_at(1, logical.get())),
            None => BlockPtr::NULL,
        })
    }

    /// The lowest page of pointers on the way to `logical`, if there is one.
    pub(crate) fn leaf(
        &self,
        pages: &PageStore,
        logical: LogicalBlock,
    ) -> Attempt<Option<Arc<Page>>> {
        let mut pointer = self.root;
        let mut level = self.height;
        loop {
            if pointer.is_null() || level == 0 {
                return Ok(None);
            }
            let page = pages.get(pointer)?;
            if level == 1 {
                return Ok(Some(page));
            }
            pointer = page.pointer(index_at(level, logical.get()));
            level -= 1;
        }
    }

    /// Reads the path to `logical` down to the page of `lowest`.
    pub(super) fn path(
        &self,
        pages: &PageStore,
        logical: LogicalBlock,
        lowest: u8,
    ) -> Attempt<Path> {
        let mut path = Path { pages: Vec::with_capacity(usize::from(self.height) + 1) };
        let mut pointer = self.root;
        for level in (lowest..=self.height).rev() {
            let page = if pointer.is_null() { None } else { Some(pages.get(pointer)?) };
            let next = page
                .as_ref()
                .map_or(BlockPtr::NULL, |page| page.pointer(index_at(level, logical.get())));
            path.pages.push((level, pointer, page));
            pointer = next;
        }
        Ok(path)
    }

    /// Makes every page of a path changeable: pages of this interval that are the layer's are left as
    /// they are, others are copied to new blocks, missing ones made. The lowest page is given back.
    ///
    /// All that can fail is done before the first change.
    pub(super) fn open_path(
        &mut self,
        change: &Change<'_>,
        logical: LogicalBlock,
        path: &Path,
        delta: &mut OwnDelta,
    ) -> Attempt<Vec<Arc<Page>>> {
        let interval = change.pages.interval();
        let end_of = |level: u8| (logical.get() / span(level) + 1) * span(level);
        let owner_of =
            |level: u8, pointer: BlockPtr| change.ownership.of(pointer.birth(), end_of(level));
        let is_open = |level: u8, pointer: BlockPtr, page: &Page| {
            page.interval() == interval && owner_of(level, pointer) != Owner::Ancestor
        };
        let closed = path
            .pages
            .iter()
            .filter(|(level, pointer, page)| {
                !page.as_ref().is_some_and(|page| is_open(*level, *pointer, page))
            })
            .count();
        let replaced = path.pages.iter().filter(|(level, pointer, page)| {
            page.is_some() && owner_of(*level, *pointer) != Owner::Ancestor
        });
        change.pages.space.require_loaded(replaced.map(|(_, pointer, _)| pointer.block()))?;
        let mut blocks = change.allocate_pages(closed)?.into_iter();
        let mut open: Vec<Arc<Page>> = Vec::with_capacity(path.pages.len());
        for (level, pointer, page) in &path.pages {
            let page = match page {
                Some(page) if is_open(*level, *pointer, page) => Arc::clone(page),
                other => {
                    let Some(block) = blocks.next() else { break };
                    let fresh = Arc::new(match other {
                        Some(old) => old.copy_to_level(block, interval, *level),
                        None => Page::empty(block, interval, *level),
                    });
                    let new_pointer = change.pages.add(Arc::clone(&fresh), change.epoch);
                    match open.last() {
                        Some(parent) => {
                            parent.set_pointer(index_at(level + 1, logical.get()), new_pointer);
                        }
                        None => self.root = new_pointer,
                    }
                    if other.is_some() && owner_of(*level, *pointer) != Owner::Ancestor {
                        delta.lose_page(owner_of(*level, *pointer));
                        change.pages.drop_page(pointer.block());
                    }
                    delta.pages += 1;
                    fresh
                }
            };
            open.push(page);
        }
        Ok(open)
    }

    /// Takes away the pages at the end of an open path that have become empty.
    pub(super) fn collapse(
        &mut self,
        change: &Change<'_>,
        logical: LogicalBlock,
        mut open: Vec<Arc<Page>>,
        lowest: u8,
        delta: &mut OwnDelta,
    ) {
        let mut level = lowest;
        while let Some(page) = open.pop() {
            if !page.is_empty() {
                return;
            }
            let end = (logical.get() / span(level) + 1) * span(level);
            let pointer = match open.last() {
                Some(parent) => {
                    let index = index_at(level + 1, logical.get());
                    let pointer = parent.pointer(index);
                    parent.set_pointer(index, BlockPtr::NULL);
                    pointer
                }
                None => std::mem::replace(&mut self.root, BlockPtr::NULL),
            };
            delta.lose_page(change.ownership.of(pointer.birth(), end));
            change.pages.drop_page(page.block());
            level += 1;
        }
    }

    /// The pointer of `level` that covers `logical`; null at a level that the tree does not reach.
    pub(crate) fn pointer_at(
        &self,
        pages: &PageStore,
        logical: LogicalBlock,
        level: u8,
    ) -> Attempt<BlockPtr> {
        if level >= self.height {
            return Ok(if level == self.height { self.root } else { BlockPtr::NULL });
        }
        let path = self.path(pages, logical, level + 1)?;
        let page = path.lowest();
        Ok(page.map_or(BlockPtr::NULL, |page| page.pointer(index_at(level + 1, logical.get()))))
    }

    /// Repair: puts a pointer of `level` in the place of another, which is neither freed nor counted.
    pub(crate) fn replace(
        &mut self,
        change: &Change<'_>,
        logical: LogicalBlock,
        level: u8,
        pointer: BlockPtr,
    ) -> Attempt<()> {
        if level >= self.height {
            self.root = pointer;
            return Ok(());
        }
        let path = self.path(change.pages, logical, level + 1)?;
        let open = self.open_path(change, logical, &path, &mut OwnDelta::default())?;
        if let Some(page) = open.last() {
            page.set_pointer(index_at(level + 1, logical.get()), pointer);
        }
        Ok(())
    }

    /// Points contiguous logical blocks of one leaf at contiguous pool blocks, which are reserved. What
    /// they pointed at before is freed if it was the layer's own; `freed` tells it.
    pub(crate) fn map(
        &mut self,
        change: &Change<'_>,
        logical: LogicalBlock,
        extent: Extent,
        birth: Epoch,
        freed: &mut Vec<Extent>,
    ) -> Attempt<OwnDelta> {
        let first = index_at(1, logical.get());
        let count = to_usize(u64::from(extent.count));
        debug_assert!(first + count <= 256, "a mapping that crosses a leaf");
        let path = self.path(change.pages, logical, 1)?;
        let old_own = |index: usize| {
            let pointer = path.lowest().map_or(BlockPtr::NULL, |leaf| leaf.pointer(index));
            let end = logical.get() + to_u64(index - first) + 1;
            (!pointer.is_null()).then(|| (pointer, change.ownership.of(pointer.birth(), end)))
        };
        let replaced = (first..first + count)
            .filter_map(old_own)
            .filter(|(_, owner)| *owner != Owner::Ancestor);
        change.pages.space.require_loaded(replaced.clone().map(|(pointer, _)| pointer.block()))?;
        let mut delta = OwnDelta::default();
        let replaced: Vec<(PoolBlock, Owner)> =
            replaced.map(|(pointer, owner)| (pointer.block(), owner)).collect();
        let open = self.open_path(change, logical, &path, &mut delta)?;
        let Some(leaf) = open.last() else { return Ok(delta) };
        for (block, owner) in replaced {
            delta.lose_data(owner);
            change.pages.space.free(Extent::one(block));
            Extent::push_joined(freed, Extent::one(block));
        }
        for index in 0..u64::from(extent.count) {
            let block = extent.start.plus(index);
            leaf.set_pointer(
                first + to_usize(index),
                BlockPtr::new(PointerKind::Data, block, birth, 0),
            );
        }
        change.pages.space.commit_data(extent);
        delta.data += i64::from(extent.count);
        Ok(delta)
    }

    /// Makes room for a larger device: the old root becomes the first entry of a new one.
    pub(crate) fn raise(&mut self, change: &Change<'_>, height: u8) -> Attempt<OwnDelta> {
        let mut delta = OwnDelta::default();
        if self.root.is_null() {
            self.height = height;
            return Ok(delta);
        }
        let steps = height.saturating_sub(self.height);
        let blocks = change.allocate_pages(usize::from(steps))?;
        for block in blocks {
            self.height += 1;
            let page = Arc::new(Page::empty(block, change.pages.interval(), self.height));
            page.set_pointer(0, self.root);
            self.root = change.pages.add(page, change.epoch);
            delta.pages += 1;
        }
        Ok(delta)
    }

    /// The page of records (level 0) at `index`, opened for change; made where it is missing.
    pub(crate) fn open_records(&mut self, change: &Change<'_>, index: u64) -> Attempt<Arc<Page>> {
        let logical = LogicalBlock::new(index);
        let path = self.path(change.pages, logical, 0)?;
        let mut delta = OwnDelta::default();
        let mut open = self.open_path(change, logical, &path, &mut delta)?;
        open.pop().ok_or_else(unreachable_path)
    }

    /// Takes away the page of records at `index`, and what is empty above it.
    pub(crate) fn collapse_records(&mut self, change: &Change<'_>, index: u64) -> Attempt<()> {
        let logical = LogicalBlock::new(index);
        let path = self.path(change.pages, logical, 0)?;
        let mut delta = OwnDelta::default();
        let open = self.open_path(change, logical, &path, &mut delta)?;
        self.collapse(change, logical, open, 0, &mut delta);
        Ok(())
    }

    /// Would setting the pointer at `logical` change pages of this interval only?
    pub(crate) fn is_open(&self, pages: &PageStore, logical: LogicalBlock) -> Attempt<bool> {
        let leaf = self.leaf(pages, logical)?;
        // A page is changed only together with all pages above it.
        Ok(leaf.is_some_and(|leaf| leaf.interval() == pages.interval()))
    }

    /// Sets a single pointer of a table to something that the tree does not own, such as a bitmap.
    pub(crate) fn set(
        &mut self,
        change: &Change<'_>,
        index: u64,
        pointer: BlockPtr,
    ) -> Attempt<()> {
        let logical = LogicalBlock::new(index);
        let path = self.path(change.pages, logical, 1)?;
        let mut delta = OwnDelta::default();
        let open = self.open_path(change, logical, &path, &mut delta)?;
        let Some(leaf) = open.last() else { return Ok(()) };
        leaf.set_pointer(index_at(1, index), pointer);
        if pointer.is_null() {
            self.collapse(change, logical, open, 1, &mut delta);
        }
        Ok(())
    }
}

fn unreachable_path() -> crate::need::Need {
    crate::need::Need::Corrupt { what: "a tree without levels".to_owned() }
}
