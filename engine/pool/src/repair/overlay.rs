//! A storage whose writes stay in memory, until they are brought down all together.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use thinstore_storage::{Error, Result, Storage};

use crate::convert::{to_u64, to_usize};
use crate::format::geometry::SUPERBLOCK_HOMES;
use crate::sync::Mutex;
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH};

type Block = Box<[u8; BLOCK_LENGTH]>;

/// What a repair works on: reads see what was written, the storage below does not.
pub(super) struct Overlay {
    below: Arc<dyn Storage>,
    written: Mutex<BTreeMap<u64, Block>>,
}

impl Overlay {
    pub(super) fn new(below: Arc<dyn Storage>) -> Overlay {
        Overlay { below, written: Mutex::default() }
    }

    pub(super) fn written_blocks(&self) -> u64 {
        to_u64(self.written.lock().len())
    }

    /// Writes to the storage below: first all that the superblocks lead to, durably, then one superblock
    /// after the other. Should power fail before the last, the same repair can be made again: nothing that
    /// it found is overwritten before.
    pub(super) fn bring_down(&self) -> Result<()> {
        let name = self.below.name();
        let failed = |source| Error::io(format!("cannot write the repaired {name}"), source);
        let written = self.written.lock();
        let is_home = |block: u64| SUPERBLOCK_HOMES.iter().any(|home| home.get() == block);
        for (block, bytes) in written.iter().filter(|(block, _)| !is_home(**block)) {
            self.below.write_at(block * BLOCK_BYTES, &bytes[..]).map_err(failed)?;
        }
        self.below.sync().map_err(failed)?;
        for (block, bytes) in written.iter().filter(|(block, _)| is_home(**block)) {
            self.below.write_at(block * BLOCK_BYTES, &bytes[..]).map_err(failed)?;
            self.below.sync().map_err(failed)?;
        }
        Ok(())
    }

    fn read_block(&self, block: u64) -> io::Result<Block> {
        if let Some(bytes) = self.written.lock().get(&block) {
            return Ok(bytes.clone());
        }
        let mut bytes = Box::new([0; BLOCK_LENGTH]);
        self.below.read_at(block * BLOCK_BYTES, &mut bytes[..])?;
        Ok(bytes)
    }
}

impl Storage for Overlay {
    fn size_bytes(&self) -> u64 {
        self.below.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.below.read_at(offset_bytes, buffer)?;
        let end = offset_bytes + to_u64(buffer.len());
        let first = offset_bytes / BLOCK_BYTES;
        for (block, bytes) in self.written.lock().range(first..end.div_ceil(BLOCK_BYTES)) {
            let start = (block * BLOCK_BYTES).max(offset_bytes);
            let stop = ((block + 1) * BLOCK_BYTES).min(end);
            let inside =
                to_usize(start - block * BLOCK_BYTES)..to_usize(stop - block * BLOCK_BYTES);
            let wanted = to_usize(start - offset_bytes)..to_usize(stop - offset_bytes);
            if let (Some(target), Some(source)) = (buffer.get_mut(wanted), bytes.get(inside)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let end = offset_bytes + to_u64(data.len());
        if end > self.size_bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for block in offset_bytes / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            let start = (block * BLOCK_BYTES).max(offset_bytes);
            let stop = ((block + 1) * BLOCK_BYTES).min(end);
            let mut bytes = self.read_block(block)?;
            let inside =
                to_usize(start - block * BLOCK_BYTES)..to_usize(stop - block * BLOCK_BYTES);
            let given = to_usize(start - offset_bytes)..to_usize(stop - offset_bytes);
            if let (Some(target), Some(source)) = (bytes.get_mut(inside), data.get(given)) {
                target.copy_from_slice(source);
            }
            self.written.lock().insert(block, bytes);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch_hole(&self, _offset_bytes: u64, _length_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _offset_bytes: u64, _length_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, _size_bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.below.drop_cache()
    }

    fn name(&self) -> String {
        self.below.name()
    }
}

#[cfg(test)]
mod tests {
    use thinstore_storage::MemoryStorage;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_reaches_the_storage_only_when_it_is_brought_down() {
        let below = Arc::new(MemoryStorage::new(1 << 20));
        below.write_at(8000, &[1; 400]).unwrap();
        let storage: Arc<dyn Storage> = below.clone();
        let overlay = Overlay::new(storage);
        overlay.write_at(8100, &[2; 5000]).unwrap();
        let mut bytes = vec![0; 5300];
        overlay.read_at(7950, &mut bytes).unwrap();
        let expected: Vec<u8> = [vec![0; 50], vec![1; 100], vec![2; 5000], vec![0; 150]].concat();
        assert_eq!(bytes, expected);
        let mut before = vec![0; 400];
        below.read_at(8000, &mut before).unwrap();
        assert_eq!(before, [1; 400]);
        overlay.bring_down().unwrap();
        let mut after = vec![0; 5300];
        below.read_at(7950, &mut after).unwrap();
        assert_eq!(after, expected);
        assert!(overlay.write_at((1 << 20) - 1, &[0; 2]).is_err());
    }
}
