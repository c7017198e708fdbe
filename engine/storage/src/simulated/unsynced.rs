//! Writes that a disk has taken and not yet made durable.

use std::sync::Arc;

use super::random::Random;
use crate::pages::SparsePages;
use crate::range::length_bytes;

/// What a disk writes wholly or not at all, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// Sectors side by side, and what a write left in them.
pub(super) struct Part {
    offset_bytes: u64,
    content: Content,
}

enum Content {
    Data(Box<[u8]>),
    /// So many zero bytes: a punched hole can be longer than memory.
    Zeroes(u64),
}

/// One write, or one punched hole, in whole sectors. A sector that the caller wrote only in part is
/// here with all that a read would have shown in it right after the write: that is what the host sends
/// down.
pub(super) struct Unsynced {
    pub(super) operation: u64,
    parts: Vec<Part>,
}

impl Unsynced {
    /// A write of `data`, over what can be seen now.
    pub(super) fn write(
        operation: u64,
        visible: &SparsePages,
        offset_bytes: u64,
        data: &[u8],
    ) -> Unsynced {
        let parts = match data.is_empty() {
            true => Vec::new(),
            false => vec![Part::widened(visible, offset_bytes, data)],
        };
        Unsynced { operation, parts }
    }

    /// A punched hole, over what can be seen now.
    pub(super) fn punch(
        operation: u64,
        visible: &SparsePages,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Unsynced {
        let end = offset_bytes + length_bytes;
        let first_whole = offset_bytes.next_multiple_of(SECTOR_BYTES).min(end);
        let last_whole = (end - end % SECTOR_BYTES).max(first_whole);
        let mut parts = Vec::new();
        for (from, to) in [(offset_bytes, first_whole), (last_whole, end)] {
            // Less than a sector, at either end.
            let zeroes = vec![0; usize::try_from(to - from).unwrap_or(0)];
            if !zeroes.is_empty() {
                parts.push(Part::widened(visible, from, &zeroes));
            }
        }
        if first_whole < last_whole {
            let content = Content::Zeroes(last_whole - first_whole);
            parts.push(Part { offset_bytes: first_whole, content });
        }
        Unsynced { operation, parts }
    }

    /// Puts all of it in.
    pub(super) fn apply(&self, pages: &mut SparsePages) {
        for part in &self.parts {
            match &part.content {
                Content::Data(data) => pages.write(part.offset_bytes, data),
                Content::Zeroes(length) => pages.zero(part.offset_bytes, *length),
            }
        }
    }

    /// Puts in each sector, or not, as `keep` says.
    pub(super) fn apply_sectors(&self, pages: &mut SparsePages, mut keep: impl FnMut() -> bool) {
        for part in &self.parts {
            match &part.content {
                Content::Data(data) => {
                    let sectors = (part.offset_bytes..).step_by(SECTOR_LENGTH);
                    for (offset_bytes, sector) in sectors.zip(data.chunks(SECTOR_LENGTH)) {
                        if keep() {
                            pages.write(offset_bytes, sector);
                        }
                    }
                }
                // Where there is no page the sectors are zero already, kept or not.
                Content::Zeroes(length) => {
                    let end = part.offset_bytes + length;
                    for page in pages.present(part.offset_bytes, *length) {
                        let start = part.offset_bytes.max(page * 4096);
                        let stop = end.min(page * 4096 + 4096);
                        for offset_bytes in (start..stop).step_by(SECTOR_LENGTH) {
                            if keep() {
                                pages.zero(offset_bytes, SECTOR_BYTES);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Puts in each sector in `eighths` of eight cases.
    pub(super) fn apply_torn(&self, pages: &mut SparsePages, random: &mut Random, eighths: u64) {
        self.apply_sectors(pages, || random.chance(eighths));
    }
}

const SECTOR_LENGTH: usize = 512;

impl Part {
    /// `data`, which is not empty, with the rest of its first and last sector around it.
    fn widened(visible: &SparsePages, offset_bytes: u64, data: &[u8]) -> Part {
        let start = offset_bytes - offset_bytes % SECTOR_BYTES;
        let end = (offset_bytes + length_bytes(data)).next_multiple_of(SECTOR_BYTES);
        let inside = usize::try_from(offset_bytes - start).unwrap_or(0);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        if bytes.len() != data.len() {
            visible.read(start, &mut bytes);
        }
        bytes[inside..inside + data.len()].copy_from_slice(data);
        Part { offset_bytes: start, content: Content::Data(bytes.into()) }
    }
}

/// The writes since the last sync, oldest first. Copies share them.
pub(super) type UnsyncedList = Vec<Arc<Unsynced>>;
