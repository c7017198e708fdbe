//! Folders that are being changed: finding, adding and removing names, growing, and making the hash
//! index once a folder outgrows its first block.
//!
//! Invariants: a folder's blocks are valid after every operation; what its inode says of them (size,
//! extents, the index flag) is brought up to date by [`Folders::store`].

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use thinstore_storage::{Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES_U64, Block};
use super::directory::{
    self, Entry, block_of, corrupt, find, insert, record_bytes, records, records_end, remove,
};
use super::extents::{self, Extent};
use super::fields::{index_u32, wide};
use super::groups::Groups;
use super::hash_index::{
    Hasher, NODE_PAIRS_AT, Pairs, ROOT_PAIRS_AT, levels, new_node, new_root, put_pairs, set_levels,
};
use super::inode::{FLAG_EXTENTS, FLAG_INDEX, Inode, InodeNumber};
use super::volume::{COMPATIBLE_DIR_INDEX, Volume};

/// How many folders are kept open.
const OPEN_MAX: usize = 4096;

struct Folder {
    generation: u32,
    /// The device's blocks, in order.
    physical: Vec<u64>,
    /// The blocks of the extent tree.
    nodes: Vec<u64>,
    indexed: bool,
    changed: bool,
    /// No block before this one has room, as far as is known.
    hint: usize,
}

/// A name with its hash, as blocks of an index are sorted.
struct Hashed {
    hash: (u32, u32),
    name: Vec<u8>,
    entry: Entry,
}

/// Where an index sends a hash.
struct Path {
    /// The pair of the root.
    root_slot: usize,
    /// The node, counted in the folder, and its pair, where there is a level of nodes.
    node: Option<(u32, usize)>,
    /// The block of names, counted in the folder.
    leaf: u32,
}

/// See the module's documentation.
pub(crate) struct Folders {
    open: HashMap<InodeNumber, Folder>,
}

fn device_block(number: InodeNumber, folder: &Folder, logical: u32) -> Result<u64> {
    let block = folder.physical.get(index_u32(logical)).copied();
    block.ok_or_else(|| corrupt(number, "has an index that leads past its end"))
}

/// Sets a file's or folder's extent tree to `extents`: takes or frees the blocks it needs, and counts
/// all that the inode owns.
pub(crate) fn store_mapping(
    volume: &mut Volume,
    groups: &mut Groups,
    number: InodeNumber,
    inode: &mut Inode,
    extents: &[Extent],
    nodes: &mut Vec<u64>,
) -> Result<()> {
    let needed = extents::nodes_needed(extents.len());
    while nodes.len() < needed {
        let block = groups.take_metadata_block(volume)?;
        nodes.push(block);
    }
    for block in nodes.split_off(needed) {
        groups.free_blocks(volume, (block, 1))?;
    }
    extents::write(volume, number, inode, extents, nodes)?;
    let data: u64 = extents.iter().map(|extent| u64::from(extent.blocks)).sum();
    let xattrs = u64::from(inode.xattr_block() != 0);
    inode.set_blocks(data + wide(nodes.len()) + xattrs);
    Ok(())
}

impl Folders {
    /// None open.
    pub(crate) fn new() -> Folders {
        Folders { open: HashMap::new() }
    }

    fn folder(&mut self, volume: &mut Volume, number: InodeNumber) -> Result<&mut Folder> {
        match self.open.entry(number) {
            MapEntry::Occupied(open) => Ok(open.into_mut()),
            MapEntry::Vacant(slot) => {
                let inode = volume.live_inode(number)?;
                if !inode.is_directory() {
                    return Err(corrupt(number, "is none"));
                }
                let (physical, mapping) = directory::blocks(volume, number, &inode)?;
                Ok(slot.insert(Folder {
                    generation: inode.generation(),
                    physical,
                    nodes: mapping.nodes,
                    indexed: inode.flags() & FLAG_INDEX != 0,
                    changed: false,
                    hint: 0,
                }))
            }
        }
    }

    /// Makes room among the open folders.
    pub(crate) fn trim(&mut self, volume: &mut Volume, groups: &mut Groups) -> Result<()> {
        if self.open.len() > OPEN_MAX {
            self.store(volume, groups)?;
            self.open.clear();
        }
        Ok(())
    }

