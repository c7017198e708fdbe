//! Walks over trees, in block order: what a layer owns, what only it sees, and how two layers differ.
//!
//! A walk changes nothing: it says what it found, in portions, and its caller acts on that. Subtrees
//! that two trees share are passed over in one step, so the cost is that of the difference.

use std::sync::Arc;

use super::ownership::{Owner, Ownership};
use super::page::{Page, span};
use super::store::PageStore;
use super::tree::Tree;
use crate::convert::to_u64;
use crate::format::pointer::{BlockPtr, POINTERS_PER_PAGE};
use crate::need::{Attempt, Need};
use crate::types::{LogicalBlock, PoolBlock};

/// Where a walk starts, and when it has done enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    pub(crate) from: LogicalBlock,
    /// Nothing at or after this is looked at.
    pub(crate) until: LogicalBlock,
    /// No further leaf is begun once so many blocks were found.
    pub(crate) most_blocks: usize,
}

/// What a portion of a walk found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Where the next portion starts: the start of a subtree, or the end of the tree.
    pub(crate) next: u64,
    /// Blocks of data, with the logical block that they are mapped at.
    pub(crate) data: Vec<(LogicalBlock, PoolBlock)>,
    /// Pages whose whole range lies before `next`.
    pub(crate) pages: Vec<PoolBlock>,
    /// How many of these are still counted at the origin that is being taken over.
    pub(crate) inherited_data: u64,
    pub(crate) inherited_pages: u64,
}

/// The end of a tree's range: what a finished walk's cursor stands at.
pub(crate) fn tree_end(tree: &Tree) -> LogicalBlock {
    LogicalBlock::new(span(tree.height))
}

/// Finds what belongs to the owner of `tree`, and with `others` only what none of these trees leads to.
pub(crate) fn own_blocks(
    pages: &PageStore,
    tree: &Tree,
    ownership: &Ownership,
    others: &[Tree],
    portion: Portion,
) -> Attempt<Found> {
    let mut walk = OwnWalk {
        pages,
        ownership,
        portion,
        budget: PageBudget::of(pages),
        found: Found { next: portion.from.get(), ..Found::default() },
    };
    let mut other_roots = Vec::with_capacity(others.len());
    for other in others {
        other_roots.push(subtree_at_start(pages, other, tree.height)?);
    }
    walk.visit(tree.root, &other_roots, tree.height, 0)?;
    Ok(walk.found)
}

/// The subtree of `height` at the start of a tree that may be higher.
fn subtree_at_start(pages: &PageStore, tree: &Tree, height: u8) -> Attempt<BlockPtr> {
    let mut pointer = tree.root;
    for _ in height..tree.height {
        if pointer.is_null() {
            break;
        }
        pointer = pages.get(pointer)?.pointer(0);
    }
    // A lower tree never stands in for a higher one: devices only grow.
    Ok(if tree.height < height { BlockPtr::NULL } else { pointer })
}

/// How many pages a walk may still look at. A tree has no more than the pool has blocks, unless it is
/// damaged and leads to the same pages again and again: then a walk would go on almost for ever.
struct PageBudget(u64);

impl PageBudget {
    fn of(pages: &PageStore) -> PageBudget {
        PageBudget(pages.space.geometry().pool_blocks)
    }

    fn take(&mut self) -> Attempt<()> {
        match self.0.checked_sub(1) {
            Some(left) => self.0 = left,
            None => {
                let what = "a map leads to more pages than the pool has blocks".to_owned();
                return Err(Need::Corrupt { what });
            }
        }
        Ok(())
    }
}

struct OwnWalk<'a> {
    pages: &'a PageStore,
    ownership: &'a Ownership,
    portion: Portion,
    budget: PageBudget,
    found: Found,
}

impl OwnWalk<'_> {
    /// Visits the subtree behind `pointer`, which covers `span(level)` blocks from `start`. False: the
    /// portion is full. Depth is bounded by the height of the tree, at most 5.
    fn visit(
        &mut self,
        pointer: BlockPtr,
        others: &[BlockPtr],
        level: u8,
        start: u64,
    ) -> Attempt<bool> {
        let end = start + span(level);
        if end <= self.portion.from.get() {
            return Ok(true);
        }
        if start >= self.portion.until.get() {
            return Ok(false);
        }
        if level == 1 && self.found.data.len() >= self.portion.most_blocks {
            return Ok(false);
        }
        let seen = others.iter().any(|other| other.same_target(pointer));
        let owner = self.ownership.of(pointer.birth(), end);
        if pointer.is_null() || seen || owner == Owner::Ancestor {
            self.found.next = end;
            return Ok(true);
        }
        if level == 0 {
            self.found.inherited_data += u64::from(owner == Owner::Inherited);
            self.found.data.push((LogicalBlock::new(start), pointer.block()));
            self.found.next = end;
            return Ok(true);
        }
        self.budget.take()?;
        let page = self.pages.get(pointer)?;
        let other_pages = self.other_pages(others)?;
        let step = span(level - 1);
        for index in 0..POINTERS_PER_PAGE {
            let below: Vec<BlockPtr> = other_pages.iter().map(|page| page.pointer(index)).collect();
            let inside = start + to_u64(index) * step;
            if !self.visit(page.pointer(index), &below, level - 1, inside)? {
                return Ok(false);
            }
        }
        self.found.inherited_pages += u64::from(owner == Owner::Inherited);
        self.found.pages.push(pointer.block());
        self.found.next = end;
        Ok(true)
    }

    fn other_pages(&self, others: &[BlockPtr]) -> Attempt<Vec<Arc<Page>>> {
        others.iter().filter(|other| !other.is_null()).map(|other| self.pages.get(*other)).collect()
    }
}

