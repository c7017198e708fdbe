//! What the records say, done to the pool in memory: the one place that both the living pool and replay
//! go through, so that replay ends in the state that was lost.
//!
//! Every function either does all of its work or, where something is missing, none.

use std::sync::Arc;

use super::layer::{Layer, LayerMap, LayerMeta};
use super::table::{LAYER_LIMIT, Table};
use crate::convert::to_u64;
use crate::core::Core;
use crate::format::geometry::MAXIMUM_DEVICE_BLOCKS;
use crate::format::layer::LayerRecord;
use crate::map::ownership::{Absorption, OwnDelta};
use crate::map::page::height_for;
use crate::map::tree::{Change, Tree};
use crate::map::unmap::UnmapStep;
use crate::map::walk::{Found, Portion, own_blocks, tree_end};
use crate::need::{Attempt, Need};
use crate::planted::{Fault, planted};
use crate::space::Extent;
use crate::sync::atomic::Ordering;
use crate::types::{Epoch, LayerId, LogicalBlock};

fn contradiction(what: impl Into<String>) -> Need {
    Need::Corrupt { what: what.into() }
}

/// How far a walk over a removed layer came, and what it freed.
pub(crate) struct WalkStep {
    pub(crate) cursor: LogicalBlock,
    pub(crate) freed: Vec<Extent>,
}

