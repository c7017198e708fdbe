//! Looking at every structure of the pool, and at how they agree. Nothing is written.
//!
//! Every block is claimed by whoever owns it. At the end each block must be claimed once and be in use, or
//! not at all and be free; counts must be what was counted; and every pointer to an ancestor's block must
//! lead to a block that an ancestor claimed.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use thinstore_storage::{ErrorKind, Result};

use crate::convert::to_u64;
use crate::core::Core;
use crate::format::geometry::{Geometry, GroupIndex, SUPERBLOCK_HOMES, TABLE_HEIGHT};
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::layers::layer::LayerMap;
use crate::layers::table::{Entry, Table};
use crate::map::ownership::Owner;
use crate::map::page::{Page, span};
use crate::open::read_superblock;
use crate::sync::atomic::Ordering;
use crate::types::{Epoch, LayerId, LogicalBlock, PoolBlock};

/// Findings beyond this many are counted, not listed.
pub(crate) const MOST_FINDINGS: usize = 1000;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which structure: "superblock", "journal", "layer table", "space map", "bitmap", "map", "count", or "lost" for
    /// what a repair gave up.
    pub structure: &'static str,
    /// Whose, where it is a layer's.
    pub layer: Option<LayerId>,
    /// What is wrong, and where.
    pub message: String,
    /// The blocks of the layer that a repair gave up, where that is what is wrong.
    pub lost: Option<Range<u64>>,
}

impl Finding {
    pub(crate) fn new(structure: &'static str, layer: Option<LayerId>, message: String) -> Finding {
        Finding { structure, layer, message, lost: None }
    }

    fn of_loss(layer: LayerId, blocks: Range<u64>) -> Finding {
        let message = format!("{} were lost in a repair", blocks_text(&blocks));
        Finding { lost: Some(blocks), ..Finding::new("lost", Some(layer), message) }
    }

    /// Is it known since a repair, which could not give it back? Nothing else is wrong there.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }
}

/// A range of blocks in words.
pub(crate) fn blocks_text(blocks: &Range<u64>) -> String {
    format!("blocks {} to {}", blocks.start, blocks.end.saturating_sub(1))
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// What is wrong; empty for a sound pool.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more_findings: u64,
    /// Layers looked at.
    pub layers: u64,
    /// Pages looked at.
    pub map_pages: u64,
    /// Data blocks that layers own.
    pub data_blocks: u64,
}

impl CheckReport {
    /// Is nothing wrong?
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, structure: &'static str, layer: Option<LayerId>, message: String) {
        self.add_finding(Finding::new(structure, layer, message));
    }

    fn add_finding(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// Who claimed a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Layer(LayerId),
    Table,
}

/// A pointer in a layer's map to what an ancestor owns.
#[derive(Clone, Copy)]
pub(crate) struct Foreign {
    pub(crate) layer: LayerId,
    pub(crate) start: LogicalBlock,
    pub(crate) level: u8,
    pub(crate) pointer: BlockPtr,
}

/// Where a page stands in its owner's map: all who lead to it lead to it there, and alike.
type Place = (LogicalBlock, u8, BlockPtr);

/// How a bitmap contradicts the maps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BitmapFault {
    InUseByNobody,
    /// It says free of what this one has.
    Free(Claim),
}

/// Data blocks and pages that each layer owns itself, and through the child that is taking it over.
#[derive(Default)]
struct Counts {
    own: HashMap<LayerId, [u64; 2]>,
    inherited: HashMap<LayerId, [u64; 2]>,
}

impl Counts {
    /// Data blocks and pages that are booked at a layer.
    fn of(&self, id: LayerId) -> (u64, u64) {
        let own = self.own.get(&id).copied().unwrap_or_default();
        let through_child = self.inherited.get(&id).copied().unwrap_or_default();
        (own[0] + through_child[0], own[1] + through_child[1])
    }
}

/// Who owns what, by the maps alone.
pub(crate) struct Claims {
    pub(crate) owners: HashMap<PoolBlock, Claim>,
    pub(crate) foreign: Vec<Foreign>,
    counts: Counts,
    pub(crate) data_blocks: u64,
    /// Layers that miss something.
    pub(crate) lost: Vec<LayerId>,
}

impl Claims {
    /// Data blocks and pages that are booked at a layer.
    pub(crate) fn of(&self, id: LayerId) -> (u64, u64) {
        self.counts.of(id)
    }
}

/// Walks all maps of a pool that nobody else uses.
pub(crate) fn claims(core: &Core) -> Result<Claims> {
    let table = core.table.read();
    let mut check = Check::new(core, &table);
    check.layers()?;
    Ok(Claims {
        lost: check.damaged,
        owners: check.claims,
        foreign: check.foreign,
        counts: check.counts,
        data_blocks: check.report.data_blocks,
    })
}