    /// Gives a new folder its first block.
    pub(crate) fn create(
        &mut self,
        volume: &mut Volume,
        groups: &mut Groups,
        number: InodeNumber,
        parent: InodeNumber,
        inode: &mut Inode,
    ) -> Result<()> {
        let block = groups.take_metadata_block(volume)?;
        let end = records_end(volume.checksums.enabled);
        let mut bytes = directory::first_block(number, parent, end);
        let generation = inode.generation();
        volume.checksums.patch_dir_entry_tail(number.0, generation, bytes.as_mut_slice());
        volume.cache.put(block, &bytes)?;
        let extent = Extent { logical: 0, physical: block, blocks: 1, written: true };
        inode.set_size(BLOCK_BYTES_U64);
        inode.set_flags(inode.flags() | FLAG_EXTENTS);
        store_mapping(volume, groups, number, inode, &[extent], &mut Vec::new())?;
        let folder = Folder {
            generation,
            physical: vec![block],
            nodes: Vec::new(),
            indexed: false,
            changed: false,
            hint: 0,
        };
        self.open.insert(number, folder);
        Ok(())
    }

    /// Drops a folder that was removed.
    pub(crate) fn forget(&mut self, number: InodeNumber) {
        self.open.remove(&number);
    }

    /// What a folder has under a name.
    pub(crate) fn find(
        &mut self,
        volume: &mut Volume,
        number: InodeNumber,
        name: &[u8],
    ) -> Result<Option<Entry>> {
        let end = records_end(volume.checksums.enabled);
        let located = self.locate(volume, number, name)?;
        for block in located {
            if let Some(entry) = find(number, volume.cache.read(block)?, end, name)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The device's blocks that can hold a name.
    fn locate(
        &mut self,
        volume: &mut Volume,
        number: InodeNumber,
        name: &[u8],
    ) -> Result<Vec<u64>> {
        let folder = self.folder(volume, number)?;
        if !folder.indexed {
            return Ok(folder.physical.clone());
        }
        let hash = hasher(volume, number, folder)?.hash(name).0;
        let mut path = Some(descend(volume, number, folder, hash)?);
        let mut blocks = Vec::new();
        while let Some(at) = path {
            blocks.push(device_block(number, folder, at.leaf)?);
            path = continuation(volume, number, folder, &at, hash)?;
        }
        Ok(blocks)
    }

    /// Takes a name out of a folder.
    pub(crate) fn remove(
        &mut self,
        volume: &mut Volume,
        number: InodeNumber,
        name: &[u8],
    ) -> Result<()> {
        let end = records_end(volume.checksums.enabled);
        for block in self.locate(volume, number, name)? {
            if find(number, volume.cache.read(block)?, end, name)?.is_some() {
                remove(number, volume.cache.modify(block)?, end, name)?;
                let folder = self.folder(volume, number)?;
                folder.hint = 0;
                return seal(volume, number, folder.generation, block);
            }
        }
        Ok(())
    }

    /// Puts a name that the folder does not have into it.
    pub(crate) fn insert(
        &mut self,
        volume: &mut Volume,
        groups: &mut Groups,
        number: InodeNumber,
        name: &[u8],
        entry: Entry,
    ) -> Result<()> {
        let folder = self.folder(volume, number)?;
        if folder.indexed {
            insert_indexed(volume, groups, number, folder, name, entry)
        } else {
            insert_linear(volume, groups, number, folder, name, entry)
        }
    }

    /// Brings the inodes of all folders that grew up to date.
    pub(crate) fn store(&mut self, volume: &mut Volume, groups: &mut Groups) -> Result<()> {
        let mut changed: Vec<InodeNumber> =
            self.open.iter().filter(|(_, folder)| folder.changed).map(|(at, _)| *at).collect();
        changed.sort_unstable();
        for number in changed {
            let Some(folder) = self.open.get_mut(&number) else {
                continue;
            };
            let mut inode = volume.live_inode(number)?;
            let mut runs = Vec::new();
            for (logical, physical) in folder.physical.iter().enumerate() {
                let logical = u32::try_from(logical).unwrap_or(u32::MAX);
                let run = Extent { logical, physical: *physical, blocks: 1, written: true };
                extents::append(&mut runs, run);
            }
            store_mapping(volume, groups, number, &mut inode, &runs, &mut folder.nodes)?;
            inode.set_size(wide(folder.physical.len()) * BLOCK_BYTES_U64);
            if folder.indexed {
                inode.set_flags(inode.flags() | FLAG_INDEX);
            }
            volume.write_inode(number, &mut inode)?;
            folder.changed = false;
        }
        Ok(())
    }
}

/// Gives a block of names its checksum.
fn seal(volume: &mut Volume, number: InodeNumber, generation: u32, block: u64) -> Result<()> {
    let checksums = volume.checksums;
    checksums.patch_dir_entry_tail(number.0, generation, volume.cache.modify(block)?);
    Ok(())
}

fn put_names(
    volume: &mut Volume,
    number: InodeNumber,
    folder: &Folder,
    block: u64,
    names: &[Hashed],
) -> Result<()> {
    let end = records_end(volume.checksums.enabled);
    let named = names.iter().map(|hashed| (hashed.name.as_slice(), hashed.entry));
    volume.cache.put(block, &block_of(named, end))?;
    seal(volume, number, folder.generation, block)
}

fn put_index(
    volume: &mut Volume,
    number: InodeNumber,
    folder: &Folder,
    block: u64,
    mut bytes: Box<Block>,
    start: usize,
) -> Result<()> {
    let checksums = volume.checksums;
    checksums.patch_dx_tail(number.0, folder.generation, bytes.as_mut_slice(), start);
    volume.cache.put(block, &bytes)
}

fn grow(volume: &mut Volume, groups: &mut Groups, folder: &mut Folder) -> Result<(u32, u64)> {
    let block = groups.take_metadata_block(volume)?;
    let logical = u32::try_from(folder.physical.len()).unwrap_or(u32::MAX);
    folder.physical.push(block);
    folder.changed = true;
    Ok((logical, block))
}

fn hasher(volume: &mut Volume, number: InodeNumber, folder: &Folder) -> Result<Hasher> {
    let block = device_block(number, folder, 0)?;
    let root = *volume.cache.read(block)?;
    if levels(&root) > 1 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the folder with {number} has an index of three levels; mount to change it"),
        ));
    }
    Hasher::for_root(volume, &root)
}

