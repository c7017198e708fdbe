//! The bytes on disk: pure encoding and decoding, no I/O. `docs/format.md` shows every byte.
//!
//! All integers are little-endian. Reserved bytes are written as zero, and refused when they are not.

pub(crate) mod batch;
#[cfg(test)]
mod documented;
pub(crate) mod geometry;
pub(crate) mod layer;
pub(crate) mod pointer;
pub(crate) mod record;
pub(crate) mod superblock;

use byteorder::{ByteOrder, LittleEndian};

/// A forward reader over encoded bytes; running off the end gives `None`, never a panic.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(LittleEndian::read_u16)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(LittleEndian::read_u32)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(LittleEndian::read_u64)
    }

    /// Skips reserved bytes, which must be zero.
    pub(crate) fn reserved(&mut self, count: usize) -> Option<()> {
        self.take(count)?.iter().all(|byte| *byte == 0).then_some(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }
}

/// Appends little-endian fields to a buffer.
pub(crate) trait PutFields {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    /// Zeroes up to `length` in all.
    fn pad_to(&mut self, length: usize);
}

impl PutFields for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn pad_to(&mut self, length: usize) {
        debug_assert!(self.len() <= length, "fields overran their place");
        self.resize(length, 0);
    }
}