struct Check<'a> {
    core: &'a Core,
    table: &'a Table,
    geometry: Geometry,
    report: CheckReport,
    claims: HashMap<PoolBlock, Claim>,
    /// Of the pages among them.
    places: HashMap<PoolBlock, Place>,
    /// Pointers to ancestors' blocks: checked once all claims are in.
    foreign: Vec<Foreign>,
    counts: Counts,
    /// Layers with lost blocks.
    damaged: Vec<LayerId>,
}

/// One layer's walk.
struct LayerWalk<'a> {
    id: LayerId,
    map: &'a LayerMap,
    absorbed_from: Option<LayerId>,
    own: [u64; 2],
    inherited: [u64; 2],
    /// What lies before this was freed by a walk, or has gone over to a child.
    cursor: u64,
    /// Blocks of the device that a repair gave up.
    lost: Vec<Range<u64>>,
}

impl LayerWalk<'_> {
    fn lost(&mut self, start: u64, end: u64) {
        // A subtree can reach past the end of the device.
        let end = end.min(self.map.size_blocks);
        match self.lost.last_mut() {
            _ if start >= end => {}
            Some(last) if last.end == start => last.end = end,
            _ => self.lost.push(start..end),
        }
    }
}

/// Checks a pool with all change shut out.
pub(crate) fn check(core: &Core) -> Result<CheckReport> {
    let state = core.checkpoints.lock();
    let _alone = core.cut.write();
    let table = core.table.read();
    let mut check = Check::new(core, &table);
    let (layer_table, space_map) = (state.layer_table.root, state.space_map.root);
    check.superblocks()?;
    check.table_pages("layer table", layer_table, TABLE_HEIGHT, 0)?;
    check.table_pages("space map", space_map, TABLE_HEIGHT, 0)?;
    check.layers()?;
    check.counts();
    check.foreign_blocks();
    check.space()?;
    Ok(check.report)
}

impl<'a> Check<'a> {
    fn new(core: &'a Core, table: &'a Table) -> Check<'a> {
        Check {
            core,
            table,
            geometry: core.pages.space.geometry(),
            report: CheckReport::default(),
            claims: HashMap::new(),
            places: HashMap::new(),
            foreign: Vec::new(),
            counts: Counts::default(),
            damaged: Vec::new(),
        }
    }
}

