//! The hash index of a large folder: its first block, and one level of nodes below it, send a name's
//! hash to the block that holds the name.
//!
//! Layout: the kernel's Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories". The
//! entries of a node are pairs of the lowest hash and the block that holds names from it on; the
//! first pair's hash is not stored, its place holds the node's limit and count. A hash whose names
//! fill more than one block goes on in the next, whose entry then has its lowest bit set.

use fs_ext4::hash::{HashVersion, effective_version, name_hash};
use thinstore_storage::{Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, Block};
use super::directory::corrupt;
use super::fields::{get_u8, get_u16, get_u32, put_bytes, put_u16, put_u32};
use super::inode::InodeNumber;
use super::volume::Volume;

/// Where the pairs of the root begin: behind the records of `.` and `..` and the root's header.
pub(crate) const ROOT_PAIRS_AT: usize = 32;
/// Where those of a node begin: behind one empty record.
pub(crate) const NODE_PAIRS_AT: usize = 8;
const PAIR_BYTES: usize = 8;
const TAIL_BYTES: usize = 8;

/// How names are hashed in one folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    version: HashVersion,
    seed: [u32; 4],
}

impl Hasher {
    /// The hash that the file system prescribes for new indexes.
    pub(crate) fn for_new(volume: &Volume) -> Result<Hasher> {
        Self::of(volume, volume.superblock.default_hash_version)
    }

    /// The hash that a folder's index was made with.
    pub(crate) fn for_root(volume: &Volume, root: &Block) -> Result<Hasher> {
        Self::of(volume, get_u8(root.as_slice(), 28))
    }

    fn of(volume: &Volume, code: u8) -> Result<Hasher> {
        let Some(version) = HashVersion::from_u8(code) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the file system hashes names in the unknown way {code}"),
            ));
        };
        let unsigned = volume.superblock.unsigned_hash();
        let version = effective_version(version, unsigned);
        Ok(Hasher { version, seed: volume.superblock.hash_seed })
    }

    /// The hash of a name: what the index goes by, and what orders names of the same.
    pub(crate) fn hash(&self, name: &[u8]) -> (u32, u32) {
        let hash = name_hash(name, self.version, &self.seed);
        (hash.major, hash.minor)
    }
}

/// One block of the index, by where its pairs begin.
pub(crate) struct Pairs<'a> {
    number: InodeNumber,
    block: &'a Block,
    start: usize,
}

impl<'a> Pairs<'a> {
    /// The pairs of a block, their count checked.
    pub(crate) fn of(number: InodeNumber, block: &'a Block, start: usize) -> Result<Pairs<'a>> {
        let pairs = Pairs { number, block, start };
        let fits = start + pairs.limit() * PAIR_BYTES <= BLOCK_BYTES;
        if !fits || pairs.count() == 0 || pairs.count() > pairs.limit() {
            return Err(corrupt(number, "has a damaged index"));
        }
        Ok(pairs)
    }

    fn limit(&self) -> usize {
        usize::from(get_u16(self.block.as_slice(), self.start))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        usize::from(get_u16(self.block.as_slice(), self.start + 2))
    }

    /// Is there no room for another?
    pub(crate) fn is_full(&self) -> bool {
        self.count() >= self.limit()
    }

    /// The lowest hash of a pair; the first has none.
    pub(crate) fn hash(&self, slot: usize) -> u32 {
        if slot == 0 { 0 } else { get_u32(self.block.as_slice(), self.start + slot * PAIR_BYTES) }
    }

    /// The block, counted in the folder, that a pair sends to.
    pub(crate) fn target(&self, slot: usize) -> Result<u32> {
        if slot >= self.count() {
            return Err(corrupt(self.number, "has a damaged index"));
        }
        Ok(get_u32(self.block.as_slice(), self.start + slot * PAIR_BYTES + 4) & 0x0fff_ffff)
    }

    /// The pair that a hash goes by: the last that is not above it.
    pub(crate) fn slot_of(&self, hash: u32) -> usize {
        let (mut low, mut high) = (0, self.count());
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.hash(middle) <= hash { low = middle } else { high = middle }
        }
        low
    }

    /// All pairs.
    pub(crate) fn to_vec(&self) -> Result<Vec<(u32, u32)>> {
        (0..self.count()).map(|slot| Ok((self.hash(slot), self.target(slot)?))).collect()
    }
}

