//! A whole pool, and how its blocks hang together: who points to whom. With that, checksums are brought
//! up to a change, so that what is wrong stands behind checksums that are right.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use thinstore_storage::Storage;

use super::exercise::contents;
use super::template::{build, options};
use super::{DATA_MARK, POOL_BYTES, RING, SUPERBLOCKS};
use crate::overlay::{BLOCK, Blocks, Overlay};

/// Where a pointer stands: its block, and the byte in it.
type Place = (u64, usize);

pub(crate) struct Image {
    blocks: Arc<Blocks>,
    /// Live blocks but for data and the journal, superblocks too.
    pub(crate) metadata: Vec<u64>,
    /// Of these, those that hold pointers: no superblocks, bitmaps, sums.
    pub(crate) pages: Vec<u64>,
    /// Live blocks of data.
    pub(crate) data: Vec<u64>,
    parents: HashMap<u64, Vec<Place>>,
    /// Metadata, what is pointed to before what points.
    order: Vec<u64>,
}

/// The pointer at a place: the block that it names.
pub(crate) fn target(bytes: &[u8; BLOCK], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..6].copy_from_slice(&bytes[at..at + 6]);
    u64::from_le_bytes(number)
}

fn words() -> impl Iterator<Item = usize> {
    (0..BLOCK - 8).step_by(8)
}

impl Image {
    pub(crate) fn new(with_journal: bool) -> Image {
        let blocks = Arc::new(build(with_journal));
        let disk = Arc::new(Overlay::new(POOL_BYTES, Arc::clone(&blocks)));
        let storage = Arc::clone(&disk) as Arc<dyn Storage>;
        let pool = thinstore_pool::Pool::open(storage, &options(true)).unwrap();
        assert!(pool.check().unwrap().is_clean(), "the pool that inputs damage is damaged itself");
        contents(&pool).unwrap();
        drop(pool);
        let live = disk.read_blocks();
        let is_data = |block: &u64| {
            let bytes = disk.block(*block);
            bytes[..8] == DATA_MARK || bytes[..8] == *b"dddddddd"
        };
        let data: HashSet<u64> = live.iter().copied().filter(is_data).collect();
        let metadata: Vec<u64> = live
            .into_iter()
            .filter(|block| !data.contains(block) && !RING.contains(block))
            .collect();
        let mut parents: HashMap<u64, Vec<Place>> = HashMap::new();
        for child in &metadata {
            let crc = crc32fast::hash(&disk.block(*child)).to_le_bytes();
            for parent in &metadata {
                let bytes = disk.block(*parent);
                let points =
                    |at: &usize| target(&bytes, *at) == *child && bytes[at + 12..at + 16] == crc;
                let places = words().filter(points).map(|at| (*parent, at));
                parents.entry(*child).or_default().extend(places);
            }
        }
        // Depth below the superblocks; the tables and maps are a few pages high.
        let mut depth: HashMap<u64, u32> = HashMap::new();
        for _ in 0..20 {
            for child in &metadata {
                let above = parents[child]
                    .iter()
                    .map(|(parent, _)| depth.get(parent).map_or(1, |depth| depth + 1));
                let deepest = above.max().unwrap_or(0);
                depth.insert(*child, deepest);
            }
        }
        let mut order = metadata.clone();
        order.sort_by_key(|block| std::cmp::Reverse(depth[block]));
        let children: HashSet<u64> =
            parents.values().flatten().map(|(parent, _)| *parent).collect();
        let pages = metadata
            .iter()
            .copied()
            .filter(|block| {
                let leads_to_data =
                    words().any(|at| data.contains(&target(&disk.block(*block), at)));
                !SUPERBLOCKS.contains(block) && (children.contains(block) || leads_to_data)
            })
            .collect();
        let mut data: Vec<u64> = data.into_iter().collect();
        data.sort_unstable();
        Image { blocks, metadata, pages, data, parents, order }
    }

    /// A pool to be damaged.
    pub(crate) fn disk(&self) -> Overlay {
        Overlay::new(POOL_BYTES, Arc::clone(&self.blocks))
    }

    /// Brings all checksums up to the blocks that were changed, and to the pointers that were set since.
    pub(crate) fn repair(&self, disk: &Overlay, changed: &mut BTreeSet<u64>, aimed: &[Place]) {
        let mut parents = self.parents.clone();
        for (block, at) in aimed {
            let target = target(&disk.block(*block), *at);
            parents.entry(target).or_default().push((*block, *at));
            changed.insert(target);
        }
        let others: Vec<u64> =
            parents.keys().copied().filter(|block| !self.parents.contains_key(block)).collect();
        for block in others.iter().chain(&self.order) {
            if !changed.contains(block) {
                continue;
            }
            if SUPERBLOCKS.contains(block) {
                disk.change(*block, seal_superblock);
            }
            let crc = crc32fast::hash(&disk.block(*block)).to_le_bytes();
            for (parent, at) in parents.get(block).into_iter().flatten() {
                let mut bytes = disk.block(*parent);
                if target(&bytes, *at) == *block {
                    bytes[at + 12..at + 16].copy_from_slice(&crc);
                    disk.set_block(*parent, bytes);
                    changed.insert(*parent);
                }
            }
        }
    }
}

fn seal_superblock(bytes: &mut [u8; BLOCK]) {
    let crc = crc32fast::hash(&bytes[..508]);
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
}
