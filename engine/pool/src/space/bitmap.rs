//! The allocation state of one group in memory: two bits a block.
//!
//! | used | busy | the block is |
//! |---|---|---|
//! | 0 | 0 | free |
//! | 0 | 1 | reserved for a write in flight, or freed and not reusable yet |
//! | 1 | 0 | in use |
//! | 1 | 1 | in use, and named in a journal batch that no durable batch settles yet |
//!
//! Only `used` is saved: it says exactly what the maps say. `busy` is gone after a restart, and so
//! nothing that was merely in flight can leak. Bits change under the lock of [`super::Space`]; `busy`
//! is also read without it, by writes that ask whether a block may be overwritten in place.

use std::sync::atomic::{AtomicU64, Ordering};

use byteorder::{ByteOrder, LittleEndian};

use crate::convert::{low_u32, to_u64, to_usize};
use crate::format::geometry::BLOCKS_PER_GROUP;
use crate::types::BLOCK_LENGTH;

const WORDS: usize = BLOCK_LENGTH / 8;

struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn zeroes() -> Bits {
        Bits((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, index: usize) -> u64 {
        self.0.get(index).map_or(u64::MAX, |word| word.load(Ordering::Relaxed))
    }

    fn get(&self, bit: u64) -> bool {
        self.word(to_usize(bit / 64)) >> (bit % 64) & 1 != 0
    }

    fn set(&self, bit: u64, value: bool) {
        if let Some(word) = self.0.get(to_usize(bit / 64)) {
            let mask = 1 << (bit % 64);
            let old = word.load(Ordering::Relaxed);
            word.store(if value { old | mask } else { old & !mask }, Ordering::Relaxed);
        }
    }
}

/// The bits of one group. Blocks are numbered from the group's start.
pub(super) struct GroupBits {
    used: Bits,
    busy: Bits,
}

impl GroupBits {
    pub(super) fn new(image: &[u8]) -> GroupBits {
        let used = Bits::zeroes();
        for (word, bytes) in used.0.iter().zip(image.chunks_exact(8)) {
            word.store(LittleEndian::read_u64(bytes), Ordering::Relaxed);
        }
        GroupBits { used, busy: Bits::zeroes() }
    }

    /// The bitmap page as it is saved.
    pub(super) fn image(&self) -> Box<[u8; BLOCK_LENGTH]> {
        let mut image = Box::new([0; BLOCK_LENGTH]);
        for (word, bytes) in self.used.0.iter().zip(image.chunks_exact_mut(8)) {
            LittleEndian::write_u64(bytes, word.load(Ordering::Relaxed));
        }
        image
    }

    pub(super) fn is_used(&self, block: u64) -> bool {
        self.used.get(block)
    }

    pub(super) fn is_busy(&self, block: u64) -> bool {
        self.busy.get(block)
    }

    pub(super) fn set_used(&self, block: u64, value: bool) {
        self.used.set(block, value);
    }

    pub(super) fn set_busy(&self, block: u64, value: bool) {
        self.busy.set(block, value);
    }

    pub(super) fn is_free(&self, block: u64) -> bool {
        !self.used.get(block) && !self.busy.get(block)
    }

    /// Blocks in use among the first `limit`.
    pub(super) fn count_used(&self, limit: u64) -> u32 {
        let mut count = 0;
        for index in 0..WORDS {
            let start = to_u64(index) * 64;
            if start >= limit {
                break;
            }
            let mask = if limit - start >= 64 { u64::MAX } else { (1 << (limit - start)) - 1 };
            count += (self.used.word(index) & mask).count_ones();
        }
        count
    }

    /// The first block at or after `from` that is free (`taken` false) or is not (`taken` true).
    fn next(&self, from: u64, limit: u64, taken: bool) -> u64 {
        let mut at = from;
        while at < limit {
            let index = to_usize(at / 64);
            let word = self.used.word(index) | self.busy.word(index);
            let wanted = (if taken { word } else { !word }) & (u64::MAX << (at % 64));
            if wanted != 0 {
                return (to_u64(index) * 64 + u64::from(wanted.trailing_zeros())).min(limit);
            }
            at = (to_u64(index) + 1) * 64;
        }
        limit
    }

    /// Free blocks from `start` on, at most `want`.
    pub(super) fn free_run_at(&self, start: u64, limit: u64, want: u32) -> u32 {
        let end = limit.min(start + u64::from(want));
        low_u32(self.next(start, end, true).saturating_sub(start))
    }

    /// The first run of `want` free blocks that begins in `from..limit`; or how long the longest was.
    pub(super) fn find_run(&self, from: u64, limit: u64, want: u32) -> Result<u64, u32> {
        let mut longest = 0;
        let mut at = from;
        loop {
            let start = self.next(at, limit, false);
            if start >= limit {
                return Err(longest);
            }
            let length = self.free_run_at(start, limit, want);
            if length >= want {
                return Ok(start);
            }
            longest = longest.max(length);
            at = start + u64::from(length) + 1;
        }
    }
}

const _: () = assert!(BLOCKS_PER_GROUP == 64 * 512 && WORDS == 512);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_across_words_and_not_past_the_limit() {
        let bits = GroupBits::new(&[0; BLOCK_LENGTH]);
        for block in 0..60 {
            bits.set_used(block, true);
        }
        bits.set_busy(70, true);
        assert_eq!(bits.find_run(0, 1000, 10), Ok(60));
        assert_eq!(bits.find_run(0, 1000, 11), Ok(71));
        assert_eq!(bits.find_run(0, 80, 11), Err(10));
        assert_eq!(bits.free_run_at(60, 1000, 64), 10);
        assert_eq!(bits.count_used(50), 50);
        assert_eq!(bits.count_used(32_768), 60);
    }

    #[test]
    fn only_used_is_saved() {
        let bits = GroupBits::new(&[0; BLOCK_LENGTH]);
        bits.set_used(9, true);
        bits.set_busy(10, true);
        let again = GroupBits::new(&bits.image()[..]);
        assert!(again.is_used(9) && again.is_free(10));
    }
}