fn descend(volume: &mut Volume, number: InodeNumber, folder: &Folder, hash: u32) -> Result<Path> {
    let root_block = device_block(number, folder, 0)?;
    let root = volume.cache.read(root_block)?;
    let depth = levels(root);
    let pairs = Pairs::of(number, root, ROOT_PAIRS_AT)?;
    let root_slot = pairs.slot_of(hash);
    let target = pairs.target(root_slot)?;
    if depth == 0 {
        return Ok(Path { root_slot, node: None, leaf: target });
    }
    let node = volume.cache.read(device_block(number, folder, target)?)?;
    let pairs = Pairs::of(number, node, NODE_PAIRS_AT)?;
    let slot = pairs.slot_of(hash);
    Ok(Path { root_slot, node: Some((target, slot)), leaf: pairs.target(slot)? })
}

/// Where names of the same hash go on after `path`, if they do.
fn continuation(
    volume: &mut Volume,
    number: InodeNumber,
    folder: &Folder,
    path: &Path,
    hash: u32,
) -> Result<Option<Path>> {
    if let Some((target, slot)) = path.node {
        let node = volume.cache.read(device_block(number, folder, target)?)?;
        let pairs = Pairs::of(number, node, NODE_PAIRS_AT)?;
        if slot + 1 < pairs.count() {
            if pairs.hash(slot + 1) != hash | 1 {
                return Ok(None);
            }
            let leaf = pairs.target(slot + 1)?;
            let node = Some((target, slot + 1));
            return Ok(Some(Path { root_slot: path.root_slot, node, leaf }));
        }
    }
    let root = volume.cache.read(device_block(number, folder, 0)?)?;
    let pairs = Pairs::of(number, root, ROOT_PAIRS_AT)?;
    let root_slot = path.root_slot + 1;
    if root_slot >= pairs.count() || pairs.hash(root_slot) != hash | 1 {
        return Ok(None);
    }
    let target = pairs.target(root_slot)?;
    if path.node.is_none() {
        return Ok(Some(Path { root_slot, node: None, leaf: target }));
    }
    let node = volume.cache.read(device_block(number, folder, target)?)?;
    let leaf = Pairs::of(number, node, NODE_PAIRS_AT)?.target(0)?;
    Ok(Some(Path { root_slot, node: Some((target, 0)), leaf }))
}

