//! Block groups: which blocks and inodes are free.
//!
//! Layout: the kernel's Documentation/filesystems/ext4/group_descr.rst and bitmaps.rst. A group's
//! bitmaps may not be on the device yet; its flags then say so, and they are made up from the layout.
//!
//! Invariants: a group that is loaded here is changed here only, and [`Groups::store`] brings all that
//! changed to the cache; the counts of descriptors and superblock follow every bit.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fs_ext4::checksum::{group_desc_csum, linux_crc32c};
use thinstore_storage::{Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, BLOCK_BYTES_U64, Block};
use super::fields::{get_u16, index, index_u32, join_u16, put_bytes, put_u16, split_u32, wide};
use super::inode::{INODE_BYTES, InodeNumber};
use super::volume::{Volume, descriptor_pointer};

const FLAG_INODES_UNINITIALIZED: u16 = 0x1;
const FLAG_BLOCKS_UNINITIALIZED: u16 = 0x2;
const FLAG_TABLE_ZEROED: u16 = 0x4;

/// Where the two halves of a counter or checksum stand in a descriptor.
type Halves = (usize, usize);

const AT_FREE_BLOCKS: Halves = (0x0c, 0x2c);
const AT_FREE_INODES: Halves = (0x0e, 0x2e);
const AT_FOLDERS: Halves = (0x10, 0x30);
const AT_FLAGS: usize = 0x12;
const AT_BLOCKS_SUM: Halves = (0x18, 0x38);
const AT_INODES_SUM: Halves = (0x1a, 0x3a);
const AT_UNUSED_INODES: Halves = (0x1c, 0x32);
const AT_SUM: usize = 0x1e;

/// One group's descriptor and, where they were needed, its bitmaps.
struct Group {
    descriptor: Vec<u8>,
    blocks: Option<Box<Block>>,
    inodes: Option<Box<Block>>,
    changed: bool,
}

impl Group {
    fn get(&self, (low, high): Halves) -> u32 {
        join_u16(get_u16(&self.descriptor, low), get_u16(&self.descriptor, high))
    }

    fn set(&mut self, (at_low, at_high): Halves, value: u32) {
        let (low, high) = split_u32(value);
        put_u16(&mut self.descriptor, at_low, low);
        put_u16(&mut self.descriptor, at_high, high);
    }

    /// Changes a counter; one that a damaged file system lets run below zero stays there.
    fn add(&mut self, at: Halves, change: i64) {
        let value = u32::try_from((i64::from(self.get(at)) + change).max(0)).unwrap_or(u32::MAX);
        self.set(at, value);
    }

    fn flag(&self, flag: u16) -> bool {
        get_u16(&self.descriptor, AT_FLAGS) & flag != 0
    }

    fn clear_flag(&mut self, flag: u16) {
        let flags = get_u16(&self.descriptor, AT_FLAGS) & !flag;
        put_u16(&mut self.descriptor, AT_FLAGS, flags);
    }
}

fn bit(bitmap: &Block, at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}

fn set_bit(bitmap: &mut Block, at: usize, on: bool) {
    if let Some(byte) = bitmap.get_mut(at / 8) {
        if on { *byte |= 1 << (at % 8) } else { *byte &= !(1 << (at % 8)) }
    }
}

/// The first clear bit from `from` on, before `end`.
fn first_clear(bitmap: &Block, from: usize, end: usize) -> Option<usize> {
    let mut at = from;
    while at < end {
        if at.is_multiple_of(8) && bitmap.get(at / 8) == Some(&0xff) {
            at += 8;
        } else if bit(bitmap, at) {
            at += 1;
        } else {
            return Some(at);
        }
    }
    None
}

/// See the module's documentation.
pub(crate) struct Groups {
    loaded: BTreeMap<u32, Group>,
    /// Where the search for blocks goes on.
    next_block: u64,
    /// The group in which the search for inodes goes on.
    next_inode_group: u32,
    /// What the superblock counts.
    free_blocks: u64,
    free_inodes: u32,
    /// Runs that were freed and may be given back to the device: first block and count.
    freed: Vec<(u64, u32)>,
    /// Blocks set aside for metadata, so that it lies together: next block and how many.
    reserve: (u64, u32),
}

