//! Sparse bytes in memory: 4096-byte pages in a tree that copies share until one of them writes.
//!
//! Cloning costs one counter for each 64 pages that were ever written, so that a crash search can keep
//! a copy of a disk for every one of its writes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The unit in which bytes are kept and shared.
pub(crate) const PAGE_BYTES: usize = 4096;
const PAGE_BYTES_U64: u64 = 4096;
const PAGES_PER_CHUNK: usize = 64;
const PAGES_PER_CHUNK_U64: u64 = 64;

type Page = [u8; PAGE_BYTES];
type Chunk = [Option<Arc<Page>>; PAGES_PER_CHUNK];

/// Bytes that read as zeroes until they are written. Every range that is passed in must end at or
/// below `u64::MAX`; the callers check it against the size of what they stand for.
#[derive(Clone, Default)]
pub(crate) struct SparsePages {
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

/// A byte range cut at page borders: page number, range inside the page, range inside the buffer.
fn page_parts(
    offset_bytes: u64,
    length: usize,
) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset_bytes + u64::try_from(done).ok()?;
        let inside = usize::try_from(at % PAGE_BYTES_U64).ok()?;
        let count = (PAGE_BYTES - inside).min(length - done);
        let part = (at / PAGE_BYTES_U64, inside..inside + count, done..done + count);
        done += count;
        Some(part)
    })
}

/// Where a page stands: the chunk, and the place in it.
fn place(page: u64) -> (u64, usize) {
    let inside = usize::try_from(page % PAGES_PER_CHUNK_U64).unwrap_or(0);
    (page / PAGES_PER_CHUNK_U64, inside)
}

impl SparsePages {
    fn page(&self, page: u64) -> Option<&Page> {
        let (chunk, inside) = place(page);
        self.chunks.get(&chunk)?.get(inside)?.as_deref()
    }

    fn page_mut(&mut self, page: u64) -> &mut Page {
        let (chunk, inside) = place(page);
        let chunk =
            self.chunks.entry(chunk).or_insert_with(|| Arc::new([const { None }; PAGES_PER_CHUNK]));
        Arc::make_mut(Arc::make_mut(chunk)[inside].get_or_insert_with(|| Arc::new([0; PAGE_BYTES])))
    }

    fn forget_page(&mut self, page: u64) {
        let (chunk, inside) = place(page);
        if let Some(chunk) = self.chunks.get_mut(&chunk) {
            // Looked at before it is made our own: forgetting what was never there copies nothing.
            if chunk[inside].is_some() {
                Arc::make_mut(chunk)[inside] = None;
            }
        }
    }

    /// Fills `buffer` from `offset_bytes`.
    pub(crate) fn read(&self, offset_bytes: u64, buffer: &mut [u8]) {
        for (page, inside, outside) in page_parts(offset_bytes, buffer.len()) {
            match self.page(page) {
                Some(bytes) => buffer[outside].copy_from_slice(&bytes[inside]),
                None => buffer[outside].fill(0),
            }
        }
    }

    /// Puts `data` at `offset_bytes`.
    pub(crate) fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        for (page, inside, outside) in page_parts(offset_bytes, data.len()) {
            self.page_mut(page)[inside].copy_from_slice(&data[outside]);
        }
    }

    /// Makes a range read as zeroes; pages that lie in it wholly take no memory afterwards. The work
    /// goes with the pages that are there, not with the length of the range.
    pub(crate) fn zero(&mut self, offset_bytes: u64, length_bytes: u64) {
        let end = offset_bytes.saturating_add(length_bytes);
        for page in self.present(offset_bytes, length_bytes) {
            let start_of_page = page * PAGE_BYTES_U64;
            let from = usize::try_from(offset_bytes.saturating_sub(start_of_page)).unwrap_or(0);
            let to = usize::try_from(end - start_of_page).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
            if to - from == PAGE_BYTES {
                self.forget_page(page);
            } else {
                self.page_mut(page)[from..to].fill(0);
            }
        }
    }

    /// The pages that a range touches and that were ever written, in ascending order.
    pub(crate) fn present(&self, offset_bytes: u64, length_bytes: u64) -> Vec<u64> {
        if length_bytes == 0 {
            return Vec::new();
        }
        let first = offset_bytes / PAGE_BYTES_U64;
        let last = (offset_bytes.saturating_add(length_bytes) - 1) / PAGE_BYTES_U64;
        let chunks = self.chunks.range(place(first).0..=place(last).0);
        chunks
            .flat_map(|(number, chunk)| {
                let pages = (number * PAGES_PER_CHUNK_U64..).zip(chunk.iter());
                pages.filter(|(_, page)| page.is_some()).map(|(number, _)| number)
            })
            .filter(|page| (first..=last).contains(page))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pages: &SparsePages, offset_bytes: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0xee; length];
        pages.read(offset_bytes, &mut buffer);
        buffer
    }

    #[test]
    fn what_was_never_written_reads_as_zeroes() {
        assert_eq!(read(&SparsePages::default(), 5000, 9000), vec![0; 9000]);
    }

    #[test]
    fn a_write_over_page_and_chunk_borders_reads_back() {
        let mut pages = SparsePages::default();
        let data: Vec<u8> = (0..3 * PAGE_BYTES).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let offset_bytes = 63 * 4096 + 100;
        pages.write(offset_bytes, &data);
        assert_eq!(read(&pages, offset_bytes, data.len()), data);
        assert_eq!(read(&pages, offset_bytes - 100, 100), vec![0; 100]);
        assert_eq!(pages.present(0, u64::MAX), vec![63, 64, 65, 66]);
    }

    #[test]
    fn zeroing_drops_whole_pages_and_clears_parts_of_the_others() {
        let mut pages = SparsePages::default();
        pages.write(0, &[7; 4 * PAGE_BYTES]);
        pages.zero(100, 3 * 4096);
        assert_eq!(pages.present(0, 4 * 4096), vec![0, 3]);
        assert_eq!(read(&pages, 0, 101), [vec![7; 100], vec![0]].concat());
        assert_eq!(read(&pages, 3 * 4096 + 99, 2), vec![0, 7]);
        pages.zero(0, u64::MAX);
        assert!(pages.present(0, u64::MAX).is_empty());
    }

    #[test]
    fn zeroing_nearly_a_page_keeps_its_last_byte() {
        let mut pages = SparsePages::default();
        pages.write(0, &[7; PAGE_BYTES]);
        pages.zero(0, 4095);
        assert_eq!(read(&pages, 4094, 2), [0, 7]);
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut pages = SparsePages::default();
        pages.write(0, &[1; 10]);
        let copy = pages.clone();
        pages.write(0, &[2; 10]);
        pages.zero(4096, 4096);
        assert_eq!(read(&copy, 0, 10), vec![1; 10]);
        assert_eq!(read(&pages, 0, 10), vec![2; 10]);
    }
}