fn insert_linear(
    volume: &mut Volume,
    groups: &mut Groups,
    number: InodeNumber,
    folder: &mut Folder,
    name: &[u8],
    entry: Entry,
) -> Result<()> {
    let end = records_end(volume.checksums.enabled);
    for (position, block) in folder.physical.iter().enumerate().skip(folder.hint) {
        if insert(number, volume.cache.modify(*block)?, end, name, entry)? {
            return seal(volume, number, folder.generation, *block);
        }
        // A later, shorter name may still fit here; a folder without an index is small.
        if position >= 8 {
            folder.hint = position;
        }
    }
    let may_index = volume.superblock.feature_compat & COMPATIBLE_DIR_INDEX != 0;
    if may_index && folder.physical.len() == 1 {
        return make_index(volume, groups, number, folder, name, entry);
    }
    let (_, block) = grow(volume, groups, folder)?;
    let names = [Hashed { hash: (0, 0), name: name.to_vec(), entry }];
    put_names(volume, number, folder, block, &names)
}

/// The names of a block and one more, sorted by hash. `.` and `..` are left out.
fn hashed_names(
    volume: &mut Volume,
    number: InodeNumber,
    hasher: Hasher,
    block: u64,
    name: &[u8],
    entry: Entry,
) -> Result<Vec<Hashed>> {
    let end = records_end(volume.checksums.enabled);
    let mut names = vec![Hashed { hash: hasher.hash(name), name: name.to_vec(), entry }];
    for record in records(number, volume.cache.read(block)?, end) {
        let record = record?;
        if record.entry.inode.0 != 0 && record.name != b"." && record.name != b".." {
            let hash = hasher.hash(record.name);
            names.push(Hashed { hash, name: record.name.to_vec(), entry: record.entry });
        }
    }
    names.sort_by_key(|hashed| hashed.hash);
    Ok(names)
}

/// Divides names into two halves of about the same space. The second value is the hash from which the
/// upper half goes, its lowest bit set if the lower half ends in the same hash.
fn halves(mut names: Vec<Hashed>) -> (Vec<Hashed>, u32, Vec<Hashed>) {
    let total: usize = names.iter().map(|hashed| record_bytes(hashed.name.len())).sum();
    let mut below = 0;
    let mut count = 0;
    for hashed in &names {
        if below * 2 >= total {
            break;
        }
        below += record_bytes(hashed.name.len());
        count += 1;
    }
    let upper = names.split_off(count.min(names.len().saturating_sub(1)).max(1));
    let first = upper.first().map_or(0, |hashed| hashed.hash.0);
    let continues = names.last().is_some_and(|hashed| hashed.hash.0 == first);
    (names, if continues { first | 1 } else { first }, upper)
}

fn make_index(
    volume: &mut Volume,
    groups: &mut Groups,
    number: InodeNumber,
    folder: &mut Folder,
    name: &[u8],
    entry: Entry,
) -> Result<()> {
    let root_block = device_block(number, folder, 0)?;
    let end = records_end(volume.checksums.enabled);
    let parent = find(number, volume.cache.read(root_block)?, end, b"..")?;
    let parent = parent.ok_or_else(|| corrupt(number, "has no '..'"))?.inode;
    let hasher = Hasher::for_new(volume)?;
    let names = hashed_names(volume, number, hasher, root_block, name, entry)?;
    let (lower, from, upper) = halves(names);
    // Both blocks are taken before anything changes: the folder stays whole if there is no room.
    let first = groups.take_metadata_block(volume)?;
    let second = match groups.take_metadata_block(volume) {
        Ok(second) => second,
        Err(error) => {
            groups.free_blocks(volume, (first, 1))?;
            return Err(error);
        }
    };
    folder.physical.extend([first, second]);
    (folder.indexed, folder.changed) = (true, true);
    put_names(volume, number, folder, first, &lower)?;
    put_names(volume, number, folder, second, &upper)?;
    let root = new_root(volume, number, parent, &[(0, 1), (from, 2)]);
    put_index(volume, number, folder, root_block, root, ROOT_PAIRS_AT)
}

