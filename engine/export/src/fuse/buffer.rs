//! Buffers that begin on a page, as direct I/O below wants them, without `unsafe`.

const PAGE_BYTES: usize = 4096;

/// Bytes of fixed number that begin on a page.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` zeroes. A large one takes no memory before it is touched.
    pub(crate) fn new(length: usize) -> AlignedBuffer {
        let bytes = vec![0; length.saturating_add(PAGE_BYTES)];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        AlignedBuffer { bytes, start, length }
    }

    /// The first `length` bytes, or all if it has fewer.
    pub(crate) fn first(&mut self, length: usize) -> &mut [u8] {
        let end = self.start + length.min(self.length);
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_on_a_page_and_has_its_length() {
        for length in [0, 1, 4096, 1 << 20] {
            let mut buffer = AlignedBuffer::new(length);
            assert_eq!(buffer.first(usize::MAX).len(), length);
            assert_eq!(buffer.first(0).as_ptr().align_offset(PAGE_BYTES), 0);
        }
    }
}
