//! Reading.

use thinstore_storage::{Error, Result};

use super::Device;
use super::resolve::ReadPiece;
use crate::convert::{to_u64, to_usize};
use crate::sums::Place;
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH, Epoch, LogicalBlock};

impl Device {
    /// Reads any range; one that is not made of whole blocks goes through a buffer that is, on the stack if it lies in one
    /// block.
    pub(super) fn read_bytes(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let end = offset_bytes + to_u64(buffer.len());
        let first = offset_bytes / BLOCK_BYTES;
        let stop = end.div_ceil(BLOCK_BYTES);
        let _range = self.layer_state().ranges.shared(first, stop);
        if offset_bytes.is_multiple_of(BLOCK_BYTES) && end.is_multiple_of(BLOCK_BYTES) {
            return self.read_blocks(LogicalBlock::new(first), buffer);
        }
        let mut through = |whole: &mut [u8]| {
            self.read_blocks(LogicalBlock::new(first), whole)?;
            let start = to_usize(offset_bytes - first * BLOCK_BYTES);
            if let Some(bytes) = whole.get(start..start + buffer.len()) {
                buffer.copy_from_slice(bytes);
            }
            Ok(())
        };
        match stop - first {
            1 => through(&mut [0; BLOCK_LENGTH]),
            blocks => through(&mut vec![0; to_usize(blocks * BLOCK_BYTES)]),
        }
    }

    /// Reads whole blocks. The caller holds their range.
    pub(super) fn read_blocks(&self, first: LogicalBlock, buffer: &mut [u8]) -> Result<()> {
        let mut at = first;
        let mut rest = buffer;
        while !rest.is_empty() {
            let count = to_u64(rest.len()) / BLOCK_BYTES;
            let piece = self.core().attempt(|| {
                let map = self.layer_state().map.read();
                self.core().resolve_read(&map, at, count, self.summed_until())
            })?;
            let (bytes, others) = rest.split_at_mut(to_usize(piece.count * BLOCK_BYTES));
            self.read_piece(at, &piece, bytes)?;
            at = at.plus(piece.count);
            rest = others;
        }
        Ok(())
    }

    /// Asked with the map locked, and the range of the read as well: until it ends, none of its blocks is
    /// overwritten in place.
    fn summed_until(&self) -> Epoch {
        if self.core().verify_reads { self.layer_state().summed_until() } else { Epoch::ZERO }
    }

    fn read_piece(&self, at: LogicalBlock, piece: &ReadPiece, bytes: &mut [u8]) -> Result<()> {
        let Some(block) = piece.block else {
            bytes.fill(0);
            return Ok(());
        };
        self.core().storage.read_at(block.offset_bytes(), bytes).map_err(|source| {
            Error::io(
                format!(
                    "cannot read block {} of {} at {block} of {}",
                    at.get(),
                    self.layer(),
                    self.core().name
                ),
                source,
            )
        })?;
        for range in piece.summed.iter().filter(|range| !range.is_empty()) {
            let inside = to_usize(range.start * BLOCK_BYTES)..to_usize(range.end * BLOCK_BYTES);
            let place = Place {
                layer: self.layer(),
                logical: at.plus(range.start),
                block: block.plus(range.start),
            };
            self.core().verify(place, bytes.get_mut(inside).unwrap_or_default())?;
        }
        Ok(())
    }
}
