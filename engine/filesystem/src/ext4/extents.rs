//! Extent trees: which blocks of the device hold a file's blocks.
//!
//! Layout: the kernel's Documentation/filesystems/ext4/ifork.rst. A node is a 12-byte header and
//! 12-byte entries; the root lies in the inode and holds 4, a block holds 340 and ends in a checksum.

use std::collections::HashSet;

use thinstore_storage::{Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, Block};
use super::fields::{get_u16, get_u32, index, put_u16, put_u32, split_u32, split_u64};
use super::inode::{FLAG_EXTENTS, Inode, InodeNumber};
use super::volume::Volume;

const MAGIC: u16 = 0xf30a;
const ENTRY_BYTES: usize = 12;
const ROOT_ENTRIES: usize = 4;
const NODE_ENTRIES: usize = 340;
const DEPTH_MAX: u16 = 5;

/// The longest extent of data that exists; longer counts mean data that was never written.
pub(crate) const EXTENT_BLOCKS_MAX: u32 = 32_768;

/// How many extents one file may have here. A file that is worse fragmented would take more memory
/// to map than is reasonable.
const EXTENTS_MAX: usize = 4 << 20;

/// A run of a file's blocks that lies together on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first block, counted in the file.
    pub(crate) logical: u32,
    /// The first block on the device.
    pub(crate) physical: u64,
    /// How many blocks.
    pub(crate) blocks: u32,
    /// False: set aside, and reads as zeroes.
    pub(crate) written: bool,
}

impl Extent {
    /// The block after the last, counted in the file.
    pub(crate) fn logical_end(&self) -> u64 {
        u64::from(self.logical) + u64::from(self.blocks)
    }
}

/// A file's extents in order, and the blocks that the tree itself takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    /// Ascending, not overlapping.
    pub(crate) extents: Vec<Extent>,
    /// Index and leaf blocks.
    pub(crate) nodes: Vec<u64>,
}

fn corrupt(number: InodeNumber, why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the extent tree of {number} {why}; run e2fsck on the file system"),
    )
}

/// Reads the whole tree of an inode.
pub(crate) fn read(volume: &mut Volume, number: InodeNumber, inode: &Inode) -> Result<Mapping> {
    let mut mapping = Mapping::default();
    if inode.flags() & FLAG_EXTENTS == 0 {
        return Ok(mapping);
    }
    let root = inode.block_area();
    let depth = check_header(number, root, ROOT_ENTRIES)?;
    let mut seen = HashSet::new();
    // Nodes still to read, the next one last: their block and the depth that they must have.
    let mut pending = Vec::new();
    read_node(number, root, depth, &mut mapping, &mut pending)?;
    while let Some((block, depth)) = pending.pop() {
        if !seen.insert(block) {
            return Err(corrupt(number, "names one of its nodes twice"));
        }
        let checksums = volume.checksums;
        let bytes = volume.cache.read(block)?;
        if !checksums.verify_extent_tail(number.0, inode.generation(), bytes.as_slice()) {
            return Err(corrupt(number, "has a node with a wrong checksum"));
        }
        if check_header(number, bytes.as_slice(), NODE_ENTRIES)? != depth {
            return Err(corrupt(number, "has a node at the wrong depth"));
        }
        mapping.nodes.push(block);
        read_node(number, bytes.as_slice(), depth, &mut mapping, &mut pending)?;
    }
    let blocks = volume.superblock.blocks_count;
    let inside = |extent: &Extent| {
        extent.physical.checked_add(u64::from(extent.blocks)).is_some_and(|end| end <= blocks)
            && extent.physical > 0
            && extent.blocks > 0
            && extent.logical_end() <= 1 << 32
    };
    let ordered =
        mapping.extents.windows(2).all(|pair| pair[0].logical_end() <= u64::from(pair[1].logical));
    if !ordered || !mapping.extents.iter().all(inside) {
        return Err(corrupt(number, "maps blocks twice or past the end"));
    }
    Ok(mapping)
}

fn check_header(number: InodeNumber, node: &[u8], entries_max: usize) -> Result<u16> {
    let (entries, depth) = (usize::from(get_u16(node, 2)), get_u16(node, 6));
    if get_u16(node, 0) != MAGIC || entries > entries_max || depth > DEPTH_MAX {
        return Err(corrupt(number, "has a damaged node"));
    }
    Ok(depth)
}

fn read_node(
    number: InodeNumber,
    node: &[u8],
    depth: u16,
    mapping: &mut Mapping,
    pending: &mut Vec<(u64, u16)>,
) -> Result<()> {
    let count = usize::from(get_u16(node, 2));
    let before = pending.len();
    for entry in node.chunks_exact(ENTRY_BYTES).skip(1).take(count) {
        if depth > 0 {
            let child = (u64::from(get_u16(entry, 8)) << 32) | u64::from(get_u32(entry, 4));
            pending.push((child, depth - 1));
            continue;
        }
        let length = u32::from(get_u16(entry, 4));
        let written = length <= EXTENT_BLOCKS_MAX;
        mapping.extents.push(Extent {
            logical: get_u32(entry, 0),
            physical: (u64::from(get_u16(entry, 6)) << 32) | u64::from(get_u32(entry, 8)),
            blocks: if written { length } else { length - EXTENT_BLOCKS_MAX },
            written,
        });
    }
    // The next node is taken from the end, so the children stand in reverse.
    if let Some(children) = pending.get_mut(before..) {
        children.reverse();
    }
    if mapping.extents.len() > EXTENTS_MAX || pending.len() > EXTENTS_MAX {
        return Err(corrupt(number, "is larger than any that is read here"));
    }
    Ok(())
}

