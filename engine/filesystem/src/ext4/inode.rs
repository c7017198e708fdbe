//! Inodes: 256 bytes that say what a file is and where its data lies.
//!
//! Layout: the kernel's Documentation/filesystems/ext4/inodes.rst.

use thinstore_storage::{Error, ErrorKind, Result};

use super::fields::{
    get_u8, get_u16, get_u32, join_u16, put_bytes, put_u16, put_u32, split_u32, split_u64,
};
use crate::tree::{Node, Timestamp};

/// An inode's number; the root's is 2, and 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InodeNumber(pub(crate) u32);

impl InodeNumber {
    /// The root folder.
    pub(crate) const ROOT: InodeNumber = InodeNumber(2);
}

impl std::fmt::Display for InodeNumber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "inode {}", self.0)
    }
}

/// The size of the inodes that are written here.
pub(crate) const INODE_BYTES: usize = 256;

/// What every inode has, without the extended part.
pub(crate) const INODE_BASE_BYTES: usize = 128;

/// The largest file: all blocks that a 32-bit number can count, but for the last.
pub(crate) const FILE_BYTES_MAX: u64 = 0xffff_ffff * 4096;

/// How much of the extended part is in use in the inodes written here.
const EXTRA_BYTES: u16 = 32;

const AT_MODE: usize = 0x00;
const AT_UID: usize = 0x02;
const AT_SIZE: usize = 0x04;
const AT_ATIME: usize = 0x08;
const AT_CTIME: usize = 0x0c;
const AT_MTIME: usize = 0x10;
const AT_DTIME: usize = 0x14;
const AT_GID: usize = 0x18;
const AT_LINKS: usize = 0x1a;
const AT_SECTORS: usize = 0x1c;
const AT_FLAGS: usize = 0x20;
const AT_BLOCK: usize = 0x28;
const AT_GENERATION: usize = 0x64;
const AT_XATTR_BLOCK: usize = 0x68;
const AT_SIZE_HIGH: usize = 0x6c;
const AT_SECTORS_HIGH: usize = 0x74;
const AT_XATTR_BLOCK_HIGH: usize = 0x76;
const AT_UID_HIGH: usize = 0x78;
const AT_GID_HIGH: usize = 0x7a;
pub(crate) const AT_CHECKSUM: usize = 0x7c;
const AT_EXTRA_BYTES: usize = 0x80;
pub(crate) const AT_CHECKSUM_HIGH: usize = 0x82;
const AT_CTIME_EXTRA: usize = 0x84;
const AT_MTIME_EXTRA: usize = 0x88;
const AT_ATIME_EXTRA: usize = 0x8c;
const AT_CRTIME: usize = 0x90;
const AT_CRTIME_EXTRA: usize = 0x94;

/// Flag: the folder has a hash index.
pub(crate) const FLAG_INDEX: u32 = 0x1000;
/// Flag: the data is mapped by an extent tree.
pub(crate) const FLAG_EXTENTS: u32 = 0x0008_0000;
/// Flag: encrypted.
const FLAG_ENCRYPTED: u32 = 0x0000_0800;
/// Flag: the size in sectors counts blocks instead.
const FLAG_HUGE_FILE: u32 = 0x0004_0000;
/// Flag: the data lies in the inode itself.
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

const TYPE_MASK: u16 = 0xf000;
const TYPE_FIFO: u16 = 0x1000;
const TYPE_CHARACTER_DEVICE: u16 = 0x2000;
const TYPE_DIRECTORY: u16 = 0x4000;
const TYPE_BLOCK_DEVICE: u16 = 0x6000;
const TYPE_FILE: u16 = 0x8000;
const TYPE_SYMLINK: u16 = 0xa000;
const TYPE_SOCKET: u16 = 0xc000;

/// The longest symlink target that lies in the inode itself.
const FAST_SYMLINK_BYTES_MAX: u64 = 59;

/// The seconds that an inode can hold: a signed 32-bit count with two more bits above.
const SECONDS_MIN: i64 = -(1 << 31);
const SECONDS_MAX: i64 = (1 << 31) - 1 + 3 * (1 << 32);

/// A time as the kernel stores it on ext4: what lies outside its range becomes the nearest that it
/// holds, and both ends of the range lose their nanoseconds.
pub(crate) fn storable(time: Timestamp) -> Timestamp {
    if time.seconds <= SECONDS_MIN {
        Timestamp { seconds: SECONDS_MIN, nanoseconds: 0 }
    } else if time.seconds >= SECONDS_MAX {
        Timestamp { seconds: SECONDS_MAX, nanoseconds: 0 }
    } else {
        Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds.min(999_999_999) }
    }
}

/// The raw bytes of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    /// As on disk.
    pub(crate) raw: [u8; INODE_BYTES],
}