/// How many blocks metadata takes at a time: 64 KiB, which is also what a pool sets aside together.
const RESERVE_BLOCKS: u32 = 16;

fn full() -> Error {
    Error::new(
        ErrorKind::Full,
        "the file system is full; make a larger device or remove files from it",
    )
}

impl Groups {
    /// Takes the counts from the superblock.
    pub(crate) fn new(volume: &Volume) -> Groups {
        Groups {
            loaded: BTreeMap::new(),
            next_block: 0,
            next_inode_group: 0,
            free_blocks: volume.superblock.free_blocks_count,
            free_inodes: volume.superblock.free_inodes_count,
            freed: Vec::new(),
            reserve: (0, 0),
        }
    }

    /// Free blocks and inodes; what is set aside for metadata counts as free.
    pub(crate) fn free(&self) -> (u64, u32) {
        (self.free_blocks + u64::from(self.reserve.1), self.free_inodes)
    }

    /// Counts free blocks and inodes anew, from the descriptors: after a crash the superblock's
    /// counts are stale.
    pub(crate) fn recount(&mut self, volume: &mut Volume) -> Result<()> {
        let (mut blocks, mut inodes) = (0u64, 0u32);
        for number in 0..u32::try_from(volume.groups()).unwrap_or(u32::MAX) {
            let descriptor = volume.descriptor(number)?;
            let group = Group { descriptor, blocks: None, inodes: None, changed: false };
            blocks += u64::from(group.get(AT_FREE_BLOCKS));
            inodes = inodes.saturating_add(group.get(AT_FREE_INODES));
        }
        (self.free_blocks, self.free_inodes) = (blocks, inodes);
        Ok(())
    }

    fn group(&mut self, volume: &mut Volume, number: u32) -> Result<&mut Group> {
        match self.loaded.entry(number) {
            Entry::Occupied(loaded) => Ok(loaded.into_mut()),
            Entry::Vacant(slot) => {
                let descriptor = volume.descriptor(number)?;
                let (blocks, inodes) = (None, None);
                Ok(slot.insert(Group { descriptor, blocks, inodes, changed: false }))
            }
        }
    }

    fn blocks_bitmap(&mut self, volume: &mut Volume, number: u32) -> Result<&mut Block> {
        let group = self.group(volume, number)?;
        if group.blocks.is_none() {
            let bitmap = if group.flag(FLAG_BLOCKS_UNINITIALIZED) {
                fresh_blocks_bitmap(volume, number, &group.descriptor)
            } else {
                let at = descriptor_pointer(&group.descriptor, 0x00, 0x20);
                let length = index_u32(volume.superblock.blocks_per_group) / 8;
                load_bitmap(volume, group, at, length, AT_BLOCKS_SUM, number)?
            };
            group.blocks = Some(bitmap);
        }
        group.blocks.as_deref_mut().ok_or_else(full)
    }

    fn inodes_bitmap(&mut self, volume: &mut Volume, number: u32) -> Result<&mut Block> {
        let group = self.group(volume, number)?;
        if group.inodes.is_none() {
            let count = index_u32(volume.superblock.inodes_per_group);
            let bitmap = if group.flag(FLAG_INODES_UNINITIALIZED) {
                let mut bitmap = Box::new([0; BLOCK_BYTES]);
                (count..BLOCK_BYTES * 8).for_each(|at| set_bit(&mut bitmap, at, true));
                bitmap
            } else {
                let at = descriptor_pointer(&group.descriptor, 0x04, 0x24);
                load_bitmap(volume, group, at, count / 8, AT_INODES_SUM, number)?
            };
            group.inodes = Some(bitmap);
        }
        group.inodes.as_deref_mut().ok_or_else(full)
    }

    fn blocks_in(volume: &Volume, group: u32) -> usize {
        let per_group = u64::from(volume.superblock.blocks_per_group);
        let first = u64::from(group) * per_group;
        index(volume.superblock.blocks_count.saturating_sub(first).min(per_group))
    }

