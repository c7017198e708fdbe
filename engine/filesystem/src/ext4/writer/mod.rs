//! Writing a file system without mounting it and without root.
//!
//! Data goes straight to the device in large writes; metadata through a bounded write-back cache. The
//! order of writes promises nothing before [`Ext4Writer::finish`] returns: until then the superblock
//! says that the file system is not clean, so that a check sees what a crash left. Whoever writes to
//! something that must survive a crash writes to a snapshot of it and takes that in its place.
//!
//! As long as no call failed with an error of the device or of a damaged file system, the file system
//! is whole after each call: a node that did not fit, or whose content could not be read, leaves
//! nothing behind.

mod content;
mod remove;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fs_ext4::checksum::linux_crc32c;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, BLOCK_BYTES_U64, DataBuffer};
use super::directory::{self, Entry};
use super::extents::{self, Extent};
use super::fields::{get_u16, get_u32, put_bytes, put_u16, put_u32, split_u64};
use super::folders::{Folders, store_mapping};
use super::groups::Groups;
use super::inode::{FLAG_EXTENTS, Inode, InodeNumber};
use super::recovery;
use super::volume::{SUPERBLOCK_AT, SUPERBLOCK_BYTES, Volume, read_only_compatible};
use super::xattr;
use crate::attributes::{self, Settled};
use crate::resolve::{self, Child, Lookup};
use crate::tree::{FileContent, Metadata, Node, Timestamp, TreePath, TreeWriter};

/// How many metadata blocks are kept: 64 MiB.
const CACHE_BLOCKS: usize = 16_384;
/// How many paths of folders are kept.
const PATHS_MAX: usize = 1 << 14;
/// How many names a file can have.
const LINKS_MAX: u16 = 65_000;

/// Superblock fields.
const AT_FREE_BLOCKS: usize = 0x0c;
const AT_FREE_INODES: usize = 0x10;
const AT_WRITTEN: usize = 0x30;
const AT_STATE: usize = 0x3a;
const AT_FREE_BLOCKS_HIGH: usize = 0x158;
const AT_SUM: usize = 0x3fc;
/// The state's bits: whole, and damaged.
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;

/// A tree over an ext4 file system on a block device, for writing. Symlinks on the way to a node are
/// followed inside the tree, as the kernel would for a process rooted there.
pub struct Ext4Writer {
    volume: Volume,
    groups: Groups,
    folders: Folders,
    data: DataBuffer,
    now: Timestamp,
    marked: bool,
    /// Folders by the path that was asked for.
    paths: HashMap<TreePath, InodeNumber>,
    /// The names that were put by this writer, by folder: what an opaque folder keeps.
    ours: HashMap<InodeNumber, HashSet<Vec<u8>>>,
    buffer: Vec<u8>,
}

/// The time by the clock that the kernel stamps files with. A finer one can be a tick ahead of it, and
/// e2fsck complains of times in the future.
fn now() -> Timestamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp { seconds: time.tv_sec, nanoseconds }
}

fn refused(path: &TreePath, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Refused, format!("'{path}' {why}"))
}

impl Ext4Writer {
    /// Opens the file system on `device`; one that was not unmounted has its journal replayed first.
    /// Errors: `Incompatible` for what is no ext4, `Unsupported` for features that are not kept up
    /// here, `Corrupt` for a damaged one.
    pub fn open(device: Arc<dyn BlockDevice>) -> Result<Ext4Writer> {
        Self::open_at(device, now())
    }