impl Inode {
    /// A fresh inode of `node`'s type, all else zero.
    pub(crate) fn new(node: &Node, generation: u32) -> Inode {
        let mut inode = Inode { raw: [0; INODE_BYTES] };
        let kind = match node {
            Node::Directory => TYPE_DIRECTORY,
            Node::File { .. } => TYPE_FILE,
            Node::Symlink { .. } => TYPE_SYMLINK,
            Node::CharacterDevice { .. } => TYPE_CHARACTER_DEVICE,
            Node::BlockDevice { .. } => TYPE_BLOCK_DEVICE,
            Node::Fifo => TYPE_FIFO,
            Node::Socket => TYPE_SOCKET,
        };
        put_u16(&mut inode.raw, AT_MODE, kind);
        put_u32(&mut inode.raw, AT_GENERATION, generation);
        put_u16(&mut inode.raw, AT_EXTRA_BYTES, EXTRA_BYTES);
        inode
    }

    /// Type and permission bits.
    pub(crate) fn mode(&self) -> u16 {
        get_u16(&self.raw, AT_MODE)
    }

    /// Sets the permission bits (0o7777) and leaves the type.
    pub(crate) fn set_permissions(&mut self, permissions: u32) {
        let (low, _) = split_u32(permissions & 0o7777);
        let mode = (self.mode() & TYPE_MASK) | low;
        put_u16(&mut self.raw, AT_MODE, mode);
    }

    fn kind(&self) -> u16 {
        self.mode() & TYPE_MASK
    }

