//! What tests of damaged pools have in common.

// Not every one needs all of it.
#![allow(dead_code, unused_imports, unused_macros)]

use std::collections::HashSet;
use std::io;

use parking_lot::Mutex;
use thinstore_pool::{BLOCK_BYTES, OpenOptions};
use thinstore_storage::{SimulatedDisk, Storage};

pub fn options() -> OpenOptions {
    OpenOptions { background: false, cache_bytes: 1 << 20, ..OpenOptions::default() }
}

pub fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..options() }
}

/// All of a storage in front of `self.disk` but how it is read.
macro_rules! all_but_reading {
    () => {
        fn size_bytes(&self) -> u64 {
            self.disk.size_bytes()
        }
        fn write_at(&self, offset_bytes: u64, data: &[u8]) -> std::io::Result<()> {
            self.disk.write_at(offset_bytes, data)
        }
        fn sync(&self) -> std::io::Result<()> {
            self.disk.sync()
        }
        fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
            self.disk.punch_hole(offset_bytes, length_bytes)
        }
        fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
            self.disk.reserve(offset_bytes, length_bytes)
        }
        fn grow(&self, size_bytes: u64) -> std::io::Result<()> {
            self.disk.grow(size_bytes)
        }
        fn drop_cache(&self) -> std::io::Result<()> {
            self.disk.drop_cache()
        }
        fn name(&self) -> String {
            self.disk.name()
        }
    };
}
pub(crate) use all_but_reading;

/// Notes which blocks are read.
pub struct Listening {
    pub disk: SimulatedDisk,
    pub read: Mutex<HashSet<u64>>,
}

impl Storage for Listening {
    all_but_reading!();

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let blocks =
            offset_bytes / BLOCK_BYTES..(offset_bytes + buffer.len() as u64).div_ceil(BLOCK_BYTES);
        self.read.lock().extend(blocks);
        self.disk.read_at(offset_bytes, buffer)
    }
}

/// What each block of data begins with.
pub const DATA_MARK: [u8; 8] = *b"a datum!";

/// Blocks that say what they are.
pub fn data(number: u64, blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; (blocks * BLOCK_BYTES) as usize];
    for (index, block) in bytes.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        block.fill((number + index as u64) as u8 | 1);
        block[..8].copy_from_slice(&DATA_MARK);
        block[8..16].copy_from_slice(&number.to_le_bytes());
        block[16..24].copy_from_slice(&(index as u64).to_le_bytes());
    }
    bytes
}

/// A small generator (SplitMix64; Steele, Lea and Flood, 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