fn insert_indexed(
    volume: &mut Volume,
    groups: &mut Groups,
    number: InodeNumber,
    folder: &mut Folder,
    name: &[u8],
    entry: Entry,
) -> Result<()> {
    let end = records_end(volume.checksums.enabled);
    let hasher = hasher(volume, number, folder)?;
    let hash = hasher.hash(name).0;
    // Twice: once to find the index full and make room in it, once to use the room. A root that
    // becomes a level of nodes leaves a full node, which takes a third turn.
    for _ in 0..3 {
        let path = descend(volume, number, folder, hash)?;
        let leaf = device_block(number, folder, path.leaf)?;
        if insert(number, volume.cache.modify(leaf)?, end, name, entry)? {
            return seal(volume, number, folder.generation, leaf);
        }
        let (block, start, slot) = match path.node {
            Some((node, slot)) => (device_block(number, folder, node)?, NODE_PAIRS_AT, slot),
            None => (device_block(number, folder, 0)?, ROOT_PAIRS_AT, path.root_slot),
        };
        if Pairs::of(number, volume.cache.read(block)?, start)?.is_full() {
            grow_index(volume, groups, number, folder, &path)?;
            continue;
        }
        let names = hashed_names(volume, number, hasher, leaf, name, entry)?;
        let (lower, from, upper) = halves(names);
        let (logical, added) = grow(volume, groups, folder)?;
        put_names(volume, number, folder, leaf, &lower)?;
        put_names(volume, number, folder, added, &upper)?;
        let mut bytes = Box::new(*volume.cache.read(block)?);
        let mut pairs = Pairs::of(number, &bytes, start)?.to_vec()?;
        pairs.insert(slot + 1, (from, logical));
        put_pairs(&mut bytes, start, &pairs);
        return put_index(volume, number, folder, block, bytes, start);
    }
    Err(corrupt(number, "has an index that does not take another name"))
}

/// Makes room for one more pair where `path` ends: a full root becomes a level of nodes, a full node
/// becomes two.
fn grow_index(
    volume: &mut Volume,
    groups: &mut Groups,
    number: InodeNumber,
    folder: &mut Folder,
    path: &Path,
) -> Result<()> {
    let root_block = device_block(number, folder, 0)?;
    let mut root = Box::new(*volume.cache.read(root_block)?);
    let mut root_pairs = Pairs::of(number, &root, ROOT_PAIRS_AT)?;
    let Some((node, _)) = path.node else {
        let pairs = root_pairs.to_vec()?;
        let (logical, added) = grow(volume, groups, folder)?;
        let below = new_node(volume, &pairs);
        put_index(volume, number, folder, added, below, NODE_PAIRS_AT)?;
        put_pairs(&mut root, ROOT_PAIRS_AT, &[(0, logical)]);
        set_levels(&mut root, 1);
        return put_index(volume, number, folder, root_block, root, ROOT_PAIRS_AT);
    };
    if root_pairs.is_full() {
        return Err(Error::new(
            ErrorKind::Full,
            format!("the folder with {number} holds as many names as ext4 allows"),
        ));
    }
    let node_block = device_block(number, folder, node)?;
    let mut lower = Box::new(*volume.cache.read(node_block)?);
    let mut pairs = Pairs::of(number, &lower, NODE_PAIRS_AT)?.to_vec()?;
    let upper = pairs.split_off(pairs.len() / 2);
    let (logical, added) = grow(volume, groups, folder)?;
    root_pairs = Pairs::of(number, &root, ROOT_PAIRS_AT)?;
    let mut above = root_pairs.to_vec()?;
    above.insert(path.root_slot + 1, (upper.first().map_or(0, |pair| pair.0), logical));
    let below = new_node(volume, &upper);
    put_index(volume, number, folder, added, below, NODE_PAIRS_AT)?;
    put_pairs(&mut lower, NODE_PAIRS_AT, &pairs);
    put_index(volume, number, folder, node_block, lower, NODE_PAIRS_AT)?;
    put_pairs(&mut root, ROOT_PAIRS_AT, &above);
    put_index(volume, number, folder, root_block, root, ROOT_PAIRS_AT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_never_are_empty_and_say_when_a_hash_goes_on() {
        let name = |hash, length| Hashed {
            hash: (hash, 0),
            name: vec![b'x'; length],
            entry: Entry { inode: InodeNumber(12), kind: 1 },
        };
        let (lower, from, upper) = halves(vec![name(2, 255), name(4, 1)]);
        assert_eq!((lower.len(), from, upper.len()), (1, 4, 1));
        let (lower, from, upper) = halves(vec![name(2, 1), name(4, 255)]);
        assert_eq!((lower.len(), from, upper.len()), (1, 4, 1));
        let (lower, from, upper) = halves((0..4).map(|_| name(8, 10)).collect());
        assert_eq!((lower.len(), from, upper.len()), (2, 9, 2));
    }
}
