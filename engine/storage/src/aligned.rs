//! Memory whose address suits direct I/O.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// What direct I/O needs of an address, an offset and a length, here and now. Linux asks for the
/// logical block size of the device (512 or 4096) and, since 6.1, tells it through `statx` with
/// `STATX_DIOALIGN`; 4096 satisfies all of them but devices with larger logical blocks.
pub const DIRECT_ALIGNMENT_BYTES: usize = 4096;

/// A buffer of fixed length, zeroed when it is made, that starts at a multiple of
/// [`DIRECT_ALIGNMENT_BYTES`]: a direct transfer to or from it needs no copy.
///
/// The vector below is longer than the buffer by one alignment, and the buffer is the aligned part of
/// it. It is never resized, so its heap block, and with it the alignment, stays where it is when the
/// `AlignedBuffer` itself is moved.
pub struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length_bytes` zeroes. The memory comes zeroed from the system, and untouched
    /// pages of a large buffer cost nothing.
    pub fn new(length_bytes: usize) -> AlignedBuffer {
        // Saturation ends where any vector of that size ends: in the allocator's "capacity overflow".
        let storage = vec![0; length_bytes.saturating_add(DIRECT_ALIGNMENT_BYTES)];
        let over = storage.as_ptr().addr() % DIRECT_ALIGNMENT_BYTES;
        let start = (DIRECT_ALIGNMENT_BYTES - over) % DIRECT_ALIGNMENT_BYTES;
        AlignedBuffer { storage, start, length: length_bytes }
    }
}

impl From<&[u8]> for AlignedBuffer {
    fn from(bytes: &[u8]) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::new(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Clone for AlignedBuffer {
    // Not derived: the copy's heap block has another address, and so another start.
    fn clone(&self) -> AlignedBuffer {
        AlignedBuffer::from(&**self)
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // In bounds: `start` is below the alignment, by which the vector is longer than `length`.
        &self.storage[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AlignedBuffer").field("length", &self.length).finish()
    }
}

/// Whether direct I/O can use this memory as it is.
pub(crate) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT_BYTES)
        && bytes.len().is_multiple_of(DIRECT_ALIGNMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_aligned_zeroed_and_exact() {
        for length in [0, 1, 511, 4095, 4096, 4097, 1 << 20] {
            let buffer = AlignedBuffer::new(length);
            assert_eq!(buffer.as_ptr().addr() % DIRECT_ALIGNMENT_BYTES, 0);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn moves_and_copies_stay_aligned_and_keep_the_contents() {
        let mut buffer = AlignedBuffer::new(8192);
        buffer[4096] = 7;
        let copies = vec![buffer.clone(), buffer.clone(), buffer];
        for copy in copies {
            assert!(is_aligned(&copy));
            assert!(!is_aligned(&copy[1..]));
            assert_eq!(copy[4096], 7);
        }
    }
}
