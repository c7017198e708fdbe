//! The blocks of a folder: records of an inode's number and a name, one after the other.
//!
//! Layout: the kernel's Documentation/filesystems/ext4/directory.rst. A record is 8 bytes and the name,
//! padded to 4; its length reaches to the next record, so free space belongs to the record before it.
//! With checksums the last 12 bytes of a block are a record of their own. The first block of a folder
//! with a hash index, and the index's inner nodes, look like blocks of records to those who do not
//! know the index.

use std::collections::HashMap;

use thinstore_storage::{Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, BLOCK_BYTES_U64, Block};
use super::extents;
use super::fields::{get_u8, get_u16, get_u32, put_bytes, put_u16, put_u32};
use super::inode::{FLAG_INDEX, Inode, InodeNumber};
use super::volume::Volume;

const HEADER_BYTES: usize = 8;

/// The record at the end of a block that holds its checksum.
pub(crate) const TAIL_BYTES: usize = 12;

/// The largest folder that is read here: 256 MiB of names.
const FOLDER_BLOCKS_MAX: u64 = 65_536;

pub(crate) fn corrupt(number: InodeNumber, why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the folder with {number} {why}; run e2fsck on the file system"),
    )
}

/// A name in a folder and what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The inode.
    pub(crate) inode: InodeNumber,
    /// Its type, as [`Inode::entry_kind`] gives it.
    pub(crate) kind: u8,
}

/// A record of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// Where it begins.
    pub(crate) at: usize,
    /// How far it is to the next.
    pub(crate) length: usize,
    /// What is named; inode 0 is nothing.
    pub(crate) entry: Entry,
    /// The name.
    pub(crate) name: &'a [u8],
}

impl Record<'_> {
    /// How much of the record is in use.
    fn used(&self) -> usize {
        if self.entry.inode.0 == 0 { 0 } else { record_bytes(self.name.len()) }
    }
}

/// The space that a record with a name of this length takes.
pub(crate) fn record_bytes(name_length: usize) -> usize {
    (HEADER_BYTES + name_length).next_multiple_of(4)
}

/// The end of the records in a block.
pub(crate) fn records_end(checksummed: bool) -> usize {
    if checksummed { BLOCK_BYTES - TAIL_BYTES } else { BLOCK_BYTES }
}

/// The records of a block, those without a name among them. A damaged one ends in an error.
pub(crate) fn records(
    number: InodeNumber,
    block: &Block,
    end: usize,
) -> impl Iterator<Item = Result<Record<'_>>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let length = usize::from(get_u16(block.as_slice(), at + 4));
        let name_length = usize::from(get_u8(block.as_slice(), at + 6));
        let name = block.get(at + HEADER_BYTES..at + HEADER_BYTES + name_length);
        let inode = InodeNumber(get_u32(block.as_slice(), at));
        let fits = length % 4 == 0 && length >= HEADER_BYTES && at + length <= end;
        let holds = inode.0 == 0 || length >= record_bytes(name_length);
        let Some(name) = name.filter(|_| fits && holds) else {
            at = end;
            return Some(Err(corrupt(number, "has a damaged record")));
        };
        let entry = Entry { inode, kind: get_u8(block.as_slice(), at + 7) };
        let record = Record { at, length, entry, name };
        at += length;
        Some(Ok(record))
    })
}

fn put_record(block: &mut Block, at: usize, length: usize, name: &[u8], entry: Entry) {
    put_u32(block, at, entry.inode.0);
    put_u16(block, at + 4, u16::try_from(length).unwrap_or(0));
    let name_length = u8::try_from(name.len()).unwrap_or(0);
    put_bytes(block, at + 6, &[name_length, entry.kind]);
    put_bytes(block, at + HEADER_BYTES, name);
}