/// A range in which two trees differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DifferentRange {
    pub(crate) start: u64,
    pub(crate) count: u64,
    /// Is there anything in the second tree?
    pub(crate) mapped: bool,
}

/// Finds the ranges in which `to` differs from `from`, from logical block `start` on, until `most`
/// ranges were found; gives where to go on, or none at the end.
pub(crate) fn differences(
    pages: &PageStore,
    from: &Tree,
    to: &Tree,
    start: u64,
    most: usize,
    ranges: &mut Vec<DifferentRange>,
) -> Attempt<Option<u64>> {
    let height = from.height.max(to.height);
    let (budget, found) = (PageBudget::of(pages), Vec::new());
    let mut walk = DifferenceWalk { pages, start, most, budget, found, stopped_at: None };
    walk.visit((from.root, from.height), (to.root, to.height), height, 0)?;
    for range in walk.found {
        match ranges.last_mut() {
            Some(last) if last.start + last.count == range.start && last.mapped == range.mapped => {
                last.count += range.count;
            }
            _ => ranges.push(range),
        }
    }
    Ok(walk.stopped_at)
}

struct DifferenceWalk<'a> {
    pages: &'a PageStore,
    start: u64,
    most: usize,
    budget: PageBudget,
    found: Vec<DifferentRange>,
    stopped_at: Option<u64>,
}

/// A pointer and the level that it stands at: in the higher of two trees, the lower one hangs below its
/// first entries.
type Placed = (BlockPtr, u8);

impl DifferenceWalk<'_> {
    fn visit(&mut self, from: Placed, to: Placed, level: u8, start: u64) -> Attempt<()> {
        let end = start + span(level);
        if self.stopped_at.is_some() || end <= self.start {
            return Ok(());
        }
        let same = from.0.same_target(to.0) && (from.1 == to.1 || from.0.is_null());
        if same {
            return Ok(());
        }
        if level <= 1 && self.found.len() >= self.most {
            self.stopped_at = Some(start);
            return Ok(());
        }
        let is_lost = to.0.is_lost() || (from.0.is_lost() && to.0.is_null());
        if level == 0 || is_lost {
            let count = span(level);
            self.push(DifferentRange { start, count, mapped: !to.0.is_null() });
            return Ok(());
        }
        self.budget.take()?;
        let from_page = self.page(from, level)?;
        let to_page = self.page(to, level)?;
        for index in 0..POINTERS_PER_PAGE {
            let inside = start + to_u64(index) * span(level - 1);
            let from_below = Self::below(from, from_page.as_deref(), level, index);
            let to_below = Self::below(to, to_page.as_deref(), level, index);
            self.visit(from_below, to_below, level - 1, inside)?;
        }
        Ok(())
    }

    fn push(&mut self, range: DifferentRange) {
        match self.found.last_mut() {
            Some(last) if last.start + last.count == range.start && last.mapped == range.mapped => {
                last.count += range.count;
            }
            _ => self.found.push(range),
        }
    }

    fn page(&self, placed: Placed, level: u8) -> Attempt<Option<Arc<Page>>> {
        if placed.0.is_null() || placed.1 < level {
            return Ok(None);
        }
        self.pages.get(placed.0).map(Some)
    }

    fn below(placed: Placed, page: Option<&Page>, level: u8, index: usize) -> Placed {
        match page {
            Some(page) => (page.pointer(index), level - 1),
            None if placed.1 < level && index == 0 => placed,
            None => (BlockPtr::NULL, level - 1),
        }
    }
}

/// Calls `visit` for every mapped block from `from` on, with its pointer, until it says stop; gives where
/// it stopped. A subtree that is lost comes once, with the count of blocks that it covers, which can reach
/// past the end of the device.
pub(crate) fn mapped_blocks(
    pages: &PageStore,
    tree: &Tree,
    from: u64,
    visit: &mut dyn FnMut(LogicalBlock, u64, BlockPtr) -> bool,
) -> Attempt<Option<u64>> {
    fn descend(
        pages: &PageStore,
        pointer: BlockPtr,
        level: u8,
        start: u64,
        from: u64,
        budget: &mut PageBudget,
        visit: &mut dyn FnMut(LogicalBlock, u64, BlockPtr) -> bool,
    ) -> Attempt<Option<u64>> {
        if pointer.is_null() || start + span(level) <= from {
            return Ok(None);
        }
        if level == 0 || pointer.is_lost() {
            let (end, start) = (start + span(level), start.max(from));
            let goes_on = visit(LogicalBlock::new(start), end - start, pointer);
            return Ok((!goes_on).then_some(end));
        }
        budget.take()?;
        let page = pages.get(pointer)?;
        for index in 0..POINTERS_PER_PAGE {
            let inside = start + to_u64(index) * span(level - 1);
            if let Some(stopped) =
                descend(pages, page.pointer(index), level - 1, inside, from, budget, visit)?
            {
                return Ok(Some(stopped));
            }
        }
        Ok(None)
    }
    descend(pages, tree.root, tree.height, 0, from, &mut PageBudget::of(pages), visit)
}
