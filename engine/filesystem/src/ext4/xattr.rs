//! Extended attributes: in the inode, behind its fields, and in one block beside it.
//!
//! Layout: the kernel's Documentation/filesystems/ext4/attributes.rst. An entry is 16 bytes and the
//! name, padded to 4; values grow down from the end of the area, padded likewise. Value offsets count
//! from the first entry in an inode, from the block's start in a block. Entries of a block are sorted
//! by name index, name length and name, which the kernel's lookup relies on.

use std::collections::BTreeMap;

use thinstore_storage::{Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, Block};
use super::fields::{get_u8, get_u16, get_u32, index_u32, put_bytes, put_u16, put_u32};
use super::inode::{INODE_BYTES, Inode, InodeNumber};
use crate::acl::{ACCESS, AccessList, DEFAULT};

const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;

/// Where a block's header counts the inodes that share it.
const AT_BLOCK_REFERENCES: usize = 4;

/// Name prefixes by the number that stands for them.
const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, ACCESS),
    (3, DEFAULT),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

fn corrupt(number: InodeNumber, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the extended attributes of {number} {why}"))
}

/// One attribute as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stored {
    index: u8,
    // The length stands before the name so that the derived order is the one that blocks need.
    name_length: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Stored {
    /// The stored form of an attribute in the kernel's; checked before by `attributes::settle`.
    fn new(name: &[u8], value: &[u8]) -> Option<Stored> {
        let exact = PREFIXES.iter().find(|(_, prefix)| *prefix == name);
        let prefixed = PREFIXES.iter().find(|(_, prefix)| name.starts_with(prefix));
        let (index, prefix) = exact.or(prefixed)?;
        let rest = name.get(prefix.len()..)?.to_vec();
        let value = if *prefix == ACCESS || *prefix == DEFAULT {
            AccessList::from_kernel(value)?.to_stored()
        } else {
            value.to_vec()
        };
        let name_length = u8::try_from(rest.len()).ok()?;
        Some(Stored { index: *index, name_length, name: rest, value })
    }

    fn entry_bytes(&self) -> usize {
        (ENTRY_BYTES + self.name.len()).next_multiple_of(4)
    }

    fn space_bytes(&self) -> usize {
        self.entry_bytes() + self.value.len().next_multiple_of(4)
    }

    /// The hash that an entry carries: its name, then its value in padded words.
    fn hash(&self) -> u32 {
        let mut hash: u32 = 0;
        for byte in &self.name {
            hash = hash.rotate_left(5) ^ u32::from(*byte);
        }
        for word in self.value.chunks(4) {
            let mut padded = [0; 4];
            put_bytes(&mut padded, 0, word);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(padded);
        }
        hash
    }
}

/// Reads the attributes in `area`, whose entries begin at `first` and whose value offsets count from
/// `base`.
fn read_area(
    number: InodeNumber,
    area: &[u8],
    first: usize,
    base: usize,
    found: &mut Attributes,
) -> Result<()> {
    let mut at = first;
    while get_u32(area, at) != 0 {
        let name_length = usize::from(get_u8(area, at));
        let index = get_u8(area, at + 1);
        let name = area.get(at + ENTRY_BYTES..at + ENTRY_BYTES + name_length);
        let name = name.ok_or_else(|| corrupt(number, "run past their end"))?;
        if get_u32(area, at + 4) != 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{number} keeps an extended attribute in an inode of its own; mount to read it"
                ),
            ));
        }
        let start = base + usize::from(get_u16(area, at + 2));
        let value = area.get(start..start.saturating_add(index_u32(get_u32(area, at + 8))));
        let value = value.ok_or_else(|| corrupt(number, "have a value past their end"))?;
        let prefix = PREFIXES.iter().find(|(known, _)| *known == index);
        let (_, prefix) =
            prefix.ok_or_else(|| corrupt(number, "have a name of an unknown kind"))?;
        let value = if *prefix == ACCESS || *prefix == DEFAULT {
            let list = AccessList::from_stored(value);
            list.ok_or_else(|| corrupt(number, "hold a damaged POSIX ACL"))?.to_kernel()
        } else {
            value.to_vec()
        };
        found.insert([*prefix, name].concat(), value);
        at += (ENTRY_BYTES + name_length).next_multiple_of(4);
        if at + 4 > area.len() {
            break;
        }
    }
    Ok(())
}

/// The attributes that lie in the inode.
pub(crate) fn read_inode(number: InodeNumber, inode: &Inode, found: &mut Attributes) -> Result<()> {
    let Some(start) = inode.xattr_area_start() else {
        return Ok(());
    };
    if get_u32(&inode.raw, start) != MAGIC {
        return Ok(());
    }
    read_area(number, &inode.raw, start + 4, start + 4, found)
}

/// The attributes that lie in the inode's xattr block.
pub(crate) fn read_block(number: InodeNumber, block: &Block, found: &mut Attributes) -> Result<()> {
    if get_u32(block, 0) != MAGIC {
        return Err(corrupt(number, "lie in a block without their magic number"));
    }
    read_area(number, block, BLOCK_HEADER_BYTES, 0, found)
}

