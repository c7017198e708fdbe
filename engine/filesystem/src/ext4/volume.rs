//! A file system's fixed parts: its superblock, where groups and inodes lie, its checksums, and reads
//! of inodes through the block cache. Reader and writer stand on this.

use std::sync::Arc;

use fs_ext4::Superblock;
use fs_ext4::checksum::Checksummer;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES_U64, Block, BlockCache};
use super::fields::{get_u16, get_u32, index, put_u16, wide};
use super::inode::{AT_CHECKSUM, AT_CHECKSUM_HIGH, INODE_BYTES, Inode, InodeNumber};

/// Where the superblock lies: 1024 bytes at byte 1024, whatever the block size.
pub(crate) const SUPERBLOCK_AT: usize = 1024;
/// Its length.
pub(crate) const SUPERBLOCK_BYTES: usize = 1024;

/// Feature bits (super.rst); incompatible: who does not know one cannot read.
pub(crate) mod incompatible {
    pub(crate) const FILETYPE: u32 = 0x2;
    pub(crate) const RECOVER: u32 = 0x4;
    pub(crate) const META_BG: u32 = 0x10;
    pub(crate) const EXTENTS: u32 = 0x40;
    pub(crate) const BIT64: u32 = 0x80;
    pub(crate) const FLEX_BG: u32 = 0x200;
    pub(crate) const CSUM_SEED: u32 = 0x2000;
    pub(crate) const KNOWN: u32 =
        FILETYPE | RECOVER | META_BG | EXTENTS | BIT64 | FLEX_BG | CSUM_SEED;
}

/// Who does not know one of these can read, and must not write.
pub(crate) mod read_only_compatible {
    pub(crate) const SPARSE_SUPER: u32 = 0x1;
    pub(crate) const LARGE_FILE: u32 = 0x2;
    pub(crate) const HUGE_FILE: u32 = 0x8;
    pub(crate) const DIR_NLINK: u32 = 0x20;
    pub(crate) const EXTRA_ISIZE: u32 = 0x40;
    pub(crate) const METADATA_CSUM: u32 = 0x400;
    pub(crate) const KNOWN: u32 =
        SPARSE_SUPER | LARGE_FILE | HUGE_FILE | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM;
}

/// Compatible feature: folders may have a hash index.
pub(crate) const COMPATIBLE_DIR_INDEX: u32 = 0x20;

/// Says what the crate below found wrong, in this crate's terms.
pub(crate) fn from_crate(what: &str, error: fs_ext4::Error) -> Error {
    match error {
        fs_ext4::Error::Io(source) => Error::io(what, source),
        fs_ext4::Error::UnsupportedIncompat(_)
        | fs_ext4::Error::UnsupportedRoCompat(_)
        | fs_ext4::Error::Unsupported(_) => {
            Error::new(ErrorKind::Unsupported, format!("{what}: {error}"))
        }
        fs_ext4::Error::BadMagic { .. } => {
            Error::new(ErrorKind::Incompatible, format!("{what}: the device holds no ext4"))
        }
        other => Error::new(ErrorKind::Corrupt, format!("{what}: {other}; run e2fsck on it")),
    }
}

/// See the module's documentation.
pub(crate) struct Volume {
    /// Metadata goes through here.
    pub(crate) cache: BlockCache,
    /// As it was on the device when the volume was opened.
    pub(crate) superblock: Superblock,
    /// The file system's seed.
    pub(crate) checksums: Checksummer,
}