    /// Is it a folder?
    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == TYPE_DIRECTORY
    }

    /// Is it a regular file?
    pub(crate) fn is_file(&self) -> bool {
        self.kind() == TYPE_FILE
    }

    /// Is it a symlink?
    pub(crate) fn is_symlink(&self) -> bool {
        self.kind() == TYPE_SYMLINK
    }

    /// The type as folder entries name it.
    pub(crate) fn entry_kind(&self) -> u8 {
        match self.kind() {
            TYPE_FILE => 1,
            TYPE_DIRECTORY => 2,
            TYPE_CHARACTER_DEVICE => 3,
            TYPE_BLOCK_DEVICE => 4,
            TYPE_FIFO => 5,
            TYPE_SOCKET => 6,
            TYPE_SYMLINK => 7,
            _ => 0,
        }
    }

    /// The owner.
    pub(crate) fn uid(&self) -> u32 {
        join_u16(get_u16(&self.raw, AT_UID), get_u16(&self.raw, AT_UID_HIGH))
    }

    /// The group.
    pub(crate) fn gid(&self) -> u32 {
        join_u16(get_u16(&self.raw, AT_GID), get_u16(&self.raw, AT_GID_HIGH))
    }

    /// Sets owner and group.
    pub(crate) fn set_owner(&mut self, uid: u32, gid: u32) {
        let (low, high) = split_u32(uid);
        put_u16(&mut self.raw, AT_UID, low);
        put_u16(&mut self.raw, AT_UID_HIGH, high);
        let (low, high) = split_u32(gid);
        put_u16(&mut self.raw, AT_GID, low);
        put_u16(&mut self.raw, AT_GID_HIGH, high);
    }

    /// The length of the data in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        let high = u64::from(get_u32(&self.raw, AT_SIZE_HIGH));
        (high << 32) | u64::from(get_u32(&self.raw, AT_SIZE))
    }

    /// Sets the length of the data.
    pub(crate) fn set_size(&mut self, size_bytes: u64) {
        let (low, high) = split_u64(size_bytes);
        put_u32(&mut self.raw, AT_SIZE, low);
        put_u32(&mut self.raw, AT_SIZE_HIGH, high);
    }

    /// How many names the inode has.
    pub(crate) fn links(&self) -> u16 {
        get_u16(&self.raw, AT_LINKS)
    }

    /// Sets the number of names.
    pub(crate) fn set_links(&mut self, links: u16) {
        put_u16(&mut self.raw, AT_LINKS, links);
    }

    /// Sets how many blocks the inode owns, index blocks and the xattr block among them.
    pub(crate) fn set_blocks(&mut self, blocks: u64) {
        // Counted in sectors of 512 bytes; 48 bits of them hold every file that extents can map.
        let (low, high) = split_u64(blocks.saturating_mul(8));
        put_u32(&mut self.raw, AT_SECTORS, low);
        put_u16(&mut self.raw, AT_SECTORS_HIGH, split_u32(high).0);
        self.set_flags(self.flags() & !FLAG_HUGE_FILE);
    }

    /// The flags.
    pub(crate) fn flags(&self) -> u32 {
        get_u32(&self.raw, AT_FLAGS)
    }

    /// Sets the flags.
    pub(crate) fn set_flags(&mut self, flags: u32) {
        put_u32(&mut self.raw, AT_FLAGS, flags);
    }

    /// The number that tells this inode from an earlier one of the same number.
    pub(crate) fn generation(&self) -> u32 {
        get_u32(&self.raw, AT_GENERATION)
    }

    /// The block that holds xattrs; 0 is none.
    pub(crate) fn xattr_block(&self) -> u64 {
        let high = u64::from(get_u16(&self.raw, AT_XATTR_BLOCK_HIGH));
        (high << 32) | u64::from(get_u32(&self.raw, AT_XATTR_BLOCK))
    }

    /// Sets the block that holds xattrs.
    pub(crate) fn set_xattr_block(&mut self, block: u64) {
        let (low, high) = split_u64(block);
        put_u32(&mut self.raw, AT_XATTR_BLOCK, low);
        put_u16(&mut self.raw, AT_XATTR_BLOCK_HIGH, split_u32(high).0);
    }

    /// The 60 bytes that map the data, or hold a short symlink, or a device's number.
    pub(crate) fn block_area(&self) -> &[u8] {
        self.raw.get(AT_BLOCK..AT_BLOCK + 60).unwrap_or(&[])
    }

    /// Replaces the 60 bytes.
    pub(crate) fn set_block_area(&mut self, area: &[u8; 60]) {
        put_bytes(&mut self.raw, AT_BLOCK, area);
    }

    /// Was it freed? A freed inode has no names.
    pub(crate) fn is_free(&self) -> bool {
        self.links() == 0 || self.mode() == 0
    }

    /// Where the xattrs inside the inode begin: after the part of the extended fields in use.
    pub(crate) fn xattr_area_start(&self) -> Option<usize> {
        let extra = usize::from(get_u16(&self.raw, AT_EXTRA_BYTES));
        let start = INODE_BASE_BYTES + extra;
        (extra % 4 == 0 && start + 4 <= INODE_BYTES).then_some(start)
    }

    fn time(&self, at: usize, at_extra: usize) -> Timestamp {
        let seconds = i64::from(get_u32(&self.raw, at).cast_signed());
        let in_use = INODE_BASE_BYTES + usize::from(get_u16(&self.raw, AT_EXTRA_BYTES));
        if at_extra + 4 > in_use {
            return Timestamp { seconds, nanoseconds: 0 };
        }
        let extra = get_u32(&self.raw, at_extra);
        Timestamp {
            seconds: seconds + (i64::from(extra & 3) << 32),
            nanoseconds: (extra >> 2).min(999_999_999),
        }
    }

    fn set_time(&mut self, at: usize, at_extra: usize, time: Timestamp) {
        let time = storable(time);
        let low = split_u64(time.seconds.cast_unsigned()).0;
        // The epoch bits are what the sign-extended low word lacks to the full count.
        let rest = time.seconds.wrapping_sub(i64::from(low.cast_signed())) >> 32;
        let epoch = split_u64(rest.cast_unsigned()).0 & 3;
        put_u32(&mut self.raw, at, low);
        put_u32(&mut self.raw, at_extra, (time.nanoseconds << 2) | epoch);
    }

    /// When the content last changed.
    pub(crate) fn modified(&self) -> Timestamp {
        self.time(AT_MTIME, AT_MTIME_EXTRA)
    }

    /// When anything of the inode last changed.
    pub(crate) fn changed(&self) -> Timestamp {
        self.time(AT_CTIME, AT_CTIME_EXTRA)
    }

    /// Sets the times of content and access to `modified`, that of the last change to `now`.
    pub(crate) fn set_times(&mut self, modified: Timestamp, now: Timestamp) {
        self.set_time(AT_MTIME, AT_MTIME_EXTRA, modified);
        self.set_time(AT_ATIME, AT_ATIME_EXTRA, modified);
        self.set_time(AT_CTIME, AT_CTIME_EXTRA, now);
    }

    /// Sets the time of creation.
    pub(crate) fn set_created(&mut self, now: Timestamp) {
        self.set_time(AT_CRTIME, AT_CRTIME_EXTRA, now);
        put_u32(&mut self.raw, AT_DTIME, 0);
    }

    /// Makes the extended fields that are written here exist in an inode of an older shape.
    pub(crate) fn has_full_extra_fields(&self) -> bool {
        get_u16(&self.raw, AT_EXTRA_BYTES) >= EXTRA_BYTES
    }

    /// Refuses what cannot be read here: encrypted, in-inode and block-mapped data.
    pub(crate) fn check_readable(&self, number: InodeNumber) -> Result<()> {
        let refuse = |why: &str| {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("{number} {why}; mount the file system to read it"),
            ))
        };
        let flags = self.flags();
        if flags & FLAG_ENCRYPTED != 0 {
            return refuse("is encrypted");
        }
        if flags & FLAG_INLINE_DATA != 0 {
            return refuse("keeps its data inside itself");
        }
        if flags & FLAG_EXTENTS == 0 && !self.is_fast_symlink() && self.maps_blocks() {
            return refuse("is mapped by the indirect blocks of ext2 and ext3");
        }
        Ok(())
    }

    fn maps_blocks(&self) -> bool {
        (self.is_file() || self.is_directory() || self.is_symlink())
            && self.block_area().iter().any(|byte| *byte != 0)
    }

    /// Does the symlink's target lie in the inode itself?
    pub(crate) fn is_fast_symlink(&self) -> bool {
        self.is_symlink()
            && self.flags() & FLAG_EXTENTS == 0
            && self.size_bytes() <= FAST_SYMLINK_BYTES_MAX
    }

    /// Puts a target into the inode if it is short enough; says whether it did.
    pub(crate) fn set_fast_symlink(&mut self, target: &[u8]) -> bool {
        if target.len() >= 60 {
            return false;
        }
        let mut area = [0; 60];
        put_bytes(&mut area, 0, target);
        self.set_block_area(&area);
        true
    }

    /// The device's number, in one of two encodings: the old for 8-bit majors and minors.
    pub(crate) fn device_number(&self) -> (u32, u32) {
        let old = get_u32(self.block_area(), 0);
        if old != 0 {
            return ((old >> 8) & 0xff, old & 0xff);
        }
        let new = get_u32(self.block_area(), 4);
        ((new & 0x000f_ff00) >> 8, (new & 0xff) | ((new >> 12) & 0x000f_ff00))
    }

    /// Sets the device's number.
    pub(crate) fn set_device_number(&mut self, major: u32, minor: u32) {
        let mut area = [0; 60];
        if major < 256 && minor < 256 {
            put_u32(&mut area, 0, (major << 8) | minor);
        } else {
            let new = (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0x000f_ff00) << 12);
            put_u32(&mut area, 4, new);
        }
        self.set_block_area(&area);
    }

    /// What the inode is, but for a symlink's target where it does not lie in the inode.
    pub(crate) fn node(&self, number: InodeNumber) -> Result<Node> {
        let (major, minor) = self.device_number();
        Ok(match self.kind() {
            TYPE_DIRECTORY => Node::Directory,
            TYPE_FILE => Node::File { size_bytes: self.size_bytes() },
            TYPE_SYMLINK => {
                let length = usize::try_from(self.size_bytes()).unwrap_or(usize::MAX);
                let target = self.block_area().get(..length).unwrap_or(&[]);
                Node::Symlink { target: target.to_vec() }
            }
            TYPE_CHARACTER_DEVICE => Node::CharacterDevice { major, minor },
            TYPE_BLOCK_DEVICE => Node::BlockDevice { major, minor },
            TYPE_FIFO => Node::Fifo,
            TYPE_SOCKET => Node::Socket,
            kind => {
                let byte = get_u8(&kind.to_be_bytes(), 0);
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("{number} is of the unknown type {byte:#x}"),
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_come_back_to_the_nanosecond() {
        let mut inode = Inode::new(&Node::Fifo, 1);
        for seconds in
            [0, -1, SECONDS_MIN + 1, SECONDS_MAX - 1, 1 << 31, (1 << 32) + 5, 4_102_444_800]
        {
            let time = Timestamp { seconds, nanoseconds: 999_999_999 };
            inode.set_times(time, Timestamp::default());
            assert_eq!(inode.modified(), time, "{seconds}");
        }
        inode.set_times(Timestamp { seconds: i64::MIN, nanoseconds: 5 }, Timestamp::default());
        assert_eq!(inode.modified(), Timestamp { seconds: SECONDS_MIN, nanoseconds: 0 });
    }

    #[test]
    fn device_numbers_of_every_width_come_back() {
        let mut inode = Inode::new(&Node::BlockDevice { major: 0, minor: 0 }, 1);
        for number in [(0, 0), (1, 3), (255, 255), (256, 0), (8, 256), (4095, 1_048_575), (0, 300)]
        {
            inode.set_device_number(number.0, number.1);
            assert_eq!(inode.device_number(), number);
        }
    }

    #[test]
    fn ids_above_16_bits_and_sizes_above_32_come_back() {
        let mut inode = Inode::new(&Node::File { size_bytes: 0 }, 1);
        inode.set_owner(70_000, 4_000_000_000);
        inode.set_size(5 << 32);
        inode.set_permissions(0o6755);
        assert_eq!((inode.uid(), inode.gid()), (70_000, 4_000_000_000));
        assert_eq!(inode.size_bytes(), 5 << 32);
        assert_eq!(inode.mode(), TYPE_FILE | 0o6755);
    }
}