impl Core {
    fn change<'a>(&'a self, map: &LayerMap, epoch: Epoch) -> Change<'a> {
        Change { pages: &self.pages, ownership: map.ownership(), epoch, is_table: false }
    }

    fn book(&self, layer: &Layer, map: &LayerMap, delta: OwnDelta) {
        layer.book(map, delta);
        self.data_blocks.fetch_add(delta.data + delta.inherited_data, Ordering::Relaxed);
    }

    /// Points blocks of a layer, within one leaf, at reserved blocks of the pool.
    pub(crate) fn apply_map(
        &self,
        layer: &Layer,
        map: &mut LayerMap,
        logical: LogicalBlock,
        extent: Extent,
        birth: Epoch,
        freed: &mut Vec<Extent>,
    ) -> Attempt<()> {
        let change = self.change(map, birth);
        let delta = map.tree.map(&change, logical, extent, birth, freed)?;
        self.book(layer, map, delta);
        Ok(())
    }

    /// Takes blocks out of a layer's map, as far as one step goes.
    pub(crate) fn apply_unmap_step(
        &self,
        layer: &Layer,
        map: &mut LayerMap,
        from: LogicalBlock,
        end: u64,
        freed: &mut Vec<Extent>,
    ) -> Attempt<UnmapStep> {
        let change = self.change(map, self.epoch());
        let step = map.tree.unmap_step(&change, from, end, freed)?;
        self.book(layer, map, step.delta);
        Ok(step)
    }

    /// Adds a layer: empty, or a child of a sealed one.
    pub(crate) fn apply_create(&self, table: &mut Table, record: &LayerRecord) -> Attempt<()> {
        if record.size_blocks == 0
            || record.size_blocks > MAXIMUM_DEVICE_BLOCKS
            || record.id.get() >= LAYER_LIMIT
            || record.serial == u64::MAX
        {
            return Err(contradiction(format!("{} cannot be", record.id)));
        }
        let mut tree = Tree { root: crate::format::pointer::BlockPtr::NULL, height: 1 };
        let mut base = Epoch::ZERO;
        if let Some(origin) = record.origin {
            let entry = table.get(origin).map_err(|error| contradiction(error.to_string()))?;
            let map = entry.layer.map.read();
            if !map.sealed || map.size_blocks > record.size_blocks {
                return Err(contradiction(format!(
                    "{} stands on {origin}, which is no base",
                    record.id
                )));
            }
            (tree, base) = (map.tree, map.seal_epoch);
        }
        let mut map = LayerMap {
            tree,
            size_blocks: record.size_blocks,
            base,
            sealed: false,
            seal_epoch: Epoch::ZERO,
            absorption: None,
        };
        let delta = self.raise(&mut map)?;
        if record.flags.sealed {
            map.sealed = true;
            map.seal_epoch = self.next_epoch()?;
        }
        let layer = Layer::new(record.id, map, self.allocation_run_blocks);
        layer.add_own(0, delta.pages);
        let meta = LayerMeta { summed_blocks: LogicalBlock::new(0), ..LayerMeta::of(record) };
        if !table.insert(Arc::new(layer), meta) {
            return Err(contradiction(format!("{} is there twice", record.id)));
        }
        table.derive_summed_until(record.id);
        table.note_unsummed(record.id);
        table.next_serial = table.next_serial.max(record.serial + 1);
        Ok(())
    }

    fn raise(&self, map: &mut LayerMap) -> Attempt<OwnDelta> {
        let height = height_for(map.size_blocks);
        if height <= map.tree.height {
            return Ok(OwnDelta::default());
        }
        let change = self.change(map, self.epoch());
        map.tree.raise(&change, height)
    }

    fn next_epoch(&self) -> Attempt<Epoch> {
        self.advance_epoch().map_err(|error| contradiction(error.to_string()))
    }

    /// The writable `source` is forked: the sealed layer takes its tree, its own blocks and whatever it
    /// was taking over; `source` owns nothing from here on.
    pub(crate) fn apply_fork(
        &self,
        table: &mut Table,
        source: LayerId,
        sealed: &LayerRecord,
    ) -> Attempt<()> {
        let entry = table.get(source).map_err(|error| contradiction(error.to_string()))?.clone();
        if sealed.id.get() >= LAYER_LIMIT || sealed.serial == u64::MAX {
            return Err(contradiction(format!("{} cannot be", sealed.id)));
        }
        let mut map = entry.layer.map.write();
        if map.sealed {
            return Err(contradiction(format!("{source} is forked, but sealed")));
        }
        let seal_epoch = self.next_epoch()?;
        let taken = LayerMap {
            tree: map.tree,
            size_blocks: map.size_blocks,
            base: map.base,
            sealed: true,
            seal_epoch,
            absorption: map.absorption.take(),
        };
        let (data, pages) = entry.layer.own_blocks();
        let layer = Layer::new(sealed.id, taken, self.allocation_run_blocks);
        layer.set_own_blocks(data, pages);
        let meta = LayerMeta {
            origin: entry.meta.origin,
            summed_blocks: LogicalBlock::new(0),
            ..LayerMeta::of(sealed)
        };
        if !table.insert(Arc::new(layer), meta) {
            return Err(contradiction(format!("{} is there twice", sealed.id)));
        }
        map.base = seal_epoch;
        entry.layer.set_own_blocks(0, 0);
        entry.layer.mark_changed();
        table.next_serial = table.next_serial.max(sealed.serial + 1);
        table.update(source, |meta| meta.origin = Some(sealed.id));
        drop(map);
        table.derive_summed_until(sealed.id);
        table.note_unsummed(sealed.id);
        if let Some(origin) = entry.meta.origin {
            table.children_changed(origin);
        }
        Ok(())
    }

    /// A writable layer becomes sealed.
    pub(crate) fn apply_seal(&self, table: &mut Table, id: LayerId) -> Attempt<()> {
        let entry = table.get(id).map_err(|error| contradiction(error.to_string()))?;
        {
            let mut map = entry.layer.map.write();
            map.seal_epoch = self.next_epoch()?;
            map.sealed = true;
        }
        table.update(id, |meta| meta.summed_blocks = LogicalBlock::new(0));
        table.note_unsummed(id);
        Ok(())
    }

    /// Takes over the describing fields of a record.
    pub(crate) fn apply_describe(&self, table: &mut Table, record: &LayerRecord) -> Attempt<()> {
        table.get(record.id).map_err(|error| contradiction(error.to_string()))?;
        table.update(record.id, |meta| {
            meta.namespace = record.namespace;
            meta.name.clone_from(&record.name);
            meta.tag = record.tag;
            meta.reference = record.reference;
            meta.document = record.document;
            meta.transient = record.flags.transient;
        });
        Ok(())
    }

    /// A device grows.
    pub(crate) fn apply_resize(&self, table: &Table, id: LayerId, size_blocks: u64) -> Attempt<()> {
        let entry = table.get(id).map_err(|error| contradiction(error.to_string()))?;
        let mut map = entry.layer.map.write();
        let before = map.size_blocks;
        if size_blocks < before || size_blocks > MAXIMUM_DEVICE_BLOCKS {
            return Err(contradiction(format!("{id} grows to {size_blocks} blocks")));
        }
        map.size_blocks = size_blocks;
        match self.raise(&mut map) {
            Ok(delta) => self.book(&entry.layer, &map, delta),
            Err(need) => {
                map.size_blocks = before;
                return Err(need);
            }
        }
        Ok(())
    }

    /// A layer is removed: from here on it has no name, and its space may be freed.
    pub(crate) fn apply_remove(&self, table: &mut Table, id: LayerId) -> Attempt<()> {
        table.get(id).map_err(|error| contradiction(error.to_string()))?;
        let has_children = table.children(id).next().is_some();
        table.update(id, |meta| {
            meta.name = String::new();
            meta.namespace = crate::types::Namespace::INTERNAL;
            meta.reference = None;
            meta.document = None;
            meta.transient = false;
            meta.hidden = has_children;
            meta.deleting = !has_children;
            meta.trimmed = false;
        });
        Ok(())
    }

    fn free_found(&self, found: &Found) -> Attempt<Vec<Extent>> {
        let blocks = found.data.iter().map(|(_, block)| *block).chain(found.pages.iter().copied());
        self.pages.space.require_loaded(blocks)?;
        let mut freed = Vec::new();
        for (_, block) in &found.data {
            self.pages.space.free(Extent::one(*block));
            Extent::push_joined(&mut freed, Extent::one(*block));
        }
        for page in &found.pages {
            self.pages.drop_page(*page);
        }
        Ok(freed)
    }

    /// Frees what a removed layer without children owns, from its cursor on; at the end the layer is gone.
    pub(crate) fn apply_delete_walk(
        &self,
        table: &mut Table,
        id: LayerId,
        until: Option<LogicalBlock>,
        most_blocks: usize,
    ) -> Attempt<WalkStep> {
        let entry = table.get(id).map_err(|error| contradiction(error.to_string()))?.clone();
        if !entry.meta.is_removed() || table.children(id).next().is_some() {
            return Err(contradiction(format!("{id} is freed, but in use")));
        }
        let map = entry.layer.map.read();
        let end = tree_end(&map.tree);
        let portion = Portion { from: entry.meta.cursor, until: until.unwrap_or(end), most_blocks };
        let found = own_blocks(&self.pages, &map.tree, &map.ownership(), &[], portion)?;
        let freed = self.free_found(&found)?;
        let inherited_data = found.inherited_data.cast_signed();
        let inherited_pages = found.inherited_pages.cast_signed();
        let delta = OwnDelta {
            data: inherited_data - to_u64(found.data.len()).cast_signed(),
            pages: inherited_pages - to_u64(found.pages.len()).cast_signed(),
            inherited_data: -inherited_data,
            inherited_pages: -inherited_pages,
        };
        self.book(&entry.layer, &map, delta);
        drop(map);
        let cursor = LogicalBlock::new(found.next);
        if cursor >= end {
            table.remove(id);
        } else {
            table.update(id, |meta| {
                meta.deleting = true;
                meta.hidden = false;
                meta.cursor = cursor;
            });
        }
        Ok(WalkStep { cursor, freed })
    }

    /// The only child of a hidden layer takes over what it sees of it; the rest is freed. At the end the
    /// child stands on the layer's origin, and the layer is gone.
    pub(crate) fn apply_absorb_walk(
        &self,
        table: &mut Table,
        id: LayerId,
        until: Option<LogicalBlock>,
        most_blocks: usize,
    ) -> Attempt<WalkStep> {
        let entry = table.get(id).map_err(|error| contradiction(error.to_string()))?.clone();
        let mut children = table.children(id);
        let (Some(child_id), None) = (children.next(), children.next()) else {
            return Err(contradiction(format!("{id} is taken over by other than one child")));
        };
        drop(children);
        let child = table.get(child_id).map_err(|error| contradiction(error.to_string()))?.clone();
        let map = entry.layer.map.read();
        let mut child_map = child.layer.map.write();
        let end = tree_end(&map.tree);
        let portion = Portion { from: entry.meta.cursor, until: until.unwrap_or(end), most_blocks };
        let seen = [child_map.tree];
        let seen = if planted(Fault::AbsorbFreesShared) { &[] } else { &seen[..] };
        let found = own_blocks(&self.pages, &map.tree, &map.ownership(), seen, portion)?;
        let freed = self.free_found(&found)?;
        let delta = OwnDelta {
            data: -to_u64(found.data.len()).cast_signed(),
            pages: -to_u64(found.pages.len()).cast_signed(),
            ..OwnDelta::default()
        };
        self.book(&entry.layer, &map, delta);
        let cursor = LogicalBlock::new(found.next);
        if cursor < end {
            let absorption = Absorption { cursor, base: map.base };
            child_map.absorption = Some((absorption, Arc::clone(&entry.layer)));
            child.layer.mark_changed();
            table.update(id, |meta| {
                meta.absorbing = true;
                meta.cursor = cursor;
            });
        } else {
            child_map.base = map.base;
            child_map.absorption = None;
            let (data, pages) = entry.layer.own_blocks();
            child.layer.add_own(data.cast_signed(), pages.cast_signed());
            // The child's pass has not been over what becomes its own here, unless the origin's has.
            let both = child_map.is_summed(child.meta.summed_blocks)
                && map.is_summed(entry.meta.summed_blocks);
            drop((map, child_map));
            table.update(child_id, |meta| {
                meta.origin = entry.meta.origin;
                if !both {
                    meta.summed_blocks = LogicalBlock::new(0);
                }
            });
            table.remove(id);
            table.derive_summed_until(child_id);
            table.note_unsummed(child_id);
        }
        Ok(WalkStep { cursor, freed })
    }

    /// What no child of a hidden layer sees has been freed.
    pub(crate) fn apply_trimmed(&self, table: &mut Table, id: LayerId) -> Attempt<()> {
        table.get(id).map_err(|error| contradiction(error.to_string()))?;
        table.update(id, |meta| meta.trimmed = true);
        Ok(())
    }
}
