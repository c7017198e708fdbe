//! The data of files on its way to the device.

use thinstore_storage::{Error, ErrorKind, Result};

use super::{Ext4Writer, refused};
use crate::ext4::cache::{BLOCK_BYTES, BLOCK_BYTES_U64, Block};
use crate::ext4::extents::{self, EXTENT_BLOCKS_MAX, Extent};
use crate::ext4::fields::{index, wide};
use crate::ext4::folders::store_mapping;
use crate::ext4::inode::{FILE_BYTES_MAX, Inode, InodeNumber};
use crate::tree::{FileContent, TreePath};

/// A block of which only a part has come so far.
struct Part {
    logical: u64,
    bytes: Box<Block>,
}

/// A file while its data comes.
struct File {
    extents: Vec<Extent>,
    part: Option<Part>,
    /// Where the data that came so far ends.
    end_bytes: u64,
}

impl Ext4Writer {
    /// Gives a new file its size and data. What was taken for it is in its extent tree when this
    /// returns, also with an error, so that it can be freed.
    pub(super) fn fill_file(
        &mut self,
        path: &TreePath,
        number: InodeNumber,
        inode: &mut Inode,
        size_bytes: u64,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        if size_bytes > FILE_BYTES_MAX {
            return Err(refused(
                path,
                format_args!(
                    "has {size_bytes} bytes; the largest file of ext4 has {FILE_BYTES_MAX}"
                ),
            ));
        }
        inode.set_size(size_bytes);
        let mut file = File { extents: Vec::new(), part: None, end_bytes: 0 };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = match content {
            Some(content) => self.copy(path, &mut file, size_bytes, content, &mut buffer),
            None => Ok(()),
        };
        self.buffer = buffer;
        let (volume, groups) = (&mut self.volume, &mut self.groups);
        let mut nodes = Vec::new();
        let mapped = store_mapping(volume, groups, number, inode, &file.extents, &mut nodes);
        if mapped.is_err() {
            // No room for the tree: all is freed here, since the inode does not name it.
            self.data.flush()?;
            let nodes = nodes.into_iter().map(|block| (block, 1));
            let data = file.extents.iter().map(|extent| (extent.physical, extent.blocks));
            for run in data.chain(nodes) {
                self.groups.free_blocks(&mut self.volume, run)?;
            }
        }
        result.and(mapped)
    }

    fn copy(
        &mut self,
        path: &TreePath,
        file: &mut File,
        size_bytes: u64,
        content: &mut dyn FileContent,
        buffer: &mut [u8],
    ) -> Result<()> {
        while let Some((offset, count)) = content.next(buffer)? {
            let data = buffer.get(..count).unwrap_or(&[]);
            let end = offset.saturating_add(wide(data.len()));
            if offset < file.end_bytes || end > size_bytes {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "the content of '{path}' does not fit its size of {size_bytes} bytes, or \
                         does not come in order"
                    ),
                ));
            }
            file.end_bytes = end;
            self.take_data(file, offset, data)?;
        }
        self.end_part(file)
    }

    fn take_data(&mut self, file: &mut File, offset: u64, data: &[u8]) -> Result<()> {
        let mut offset = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let logical = offset / BLOCK_BYTES_U64;
            let inside = index(offset % BLOCK_BYTES_U64);
            let continues = file.part.as_ref().is_some_and(|part| part.logical == logical);
            if !continues {
                self.end_part(file)?;
            }
            let count = if inside == 0 && !continues && rest.len() >= BLOCK_BYTES {
                let count = rest.len() - rest.len() % BLOCK_BYTES;
                self.write_blocks(file, logical, rest.get(..count).unwrap_or(&[]))?;
                count
            } else {
                let count = rest.len().min(BLOCK_BYTES - inside);
                let fresh = || Part { logical, bytes: Box::new([0; BLOCK_BYTES]) };
                let part = file.part.get_or_insert_with(fresh);
                let source = rest.get(..count).unwrap_or(&[]);
                if let Some(target) = part.bytes.get_mut(inside..inside + count) {
                    target.copy_from_slice(source);
                }
                count
            };
            offset += wide(count);
            rest = rest.get(count..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn end_part(&mut self, file: &mut File) -> Result<()> {
        match file.part.take() {
            Some(part) => self.write_blocks(file, part.logical, part.bytes.as_slice()),
            None => Ok(()),
        }
    }

    fn write_blocks(&mut self, file: &mut File, logical: u64, data: &[u8]) -> Result<()> {
        let mut logical = u32::try_from(logical).unwrap_or(u32::MAX);
        let mut rest = data;
        while !rest.is_empty() {
            let wanted = u32::try_from(rest.len() / BLOCK_BYTES).unwrap_or(u32::MAX);
            let wanted = wanted.min(EXTENT_BLOCKS_MAX);
            let (physical, blocks) = self.groups.take_blocks(&mut self.volume, wanted)?;
            extents::append(&mut file.extents, Extent { logical, physical, blocks, written: true });
            let length = index(u64::from(blocks) * BLOCK_BYTES_U64);
            let (now, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.data.write(physical, now)?;
            logical = logical.saturating_add(blocks);
            rest = later;
        }
        Ok(())
    }
}