    /// The same at a given time, which new inodes and the superblock bear.
    pub(crate) fn open_at(device: Arc<dyn BlockDevice>, now: Timestamp) -> Result<Ext4Writer> {
        let mut volume = Volume::open(device.clone(), CACHE_BLOCKS)?;
        check_writable(&volume)?;
        let crashed = recovery::is_needed(&volume);
        if crashed {
            recovery::recover(&device)?;
            volume = Volume::open(device.clone(), CACHE_BLOCKS)?;
            if recovery::is_needed(&volume) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the journal of the file system cannot be replayed here; mount it once",
                ));
            }
        }
        let mut groups = Groups::new(&volume);
        if crashed {
            groups.recount(&mut volume)?;
        }
        Ok(Ext4Writer {
            volume,
            groups,
            folders: Folders::new(),
            data: DataBuffer::new(device),
            now,
            marked: false,
            paths: HashMap::new(),
            ours: HashMap::new(),
            buffer: vec![0; 256 << 10],
        })
    }

    /// Free space in bytes, and free inodes.
    pub fn free(&self) -> (u64, u32) {
        let (blocks, inodes) = self.groups.free();
        (blocks * BLOCK_BYTES_U64, inodes)
    }

    /// Says on the device that the file system is being changed, before the first change.
    fn begin(&mut self) -> Result<()> {
        self.folders.trim(&mut self.volume, &mut self.groups)?;
        if !self.marked {
            self.store_superblock(false)?;
            self.volume.cache.flush()?;
            self.volume.cache.device().flush()?;
            self.marked = true;
        }
        Ok(())
    }

    fn store_superblock(&mut self, clean: bool) -> Result<()> {
        let (free_blocks, free_inodes) = self.groups.free();
        let written = split_u64(self.now.seconds.cast_unsigned()).0;
        let block = self.volume.cache.modify(0)?;
        let Some(raw) = block.get_mut(SUPERBLOCK_AT..SUPERBLOCK_AT + SUPERBLOCK_BYTES) else {
            return Ok(());
        };
        let (low, high) = split_u64(free_blocks);
        put_u32(raw, AT_FREE_BLOCKS, low);
        put_u32(raw, AT_FREE_BLOCKS_HIGH, high);
        put_u32(raw, AT_FREE_INODES, free_inodes);
        put_u32(raw, AT_WRITTEN, written);
        let state = get_u16(raw, AT_STATE);
        put_u16(raw, AT_STATE, if clean { state | STATE_CLEAN } else { state & !STATE_CLEAN });
        let sum = linux_crc32c(u32::MAX, raw.get(..AT_SUM).unwrap_or(&[]));
        put_u32(raw, AT_SUM, sum);
        Ok(())
    }

    /// The folder at `path`, made if it is missing.
    fn folder(&mut self, path: &TreePath) -> Result<InodeNumber> {
        if let Some(number) = self.paths.get(path) {
            return Ok(*number);
        }
        let found = resolve::directory(self, path, true)?;
        let number = found.ok_or_else(|| refused(path, "cannot be made a folder"))?;
        if self.paths.len() >= PATHS_MAX {
            self.paths.clear();
        }
        self.paths.insert(path.clone(), number);
        Ok(number)
    }

    fn find(&mut self, folder: InodeNumber, name: &[u8]) -> Result<Option<Entry>> {
        self.folders.find(&mut self.volume, folder, name)
    }

    /// Is this entry a folder? The inode says so; the entry could be damaged.
    fn is_folder(&mut self, entry: Entry) -> Result<bool> {
        Ok(self.volume.live_inode(entry.inode)?.is_directory())
    }

    fn mark(&mut self, folder: InodeNumber, name: &[u8]) {
        let names = self.ours.entry(folder).or_default();
        if !names.contains(name) {
            names.insert(name.to_vec());
        }
    }

    /// A new inode with all its metadata and content, which no folder names yet.
    fn make_inode(
        &mut self,
        path: &TreePath,
        parent: InodeNumber,
        node: &Node,
        metadata: &Metadata,
        settled: &Settled,
        content: Option<&mut dyn FileContent>,
    ) -> Result<(InodeNumber, Inode)> {
        let folder = matches!(node, Node::Directory);
        let number = self.groups.take_inode(&mut self.volume, folder)?;
        // Differs between two uses of the number, which is all that a generation is for.
        let generation = self.now.nanoseconds ^ number.0.wrapping_mul(0x9e37_79b9);
        let mut inode = Inode::new(node, generation);
        inode.set_created(self.now);
        inode.set_links(if folder { 2 } else { 1 });
        let made = self
            .set_metadata(path, number, &mut inode, metadata, settled)
            .and_then(|()| self.fill(path, parent, number, &mut inode, node, content))
            .and_then(|()| self.volume.write_inode(number, &mut inode));
        match made {
            Ok(()) => Ok((number, inode)),
            Err(error) => {
                self.folders.forget(number);
                self.release(number, &inode)?;
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        path: &TreePath,
        parent: InodeNumber,
        number: InodeNumber,
        inode: &mut Inode,
        node: &Node,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        match node {
            Node::Directory => {
                let (volume, groups) = (&mut self.volume, &mut self.groups);
                self.folders.create(volume, groups, number, parent, inode)
            }
            Node::File { size_bytes } => self.fill_file(path, number, inode, *size_bytes, content),
            Node::Symlink { target } => {
                inode.set_size(u64::try_from(target.len()).unwrap_or(0));
                if inode.set_fast_symlink(target) {
                    return Ok(());
                }
                let block = self.groups.take_metadata_block(&mut self.volume)?;
                let mut bytes = [0; BLOCK_BYTES];
                put_bytes(&mut bytes, 0, target);
                self.volume.cache.put(block, &bytes)?;
                let extent = Extent { logical: 0, physical: block, blocks: 1, written: true };
                let (volume, groups) = (&mut self.volume, &mut self.groups);
                store_mapping(volume, groups, number, inode, &[extent], &mut Vec::new())
            }
            Node::CharacterDevice { major, minor } | Node::BlockDevice { major, minor } => {
                inode.set_device_number(*major, *minor);
                Ok(())
            }
            Node::Fifo | Node::Socket => Ok(()),
        }
    }

    /// Sets owner, permissions, times and xattrs; what the inode had of xattrs before is gone. The
    /// count of its blocks is right only for an inode without others.
    fn set_metadata(
        &mut self,
        path: &TreePath,
        number: InodeNumber,
        inode: &mut Inode,
        metadata: &Metadata,
        settled: &Settled,
    ) -> Result<()> {
        inode.set_permissions(settled.permissions);
        inode.set_owner(metadata.uid, metadata.gid);
        inode.set_times(metadata.modified, self.now);
        let old = inode.xattr_block();
        let Some(beside) = xattr::write(inode, &settled.xattrs) else {
            return Err(refused(path, "has more extended attributes than ext4 can hold"));
        };
        if old != 0 {
            self.release_xattr_block(number, old)?;
            inode.set_xattr_block(0);
        }
        if let Some(mut bytes) = beside {
            let block = self.groups.take_metadata_block(&mut self.volume)?;
            self.volume.checksums.patch_xattr_block(block, bytes.as_mut_slice());
            self.volume.cache.put(block, &bytes)?;
            inode.set_xattr_block(block);
            inode.set_blocks(1);
        }
        Ok(())
    }

    /// Changes the metadata of a folder that exists.
    fn update_folder(
        &mut self,
        path: &TreePath,
        number: InodeNumber,
        metadata: &Metadata,
        settled: &Settled,
    ) -> Result<()> {
        let mut inode = self.volume.live_inode(number)?;
        if !inode.has_full_extra_fields() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{number} has the short form of old file systems; mount to change it"),
            ));
        }
        let (physical, mapping) = directory::blocks(&mut self.volume, number, &inode)?;
        let blocks = physical.len() + mapping.nodes.len();
        let before = inode.clone();
        let result = self.set_metadata(path, number, &mut inode, metadata, settled);
        if let Err(error) = result {
            if inode.xattr_block() != before.xattr_block() {
                // The old block is gone, so the attributes are too; all else stays.
                let mut bare = before;
                bare.set_xattr_block(0);
                bare.set_blocks(u64::try_from(blocks).unwrap_or(0));
                self.volume.write_inode(number, &mut bare)?;
            }
            return Err(error);
        }
        let xattrs = u64::from(inode.xattr_block() != 0);
        inode.set_blocks(u64::try_from(blocks).unwrap_or(0) + xattrs);
        self.volume.write_inode(number, &mut inode)
    }

    /// Names an inode in a folder.
    fn link(
        &mut self,
        folder: InodeNumber,
        name: &[u8],
        number: InodeNumber,
        inode: &Inode,
    ) -> Result<()> {
        let entry = Entry { inode: number, kind: inode.entry_kind() };
        let (volume, groups) = (&mut self.volume, &mut self.groups);
        self.folders.insert(volume, groups, folder, name, entry)?;
        if inode.is_directory() {
            let mut parent = self.volume.live_inode(folder)?;
            // With more subfolders than a count can hold, the count is 1 and means "many".
            let links = match parent.links() {
                1 => 1,
                links if links >= LINKS_MAX => 1,
                links => links + 1,
            };
            parent.set_links(links);
            self.volume.write_inode(folder, &mut parent)?;
        }
        self.mark(folder, name);
        Ok(())
    }

    fn put_at(
        &mut self,
        path: &TreePath,
        (folder, name): (InodeNumber, &[u8]),
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<InodeNumber> {
        let settled = attributes::settle(path, node, metadata)?;
        let existing = self.find(folder, name)?;
        if let Some(entry) = existing
            && matches!(node, Node::Directory)
            && self.is_folder(entry)?
        {
            self.update_folder(path, entry.inode, metadata, &settled)?;
            self.mark(folder, name);
            return Ok(entry.inode);
        }
        let (number, inode) = self.make_inode(path, folder, node, metadata, &settled, content)?;
        if let Some(entry) = existing {
            self.remove_entry(folder, name, entry)?;
        }
        if let Err(error) = self.link(folder, name, number, &inode) {
            self.folders.forget(number);
            self.release(number, &inode)?;
            return Err(error);
        }
        Ok(number)
    }

    /// The folder above `path` if it is there, and the last component.
    fn existing<'a>(&mut self, path: &'a TreePath) -> Result<Option<(InodeNumber, &'a [u8])>> {
        let Some(name) = path.name() else {
            return Err(refused(path, "is the root of the tree"));
        };
        Ok(resolve::directory(self, &path.parent(), false)?.map(|folder| (folder, name)))
    }

    /// What a hard link at `path` to `target` would name.
    fn link_target(&mut self, path: &TreePath, target: &TreePath) -> Result<Entry> {
        let why =
            |why: &str| refused(path, format_args!("is a hard link to '{target}', which {why}"));
        let Some((folder, name)) = self.existing(target)? else {
            return Err(why("does not exist"));
        };
        let entry = self.find(folder, name)?.ok_or_else(|| why("does not exist"))?;
        if self.is_folder(entry)? {
            return Err(why("is a folder"));
        }
        Ok(entry)
    }
}

