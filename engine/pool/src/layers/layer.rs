//! A layer in memory.

use std::sync::Arc;

use crate::device::gate::Gate;
use crate::device::overwrites::Overwrites;
use crate::device::range_lock::RangeLock;
use crate::format::layer::{LayerFlags, LayerRecord};
use crate::map::ownership::{Absorption, OwnDelta, Ownership};
use crate::map::tree::Tree;
use crate::map::walk::tree_end;
use crate::space::runs::Runs;
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::types::{Epoch, LayerId, LogicalBlock, Namespace};

/// A layer's map, and what decides who owns what in it.
pub(crate) struct LayerMap {
    pub(crate) tree: Tree,
    pub(crate) size_blocks: u64,
    pub(crate) base: Epoch,
    pub(crate) sealed: bool,
    pub(crate) seal_epoch: Epoch,
    /// While this layer takes over its removed origin: how far, and the origin.
    pub(crate) absorption: Option<(Absorption, Arc<Layer>)>,
}

impl LayerMap {
    /// Has the pass over a sealed layer's own data come to its end?
    pub(crate) fn is_summed(&self, summed_blocks: LogicalBlock) -> bool {
        self.sealed && summed_blocks >= tree_end(&self.tree)
    }

    pub(crate) fn ownership(&self) -> Ownership {
        Ownership {
            base: self.base,
            absorption: self.absorption.as_ref().map(|(absorption, _)| *absorption),
        }
    }
}

/// The part of a layer that reads and writes meet.
pub(crate) struct Layer {
    pub(crate) id: LayerId,
    pub(crate) gate: Gate,
    pub(crate) ranges: RangeLock,
    pub(crate) map: RwLock<LayerMap>,
    pub(crate) runs: Mutex<Runs>,
    own_data_blocks: AtomicI64,
    own_page_blocks: AtomicI64,
    /// Open handles.
    pub(crate) handles: AtomicUsize,
    pub(crate) overwrites: Overwrites,
    /// Writes to it wait for no room.
    pub(crate) hurried: AtomicBool,
    /// See [`Layer::summed_until`].
    summed_until: AtomicU32,
    /// The layer's record differs from the one in the table's page.
    pub(crate) changed: AtomicBool,
}

impl Layer {
    pub(crate) fn new(id: LayerId, map: LayerMap, run_blocks: u32) -> Layer {
        Layer {
            id,
            gate: Gate::default(),
            ranges: RangeLock::default(),
            map: RwLock::new(map),
            runs: Mutex::new(Runs::new(run_blocks)),
            own_data_blocks: AtomicI64::new(0),
            own_page_blocks: AtomicI64::new(0),
            handles: AtomicUsize::new(0),
            overwrites: Overwrites::default(),
            hurried: AtomicBool::new(false),
            summed_until: AtomicU32::new(Epoch::ZERO.get()),
            changed: AtomicBool::new(true),
        }
    }

    /// Blocks of data and pages that are the layer's own.
    pub(crate) fn own_blocks(&self) -> (u64, u64) {
        let count =
            |counter: &AtomicI64| u64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(0);
        (count(&self.own_data_blocks), count(&self.own_page_blocks))
    }

    pub(crate) fn set_own_blocks(&self, data: u64, pages: u64) {
        self.own_data_blocks.store(data.cast_signed(), Ordering::Relaxed);
        self.own_page_blocks.store(pages.cast_signed(), Ordering::Relaxed);
    }

    pub(crate) fn add_own(&self, data: i64, pages: i64) {
        self.own_data_blocks.fetch_add(data, Ordering::Relaxed);
        self.own_page_blocks.fetch_add(pages, Ordering::Relaxed);
        self.mark_changed();
    }

    /// Books a change of this layer's map, at the origin where it is still counted there.
    pub(crate) fn book(&self, map: &LayerMap, delta: OwnDelta) {
        self.add_own(delta.data, delta.pages);
        if let Some((_, origin)) = &map.absorption {
            origin.add_own(delta.inherited_data, delta.inherited_pages);
        }
    }

    /// Data that was born in this epoch or before it, and is read through this layer, has its checksum in
    /// the head of its group.
    pub(crate) fn summed_until(&self) -> Epoch {
        Epoch::new(self.summed_until.load(Ordering::Acquire))
    }

    /// False: it was so already.
    pub(crate) fn set_summed_until(&self, epoch: Epoch) -> bool {
        self.summed_until.swap(epoch.get(), Ordering::AcqRel) != epoch.get()
    }

    pub(crate) fn mark_changed(&self) {
        self.changed.store(true, Ordering::Release);
    }
}

/// The part of a layer that names it and ties it to others. Guarded by the lock of the table.
#[derive(Clone, Debug)]
pub(crate) struct LayerMeta {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
    pub(crate) tag: [u8; 32],
    pub(crate) origin: Option<LayerId>,
    pub(crate) reference: Option<LayerId>,
    pub(crate) document: Option<LayerId>,
    pub(crate) transient: bool,
    pub(crate) hidden: bool,
    pub(crate) deleting: bool,
    pub(crate) absorbing: bool,
    pub(crate) trimmed: bool,
    pub(crate) cursor: LogicalBlock,
    pub(crate) serial: u64,
    pub(crate) created_unix_ns: i64,
    pub(crate) content_bytes: u64,
    /// How far the checksums of a sealed layer's own data have come.
    pub(crate) summed_blocks: LogicalBlock,
}

impl LayerMeta {
    pub(crate) fn of(record: &LayerRecord) -> LayerMeta {
        LayerMeta {
            namespace: record.namespace,
            name: record.name.clone(),
            tag: record.tag,
            origin: record.origin,
            reference: record.reference,
            document: record.document,
            transient: record.flags.transient,
            hidden: record.flags.hidden,
            deleting: record.flags.deleting,
            absorbing: record.flags.absorbing,
            trimmed: record.flags.trimmed,
            cursor: record.cursor,
            serial: record.serial,
            created_unix_ns: record.created_unix_ns,
            content_bytes: record.content_bytes,
            summed_blocks: record.summed_blocks,
        }
    }

    /// Was it removed, and only waits for its space to be freed?
    pub(crate) fn is_removed(&self) -> bool {
        self.hidden || self.deleting
    }

    /// The record of the layer as it is now.
    pub(crate) fn record(&self, layer: &Layer, map: &LayerMap) -> LayerRecord {
        let (own_data_blocks, own_page_blocks) = layer.own_blocks();
        LayerRecord {
            id: layer.id,
            flags: LayerFlags {
                sealed: map.sealed,
                transient: self.transient,
                hidden: self.hidden,
                deleting: self.deleting,
                absorbing: self.absorbing,
                trimmed: self.trimmed,
            },
            namespace: self.namespace,
            height: map.tree.height,
            name: self.name.clone(),
            origin: self.origin,
            reference: self.reference,
            document: self.document,
            base_epoch: map.base,
            seal_epoch: map.seal_epoch,
            size_blocks: map.size_blocks,
            root: map.tree.root,
            own_data_blocks,
            own_page_blocks,
            cursor: self.cursor,
            serial: self.serial,
            created_unix_ns: self.created_unix_ns,
            content_bytes: self.content_bytes,
            tag: self.tag,
            summed_blocks: self.summed_blocks,
        }
    }
}
