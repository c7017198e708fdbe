//! The ring of blocks that batches are written to.

use std::io;

use thinstore_storage::Storage;

use crate::convert::{to_u64, to_usize};
use crate::format::geometry::JOURNAL_START;
use crate::types::BLOCK_BYTES;

/// The journal's place in the pool. Positions count blocks ever written; the place of a position is its
/// remainder by the ring's length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    pub(crate) blocks: u64,
}

impl Ring {
    /// The parts of a range of positions that are contiguous on the disk: byte offset, bytes in the range.
    fn parts(
        self,
        position: u64,
        length: usize,
    ) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
        let inside = position % self.blocks;
        let before_end = to_usize((self.blocks - inside) * BLOCK_BYTES).min(length);
        let start = JOURNAL_START.offset_bytes();
        [(start + inside * BLOCK_BYTES, 0..before_end), (start, before_end..length)]
            .into_iter()
            .filter(|(_, range)| !range.is_empty())
    }

    /// Writes whole blocks at a position: one write, or two where the ring ends in between.
    pub(crate) fn write(
        self,
        storage: &dyn Storage,
        position: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        for (offset, range) in self.parts(position, bytes.len()) {
            storage.write_at(offset, bytes.get(range).unwrap_or(&[]))?;
        }
        Ok(())
    }

    /// Reads `blocks` blocks at a position.
    pub(crate) fn read(
        self,
        storage: &dyn Storage,
        position: u64,
        blocks: u64,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; to_usize(blocks.min(self.blocks) * BLOCK_BYTES)];
        debug_assert!(to_u64(bytes.len()) <= self.blocks * BLOCK_BYTES);
        for (offset, range) in self.parts(position, bytes.len()) {
            if let Some(target) = bytes.get_mut(range) {
                storage.read_at(offset, target)?;
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use thinstore_storage::MemoryStorage;

    use super::*;

    #[test]
    fn what_crosses_the_end_of_the_ring_is_read_back() {
        let storage = MemoryStorage::new(1 << 20);
        let ring = Ring { blocks: 64 };
        let bytes: Vec<u8> = (0..5 * 4096).map(|at| u8::try_from(at / 4096).unwrap()).collect();
        ring.write(&storage, 64 * 7 + 62, &bytes).unwrap();
        assert_eq!(ring.read(&storage, 62, 5).unwrap(), bytes);
    }
}
