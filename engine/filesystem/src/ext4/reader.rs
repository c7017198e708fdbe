//! Reading a file system without mounting it, and without ever writing to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, BLOCK_BYTES_U64};
use super::directory::{self, Listing};
use super::extents::{self, Extent};
use super::fields::{index, wide};
use super::inode::{FILE_BYTES_MAX, Inode, InodeNumber};
use super::recovery;
use super::volume::Volume;
use super::xattr;
use crate::attributes::TARGET_BYTES_MAX;
use crate::resolve::{self, Child, Lookup};
use crate::tree::{FileContent, Metadata, Node, Timestamp, TreePath, TreeReader};

/// How many metadata blocks are kept: 16 MiB.
const CACHE_BLOCKS: usize = 4096;
/// How many names of folders are kept.
const NAMES_MAX: usize = 1 << 20;
/// How many paths of folders are kept.
const PATHS_MAX: usize = 1 << 14;

/// A run of a file's bytes on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// Where it begins in the file; a multiple of 4096.
    pub file_offset_bytes: u64,
    /// Where it begins on the device; a multiple of 4096.
    pub device_offset_bytes: u64,
    /// Its length; a multiple of 4096, so the last may reach past the file's end.
    pub length_bytes: u64,
}

/// What tells one state of an inode from another. Two file systems of one origin whose stamps of a
/// path are equal agree in all metadata that the kernel keeps; the blocks of the data must be compared
/// still, for a write through a memory map or with a clock set back can leave all of these alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InodeStamp {
    /// The inode's number.
    pub inode: u64,
    /// Changes when the number is used anew.
    pub generation: u32,
    /// The length of the data in bytes.
    pub size_bytes: u64,
    /// When the content last changed.
    pub modified: Timestamp,
    /// When anything last changed.
    pub changed: Timestamp,
}

struct Inner {
    volume: Volume,
    listings: HashMap<InodeNumber, Arc<Listing>>,
    listed_names: usize,
    paths: HashMap<TreePath, InodeNumber>,
}

/// A tree over an ext4 file system on a block device, read only. A file system that was not unmounted
/// is read as its journal says, without changing the device.
pub struct Ext4Reader {
    device: Arc<dyn BlockDevice>,
    inner: Mutex<Inner>,
}

impl Ext4Reader {
    /// Opens the file system on `device`. Errors: `Incompatible` for what is no ext4, `Unsupported`
    /// for one with features that only the kernel reads, `Corrupt` for a damaged one.
    pub fn open(device: Arc<dyn BlockDevice>) -> Result<Ext4Reader> {
        let mut device = device;
        let mut volume = Volume::open(device.clone(), CACHE_BLOCKS)?;
        if recovery::is_needed(&volume) {
            device = recovery::recovered_view(device)?;
            volume = Volume::open(device.clone(), CACHE_BLOCKS)?;
        }
        let inner =
            Inner { volume, listings: HashMap::new(), listed_names: 0, paths: HashMap::new() };
        Ok(Ext4Reader { device, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves caches of immutable data, which stay right.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the data of a regular file lies on the device, in order; holes, and blocks that were set
    /// aside and never written, are left out.
    pub fn extents(&self, path: &TreePath) -> Result<Vec<FileExtent>> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let inode = inner.file(path, number)?;
        let mapping = extents::read(&mut inner.volume, number, &inode)?;
        let written = mapping.extents.iter().filter(|extent| extent.written);
        let extents = written.map(|extent| FileExtent {
            file_offset_bytes: u64::from(extent.logical) * BLOCK_BYTES_U64,
            device_offset_bytes: extent.physical * BLOCK_BYTES_U64,
            length_bytes: u64::from(extent.blocks) * BLOCK_BYTES_U64,
        });
        Ok(extents.collect())
    }

    /// What tells the present state of a path from another.
    pub fn stamp(&self, path: &TreePath) -> Result<InodeStamp> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let inode = inner.volume.live_inode(number)?;
        Ok(InodeStamp {
            inode: u64::from(number.0),
            generation: inode.generation(),
            size_bytes: inode.size_bytes(),
            modified: inode.modified(),
            changed: inode.changed(),
        })
    }
}

fn not_found(path: &TreePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("'{path}' does not exist"))
}