/// How many blocks a tree of `extents` extents takes besides the inode.
pub(crate) fn nodes_needed(extents: usize) -> usize {
    let mut needed = 0;
    let mut entries = extents;
    while entries > ROOT_ENTRIES {
        entries = entries.div_ceil(NODE_ENTRIES);
        needed += entries;
    }
    needed
}

fn put_header(node: &mut [u8], entries: usize, entries_max: usize, depth: u16) {
    put_u16(node, 0, MAGIC);
    put_u16(node, 2, u16::try_from(entries).unwrap_or(0));
    put_u16(node, 4, u16::try_from(entries_max).unwrap_or(0));
    put_u16(node, 6, depth);
}

/// An entry of a node: an extent in a leaf, a child elsewhere.
enum Entry {
    Leaf(Extent),
    Child { logical: u32, block: u64 },
}

impl Entry {
    fn logical(&self) -> u32 {
        match self {
            Entry::Leaf(extent) => extent.logical,
            Entry::Child { logical, .. } => *logical,
        }
    }

    fn put(&self, node: &mut [u8], slot: usize) {
        let at = (slot + 1) * ENTRY_BYTES;
        put_u32(node, at, self.logical());
        match self {
            Entry::Leaf(extent) => {
                let (low, high) = split_u64(extent.physical);
                let unwritten = if extent.written { 0 } else { EXTENT_BLOCKS_MAX };
                put_u16(node, at + 4, split_u32(extent.blocks + unwritten).0);
                put_u16(node, at + 6, split_u32(high).0);
                put_u32(node, at + 8, low);
            }
            Entry::Child { block, .. } => {
                let (low, high) = split_u64(*block);
                put_u32(node, at + 4, low);
                put_u16(node, at + 8, split_u32(high).0);
            }
        }
    }
}

/// Writes the tree of `extents` into the inode and, where that is too small, into the blocks `nodes`,
/// of which there must be [`nodes_needed`].
pub(crate) fn write(
    volume: &mut Volume,
    number: InodeNumber,
    inode: &mut Inode,
    extents: &[Extent],
    nodes: &[u64],
) -> Result<()> {
    let mut free = nodes.iter();
    let mut depth = 0;
    let mut entries: Vec<Entry> = extents.iter().map(|extent| Entry::Leaf(*extent)).collect();
    while entries.len() > ROOT_ENTRIES {
        let mut above = Vec::with_capacity(entries.len().div_ceil(NODE_ENTRIES));
        for part in entries.chunks(NODE_ENTRIES) {
            let Some(block) = free.next() else {
                return Err(corrupt(number, "was given too few blocks"));
            };
            let mut bytes: Block = [0; BLOCK_BYTES];
            put_header(&mut bytes, part.len(), NODE_ENTRIES, depth);
            for (slot, entry) in part.iter().enumerate() {
                entry.put(&mut bytes, slot);
            }
            volume.checksums.patch_extent_tail(number.0, inode.generation(), &mut bytes);
            volume.cache.put(*block, &bytes)?;
            let logical = part.first().map_or(0, Entry::logical);
            above.push(Entry::Child { logical, block: *block });
        }
        entries = above;
        depth += 1;
    }
    let mut root = [0; 60];
    put_header(&mut root, entries.len(), ROOT_ENTRIES, depth);
    for (slot, entry) in entries.iter().enumerate() {
        entry.put(&mut root, slot);
    }
    inode.set_block_area(&root);
    inode.set_flags(inode.flags() | FLAG_EXTENTS);
    Ok(())
}

/// Adds a run of blocks to the end of a list of extents, as part of the last one where it continues
/// it.
pub(crate) fn append(extents: &mut Vec<Extent>, run: Extent) {
    if let Some(last) = extents.last_mut() {
        let continues = last.logical_end() == u64::from(run.logical)
            && last.physical + u64::from(last.blocks) == run.physical
            && last.written == run.written;
        if continues && last.blocks + run.blocks < EXTENT_BLOCKS_MAX {
            last.blocks += run.blocks;
            return;
        }
    }
    extents.push(run);
}

/// The device's block for each of the first `blocks` blocks of a file; 0 where there is none.
pub(crate) fn flatten(extents: &[Extent], blocks: u64) -> Vec<u64> {
    let mut physical = vec![0; index(blocks)];
    for extent in extents.iter().filter(|extent| extent.written) {
        let mut block = extent.physical;
        let start = index(u64::from(extent.logical)).min(physical.len());
        let end = index(extent.logical_end()).min(physical.len());
        if let Some(range) = physical.get_mut(start..end) {
            for slot in range {
                *slot = block;
                block += 1;
            }
        }
    }
    physical
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_runs_become_one_extent_up_to_the_longest() {
        let mut extents = Vec::new();
        let run = |logical, physical, blocks| Extent { logical, physical, blocks, written: true };
        append(&mut extents, run(0, 100, 10));
        append(&mut extents, run(10, 110, 5));
        append(&mut extents, run(20, 115, 1));
        append(&mut extents, run(21, 116, 32_767));
        assert_eq!(extents, vec![run(0, 100, 15), run(20, 115, 1), run(21, 116, 32_767)]);
        assert_eq!(flatten(&extents, 22)[14..], [114, 0, 0, 0, 0, 0, 115, 116]);
    }

    #[test]
    fn the_blocks_of_a_tree_are_counted_over_all_its_levels() {
        assert_eq!(nodes_needed(4), 0);
        assert_eq!(nodes_needed(5), 1);
        assert_eq!(nodes_needed(340 * 4), 4);
        assert_eq!(nodes_needed(340 * 4 + 1), 5 + 1);
    }
}