/// Replaces the pairs of a block; its limit must allow them.
pub(crate) fn put_pairs(block: &mut Block, start: usize, pairs: &[(u32, u32)]) {
    let from = start + 4;
    let limit = usize::from(get_u16(block.as_slice(), start));
    if let Some(area) = block.get_mut(from..start + limit * PAIR_BYTES) {
        area.fill(0);
    }
    for (slot, (hash, target)) in pairs.iter().enumerate() {
        let at = start + slot * PAIR_BYTES;
        if slot > 0 {
            put_u32(block, at, *hash);
        }
        put_u32(block, at + 4, *target);
    }
    put_u16(block, start + 2, u16::try_from(pairs.len()).unwrap_or(0));
}

fn put_limit(block: &mut Block, start: usize, checksummed: bool) {
    let tail = if checksummed { TAIL_BYTES } else { 0 };
    let limit = (BLOCK_BYTES - start - tail) / PAIR_BYTES;
    put_u16(block, start, u16::try_from(limit).unwrap_or(0));
}

/// A root over the given pairs, with the records of `.` and `..` before it.
pub(crate) fn new_root(
    volume: &Volume,
    number: InodeNumber,
    parent: InodeNumber,
    pairs: &[(u32, u32)],
) -> Box<Block> {
    let mut block = Box::new([0; BLOCK_BYTES]);
    put_u32(block.as_mut_slice(), 0, number.0);
    put_bytes(block.as_mut_slice(), 4, &[12, 0, 1, 2, b'.']);
    put_u32(block.as_mut_slice(), 12, parent.0);
    put_u16(block.as_mut_slice(), 16, u16::try_from(BLOCK_BYTES - 12).unwrap_or(0));
    put_bytes(block.as_mut_slice(), 18, &[2, 2, b'.', b'.']);
    put_bytes(block.as_mut_slice(), 28, &[volume.superblock.default_hash_version, 8, 0, 0]);
    put_limit(&mut block, ROOT_PAIRS_AT, volume.checksums.enabled);
    put_pairs(&mut block, ROOT_PAIRS_AT, pairs);
    block
}

/// A node over the given pairs.
pub(crate) fn new_node(volume: &Volume, pairs: &[(u32, u32)]) -> Box<Block> {
    let mut block = Box::new([0; BLOCK_BYTES]);
    put_u16(block.as_mut_slice(), 4, u16::try_from(BLOCK_BYTES).unwrap_or(0));
    put_limit(&mut block, NODE_PAIRS_AT, volume.checksums.enabled);
    put_pairs(&mut block, NODE_PAIRS_AT, pairs);
    block
}

/// How many levels of nodes lie between the root and the names: 0 or 1 (2 with very large folders,
/// which are not written here).
pub(crate) fn levels(root: &Block) -> u8 {
    get_u8(root.as_slice(), 30)
}

/// Sets the number of levels.
pub(crate) fn set_levels(root: &mut Block, levels: u8) {
    put_bytes(root, 30, &[levels]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_goes_by_the_last_pair_that_is_not_above_it() {
        let mut block = Box::new([0; BLOCK_BYTES]);
        put_limit(&mut block, NODE_PAIRS_AT, true);
        put_pairs(&mut block, NODE_PAIRS_AT, &[(0, 1), (100, 2), (201, 3), (300, 4)]);
        let pairs = Pairs::of(InodeNumber(12), &block, NODE_PAIRS_AT).expect("pairs");
        let slots: Vec<usize> =
            [0, 99, 100, 200, 202, 300, u32::MAX].map(|hash| pairs.slot_of(hash)).to_vec();
        assert_eq!(slots, [0, 0, 1, 1, 2, 3, 3]);
        assert_eq!(pairs.to_vec().expect("pairs"), [(0, 1), (100, 2), (201, 3), (300, 4)]);
        assert!(pairs.target(4).is_err());
    }

    #[test]
    fn damaged_counts_are_errors() {
        for (limit, count) in [(510, 0), (510, 511), (0, 0), (4000, 3)] {
            let mut block = Box::new([0; BLOCK_BYTES]);
            put_u16(block.as_mut_slice(), NODE_PAIRS_AT, limit);
            put_u16(block.as_mut_slice(), NODE_PAIRS_AT + 2, count);
            assert!(Pairs::of(InodeNumber(12), &block, NODE_PAIRS_AT).is_err());
        }
    }
}