    /// Takes up to `wanted` blocks that lie together.
    pub(crate) fn take_blocks(&mut self, volume: &mut Volume, wanted: u32) -> Result<(u64, u32)> {
        if self.free_blocks == 0 || wanted == 0 {
            return Err(full());
        }
        let per_group = u64::from(volume.superblock.blocks_per_group);
        let groups = volume.groups();
        let first_group = (self.next_block / per_group).min(groups.saturating_sub(1));
        let mut from = index(self.next_block % per_group);
        // One round over all groups, and the first one's beginning at the end of it.
        for step in 0..=groups {
            let number = u32::try_from((first_group + step) % groups).unwrap_or(0);
            let start = std::mem::take(&mut from);
            if self.group(volume, number)?.get(AT_FREE_BLOCKS) == 0 {
                continue;
            }
            let end = Self::blocks_in(volume, number);
            let bitmap = self.blocks_bitmap(volume, number)?;
            let Some(at) = first_clear(bitmap, start, end) else {
                continue;
            };
            let mut count = 0;
            while count < index_u32(wanted) && at + count < end && !bit(bitmap, at + count) {
                set_bit(bitmap, at + count, true);
                count += 1;
            }
            let taken = u32::try_from(count).unwrap_or(0);
            let group = self.group(volume, number)?;
            group.add(AT_FREE_BLOCKS, -i64::from(taken));
            group.clear_flag(FLAG_BLOCKS_UNINITIALIZED);
            group.changed = true;
            self.free_blocks = self.free_blocks.saturating_sub(u64::from(taken));
            let block = u64::from(number) * per_group + wide(at);
            self.next_block = block + u64::from(taken);
            return Ok((block, taken));
        }
        Err(full())
    }

    /// Takes a block for metadata: they lie together in runs, apart from the data around them.
    pub(crate) fn take_metadata_block(&mut self, volume: &mut Volume) -> Result<u64> {
        if self.reserve.1 == 0 {
            self.reserve = self.take_blocks(volume, RESERVE_BLOCKS)?;
        }
        let block = self.reserve.0;
        self.reserve = (block + 1, self.reserve.1 - 1);
        Ok(block)
    }

