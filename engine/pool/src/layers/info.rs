//! What the pool says of its layers and of its space.

use std::ops::Range;

use thinstore_storage::{Error, Result};

use super::table::{Entry, Table};
use crate::convert::to_u64;
use crate::core::Core;
use crate::map::tree::Tree;
use crate::map::walk::{self, Portion, own_blocks, tree_end};
use crate::need::Need;
use crate::sync::atomic::Ordering;
use crate::types::{BLOCK_BYTES, LayerId, LogicalBlock, Namespace};

/// A layer, as it is now.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    /// Its slot in the table.
    pub id: LayerId,
    /// Its identity: never given to another layer of this pool.
    pub uid: [u8; 32],
    /// Where its name is unique.
    pub namespace: Namespace,
    /// Empty: it has none.
    pub name: String,
    /// The maker's 32 bytes.
    pub tag: [u8; 32],
    /// The layer that it stands on.
    pub origin: Option<LayerId>,
    /// The layer that it stands for or needs.
    pub reference: Option<LayerId>,
    /// Layers that stand on it.
    pub children: Vec<LayerId>,
    /// Layers that need it.
    pub referenced_by: Vec<LayerId>,
    /// It never changes.
    pub sealed: bool,
    /// It goes at the next open.
    pub transient: bool,
    /// It was removed; its space is shared by children, or on its way back to the pool.
    pub hidden: bool,
    /// The device's size.
    pub size_bytes: u64,
    /// Data that is its own.
    pub own_data_bytes: u64,
    /// Of that, what has checksums that are looked at when it is read.
    pub checksummed_bytes: u64,
    /// Map pages that are its own.
    pub own_map_bytes: u64,
    /// Handles open now.
    pub open_handles: usize,
    /// When it was made.
    pub created_unix_ns: i64,
    /// Has it a document?
    pub has_document: bool,
    /// What its document takes, data and map pages, which goes with the layer.
    pub document_bytes: u64,
}

/// The pool's space. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The pool's size.
    pub size_bytes: u64,
    /// What is in use: data, metadata, and what is freed but not reusable yet.
    pub used_bytes: u64,
    /// Of that, what comes back without anything more being removed.
    pub pending_free_bytes: u64,
    /// Data of devices.
    pub data_bytes: u64,
    /// Map pages, the layer table and the space map.
    pub metadata_bytes: u64,
    /// Superblocks, journal, bitmaps, checksums of data: taken when the pool was made.
    pub fixed_bytes: u64,
    /// What is kept back so that a full pool can free space.
    pub reserved_bytes: u64,
    /// How much of what data can take is taken, 0 to 100.
    pub full_percent: u8,
    /// The mark, in percent, at which the pool last warned of becoming full, while that holds.
    pub full_warning_percent: Option<u8>,
}

/// What differs between two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The bytes of the device.
    pub range_bytes: Range<u64>,
    /// False: in the second layer there is nothing.
    pub mapped: bool,
}

/// A layer's identity: a bijection of its serial number under the pool's UUID, so that no two layers of
/// a pool share even the first eight bytes. (The mixing function is that of SplitMix64: Steele, Lea and
/// Flood, "Fast Splittable Pseudorandom Number Generators", 2014.)
fn identity(uuid: &[u8; 16], serial: u64) -> [u8; 32] {
    let mix = |mut word: u64| {
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    let (first, second) = uuid.split_at(8);
    let half = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let mut word = mix(serial.wrapping_add(half(first)));
    let mut identity = [0; 32];
    for chunk in identity.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_be_bytes());
        word = mix(word.wrapping_add(half(second)).wrapping_add(0x9e37_79b9_7f4a_7c15));
    }
    identity
}

/// Of a damaged pool, counts may be anything.
fn to_bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(BLOCK_BYTES)
}

/// All that is a layer's own.
fn taken_bytes(table: &Table, id: LayerId) -> u64 {
    let (data, pages) = table.get(id).map_or((0, 0), |entry| entry.layer.own_blocks());
    to_bytes(data.saturating_add(pages))
}

/// A layer that went while it was walked.
fn gone(error: Error) -> Need {
    Need::Missing(error)
}

impl Core {
    fn info(&self, table: &Table, id: LayerId, entry: &Entry) -> LayerInfo {
        let map = entry.layer.map.read();
        let (data, pages) = entry.layer.own_blocks();
        LayerInfo {
            id,
            uid: identity(&self.uuid, entry.meta.serial),
            namespace: entry.meta.namespace,
            name: entry.meta.name.clone(),
            tag: entry.meta.tag,
            origin: entry.meta.origin,
            reference: entry.meta.reference,
            children: table.children(id).collect(),
            referenced_by: table.referrers(id).collect(),
            sealed: map.sealed,
            transient: entry.meta.transient,
            hidden: entry.meta.is_removed(),
            size_bytes: map.size_blocks * BLOCK_BYTES,
            own_data_bytes: to_bytes(data),
            checksummed_bytes: if map.is_summed(entry.meta.summed_blocks) {
                to_bytes(data)
            } else {
                0
            },
            own_map_bytes: to_bytes(pages),
            open_handles: entry.layer.handles.load(Ordering::Acquire),
            created_unix_ns: entry.meta.created_unix_ns,
            has_document: entry.meta.document.is_some(),
            document_bytes: entry.meta.document.map_or(0, |id| taken_bytes(table, id)),
        }
    }

