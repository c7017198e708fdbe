//! The layer table in memory: every layer by its id and by its name, and who stands on whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result};

use super::layer::{Layer, LayerMeta};
use crate::types::{Epoch, LayerId, Namespace};

/// Slots are below this.
pub(crate) const LAYER_LIMIT: u32 = 1 << 26;

/// A layer and its description.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) layer: Arc<Layer>,
    pub(crate) meta: LayerMeta,
}

/// All layers.
#[derive(Default)]
pub(crate) struct Table {
    entries: BTreeMap<LayerId, Entry>,
    names: HashMap<(Namespace, String), LayerId>,
    children: HashMap<LayerId, BTreeSet<LayerId>>,
    referrers: HashMap<LayerId, BTreeSet<LayerId>>,
    free_ids: BTreeSet<LayerId>,
    /// Slots whose layer went since the last checkpoint.
    pub(crate) removed: BTreeSet<LayerId>,
    pub(crate) next_serial: u64,
    /// Layers that were removed, and whose space may be freed.
    pub(crate) reclaimable: BTreeSet<LayerId>,
    /// Sealed layers whose data has no checksums yet, by the epoch of their seal: origins come before
    /// their children.
    pub(crate) unsummed: BTreeSet<(Epoch, LayerId)>,
}

impl Table {
    /// A table without layers.
    pub(crate) fn new(next_serial: u64) -> Table {
        Table { next_serial, ..Table::default() }
    }

    pub(crate) fn get(&self, id: LayerId) -> Result<&Entry> {
        self.entries
            .get(&id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no {id} in the pool")))
    }

    pub(crate) fn meta_mut(&mut self, id: LayerId) -> Option<&mut LayerMeta> {
        let entry = self.entries.get_mut(&id)?;
        entry.layer.mark_changed();
        Some(&mut entry.meta)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&LayerId, &Entry)> {
        self.entries.iter()
    }

    pub(crate) fn find(&self, namespace: Namespace, name: &str) -> Option<LayerId> {
        self.names.get(&(namespace, name.to_owned())).copied()
    }

    pub(crate) fn children(&self, id: LayerId) -> impl Iterator<Item = LayerId> {
        self.children.get(&id).into_iter().flatten().copied()
    }

    pub(crate) fn referrers(&self, id: LayerId) -> impl Iterator<Item = LayerId> {
        self.referrers.get(&id).into_iter().flatten().copied()
    }

    /// The lowest free slot, so that a table that grew and shrank takes the space it took before.
    pub(crate) fn free_id(&self) -> Result<LayerId> {
        if let Some(id) = self.free_ids.first() {
            return Ok(*id);
        }
        let next = self.entries.last_key_value().map_or(1, |(id, _)| id.get().saturating_add(1));
        LayerId::new(next).filter(|id| id.get() < LAYER_LIMIT).ok_or_else(|| {
            Error::new(
                ErrorKind::Full,
                "the pool holds as many layers as it can: remove some first",
            )
        })
    }

    /// Adds a layer; false if its slot or its name is taken.
    pub(crate) fn insert(&mut self, layer: Arc<Layer>, meta: LayerMeta) -> bool {
        let id = layer.id;
        let taken = self.entries.contains_key(&id)
            || (!meta.name.is_empty()
                && self.names.contains_key(&(meta.namespace, meta.name.clone())));
        if taken {
            return false;
        }
        let first_unknown = self.entries.last_key_value().map_or(1, |(last, _)| last.get() + 1);
        for gap in first_unknown..id.get() {
            self.free_ids.extend(LayerId::new(gap));
        }
        self.free_ids.remove(&id);
        self.removed.remove(&id);
        self.link(id, &meta);
        self.entries.insert(id, Entry { layer, meta });
        true
    }

    fn link(&mut self, id: LayerId, meta: &LayerMeta) {
        if let Some(origin) = meta.origin {
            self.children.entry(origin).or_default().insert(id);
        }
        if let Some(reference) = meta.reference {
            self.referrers.entry(reference).or_default().insert(id);
        }
        if !meta.name.is_empty() {
            self.names.insert((meta.namespace, meta.name.clone()), id);
        }
        if meta.is_removed() {
            self.reclaimable.insert(id);
        }
    }

    fn unlink(&mut self, id: LayerId, meta: &LayerMeta) {
        let forget = |map: &mut HashMap<LayerId, BTreeSet<LayerId>>, key: Option<LayerId>| {
            let Some(key) = key else { return };
            if let Some(set) = map.get_mut(&key) {
                set.remove(&id);
                if set.is_empty() {
                    map.remove(&key);
                }
            }
        };
        forget(&mut self.children, meta.origin);
        forget(&mut self.referrers, meta.reference);
        let name = (meta.namespace, meta.name.clone());
        if self.names.get(&name) == Some(&id) {
            self.names.remove(&name);
        }
    }

    /// Changes a layer's description, and all that is derived from it.
    pub(crate) fn update(&mut self, id: LayerId, change: impl FnOnce(&mut LayerMeta)) {
        let Some(entry) = self.entries.get(&id) else { return };
        let old = entry.meta.clone();
        let mut new = old.clone();
        change(&mut new);
        self.unlink(id, &old);
        self.link(id, &new);
        if let Some(meta) = self.meta_mut(id) {
            *meta = new;
        }
    }

    /// Takes a layer out for good. Its origin may now be freed further.
    pub(crate) fn remove(&mut self, id: LayerId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        // Of a layer that was never sealed, nothing is there.
        let seal = entry.layer.map.read().seal_epoch;
        self.unsummed.remove(&(seal, id));
        self.unlink(id, &entry.meta);
        self.removed.insert(id);
        self.reclaimable.remove(&id);
        let last = self.entries.last_key_value().map_or(0, |(last, _)| last.get());
        self.free_ids.insert(id);
        while let Some(highest) = self.free_ids.last().copied().filter(|free| free.get() > last) {
            self.free_ids.remove(&highest);
        }
        if let Some(origin) = entry.meta.origin {
            self.children_changed(origin);
        }
    }

    /// A layer lost a child, or a child changed places: if it was removed, more of it may be freed now.
    pub(crate) fn children_changed(&mut self, id: LayerId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if entry.meta.is_removed() {
            self.reclaimable.insert(id);
            if let Some(meta) = self.meta_mut(id) {
                meta.trimmed = false;
            }
        }
    }
}
