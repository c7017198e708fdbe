//! Writing, discarding and zeroing.
//!
//! Order of a write to new blocks, and why: space is reserved; the data is written there, where nobody
//! can see it; its CRC is taken over the very bytes that were written; then, under the map's lock, the map
//! is pointed at it and the record appended. If the data cannot be written, the space goes back, and the
//! device has its old contents. The record becomes durable with the next flush, which also flushes the
//! data; its CRC tells replay whether both arrived.

use std::io;

use thinstore_storage::{Error, ErrorKind, Result};

use super::Device;
use super::resolve::WritePiece;
use crate::convert::{low_u32, to_u64, to_usize};
use crate::format::record::Record;
use crate::planted::{Fault, planted};
use crate::space::Extent;
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH, LogicalBlock};

/// A request is carried out in parts of so many blocks (1 MiB): what it reserves and records stays small.
const PART_BLOCKS: u64 = 256;

impl Device {
    /// Writes any range. With `waits`, a part that finds no room may wait for some.
    pub(super) fn write_bytes(&self, offset_bytes: u64, data: &[u8], waits: bool) -> Result<()> {
        let mut at = offset_bytes;
        let mut rest = data;
        let mut patience = self.core().room.begin();
        while !rest.is_empty() {
            let part_end = (at / BLOCK_BYTES + PART_BLOCKS) * BLOCK_BYTES;
            let length = to_usize(part_end - at).min(rest.len());
            let (done, result) = self.write_part(at, &rest[..length]);
            match result {
                Ok(()) => {}
                // Nothing is held here: whoever frees, forks or grows goes on meanwhile.
                Err(error) if error.kind() == ErrorKind::Full && waits => {
                    let hurried = &self.layer_state().hurried;
                    if !self.core().wait_for_room(&mut patience, hurried)? {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            self.core().spill_if_long()?;
            at += to_u64(done);
            rest = &rest[done..];
        }
        Ok(())
    }

    /// Writes a part; gives how many bytes of it are written whatever went wrong.
    fn write_part(&self, offset_bytes: u64, data: &[u8]) -> (usize, Result<()>) {
        let end = offset_bytes + to_u64(data.len());
        let first = offset_bytes / BLOCK_BYTES;
        let stop = end.div_ceil(BLOCK_BYTES);
        let _inside = self.layer_state().gate.enter();
        let _range = self.layer_state().ranges.alone(first, stop);
        if offset_bytes.is_multiple_of(BLOCK_BYTES) && end.is_multiple_of(BLOCK_BYTES) {
            return self.write_blocks(LogicalBlock::new(first), data);
        }
        let mut whole = vec![0; to_usize((stop - first) * BLOCK_BYTES)];
        let start = to_usize(offset_bytes - first * BLOCK_BYTES);
        if let Err(error) = self.read_ends(first, start, start + data.len(), &mut whole) {
            return (0, Err(error));
        }
        whole[start..start + data.len()].copy_from_slice(data);
        let (done, result) = self.write_blocks(LogicalBlock::new(first), &whole);
        (done.saturating_sub(start).min(data.len()), result)
    }

    /// Reads the blocks of which only a part is to be written, from byte `start` to `tail` of `whole`.
    fn read_ends(&self, first: u64, start: usize, tail: usize, whole: &mut [u8]) -> Result<()> {
        let last = whole.len() - BLOCK_LENGTH;
        if start > 0 || tail < BLOCK_LENGTH {
            self.read_blocks(LogicalBlock::new(first), &mut whole[..BLOCK_LENGTH])?;
        }
        if tail < whole.len() && last > 0 {
            let block = LogicalBlock::new(first).plus(to_u64(last) / BLOCK_BYTES);
            self.read_blocks(block, &mut whole[last..])?;
        }
        Ok(())
    }

    /// Writes whole blocks; gives how many bytes are written whatever went wrong. The caller is inside the
    /// gate and holds their range alone.
    fn write_blocks(&self, first: LogicalBlock, data: &[u8]) -> (usize, Result<()>) {
        let mut done = 0;
        let mut tried_for_room = false;
        while done < data.len() {
            let at = first.plus(to_u64(done) / BLOCK_BYTES);
            match self.write_stretch(at, &data[done..]) {
                Ok(written) => done += to_usize(written * BLOCK_BYTES),
                Err(error) if error.kind() == ErrorKind::Full && !tried_for_room => {
                    tried_for_room = true;
                    if let Err(error) = self.core().make_room() {
                        return (done, Err(error));
                    }
                }
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Writes the first stretch of whole blocks; gives how many blocks.
    fn write_stretch(&self, at: LogicalBlock, data: &[u8]) -> Result<u64> {
        self.core().keep_replay_room()?;
        let count = to_u64(data.len()) / BLOCK_BYTES;
        let piece = self.core().attempt(|| {
            let map = self.layer_state().map.read();
            self.core().resolve_write(&map, at, count)
        })?;
        match piece {
            WritePiece::InPlace { count, block } => {
                let bytes = &data[..to_usize(count * BLOCK_BYTES)];
                let written = self.core().storage.write_at(block.offset_bytes(), bytes);
                // Within the gate: a fork does not miss it.
                self.layer_state().overwrites.has_ended();
                written.map_err(|source| self.write_failed(at, source))?;
                Ok(count)
            }
            WritePiece::New { count } => {
                let count = self.write_new(at, count, data)?;
                self.core().room.was_found();
                Ok(count)
            }
        }
    }

    /// Writes up to `count` blocks to new places, as many as are contiguous there; gives how many.
    fn write_new(&self, at: LogicalBlock, count: u64, data: &[u8]) -> Result<u64> {
        let core = self.core();
        let layer = self.layer_state();
        let extent = core.attempt(|| {
            let mut runs = layer.runs.lock();
            runs.reserve(&core.pages.space, at, low_u32(count))
        })?;
        let count = u64::from(extent.count);
        let bytes = &data[..to_usize(count * BLOCK_BYTES)];
        if let Err(source) = core.storage.write_at(extent.start.offset_bytes(), bytes) {
            core.pages.space.release(extent);
            return Err(self.write_failed(at, source));
        }
        let crcs: Vec<u32> = bytes.chunks_exact(BLOCK_LENGTH).map(crc32fast::hash).collect();
        let mut done = 0;
        while done < count {
            let logical = at.plus(done);
            let in_leaf = (256 - logical.get() % 256).min(count - done);
            let part = Extent { start: extent.start.plus(done), count: low_u32(in_leaf) };
            let part_crcs = &crcs[to_usize(done)..to_usize(done + in_leaf)];
            if let Err(error) = self.commit_new(logical, part, part_crcs) {
                core.pages
                    .space
                    .release(Extent { start: part.start, count: low_u32(count - done) });
                return Err(error);
            }
            done += in_leaf;
        }
        Ok(count)
    }

    fn commit_new(&self, logical: LogicalBlock, extent: Extent, crcs: &[u32]) -> Result<()> {
        let core = self.core();
        let layer = self.layer_state();
        core.attempt(|| {
            let _shared = core.cut.read();
            let mut map = layer.map.write();
            let birth = core.epoch();
            let mut freed = Vec::new();
            core.apply_map(layer, &mut map, logical, extent, birth, &mut freed)?;
            core.note_freed(freed.iter().map(|extent| u64::from(extent.count)).sum());
            if planted(Fault::FreedBlockReusedAtOnce) {
                freed.drain(..).for_each(|extent| core.pages.space.release(extent));
            }
            let record = Record::Map {
                layer: layer.id,
                logical,
                block: extent.start,
                birth,
                crcs: crcs.to_vec(),
            };
            core.pending.append(&[record], &[extent], &freed, false);
            Ok(())
        })
    }

    /// A full host disk is an answer; anything else leaves unknown what is on it.
    fn write_failed(&self, at: LogicalBlock, source: io::Error) -> Error {
        let core = self.core();
        let error = Error::io(
            format!("cannot write block {} of {} to {}", at.get(), self.layer(), core.name),
            source,
        );
        if error.kind() == ErrorKind::Full { error } else { core.latch(error) }
    }

    pub(super) fn discard_bytes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let first = offset_bytes.div_ceil(BLOCK_BYTES);
        let stop = (offset_bytes + length_bytes) / BLOCK_BYTES;
        match self.unmap_blocks(first, stop) {
            // A discard is a hint: in a pool so full that its map cannot change, it is let go.
            Err(error) if error.kind() == ErrorKind::Full => Ok(()),
            other => other,
        }
    }

    pub(super) fn zero_bytes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let end = offset_bytes + length_bytes;
        let first = offset_bytes.div_ceil(BLOCK_BYTES);
        let stop = end / BLOCK_BYTES;
        if first >= stop {
            return self.write_bytes(offset_bytes, &vec![0; to_usize(length_bytes)], true);
        }
        let head = to_usize(first * BLOCK_BYTES - offset_bytes);
        let tail = to_usize(end - stop * BLOCK_BYTES);
        self.write_bytes(offset_bytes, &vec![0; head], true)?;
        self.unmap_blocks(first, stop)?;
        self.write_bytes(stop * BLOCK_BYTES, &vec![0; tail], true)
    }

    fn unmap_blocks(&self, first: u64, stop: u64) -> Result<()> {
        if first >= stop {
            return Ok(());
        }
        {
            let _inside = self.layer_state().gate.enter();
            let _range = self.layer_state().ranges.alone(first, stop);
            self.core().unmap_range(self.layer_state(), LogicalBlock::new(first), stop)?;
        }
        self.core().spill_if_long()
    }
}

impl crate::core::Core {
    /// Before a write is refused for want of room: what is merely set aside goes back, and what was freed
    /// is settled and so becomes free.
    fn make_room(&self) -> Result<()> {
        let layers: Vec<_> = self
            .table
            .read()
            .iter()
            .map(|(_, entry)| std::sync::Arc::clone(&entry.layer))
            .collect();
        for layer in layers {
            layer.runs.lock().clear(&self.pages.space);
        }
        self.settle()
    }
}