fn check_writable(volume: &Volume) -> Result<()> {
    let superblock = &volume.superblock;
    let unknown = superblock.feature_ro_compat & !read_only_compatible::KNOWN;
    if unknown != 0 || !volume.checksums.enabled {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "this ext4 has the features {unknown:#x}, or no checksums: it can be read here, and \
                 only the kernel can write to it"
            ),
        ));
    }
    if get_u16(&superblock.raw, AT_STATE) & STATE_ERRORS != 0 {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the kernel has found errors in the file system; run e2fsck on it",
        ));
    }
    if get_u16(&superblock.raw, AT_STATE) & STATE_CLEAN == 0 {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "an earlier change of the file system was cut off in the middle; run e2fsck on it",
        ));
    }
    let compatible = get_u32(&superblock.raw, 0x5c);
    if compatible & 0x1000 != 0 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this ext4 keeps an orphan file, which only the kernel can keep up: mount it as root",
        ));
    }
    Ok(())
}

impl Lookup for Ext4Writer {
    type Directory = InodeNumber;

    fn root(&mut self) -> InodeNumber {
        InodeNumber::ROOT
    }

    fn child(&mut self, folder: &InodeNumber, name: &[u8]) -> Result<Child<InodeNumber>> {
        let Some(entry) = self.find(*folder, name)? else {
            return Ok(Child::Missing);
        };
        let inode = self.volume.live_inode(entry.inode)?;
        if inode.is_directory() {
            return Ok(Child::Directory(entry.inode));
        }
        if !inode.is_symlink() {
            return Ok(Child::Other);
        }
        if inode.is_fast_symlink()
            && let Node::Symlink { target } = inode.node(entry.inode)?
        {
            return Ok(Child::Symlink(target));
        }
        inode.check_readable(entry.inode)?;
        let damaged = || {
            let why = format!("the symlink of {} is damaged; run e2fsck on it", entry.inode);
            Error::new(ErrorKind::Corrupt, why)
        };
        let mapping = extents::read(&mut self.volume, entry.inode, &inode)?;
        let first = mapping.extents.first().ok_or_else(damaged)?;
        let block = self.volume.cache.read(first.physical)?;
        let length = usize::try_from(inode.size_bytes()).unwrap_or(usize::MAX);
        Ok(Child::Symlink(block.get(..length).ok_or_else(damaged)?.to_vec()))
    }