/// How many inodes share an xattr block.
pub(crate) fn references(block: &Block) -> u32 {
    get_u32(block, AT_BLOCK_REFERENCES)
}

/// Sets how many inodes share an xattr block.
pub(crate) fn set_references(block: &mut Block, references: u32) {
    put_u32(block, AT_BLOCK_REFERENCES, references);
}

fn write_area(area: &mut [u8], first: usize, base: usize, attributes: &[Stored]) {
    let mut at = first;
    let mut end = area.len();
    for stored in attributes {
        end -= stored.value.len().next_multiple_of(4);
        put_bytes(area, at, &[stored.name_length, stored.index]);
        let offset = if stored.value.is_empty() { 0 } else { end - base };
        put_u16(area, at + 2, u16::try_from(offset).unwrap_or(0));
        put_u32(area, at + 8, u32::try_from(stored.value.len()).unwrap_or(0));
        put_u32(area, at + 12, stored.hash());
        put_bytes(area, at + ENTRY_BYTES, &stored.name);
        put_bytes(area, end, &stored.value);
        at += stored.entry_bytes();
    }
}

/// Writes attributes into the inode as far as they fit, and returns a block (without its checksum) for
/// the rest. `None` in place of that is no room for all.
pub(crate) fn write(inode: &mut Inode, attributes: &Attributes) -> Option<Option<Box<Block>>> {
    let start = inode.xattr_area_start()?;
    if let Some(area) = inode.raw.get_mut(start..) {
        area.fill(0);
    }
    let mut inside = Vec::new();
    let mut beside = Vec::new();
    // The entries end in four zero bytes.
    let mut inside_room = INODE_BYTES.checked_sub(start + 4 + 4)?;
    let mut beside_room = BLOCK_BYTES - BLOCK_HEADER_BYTES - 4;
    for (name, value) in attributes {
        let stored = Stored::new(name, value)?;
        let space = stored.space_bytes();
        if let Some(room) = inside_room.checked_sub(space) {
            inside_room = room;
            inside.push(stored);
        } else {
            beside_room = beside_room.checked_sub(space)?;
            beside.push(stored);
        }
    }
    if !inside.is_empty() {
        put_u32(&mut inode.raw, start, MAGIC);
        write_area(&mut inode.raw, start + 4, start + 4, &inside);
    }
    if beside.is_empty() {
        return Some(None);
    }
    beside.sort();
    let mut block = Box::new([0; BLOCK_BYTES]);
    put_u32(block.as_mut_slice(), 0, MAGIC);
    put_u32(block.as_mut_slice(), AT_BLOCK_REFERENCES, 1);
    put_u32(block.as_mut_slice(), 8, 1);
    let hash = beside.iter().fold(0u32, |hash, stored| hash.rotate_left(16) ^ stored.hash());
    put_u32(block.as_mut_slice(), 12, hash);
    write_area(block.as_mut_slice(), BLOCK_HEADER_BYTES, 0, &beside);
    Some(Some(block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn round_trip(attributes: &Attributes) -> Option<Attributes> {
        let mut inode = Inode::new(&Node::File { size_bytes: 0 }, 1);
        let block = write(&mut inode, attributes)?;
        let mut found = Attributes::new();
        read_inode(InodeNumber(12), &inode, &mut found).expect("inode");
        if let Some(block) = block {
            read_block(InodeNumber(12), &block, &mut found).expect("block");
        }
        Some(found)
    }

    #[test]
    fn small_and_large_attributes_come_back() {
        let mut attributes = Attributes::new();
        attributes.insert(b"user.empty".to_vec(), Vec::new());
        attributes.insert(b"security.capability".to_vec(), vec![1; 20]);
        attributes.insert(b"user.large".to_vec(), vec![9; 3000]);
        attributes.insert(b"trusted.odd".to_vec(), vec![3; 13]);
        assert_eq!(round_trip(&attributes), Some(attributes));
    }

    #[test]
    fn more_than_a_block_holds_is_no_room() {
        let mut attributes = Attributes::new();
        attributes.insert(b"user.large".to_vec(), vec![9; 4096]);
        assert_eq!(round_trip(&attributes), None);
    }

    #[test]
    fn damaged_areas_are_errors_and_never_panics() {
        let mut block = Box::new([0xff; BLOCK_BYTES]);
        put_u32(block.as_mut_slice(), 0, MAGIC);
        let mut found = Attributes::new();
        assert!(read_block(InodeNumber(12), &block, &mut found).is_err());
        for at in (0..BLOCK_BYTES - 8).step_by(4) {
            let mut block = Box::new([0; BLOCK_BYTES]);
            put_u32(block.as_mut_slice(), 0, MAGIC);
            for step in (BLOCK_HEADER_BYTES..BLOCK_BYTES).step_by(ENTRY_BYTES) {
                put_u32(block.as_mut_slice(), step, 0x0000_0100);
            }
            put_u32(block.as_mut_slice(), at, 0xffff_01ff);
            let _ = read_block(InodeNumber(12), &block, &mut found);
        }
    }
}
