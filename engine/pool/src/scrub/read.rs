//! Long reads of many blocks, of which each that cannot be read is told by itself.

use thinstore_storage::AlignedBuffer;

use crate::convert::{to_u64, to_usize};
use crate::core::Core;
use crate::sums::joined;
use crate::types::{BLOCK_LENGTH, PoolBlock};

/// What was read of a block, or why it cannot be.
pub(super) type Block<'a> = Result<&'a [u8], String>;

impl Core {
    fn read_run(&self, start: PoolBlock, buffer: &mut [u8]) -> Result<(), String> {
        let pool_blocks = self.pages.space.geometry().pool_blocks;
        let end = start.plus(to_u64(buffer.len() / BLOCK_LENGTH));
        if end.get() > pool_blocks {
            return Err("it lies past the end of the pool".to_owned());
        }
        self.storage.read_at(start.offset_bytes(), buffer).map_err(|source| source.to_string())
    }

    /// Reads blocks, in the order of the pool, as long as they are contiguous in one go.
    pub(super) fn read_each(&self, blocks: &[PoolBlock], mut visit: impl FnMut(PoolBlock, Block)) {
        let extents = joined(blocks);
        let longest = extents.iter().map(|extent| extent.count).max().unwrap_or(0);
        let mut buffer = AlignedBuffer::new(to_usize(u64::from(longest)) * BLOCK_LENGTH);
        for extent in extents {
            let length = to_usize(u64::from(extent.count)) * BLOCK_LENGTH;
            let bytes = buffer.get_mut(..length).unwrap_or_default();
            let whole = self.read_run(extent.start, bytes);
            for (index, data) in (0..).zip(bytes.chunks_exact_mut(BLOCK_LENGTH)) {
                let block = extent.start.plus(index);
                // One bad block fails the read of all.
                let read = if whole.is_ok() { Ok(()) } else { self.read_run(block, data) };
                visit(block, read.map(|()| &*data));
            }
        }
    }

    /// Reads one block.
    pub(super) fn read_one(&self, block: PoolBlock) -> Result<AlignedBuffer, String> {
        let mut buffer = AlignedBuffer::new(BLOCK_LENGTH);
        self.read_run(block, &mut buffer)?;
        Ok(buffer)
    }
}