    /// Frees a run of blocks.
    pub(crate) fn free_blocks(&mut self, volume: &mut Volume, run: (u64, u32)) -> Result<()> {
        let (mut block, mut left) = run;
        let per_group = u64::from(volume.superblock.blocks_per_group);
        while left > 0 {
            let number = u32::try_from(block / per_group).unwrap_or(u32::MAX);
            let at = index(block % per_group);
            let end = Self::blocks_in(volume, number);
            let count = index_u32(left).min(end.saturating_sub(at));
            if count == 0 {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("a file owns block {block}, past the end; run e2fsck on it"),
                ));
            }
            let bitmap = self.blocks_bitmap(volume, number)?;
            if !(at..at + count).all(|at| bit(bitmap, at)) {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("a file owns blocks near {block} that are free; run e2fsck on it"),
                ));
            }
            (at..at + count).for_each(|at| set_bit(bitmap, at, false));
            let freed = u32::try_from(count).unwrap_or(0);
            let group = self.group(volume, number)?;
            group.add(AT_FREE_BLOCKS, i64::from(freed));
            group.clear_flag(FLAG_BLOCKS_UNINITIALIZED);
            group.changed = true;
            self.free_blocks += u64::from(freed);
            self.freed.push((block, freed));
            (0..u64::from(freed)).for_each(|step| volume.cache.forget(block + step));
            block += u64::from(freed);
            left -= freed;
        }
        Ok(())
    }

    /// Takes an inode.
    pub(crate) fn take_inode(&mut self, volume: &mut Volume, folder: bool) -> Result<InodeNumber> {
        let groups = volume.groups();
        let count = index_u32(volume.superblock.inodes_per_group);
        for step in 0..groups {
            let number =
                u32::try_from((u64::from(self.next_inode_group) + step) % groups).unwrap_or(0);
            if self.free_inodes == 0 {
                break;
            }
            if self.group(volume, number)?.get(AT_FREE_INODES) == 0 {
                continue;
            }
            let reserved = if number == 0 { volume.superblock.first_inode - 1 } else { 0 };
            let bitmap = self.inodes_bitmap(volume, number)?;
            let Some(at) = first_clear(bitmap, index_u32(reserved), count) else {
                continue;
            };
            set_bit(bitmap, at, true);
            self.next_inode_group = number;
            self.free_inodes -= 1;
            self.use_slot(volume, number, u32::try_from(at).unwrap_or(0), folder)?;
            let first = number * volume.superblock.inodes_per_group;
            return Ok(InodeNumber(first + 1 + u32::try_from(at).unwrap_or(0)));
        }
        Err(Error::new(
            ErrorKind::Full,
            "the file system has no free inode; make a larger device or remove files from it",
        ))
    }

    /// Counts a slot of the inode table as used, with all before it: those behind are never read.
    fn use_slot(
        &mut self,
        volume: &mut Volume,
        number: u32,
        slot: u32,
        folder: bool,
    ) -> Result<()> {
        let per_group = volume.superblock.inodes_per_group;
        let group = self.group(volume, number)?;
        let uninitialized = group.flag(FLAG_INODES_UNINITIALIZED);
        let unused = if uninitialized { per_group } else { group.get(AT_UNUSED_INODES) };
        let used = per_group.saturating_sub(unused);
        group.add(AT_FREE_INODES, -1);
        if folder {
            group.add(AT_FOLDERS, 1);
        }
        group.clear_flag(FLAG_INODES_UNINITIALIZED);
        group.changed = true;
        if slot < used {
            return Ok(());
        }
        group.set(AT_UNUSED_INODES, per_group - slot - 1);
        if !group.flag(FLAG_TABLE_ZEROED) {
            let table = descriptor_pointer(&group.descriptor, 0x08, 0x28);
            for slot in used..=slot {
                let at = u64::from(slot) * wide(INODE_BYTES);
                let block = volume.cache.modify(table + at / BLOCK_BYTES_U64)?;
                put_bytes(block, index(at % BLOCK_BYTES_U64), &[0; INODE_BYTES]);
            }
        }
        Ok(())
    }

    /// Frees an inode.
    pub(crate) fn free_inode(
        &mut self,
        volume: &mut Volume,
        inode: InodeNumber,
        folder: bool,
    ) -> Result<()> {
        let number = (inode.0 - 1) / volume.superblock.inodes_per_group;
        let at = index_u32((inode.0 - 1) % volume.superblock.inodes_per_group);
        let bitmap = self.inodes_bitmap(volume, number)?;
        if !bit(bitmap, at) || inode.0 < volume.superblock.first_inode {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{inode} is in use and counted as free; run e2fsck on the file system"),
            ));
        }
        set_bit(bitmap, at, false);
        let group = self.group(volume, number)?;
        group.add(AT_FREE_INODES, 1);
        if folder {
            group.add(AT_FOLDERS, -1);
        }
        group.changed = true;
        self.free_inodes += 1;
        self.next_inode_group = self.next_inode_group.min(number);
        Ok(())
    }

    /// Brings every changed group to the cache, and returns the runs that were freed and still are:
    /// the device may have their space back.
    pub(crate) fn store(&mut self, volume: &mut Volume) -> Result<Vec<(u64, u32)>> {
        let (block, count) = std::mem::take(&mut self.reserve);
        if count > 0 {
            self.free_blocks(volume, (block, count))?;
        }
        for (number, group) in &mut self.loaded {
            if std::mem::take(&mut group.changed) {
                store_group(volume, *number, group)?;
            }
        }
        let mut free = Vec::new();
        for (first, count) in std::mem::take(&mut self.freed) {
            self.still_free(volume, first, count, &mut free)?;
        }
        free.sort_unstable();
        Ok(free)
    }

    fn still_free(
        &mut self,
        volume: &mut Volume,
        first: u64,
        count: u32,
        free: &mut Vec<(u64, u32)>,
    ) -> Result<()> {
        // A freed run lies in one group.
        let per_group = u64::from(volume.superblock.blocks_per_group);
        let number = u32::try_from(first / per_group).unwrap_or(u32::MAX);
        let bitmap = self.blocks_bitmap(volume, number)?;
        let mut run: Option<(u64, u32)> = None;
        for step in 0..count {
            let block = first + u64::from(step);
            if bit(bitmap, index(block % per_group)) {
                free.extend(run.take());
            } else {
                run = Some(run.map_or((block, 1), |(start, length)| (start, length + 1)));
            }
        }
        free.extend(run);
        Ok(())
    }
}