impl Check<'_> {
    /// Both superblocks are whole between two checkpoints: a torn one cannot be.
    fn superblocks(&mut self) -> Result<()> {
        for home in SUPERBLOCK_HOMES {
            if let Err(fault) = read_superblock(&*self.core.storage, home)? {
                let message = format!("the one at {home} is damaged ({fault:?})");
                self.report.add("superblock", None, message);
            }
        }
        Ok(())
    }

    /// A page behind a pointer, or a finding and nothing.
    fn page(
        &mut self,
        structure: &'static str,
        layer: Option<LayerId>,
        pointer: BlockPtr,
        at: &str,
    ) -> Result<Option<Arc<Page>>> {
        if !self.geometry.is_allocatable(pointer.block()) {
            self.report.add(
                structure,
                layer,
                format!("{at}: {} cannot hold a page", pointer.block()),
            );
            return Ok(None);
        }
        match self.core.attempt(|| self.core.pages.get(pointer)) {
            Ok(page) => {
                self.report.map_pages += 1;
                Ok(Some(page))
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let message = format!("{at}: {}", self.core.without_advice(&error));
                self.report.add(structure, layer, message);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes whose a block is. False: it is another's too, and what is behind it was looked at there. A
    /// page that stands in a tree many times over is not walked as often.
    fn claim(&mut self, block: PoolBlock, claim: Claim, structure: &'static str, at: &str) -> bool {
        let layer = match claim {
            Claim::Layer(id) => Some(id),
            Claim::Table => None,
        };
        if !self.geometry.is_allocatable(block) {
            self.report.add(structure, layer, format!("{at}: {block} cannot be allocated"));
            return false;
        }
        if let Some(other) = self.claims.insert(block, claim) {
            let who = match other {
                Claim::Layer(id) => id.to_string(),
                Claim::Table => "a table".to_owned(),
            };
            self.report.add(structure, layer, format!("{at}: {block} belongs to {who} as well"));
            return false;
        }
        true
    }

    fn table_pages(
        &mut self,
        structure: &'static str,
        pointer: BlockPtr,
        level: u8,
        start: u64,
    ) -> Result<()> {
        if pointer.is_null() {
            return Ok(());
        }
        let at = format!("entry {start}, level {level}");
        if pointer.birth() == Epoch::ZERO {
            self.report.add(structure, None, format!("{at}: born before the first epoch"));
        }
        if !self.claim(pointer.block(), Claim::Table, structure, &at) {
            return Ok(());
        }
        let Some(page) = self.page(structure, None, pointer, &at)? else { return Ok(()) };
        if level == 0 || (level == 1 && structure == "space map") {
            return Ok(());
        }
        for (index, below) in page.pointers().enumerate() {
            let inside = start + to_u64(index) * span(level - 1);
            self.table_pages(structure, below, level - 1, inside)?;
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let table = self.table;
        table.iter().try_for_each(|(id, entry)| self.layer(*id, entry))
    }

    fn layer(&mut self, id: LayerId, entry: &Entry) -> Result<()> {
        self.report.layers += 1;
        if let Some(origin) = entry.meta.origin {
            match self.table.get(origin) {
                Err(_) => self.report.add(
                    "layer table",
                    Some(id),
                    format!("it stands on {origin}, which is not there"),
                ),
                Ok(origin_entry) => self.origin(id, entry, origin, origin_entry),
            }
        }
        for (what, other) in
            [("needs", entry.meta.reference), ("has as its document", entry.meta.document)]
        {
            if let Some(other) = other.filter(|other| self.table.get(*other).is_err()) {
                let message = format!("it {what} {other}, which is not there");
                self.report.add("layer table", Some(id), message);
            }
        }
        let map = entry.layer.map.read();
        let mut walk = LayerWalk {
            id,
            map: &map,
            absorbed_from: map.absorption.as_ref().map(|(_, origin)| origin.id),
            own: [0; 2],
            inherited: [0; 2],
            cursor: entry.meta.cursor.get(),
            lost: Vec::new(),
        };
        self.visit(&mut walk, map.tree.root, map.tree.height, 0)?;
        if !walk.lost.is_empty() {
            self.damaged.push(id);
        }
        for lost in walk.lost {
            self.report.add_finding(Finding::of_loss(id, lost));
        }
        self.counts.own.insert(id, walk.own);
        if let Some(origin) = walk.absorbed_from {
            self.counts.inherited.insert(origin, walk.inherited);
        }
        self.report.data_blocks += walk.own[0] + walk.inherited[0];
        Ok(())
    }

    fn origin(&mut self, id: LayerId, entry: &Entry, origin: LayerId, origin_entry: &Entry) {
        let base = entry.layer.map.read().base;
        let origin_map = origin_entry.layer.map.read();
        if !origin_map.sealed || origin_map.seal_epoch != base {
            self.report.add(
                "layer table",
                Some(id),
                format!(
                    "its base epoch is {}, but {origin} was sealed in {}",
                    base.get(),
                    origin_map.seal_epoch.get()
                ),
            );
        }
    }

    /// Visits a subtree of a layer's map. Depth is that of the map, at most 5.
    fn visit(
        &mut self,
        walk: &mut LayerWalk<'_>,
        pointer: BlockPtr,
        level: u8,
        start: u64,
    ) -> Result<()> {
        let end = start + span(level);
        if pointer.is_null() || end <= walk.cursor {
            return Ok(());
        }
        if pointer.is_lost() {
            walk.lost(start, end);
            return Ok(());
        }
        let at = format!("block {start}, level {level}");
        let expected = if level == 0 { PointerKind::Data } else { PointerKind::Page };
        if pointer.kind() != Some(expected) {
            self.report.add("map", Some(walk.id), format!("{at}: a pointer of the wrong kind"));
            return Ok(());
        }
        if pointer.birth() == Epoch::ZERO {
            self.report.add("map", Some(walk.id), format!("{at}: born before the first epoch"));
        }
        if pointer.birth() > self.core.epoch() {
            let birth = pointer.birth().get();
            self.report.add(
                "map",
                Some(walk.id),
                format!("{at}: born in epoch {birth}, still to come"),
            );
        }
        if level == 0 && start >= walk.map.size_blocks {
            self.report.add("map", Some(walk.id), format!("{at}: past the end of the device"));
        }
        let kind = usize::from(level > 0);
        let is_first = match walk.map.ownership().of(pointer.birth(), end) {
            Owner::Ancestor => {
                let start = LogicalBlock::new(start);
                self.foreign.push(Foreign { layer: walk.id, start, level, pointer });
                return Ok(());
            }
            Owner::Own => {
                walk.own[kind] += 1;
                self.claim(pointer.block(), Claim::Layer(walk.id), "map", &at)
            }
            Owner::Inherited => {
                walk.inherited[kind] += 1;
                let owner = walk.absorbed_from.unwrap_or(walk.id);
                self.claim(pointer.block(), Claim::Layer(owner), "map", &at)
            }
        };
        if level == 0 || !is_first {
            return Ok(());
        }
        self.places.insert(pointer.block(), (LogicalBlock::new(start), level, pointer));
        let Some(page) = self.page("map", Some(walk.id), pointer, &at)? else { return Ok(()) };
        if page.is_empty() {
            self.report.add("map", Some(walk.id), format!("{at}: an empty page"));
        }
        for (index, below) in page.pointers().enumerate() {
            self.visit(walk, below, level - 1, start + to_u64(index) * span(level - 1))?;
        }
        Ok(())
    }

    fn counts(&mut self) {
        for (id, entry) in self.table.iter() {
            let found = self.counts.of(*id);
            let booked = entry.layer.own_blocks();
            if found != booked {
                self.report.add(
                    "count",
                    Some(*id),
                    format!(
                        "it owns {} blocks and {} pages, its record says {} and {}",
                        found.0, found.1, booked.0, booked.1
                    ),
                );
            }
        }
        let booked = self.core.data_blocks.load(Ordering::Relaxed);
        if booked != self.report.data_blocks.cast_signed() {
            self.report.add(
                "count",
                None,
                format!(
                    "{} blocks of data were found, the pool says {booked}",
                    self.report.data_blocks
                ),
            );
        }
    }

    fn foreign_blocks(&mut self) {
        for Foreign { layer: id, start, level, pointer } in std::mem::take(&mut self.foreign) {
            let block = pointer.block();
            let owner = match self.claims.get(&block) {
                Some(Claim::Layer(owner)) => Some(*owner),
                _ => None,
            };
            let is_ancestor = owner.is_some_and(|owner| self.is_ancestor(owner, id));
            if !is_ancestor {
                self.report.add(
                    "map",
                    Some(id),
                    format!("block {}: {block} belongs to none of its ancestors", start.get()),
                );
            } else if level > 0 && self.places.get(&block) != Some(&(start, level, pointer)) {
                let message = format!(
                    "block {}, level {level}: {block} is another page of its ancestor",
                    start.get()
                );
                self.report.add("map", Some(id), message);
            }
        }
    }

    fn is_ancestor(&self, ancestor: LayerId, id: LayerId) -> bool {
        let mut at = id;
        let mut seen = BTreeSet::new();
        while let Some(origin) = self.table.get(at).ok().and_then(|entry| entry.meta.origin) {
            if origin == ancestor {
                return true;
            }
            if !seen.insert(origin) {
                return false;
            }
            at = origin;
        }
        false
    }

    fn bitmap_fault(&mut self, fault: Option<(BitmapFault, Range<u64>)>) {
        let Some((fault, blocks)) = fault else { return };
        let first = PoolBlock::new(blocks.start);
        let which = match blocks.end - blocks.start {
            1 => format!("{first} is"),
            _ => format!("{first} to {} are", blocks.end - 1),
        };
        let (layer, what) = match fault {
            BitmapFault::InUseByNobody => (None, "in use by nobody"),
            BitmapFault::Free(Claim::Layer(id)) => (Some(id), "in use, but free"),
            BitmapFault::Free(Claim::Table) => (None, "in use by a table, but free"),
        };
        self.report.add("bitmap", layer, format!("{which} {what}"));
    }

    fn space(&mut self) -> Result<()> {
        let space = &self.core.pages.space;
        let mut used = 0;
        for index in 0..self.geometry.group_count() {
            let group = GroupIndex::new(index);
            let first = group.first_block().get();
            let last = first + self.geometry.blocks_in(group);
            let fixed = first + self.geometry.fixed_in(group);
            let claimed =
                (fixed..last).any(|block| self.claims.contains_key(&PoolBlock::new(block)));
            if !claimed && space.saved_pointer(group).is_null() && space.is_empty_group(group) {
                continue;
            }
            // What is wrong with a stretch of blocks is told once.
            let mut wrong: Option<(BitmapFault, Range<u64>)> = None;
            for block in (fixed..last).map(PoolBlock::new) {
                let in_use = match self.core.attempt(|| space.is_used(block)) {
                    Ok(in_use) => in_use,
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        let message = self.core.without_advice(&error);
                        self.report.add("bitmap", None, message);
                        break;
                    }
                    Err(error) => return Err(error),
                };
                used += u64::from(in_use);
                let fault = match (self.claims.get(&block).copied(), in_use) {
                    (None, true) => BitmapFault::InUseByNobody,
                    (Some(claim), false) => BitmapFault::Free(claim),
                    _ => continue,
                };
                match &mut wrong {
                    Some((same, blocks)) if *same == fault && blocks.end == block.get() => {
                        blocks.end += 1;
                    }
                    _ => {
                        let next = (fault, block.get()..block.get() + 1);
                        self.bitmap_fault(wrong.replace(next));
                    }
                }
            }
            self.bitmap_fault(wrong);
        }
        let booked = space.counts().used;
        if used != booked && self.report.findings.is_empty() {
            self.report.add(
                "count",
                None,
                format!("{used} blocks are in use, the pool says {booked}"),
            );
        }
        Ok(())
    }
}