/// A block whose records are `names`, which must fit.
pub(crate) fn block_of<'a>(
    names: impl Iterator<Item = (&'a [u8], Entry)>,
    end: usize,
) -> Box<Block> {
    let mut block = Box::new([0; BLOCK_BYTES]);
    let mut at = 0;
    let mut last = 0;
    for (name, entry) in names {
        let length = record_bytes(name.len());
        if at + length > end {
            break;
        }
        put_record(&mut block, at, length, name, entry);
        last = at;
        at += length;
    }
    put_u16(block.as_mut_slice(), last + 4, u16::try_from(end - last).unwrap_or(0));
    block
}

/// Puts a name into the first gap that is large enough; says whether there was one.
pub(crate) fn insert(
    number: InodeNumber,
    block: &mut Block,
    end: usize,
    name: &[u8],
    entry: Entry,
) -> Result<bool> {
    let needed = record_bytes(name.len());
    let mut gap = None;
    for record in records(number, block, end) {
        let record = record?;
        if record.length >= record.used() + needed {
            gap = Some((record.at, record.used(), record.length));
            break;
        }
    }
    let Some((at, used, length)) = gap else {
        return Ok(false);
    };
    if used > 0 {
        put_u16(block, at + 4, u16::try_from(used).unwrap_or(0));
    }
    put_record(block, at + used, length - used, name, entry);
    Ok(true)
}

/// Finds a name in a block.
pub(crate) fn find(
    number: InodeNumber,
    block: &Block,
    end: usize,
    name: &[u8],
) -> Result<Option<Entry>> {
    for record in records(number, block, end) {
        let record = record?;
        if record.entry.inode.0 != 0 && record.name == name {
            return Ok(Some(record.entry));
        }
    }
    Ok(None)
}

/// Takes a name out of a block; says whether it was there.
pub(crate) fn remove(
    number: InodeNumber,
    block: &mut Block,
    end: usize,
    name: &[u8],
) -> Result<bool> {
    let mut before: Option<(usize, usize)> = None;
    let mut found = None;
    for record in records(number, block, end) {
        let record = record?;
        if record.entry.inode.0 != 0 && record.name == name {
            found = Some((record.at, record.length));
            break;
        }
        before = Some((record.at, record.length));
    }
    let Some((at, length)) = found else {
        return Ok(false);
    };
    match before {
        Some((before_at, before_length)) => {
            let together = before_length + length;
            put_u16(block, before_at + 4, u16::try_from(together).unwrap_or(0));
            // Nothing of the name stays readable behind the record that swallowed it.
            if let Some(gone) = block.get_mut(at..at + length) {
                gone.fill(0);
            }
        }
        None => {
            put_u32(block, at, 0);
            if let Some(gone) = block.get_mut(at + 6..at + length) {
                gone.fill(0);
            }
        }
    }
    Ok(true)
}

/// The first block of a new folder: itself and the folder above it.
pub(crate) fn first_block(number: InodeNumber, parent: InodeNumber, end: usize) -> Box<Block> {
    let own = Entry { inode: number, kind: 2 };
    let above = Entry { inode: parent, kind: 2 };
    block_of([(&b"."[..], own), (&b".."[..], above)].into_iter(), end)
}

/// Everything in a folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// What `..` names.
    pub(crate) parent: Option<InodeNumber>,
    /// All other names.
    pub(crate) entries: HashMap<Vec<u8>, Entry>,
}

/// The device's blocks of a folder, in order, without holes.
pub(crate) fn blocks(
    volume: &mut Volume,
    number: InodeNumber,
    inode: &Inode,
) -> Result<(Vec<u64>, extents::Mapping)> {
    inode.check_readable(number)?;
    let count = inode.size_bytes() / BLOCK_BYTES_U64;
    let whole = inode.size_bytes().is_multiple_of(BLOCK_BYTES_U64);
    if !whole || count == 0 || count > FOLDER_BLOCKS_MAX {
        return Err(corrupt(number, "has an impossible size"));
    }
    let mapping = extents::read(volume, number, inode)?;
    let physical = extents::flatten(&mapping.extents, count);
    if physical.contains(&0) {
        return Err(corrupt(number, "has a hole"));
    }
    Ok((physical, mapping))
}