fn load_bitmap(
    volume: &mut Volume,
    group: &Group,
    at: u64,
    length: usize,
    sum: Halves,
    number: u32,
) -> Result<Box<Block>> {
    let seed = volume.checksums.seed;
    let bitmap = Box::new(*volume.cache.read(at)?);
    let mut found = linux_crc32c(seed, bitmap.get(..length).unwrap_or(&[]));
    if volume.descriptor_bytes() < 64 {
        // The upper halves exist in long descriptors only.
        found &= 0xffff;
    }
    if found != group.get(sum) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("a bitmap of block group {number} is damaged; run e2fsck on the file system"),
        ));
    }
    Ok(bitmap)
}

/// The bitmap of a group none of whose blocks was ever used: its head (superblock copy, descriptors)
/// and those of its own bitmaps and inode table that lie in it.
fn fresh_blocks_bitmap(volume: &Volume, number: u32, descriptor: &[u8]) -> Box<Block> {
    let mut bitmap = Box::new([0; BLOCK_BYTES]);
    let first = u64::from(number) * u64::from(volume.superblock.blocks_per_group);
    let count = Groups::blocks_in(volume, number);
    let mut use_run = |from: u64, blocks: u64| {
        for block in from..from.saturating_add(blocks) {
            if let Some(at) = block.checked_sub(first).map(index).filter(|at| *at < count) {
                set_bit(&mut bitmap, at, true);
            }
        }
    };
    use_run(first, volume.superblock.group_head_metadata_blocks(u64::from(number)));
    use_run(descriptor_pointer(descriptor, 0x00, 0x20), 1);
    use_run(descriptor_pointer(descriptor, 0x04, 0x24), 1);
    let table_bytes = u64::from(volume.superblock.inodes_per_group) * wide(INODE_BYTES);
    use_run(descriptor_pointer(descriptor, 0x08, 0x28), table_bytes.div_ceil(BLOCK_BYTES_U64));
    (count..BLOCK_BYTES * 8).for_each(|at| set_bit(&mut bitmap, at, true));
    bitmap
}

fn store_group(volume: &mut Volume, number: u32, group: &mut Group) -> Result<()> {
    let seed = volume.checksums.seed;
    let blocks_bytes = index_u32(volume.superblock.blocks_per_group) / 8;
    let inodes_bytes = index_u32(volume.superblock.inodes_per_group) / 8;
    if let Some(bitmap) = group.blocks.take() {
        let sum = linux_crc32c(seed, bitmap.get(..blocks_bytes).unwrap_or(&[]));
        if !group.flag(FLAG_BLOCKS_UNINITIALIZED) {
            group.set(AT_BLOCKS_SUM, sum);
            volume.cache.put(descriptor_pointer(&group.descriptor, 0x00, 0x20), &bitmap)?;
        }
        group.blocks = Some(bitmap);
    }
    if let Some(bitmap) = group.inodes.take() {
        let sum = linux_crc32c(seed, bitmap.get(..inodes_bytes).unwrap_or(&[]));
        if !group.flag(FLAG_INODES_UNINITIALIZED) {
            group.set(AT_INODES_SUM, sum);
            volume.cache.put(descriptor_pointer(&group.descriptor, 0x04, 0x24), &bitmap)?;
        }
        group.inodes = Some(bitmap);
    }
    put_u16(&mut group.descriptor, AT_SUM, 0);
    let sum = group_desc_csum(&volume.superblock, &volume.checksums, number, &group.descriptor);
    put_u16(&mut group.descriptor, AT_SUM, sum.unwrap_or(0));
    let (block, offset) = volume.superblock.descriptor_location(u64::from(number));
    put_bytes(volume.cache.modify(block)?, offset, &group.descriptor);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_clear_bit_is_found_over_whole_bytes() {
        let mut bitmap = Box::new([0xff; BLOCK_BYTES]);
        assert_eq!(first_clear(&bitmap, 0, 32_768), None);
        set_bit(&mut bitmap, 1003, false);
        assert_eq!(first_clear(&bitmap, 0, 32_768), Some(1003));
        assert_eq!(first_clear(&bitmap, 1004, 32_768), None);
        assert_eq!(first_clear(&bitmap, 0, 1003), None);
    }
}