impl Inner {
    fn listing(&mut self, number: InodeNumber) -> Result<Arc<Listing>> {
        if let Some(listing) = self.listings.get(&number) {
            return Ok(listing.clone());
        }
        let inode = self.volume.live_inode(number)?;
        let listing = Arc::new(directory::read(&mut self.volume, number, &inode)?);
        if self.listed_names > NAMES_MAX {
            self.listings.clear();
            self.listed_names = 0;
        }
        self.listed_names += listing.entries.len() + 1;
        self.listings.insert(number, listing.clone());
        Ok(listing)
    }

    fn folder(&mut self, path: &TreePath) -> Result<InodeNumber> {
        if let Some(number) = self.paths.get(path) {
            return Ok(*number);
        }
        let number = resolve::directory(self, path, false)?.ok_or_else(|| not_found(path))?;
        if self.paths.len() >= PATHS_MAX {
            self.paths.clear();
        }
        self.paths.insert(path.clone(), number);
        Ok(number)
    }

    fn find(&mut self, path: &TreePath) -> Result<InodeNumber> {
        let Some(name) = path.name() else {
            return Ok(InodeNumber::ROOT);
        };
        let folder = self.folder(&path.parent())?;
        let listing = self.listing(folder)?;
        let entry = listing.entries.get(name).ok_or_else(|| not_found(path))?;
        Ok(entry.inode)
    }

    fn file(&mut self, path: &TreePath, number: InodeNumber) -> Result<Inode> {
        let inode = self.volume.live_inode(number)?;
        if !inode.is_file() {
            return Err(Error::new(ErrorKind::Usage, format!("'{path}' is not a regular file")));
        }
        inode.check_readable(number)?;
        if inode.size_bytes() > FILE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("'{path}' claims to be larger than a file can be; run e2fsck on it"),
            ));
        }
        Ok(inode)
    }

    fn target(&mut self, number: InodeNumber, inode: &Inode) -> Result<Vec<u8>> {
        inode.check_readable(number)?;
        if inode.is_fast_symlink() {
            let Node::Symlink { target } = inode.node(number)? else {
                return Ok(Vec::new());
            };
            return Ok(target);
        }
        let damaged =
            || Error::new(ErrorKind::Corrupt, format!("the symlink of {number} is damaged"));
        let length = index(inode.size_bytes());
        if length > TARGET_BYTES_MAX {
            return Err(damaged());
        }
        let mapping = extents::read(&mut self.volume, number, inode)?;
        let first = mapping.extents.first().filter(|extent| extent.logical == 0 && extent.written);
        let block = self.volume.cache.read(first.ok_or_else(damaged)?.physical)?;
        Ok(block.get(..length).ok_or_else(damaged)?.to_vec())
    }

    fn metadata(&mut self, number: InodeNumber, inode: &Inode) -> Result<Metadata> {
        let mut metadata = Metadata {
            mode: u32::from(inode.mode()) & 0o7777,
            uid: inode.uid(),
            gid: inode.gid(),
            modified: inode.modified(),
            ..Metadata::default()
        };
        xattr::read_inode(number, inode, &mut metadata.xattrs)?;
        let block = inode.xattr_block();
        if block != 0 {
            let bytes = self.volume.xattr_block(number, block)?;
            xattr::read_block(number, bytes, &mut metadata.xattrs)?;
        }
        Ok(metadata)
    }
}

impl Lookup for Inner {
    type Directory = InodeNumber;

    fn root(&mut self) -> InodeNumber {
        InodeNumber::ROOT
    }