    fn make(&mut self, folder: &InodeNumber, name: &[u8]) -> Result<InodeNumber> {
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        let shown = TreePath::root().join(name);
        self.put_at(&shown, (*folder, name), &Node::Directory, &metadata, None)
    }

    fn stays_in_root(&mut self) -> bool {
        false
    }

    fn passed(&mut self, folder: &InodeNumber, name: &[u8]) {
        self.mark(*folder, name);
    }
}

impl TreeWriter for Ext4Writer {
    fn put(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        self.begin()?;
        let Some(name) = path.name() else {
            if !matches!(node, Node::Directory) {
                return Err(refused(path, "is the root of the tree and stays a folder"));
            }
            let settled = attributes::settle(path, node, metadata)?;
            return self.update_folder(path, InodeNumber::ROOT, metadata, &settled);
        };
        let folder = self.folder(&path.parent())?;
        self.put_at(path, (folder, name), node, metadata, content).map(|_| ())
    }

    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        self.begin()?;
        let entry = self.link_target(path, target)?;
        let Some(name) = path.name() else {
            return Err(refused(path, "is the root of the tree and stays a folder"));
        };
        let folder = self.folder(&path.parent())?;
        if let Some(existing) = self.find(folder, name)? {
            if existing.inode == entry.inode {
                self.mark(folder, name);
                return Ok(());
            }
            self.remove_entry(folder, name, existing)?;
        }
        // What stood at the path, or was in the way to it, may have held the target.
        let entry = self.link_target(path, target)?;
        let mut inode = self.volume.live_inode(entry.inode)?;
        if inode.links() >= LINKS_MAX {
            return Err(refused(path, format_args!("is one hard link too many of '{target}'")));
        }
        self.link(folder, name, entry.inode, &inode)?;
        inode.set_links(inode.links() + 1);
        self.volume.write_inode(entry.inode, &mut inode)
    }

    fn remove(&mut self, path: &TreePath) -> Result<()> {
        self.begin()?;
        let Some((folder, name)) = self.existing(path)? else {
            return Ok(());
        };
        match self.find(folder, name)? {
            Some(entry) => self.remove_entry(folder, name, entry),
            None => Ok(()),
        }
    }

    fn clear(&mut self, path: &TreePath) -> Result<()> {
        self.begin()?;
        match resolve::directory(self, path, false)? {
            Some(folder) => self.clear_folder(folder),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        if !self.marked {
            return Ok(());
        }
        self.data.flush()?;
        self.folders.store(&mut self.volume, &mut self.groups)?;
        let freed = self.groups.store(&mut self.volume)?;
        self.store_superblock(true)?;
        self.volume.cache.flush()?;
        let device = self.volume.cache.device();
        device.flush()?;
        // Only now does nothing durable name the freed blocks.
        for (first, count) in &freed {
            device.discard(first * BLOCK_BYTES_U64, u64::from(*count) * BLOCK_BYTES_U64)?;
        }
        if !freed.is_empty() {
            device.flush()?;
        }
        self.marked = false;
        Ok(())
    }
}

/// Does the inode own blocks through an extent tree?
fn is_mapped(inode: &Inode) -> bool {
    inode.flags() & FLAG_EXTENTS != 0
}