/// Does this block hold the index rather than names? (Its records are then only a disguise.)
fn is_index_node(block: &Block) -> bool {
    get_u32(block.as_slice(), 0) == 0
        && usize::from(get_u16(block.as_slice(), 4)) == BLOCK_BYTES
        && get_u8(block.as_slice(), 6) == 0
}

/// Reads a whole folder, every checksum verified.
pub(crate) fn read(volume: &mut Volume, number: InodeNumber, inode: &Inode) -> Result<Listing> {
    let (physical, _) = blocks(volume, number, inode)?;
    let checksums = volume.checksums;
    let mut listing = Listing::default();
    for (position, block) in physical.into_iter().enumerate() {
        let bytes = volume.cache.read(block)?;
        let index_at = match position {
            0 if inode.flags() & FLAG_INDEX != 0 => Some(32),
            _ if is_index_node(bytes) => Some(8),
            _ => None,
        };
        let (sound, end) = match index_at {
            Some(at) => {
                let sum =
                    checksums.verify_dx_tail(number.0, inode.generation(), bytes.as_slice(), at);
                // Some(false) is wrong; None is an index without room for a checksum.
                (!checksums.enabled || sum == Some(true), BLOCK_BYTES)
            }
            None => {
                let generation = inode.generation();
                let sum = checksums.verify_dir_entry_tail(number.0, generation, bytes.as_slice());
                (sum, records_end(checksums.enabled))
            }
        };
        if !sound {
            return Err(corrupt(number, "has a block with a wrong checksum"));
        }
        for record in records(number, bytes, end) {
            let record = record?;
            match record.name {
                _ if record.entry.inode.0 == 0 => {}
                b"." => {}
                b".." => listing.parent = Some(record.entry.inode),
                name if name.is_empty() || name.contains(&b'/') || name.contains(&0) => {
                    return Err(corrupt(number, "holds an impossible name"));
                }
                name => {
                    listing.entries.insert(name.to_vec(), record.entry);
                }
            }
        }
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: InodeNumber = InodeNumber(12);
    const END: usize = BLOCK_BYTES - TAIL_BYTES;

    fn entry(number: u32) -> Entry {
        Entry { inode: InodeNumber(number), kind: 1 }
    }

    #[test]
    fn names_fill_a_block_leave_it_and_come_again() {
        let mut block = first_block(FOLDER, InodeNumber::ROOT, END);
        let mut count = 0;
        while insert(FOLDER, &mut block, END, format!("name{count}").as_bytes(), entry(count + 20))
            .expect("insert")
        {
            count += 1;
        }
        assert_eq!(count, 4060 / 16, "all records of 16 bytes that fit");
    }

    #[test]
    fn a_removed_name_leaves_room_for_another() {
        let mut block = first_block(FOLDER, InodeNumber::ROOT, END);
        for (number, name) in [(20, "a"), (21, "bb"), (22, "ccc")] {
            assert!(insert(FOLDER, &mut block, END, name.as_bytes(), entry(number)).expect("in"));
        }
        assert!(remove(FOLDER, &mut block, END, b"bb").expect("remove"));
        assert!(!remove(FOLDER, &mut block, END, b"bb").expect("again"));
        assert_eq!(find(FOLDER, &block, END, b"bb").expect("find"), None);
        assert_eq!(find(FOLDER, &block, END, b"ccc").expect("find"), Some(entry(22)));
        assert!(remove(FOLDER, &mut block, END, b".").expect("the first record"));
        assert!(insert(FOLDER, &mut block, END, b"d", entry(23)).expect("into the first record"));
        assert_eq!(
            find(FOLDER, &block, END, b"..").expect("find"),
            Some(Entry { inode: InodeNumber::ROOT, kind: 2 })
        );
    }

    #[test]
    fn damaged_records_are_errors() {
        for (at, value) in [(4, 0), (4, 6), (4, 4100), (4, 9), (16, 4096)] {
            let mut block = first_block(FOLDER, InodeNumber::ROOT, END);
            put_u16(block.as_mut_slice(), at, value);
            assert!(find(FOLDER, &block, END, b"x").is_err(), "{at} {value}");
        }
    }
}
