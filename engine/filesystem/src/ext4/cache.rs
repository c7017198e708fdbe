//! A bounded write-back cache of metadata blocks between the file system and its device.
//!
//! Invariants: a block is in the cache at most once; a dirty block's only valid copy is the cache's
//! until [`BlockCache::flush`] has written it; clean blocks equal the device's.

use std::collections::HashMap;
use std::sync::Arc;

use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::fields::wide;

/// The one block size that thinstore's file systems have.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// The same as a 64-bit number.
pub(crate) const BLOCK_BYTES_U64: u64 = 4096;

/// One block's bytes.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// How many adjacent dirty blocks go to the device as one write: 1 MiB.
const RUN_BLOCKS_MAX: usize = 256;

struct Cached {
    bytes: Box<Block>,
    dirty: bool,
}

/// See the module's documentation.
pub(crate) struct BlockCache {
    device: Arc<dyn BlockDevice>,
    blocks: HashMap<u64, Cached>,
    capacity_blocks: usize,
}

impl BlockCache {
    /// A cache of at most `capacity_blocks` blocks over `device`.
    pub(crate) fn new(device: Arc<dyn BlockDevice>, capacity_blocks: usize) -> BlockCache {
        BlockCache { device, blocks: HashMap::new(), capacity_blocks }
    }

    /// The device below.
    pub(crate) fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Where a block lies on the device, or an error for one past its end: what a damaged pointer
    /// gives.
    fn offset_bytes(&self, block: u64) -> Result<u64> {
        block
            .checked_mul(BLOCK_BYTES_U64)
            .filter(|at| {
                at.checked_add(BLOCK_BYTES_U64).is_some_and(|end| end <= self.device.size_bytes())
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("the file system points at block {block}, past the end of its device"),
                )
            })
    }

    fn entry(&mut self, block: u64, load: bool) -> Result<&mut Cached> {
        let offset_bytes = self.offset_bytes(block)?;
        if !self.blocks.contains_key(&block) {
            if self.blocks.len() >= self.capacity_blocks {
                self.flush()?;
                self.blocks.clear();
            }
            let mut bytes = Box::new([0; BLOCK_BYTES]);
            if load {
                self.device.read(offset_bytes, bytes.as_mut_slice())?;
            }
            self.blocks.insert(block, Cached { bytes, dirty: false });
        }
        self.blocks.get_mut(&block).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("block {block} is not in the block cache"))
        })
    }

    /// A block's bytes.
    pub(crate) fn read(&mut self, block: u64) -> Result<&Block> {
        Ok(&self.entry(block, true)?.bytes)
    }

    /// A block's bytes, to be changed in place.
    pub(crate) fn modify(&mut self, block: u64) -> Result<&mut Block> {
        let cached = self.entry(block, true)?;
        cached.dirty = true;
        Ok(&mut cached.bytes)
    }

    /// Replaces a block without reading it; one that stays the same stays clean.
    pub(crate) fn put(&mut self, block: u64, bytes: &Block) -> Result<()> {
        let cached = self.entry(block, false)?;
        cached.dirty = true;
        *cached.bytes = *bytes;
        Ok(())
    }

    /// Drops a block that was freed: it needs no writing.
    pub(crate) fn forget(&mut self, block: u64) {
        self.blocks.remove(&block);
    }

    /// Writes every dirty block to the device, in ascending order, adjacent ones together. Not
    /// durable before the device is flushed.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut dirty: Vec<u64> = self
            .blocks
            .iter()
            .filter(|(_, cached)| cached.dirty)
            .map(|(block, _)| *block)
            .collect();
        dirty.sort_unstable();
        let mut run: Vec<u8> = Vec::new();
        for together in dirty.chunk_by(|a, b| a + 1 == *b) {
            for part in together.chunks(RUN_BLOCKS_MAX) {
                let Some(first) = part.first() else { continue };
                run.clear();
                for block in part {
                    if let Some(cached) = self.blocks.get(block) {
                        run.extend_from_slice(cached.bytes.as_slice());
                    }
                }
                self.device.write(first * BLOCK_BYTES_U64, &run)?;
            }
        }
        for block in dirty {
            if let Some(cached) = self.blocks.get_mut(&block) {
                cached.dirty = false;
            }
        }
        Ok(())
    }
}

/// Blocks of file data on their way to the device: adjacent ones are gathered into large writes.
pub(crate) struct DataBuffer {
    device: Arc<dyn BlockDevice>,
    first_block: u64,
    bytes: Vec<u8>,
}

/// How much is gathered before it is written.
const DATA_BUFFER_BYTES: usize = 2 << 20;

impl DataBuffer {
    /// An empty buffer over `device`.
    pub(crate) fn new(device: Arc<dyn BlockDevice>) -> DataBuffer {
        DataBuffer { device, first_block: 0, bytes: Vec::new() }
    }

    /// Takes whole blocks that go to `block` and on.
    pub(crate) fn write(&mut self, block: u64, data: &[u8]) -> Result<()> {
        let next = self.first_block + wide(self.bytes.len()) / BLOCK_BYTES_U64;
        if self.bytes.is_empty() || next != block || self.bytes.len() >= DATA_BUFFER_BYTES {
            self.flush()?;
            self.first_block = block;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.bytes.is_empty() {
            self.device.write(self.first_block * BLOCK_BYTES_U64, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinstore_storage::MemoryDevice;

    #[test]
    fn a_full_cache_writes_its_dirty_blocks_before_it_drops_them() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        let mut cache = BlockCache::new(device.clone(), 4);
        for block in 0..20 {
            cache.modify(block).expect("modify")[0] = 7;
        }
        assert!(cache.blocks.len() <= 4);
        for block in 0..20 {
            assert_eq!(cache.read(block).expect("read")[0], 7);
        }
        cache.flush().expect("flush");
        let mut byte = [0; 1];
        device.read(19 * 4096, &mut byte).expect("read the device");
        assert_eq!(byte, [7]);
    }

    #[test]
    fn a_block_past_the_end_is_refused() {
        let mut cache = BlockCache::new(Arc::new(MemoryDevice::new(8192)), 4);
        assert_eq!(cache.read(2).map(|_| ()).expect_err("past").kind(), ErrorKind::Corrupt);
        assert_eq!(cache.read(u64::MAX).map(|_| ()).expect_err("past").kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn adjacent_data_is_gathered_and_a_jump_starts_anew() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        let mut data = DataBuffer::new(device.clone());
        data.write(3, &[1; 4096]).expect("write");
        data.write(4, &[2; 4096]).expect("write");
        data.write(9, &[3; 8192]).expect("write");
        data.flush().expect("flush");
        let mut byte = [0; 1];
        for (block, want) in [(3, 1), (4, 2), (5, 0), (9, 3), (10, 3)] {
            device.read(block * 4096, &mut byte).expect("read");
            assert_eq!(byte, [want], "block {block}");
        }
    }
}