    fn child(&mut self, folder: &InodeNumber, name: &[u8]) -> Result<Child<InodeNumber>> {
        let listing = self.listing(*folder)?;
        let Some(entry) = listing.entries.get(name) else {
            return Ok(Child::Missing);
        };
        let inode = self.volume.live_inode(entry.inode)?;
        if inode.is_symlink() {
            return Ok(Child::Symlink(self.target(entry.inode, &inode)?));
        }
        if !inode.is_directory() {
            return Ok(Child::Other);
        }
        // A folder that knows another one above it was entered through a damaged record; without
        // this check folders could form a circle.
        if self.listing(entry.inode)?.parent != Some(*folder) {
            return Err(directory::corrupt(entry.inode, "lies in two folders"));
        }
        Ok(Child::Directory(entry.inode))
    }

    fn make(&mut self, _folder: &InodeNumber, name: &[u8]) -> Result<InodeNumber> {
        let shown = String::from_utf8_lossy(name);
        Err(Error::new(ErrorKind::ReadOnly, format!("the folder '{shown}' cannot be made")))
    }

    fn stays_in_root(&mut self) -> bool {
        true
    }

    fn passed(&mut self, _folder: &InodeNumber, _name: &[u8]) {}
}

impl TreeReader for Ext4Reader {
    fn node(&self, path: &TreePath) -> Result<(Node, Metadata)> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let inode = inner.volume.live_inode(number)?;
        let node = if inode.is_symlink() {
            Node::Symlink { target: inner.target(number, &inode)? }
        } else {
            inode.node(number)?
        };
        Ok((node, inner.metadata(number, &inode)?))
    }

    fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        let mut inner = self.inner();
        let number = inner.folder(path)?;
        let listing = inner.listing(number)?;
        let mut names: Vec<Vec<u8>> = listing.entries.keys().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    fn content(&self, path: &TreePath) -> Result<Box<dyn FileContent + '_>> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let inode = inner.file(path, number)?;
        let mut mapping = extents::read(&mut inner.volume, number, &inode)?;
        mapping.extents.retain(|extent| extent.written);
        Ok(Box::new(Content {
            device: self.device.clone(),
            size_bytes: inode.size_bytes(),
            extents: mapping.extents,
            current: 0,
            done_bytes: 0,
        }))
    }

    fn identity(&self, path: &TreePath) -> Result<(u64, u64)> {
        let mut inner = self.inner();
        let number = inner.find(path)?;
        let inode = inner.volume.live_inode(number)?;
        Ok((u64::from(number.0), u64::from(inode.links())))
    }
}

/// The data of a file, straight from the device.
struct Content {
    device: Arc<dyn BlockDevice>,
    size_bytes: u64,
    extents: Vec<Extent>,
    current: usize,
    /// How much of the current extent was given.
    done_bytes: u64,
}

impl FileContent for Content {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        while let Some(extent) = self.extents.get(self.current) {
            let start = u64::from(extent.logical) * BLOCK_BYTES_U64;
            let length = u64::from(extent.blocks) * BLOCK_BYTES_U64;
            let end = length.min(self.size_bytes.saturating_sub(start));
            let left = end.saturating_sub(self.done_bytes);
            if left == 0 || buffer.is_empty() {
                if buffer.is_empty() {
                    return Ok(None);
                }
                (self.current, self.done_bytes) = (self.current + 1, 0);
                continue;
            }
            let mut count = index(left).min(buffer.len());
            if count > BLOCK_BYTES {
                // Whole blocks are the fast ones for every device.
                count = if wide(count) == left { count } else { count - count % BLOCK_BYTES };
            }
            let at = extent.physical * BLOCK_BYTES_U64 + self.done_bytes;
            if let Some(target) = buffer.get_mut(..count) {
                self.device.read(at, target)?;
            }
            let offset = start + self.done_bytes;
            self.done_bytes += wide(count);
            return Ok(Some((offset, count)));
        }
        Ok(None)
    }
}
