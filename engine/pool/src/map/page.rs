//! A metadata page in memory: 512 words, shared by all who look, changed by one.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use byteorder::{ByteOrder, LittleEndian};

use crate::convert::to_usize;
use crate::format::pointer::{BlockPtr, POINTERS_PER_PAGE};
use crate::types::{BLOCK_LENGTH, PoolBlock};

const WORDS: usize = BLOCK_LENGTH / 8;

/// Where a page stands between memory and disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    /// As on the disk.
    Clean,
    /// Not written yet.
    Dirty,
    /// Not written, and of no use any more: the checkpoint leaves it out.
    Dropped,
}

/// One page. Words are atomic so that readers need no lock of the page; who may write is decided by the
/// lock of the layer that owns it.
pub(crate) struct Page {
    block: PoolBlock,
    /// The interval in which it got its block; 0 for a page that was read from the disk.
    interval: u64,
    /// 0 for a page of records, 1 for pointers to data (or records, or bitmaps), upwards from there.
    level: u8,
    state: AtomicU8,
    crc: AtomicU32,
    referenced: AtomicBool,
    words: Box<[AtomicU64]>,
}

impl Page {
    fn with_words(block: PoolBlock, interval: u64, level: u8, words: Box<[AtomicU64]>) -> Page {
        Page {
            block,
            interval,
            level,
            state: AtomicU8::new(1),
            crc: AtomicU32::new(0),
            referenced: AtomicBool::new(true),
            words,
        }
    }

    /// A page of null pointers, to be filled in this interval.
    pub(crate) fn empty(block: PoolBlock, interval: u64, level: u8) -> Page {
        Self::with_words(block, interval, level, (0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    /// What stands for a page that a repair gave up: nothing below it is there, and all of it is missed.
    pub(crate) fn lost() -> Page {
        let page = Self::empty(PoolBlock::default(), 0, 0);
        for index in 0..POINTERS_PER_PAGE {
            page.set_pointer(index, BlockPtr::LOST);
        }
        page.set_state(PageState::Clean);
        page
    }

    /// The same contents at another place, to be changed in this interval. A page that was read from
    /// the disk does not know its level: the path to it does.
    pub(crate) fn copy_to_level(&self, block: PoolBlock, interval: u64, level: u8) -> Page {
        let words = self.words.iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed)));
        Self::with_words(block, interval, level, words.collect())
    }

    /// A page as read from the disk, where it has this CRC.
    pub(crate) fn from_disk(block: PoolBlock, crc: u32, bytes: &[u8]) -> Page {
        let words =
            bytes.chunks_exact(8).map(|chunk| AtomicU64::new(LittleEndian::read_u64(chunk)));
        let page = Self::with_words(block, 0, 0, words.collect());
        page.crc.store(crc, Ordering::Relaxed);
        page.set_state(PageState::Clean);
        page
    }

    pub(crate) fn block(&self) -> PoolBlock {
        self.block
    }

    pub(crate) fn interval(&self) -> u64 {
        self.interval
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    pub(crate) fn state(&self) -> PageState {
        match self.state.load(Ordering::Acquire) {
            0 => PageState::Clean,
            1 => PageState::Dirty,
            _ => PageState::Dropped,
        }
    }

    pub(crate) fn set_state(&self, state: PageState) {
        let value = match state {
            PageState::Clean => 0,
            PageState::Dirty => 1,
            PageState::Dropped => 2,
        };
        self.state.store(value, Ordering::Release);
    }

    /// The CRC of a clean page, or of one that a checkpoint has sealed.
    pub(crate) fn crc(&self) -> u32 {
        self.crc.load(Ordering::Relaxed)
    }

    /// Computes and notes the CRC: the contents are final.
    pub(crate) fn seal(&self) -> u32 {
        let crc = crc32fast::hash(&self.bytes()[..]);
        self.crc.store(crc, Ordering::Relaxed);
        crc
    }

    pub(crate) fn touch(&self) {
        self.referenced.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_referenced(&self) -> bool {
        self.referenced.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn pointer(&self, index: usize) -> BlockPtr {
        match self.words.get(2 * index..2 * index + 2) {
            Some([address, check]) => {
                BlockPtr::from_words(address.load(Ordering::Relaxed), check.load(Ordering::Relaxed))
            }
            _ => BlockPtr::NULL,
        }
    }

    pub(crate) fn set_pointer(&self, index: usize, pointer: BlockPtr) {
        debug_assert_eq!(self.state(), PageState::Dirty);
        if let Some([address, check]) = self.words.get(2 * index..2 * index + 2) {
            let (new_address, new_check) = pointer.words();
            address.store(new_address, Ordering::Relaxed);
            check.store(new_check, Ordering::Relaxed);
        }
    }

    pub(crate) fn pointers(&self) -> impl Iterator<Item = BlockPtr> {
        (0..POINTERS_PER_PAGE).map(|index| self.pointer(index))
    }

    /// Are all bytes zero?
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    pub(crate) fn bytes(&self) -> Box<[u8; BLOCK_LENGTH]> {
        let mut bytes = Box::new([0; BLOCK_LENGTH]);
        self.copy_bytes(&mut bytes[..]);
        bytes
    }

    /// Writes the contents to the first 4096 bytes of `target`.
    pub(crate) fn copy_bytes(&self, target: &mut [u8]) {
        for (word, chunk) in self.words.iter().zip(target.chunks_exact_mut(8)) {
            LittleEndian::write_u64(chunk, word.load(Ordering::Relaxed));
        }
    }

    /// Replaces the bytes at `offset`, which must be a multiple of 8, as must the length.
    pub(crate) fn set_bytes(&self, offset: usize, bytes: &[u8]) {
        debug_assert!(offset.is_multiple_of(8) && bytes.len().is_multiple_of(8));
        for (word, chunk) in self.words.iter().skip(offset / 8).zip(bytes.chunks_exact(8)) {
            word.store(LittleEndian::read_u64(chunk), Ordering::Relaxed);
        }
    }
}

/// The place of a logical block in a page of `level`.
pub(crate) fn index_at(level: u8, logical: u64) -> usize {
    to_usize(logical >> (8 * (level.saturating_sub(1))) & 0xff)
}

/// Logical blocks that a subtree of this height covers.
pub(crate) const fn span(level: u8) -> u64 {
    1 << (8 * level)
}

/// Levels of pages that a device of so many blocks needs: at least one.
pub(crate) fn height_for(blocks: u64) -> u8 {
    (1..5).find(|height| span(*height) >= blocks).unwrap_or(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_follow_from_sizes() {
        for (blocks, height) in
            [(1, 1), (256, 1), (257, 2), (1 << 16, 2), (1 << 24, 3), (1 << 32, 4), (1 << 38, 5)]
        {
            assert_eq!(height_for(blocks), height, "{blocks} blocks");
        }
        assert_eq!(index_at(1, 0x0001_02ff), 0xff);
        assert_eq!(index_at(2, 0x0001_02ff), 0x02);
        assert_eq!(index_at(3, 0x0001_02ff), 0x01);
    }
}
