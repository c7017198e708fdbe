//! Taking nodes away, and giving back what they owned.

use std::collections::HashSet;

use thinstore_storage::Result;

use super::{Ext4Writer, is_mapped};
use crate::ext4::directory::{self, Entry};
use crate::ext4::extents;
use crate::ext4::inode::{INODE_BYTES, Inode, InodeNumber};
use crate::ext4::xattr;

impl Ext4Writer {
    /// Removes a name from a folder, and all below it.
    pub(super) fn remove_entry(
        &mut self,
        folder: InodeNumber,
        name: &[u8],
        entry: Entry,
    ) -> Result<()> {
        self.folders.remove(&mut self.volume, folder, name)?;
        if let Some(names) = self.ours.get_mut(&folder) {
            names.remove(name);
        }
        let inode = self.volume.live_inode(entry.inode)?;
        if inode.is_directory() || inode.is_symlink() {
            // Paths that led through it lead elsewhere now.
            self.paths.clear();
        }
        if !inode.is_directory() {
            return self.unlink(entry.inode);
        }
        let mut parent = self.volume.live_inode(folder)?;
        if parent.links() > 2 {
            parent.set_links(parent.links() - 1);
            self.volume.write_inode(folder, &mut parent)?;
        }
        self.remove_folder(entry.inode)
    }

    fn remove_folder(&mut self, top: InodeNumber) -> Result<()> {
        let mut seen = HashSet::from([top, InodeNumber::ROOT]);
        let mut pending = vec![top];
        while let Some(number) = pending.pop() {
            // A folder that grew is mapped by what is open of it, not yet by its inode.
            self.folders.store(&mut self.volume, &mut self.groups)?;
            let inode = self.volume.live_inode(number)?;
            let listing = directory::read(&mut self.volume, number, &inode)?;
            for entry in listing.entries.values() {
                if !self.is_folder(*entry)? {
                    self.unlink(entry.inode)?;
                } else if seen.insert(entry.inode) {
                    pending.push(entry.inode);
                } else {
                    return Err(directory::corrupt(entry.inode, "lies in two folders"));
                }
            }
            self.folders.forget(number);
            self.ours.remove(&number);
            self.release(number, &inode)?;
        }
        Ok(())
    }

    /// Removes what came from below this writer out of a folder.
    pub(super) fn clear_folder(&mut self, top: InodeNumber) -> Result<()> {
        let mut seen = HashSet::from([top]);
        let mut pending = vec![top];
        while let Some(folder) = pending.pop() {
            self.folders.store(&mut self.volume, &mut self.groups)?;
            let inode = self.volume.live_inode(folder)?;
            let listing = directory::read(&mut self.volume, folder, &inode)?;
            for (name, entry) in &listing.entries {
                let ours = self.ours.get(&folder).is_some_and(|names| names.contains(name));
                if !ours {
                    self.remove_entry(folder, name, *entry)?;
                } else if self.is_folder(*entry)? && seen.insert(entry.inode) {
                    pending.push(entry.inode);
                }
            }
        }
        Ok(())
    }

    /// Takes one name from an inode; without any it is freed.
    fn unlink(&mut self, number: InodeNumber) -> Result<()> {
        let mut inode = self.volume.live_inode(number)?;
        if inode.links() <= 1 {
            return self.release(number, &inode);
        }
        inode.set_links(inode.links() - 1);
        self.volume.write_inode(number, &mut inode)
    }

    /// Frees an inode and all it owns.
    pub(super) fn release(&mut self, number: InodeNumber, inode: &Inode) -> Result<()> {
        // Data that still waits must not be written over what the blocks hold next.
        self.data.flush()?;
        if is_mapped(inode) {
            let mapping = extents::read(&mut self.volume, number, inode)?;
            for extent in mapping.extents {
                self.groups.free_blocks(&mut self.volume, (extent.physical, extent.blocks))?;
            }
            for block in mapping.nodes {
                self.groups.free_blocks(&mut self.volume, (block, 1))?;
            }
        } else {
            inode.check_readable(number)?;
        }
        if inode.xattr_block() != 0 {
            self.release_xattr_block(number, inode.xattr_block())?;
        }
        let mut cleared = Inode { raw: [0; INODE_BYTES] };
        self.volume.write_inode(number, &mut cleared)?;
        self.groups.free_inode(&mut self.volume, number, inode.is_directory())
    }

    /// Takes one inode from an xattr block, which others may share.
    pub(super) fn release_xattr_block(&mut self, number: InodeNumber, block: u64) -> Result<()> {
        let references = xattr::references(self.volume.xattr_block(number, block)?);
        if references <= 1 {
            return self.groups.free_blocks(&mut self.volume, (block, 1));
        }
        let checksums = self.volume.checksums;
        let bytes = self.volume.cache.modify(block)?;
        xattr::set_references(bytes, references - 1);
        checksums.patch_xattr_block(block, bytes.as_mut_slice());
        Ok(())
    }
}