impl Volume {
    /// Reads the superblock and checks that everything in it is known here.
    pub(crate) fn open(device: Arc<dyn BlockDevice>, cache_blocks: usize) -> Result<Volume> {
        let what = "cannot read the ext4 superblock";
        let mut raw = vec![0; SUPERBLOCK_BYTES];
        if device.size_bytes() < wide(SUPERBLOCK_AT + SUPERBLOCK_BYTES) {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!("{what}: the device is too small to hold an ext4"),
            ));
        }
        device.read(wide(SUPERBLOCK_AT), &mut raw)?;
        let superblock = Superblock::parse(raw).map_err(|error| from_crate(what, error))?;
        let checksums = Checksummer::from_superblock(&superblock);
        if !checksums.verify_superblock(&superblock.raw) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{what}: its checksum is wrong; run e2fsck on it"),
            ));
        }
        superblock
            .check_fits_device(device.size_bytes())
            .map_err(|error| from_crate(what, error))?;
        check_shape(&superblock)?;
        Ok(Volume { cache: BlockCache::new(device, cache_blocks), superblock, checksums })
    }

    /// How many groups the blocks are divided into.
    pub(crate) fn groups(&self) -> u64 {
        self.superblock.block_group_count()
    }

    /// How many bytes of a group descriptor are in use.
    pub(crate) fn descriptor_bytes(&self) -> usize {
        usize::from(self.superblock.desc_size)
    }

    /// A group's descriptor, its checksum verified.
    pub(crate) fn descriptor(&mut self, group: u32) -> Result<Vec<u8>> {
        let (block, offset) = self.superblock.descriptor_location(u64::from(group));
        let length = self.descriptor_bytes();
        let size = self.superblock.desc_size;
        let checksums = self.checksums;
        let raw = self.cache.read(block)?.get(offset..offset + length);
        match raw {
            Some(raw) if checksums.verify_bgd(group, raw, size) => Ok(raw.to_vec()),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                format!("the descriptor of block group {group} is damaged; run e2fsck on it"),
            )),
        }
    }

    /// Where an inode lies: block and byte offset.
    pub(crate) fn locate_inode(&mut self, number: InodeNumber) -> Result<(u64, usize)> {
        if number.0 == 0 || number.0 > self.superblock.inodes_count {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the file system names {number}, which it does not have; run e2fsck on it"),
            ));
        }
        let group = (number.0 - 1) / self.superblock.inodes_per_group;
        let slot = u64::from((number.0 - 1) % self.superblock.inodes_per_group);
        let descriptor = self.descriptor(group)?;
        let table = descriptor_pointer(&descriptor, 0x08, 0x28);
        let at = slot * u64::from(self.superblock.inode_size);
        Ok((table.saturating_add(at / BLOCK_BYTES_U64), index(at % BLOCK_BYTES_U64)))
    }

    /// An inode, its checksum verified.
    pub(crate) fn inode(&mut self, number: InodeNumber) -> Result<Inode> {
        let (block, at) = self.locate_inode(number)?;
        let mut raw = [0; INODE_BYTES];
        if let Some(bytes) = self.cache.read(block)?.get(at..at + INODE_BYTES) {
            raw.copy_from_slice(bytes);
        }
        let inode = Inode { raw };
        if !self.checksums.verify_inode(number.0, inode.generation(), &inode.raw) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the checksum of {number} is wrong; run e2fsck on the file system"),
            ));
        }
        Ok(inode)
    }

    /// An inode that is in use.
    pub(crate) fn live_inode(&mut self, number: InodeNumber) -> Result<Inode> {
        let inode = self.inode(number)?;
        if inode.is_free() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("a folder names {number}, which is free; run e2fsck on the file system"),
            ));
        }
        Ok(inode)
    }

    /// Writes an inode with its checksum.
    pub(crate) fn write_inode(&mut self, number: InodeNumber, inode: &mut Inode) -> Result<()> {
        let sums = self.checksums.compute_inode_checksum(number.0, inode.generation(), &inode.raw);
        if let Some((low, high)) = sums {
            put_u16(&mut inode.raw, AT_CHECKSUM, low);
            // A cleared inode has no extended fields, and so no upper half of the checksum.
            if get_u16(&inode.raw, 0x80) >= 4 {
                put_u16(&mut inode.raw, AT_CHECKSUM_HIGH, high);
            }
        }
        let (block, at) = self.locate_inode(number)?;
        if let Some(bytes) = self.cache.modify(block)?.get_mut(at..at + INODE_BYTES) {
            bytes.copy_from_slice(&inode.raw);
        }
        Ok(())
    }

    /// The xattr block of an inode, its checksum verified.
    pub(crate) fn xattr_block(&mut self, number: InodeNumber, block: u64) -> Result<&Block> {
        let checksums = self.checksums;
        let bytes = self.cache.read(block)?;
        if !checksums.verify_xattr_block(block, bytes.as_slice()) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the extended attributes of {number} have a wrong checksum; run e2fsck"),
            ));
        }
        Ok(bytes)
    }
}

/// A block number in a group descriptor, in two halves.
pub(crate) fn descriptor_pointer(descriptor: &[u8], low: usize, high: usize) -> u64 {
    (u64::from(get_u32(descriptor, high)) << 32) | u64::from(get_u32(descriptor, low))
}

fn check_shape(superblock: &Superblock) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("this ext4 {why}, which only the kernel can read: mount it as root"),
        ))
    };
    let unknown = superblock.feature_incompat & !incompatible::KNOWN;
    if unknown != 0 {
        return refuse(format!("has the features {unknown:#x}"));
    }
    if superblock.block_size() != 4096 {
        return refuse(format!("has blocks of {} bytes", superblock.block_size()));
    }
    if usize::from(superblock.inode_size) != INODE_BYTES {
        return refuse(format!("has inodes of {} bytes", superblock.inode_size));
    }
    if superblock.feature_incompat & incompatible::FILETYPE == 0
        || superblock.feature_incompat & incompatible::EXTENTS == 0
    {
        return refuse("is an ext2 or ext3".to_owned());
    }
    // Bits past a bitmap block, and inode counts past the groups, would lead outside the structures.
    let groups = superblock.block_group_count();
    if superblock.blocks_per_group > 32_768
        || superblock.inodes_per_group > 32_768
        || u64::from(superblock.inodes_count) > groups * u64::from(superblock.inodes_per_group)
        || u32::try_from(groups).is_err()
        || superblock.first_data_block != 0
    {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the ext4 superblock describes an impossible shape; run e2fsck on it",
        ));
    }
    Ok(())
}