    pub(crate) fn layer_info(&self, id: LayerId) -> Result<LayerInfo> {
        let table = self.table.read();
        Ok(self.info(&table, id, table.get(id)?))
    }

    pub(crate) fn layer_infos(&self) -> Vec<LayerInfo> {
        let table = self.table.read();
        table.iter().map(|(id, entry)| self.info(&table, *id, entry)).collect()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.note_fullness();
        let geometry = self.pages.space.geometry();
        let counts = self.pages.space.counts();
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        let unreleased = count(self.unreleased_blocks.load(Ordering::Relaxed))
            + to_u64(self.pages.held_blocks());
        let table = self.table.read();
        let deleting: u64 = table
            .iter()
            .filter(|(id, entry)| entry.meta.is_removed() && table.children(**id).next().is_none())
            .map(|(_, entry)| entry.layer.own_blocks())
            .fold(0, |sum: u64, (data, pages)| sum.saturating_add(data).saturating_add(pages));
        let data = count(self.data_blocks.load(Ordering::Relaxed));
        Usage {
            size_bytes: geometry.pool_blocks * BLOCK_BYTES,
            used_bytes: to_bytes(counts.used.saturating_add(unreleased)),
            pending_free_bytes: to_bytes(deleting.saturating_add(unreleased)),
            data_bytes: to_bytes(data),
            metadata_bytes: counts.used.saturating_sub(data) * BLOCK_BYTES,
            fixed_bytes: geometry.fixed_blocks() * BLOCK_BYTES,
            reserved_bytes: counts.reserve * BLOCK_BYTES,
            full_percent: self.full_percent(),
            full_warning_percent: self.full_warning_percent(),
        }
    }

    /// What differs between two layers. Of a layer that is written meanwhile, each part is as it is when
    /// the walk comes to it.
    pub(crate) fn differences(&self, from: LayerId, to: LayerId) -> Result<Vec<Difference>> {
        if from == to {
            return self.layer_info(from).map(|_| Vec::new());
        }
        let mut ranges = Vec::new();
        let mut start = 0;
        let mut end = 0;
        loop {
            let next = self.attempt(|| {
                let table = self.table.read();
                // Pages of a writable layer come and go: its map stays locked while they are walked.
                let from = table.get(from).map_err(gone)?.layer.map.read();
                let to = table.get(to).map_err(gone)?.layer.map.read();
                end = from.size_blocks.max(to.size_blocks);
                walk::differences(&self.pages, &from.tree, &to.tree, start, 65_536, &mut ranges)
            })?;
            match next {
                Some(next) => start = next,
                None => break,
            }
            self.check_count(to_u64(ranges.len()) / 2)?;
        }
        Ok(ranges
            .into_iter()
            // What a repair gave up can reach past the end.
            .filter(|range| range.start < end)
            .map(|range| Difference {
                range_bytes: range.start * BLOCK_BYTES
                    ..(range.start + range.count).min(end) * BLOCK_BYTES,
                mapped: range.mapped,
            })
            .collect())
    }

    /// What removing a layer now would give back: all that is its own and that no child sees.
    pub(crate) fn unique_bytes(&self, id: LayerId) -> Result<u64> {
        let mut from = LogicalBlock::new(0);
        let mut blocks = 0;
        loop {
            let (found, end) = self.attempt(|| {
                let table = self.table.read();
                let entry = table.get(id).map_err(gone)?;
                let map = entry.layer.map.read();
                let mut child_maps = Vec::new();
                for child in table.children(id) {
                    child_maps.push(table.get(child).map_err(gone)?.layer.map.read());
                }
                let trees: Vec<Tree> = child_maps.iter().map(|map| map.tree).collect();
                let end = tree_end(&map.tree);
                // What a walk has passed was freed, or is the child's.
                let from = from.max(entry.meta.cursor);
                let portion = Portion { from, until: end, most_blocks: 65_536 };
                let found = own_blocks(&self.pages, &map.tree, &map.ownership(), &trees, portion)?;
                Ok((found, end))
            })?;
            blocks += to_u64(found.data.len()) + to_u64(found.pages.len());
            from = LogicalBlock::new(found.next);
            if from >= end {
                return Ok(blocks * BLOCK_BYTES);
            }
            self.check_count(blocks)?;
        }
    }

    /// Data that is mapped at all, own or not.
    pub(crate) fn mapped_bytes(&self, id: LayerId) -> Result<u64> {
        let mut from = 0;
        let mut blocks = 0;
        loop {
            let stopped = self.attempt(|| {
                let table = self.table.read();
                let map = table.get(id).map_err(gone)?.layer.map.read();
                walk::mapped_blocks(&self.pages, &map.tree, from, &mut |logical, count, pointer| {
                    from = logical.get() + count;
                    if pointer.is_lost() {
                        return true;
                    }
                    blocks += 1;
                    // Lets the table go now and then.
                    blocks % 65_536 != 0
                })
            })?;
            if stopped.is_none() {
                return Ok(blocks * BLOCK_BYTES);
            }
            self.check_count(blocks)?;
        }
    }

    /// No map leads to more blocks than there are, unless it is damaged and leads to the same ones again
    /// and again: a walk over such a one ends here. One that is written between two portions can come to
    /// more, but not to that many more.
    fn check_count(&self, blocks: u64) -> Result<()> {
        if blocks / 16 > self.pages.space.geometry().pool_blocks {
            return Err(self.corrupt("a map leads to more blocks than the pool has"));
        }
        Ok(())
    }
}
