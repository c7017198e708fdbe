//! Pools: a whole one that an input damages, and what is then asked of it.

pub(crate) mod exercise;
pub(crate) mod image;
pub(crate) mod journal;
pub(crate) mod map_page;
pub(crate) mod pool_image;
mod template;

use crate::overlay::BLOCK;

const POOL_BYTES: u64 = 32 << 20;
const JOURNAL_BYTES: u64 = 256 << 10;
/// Where the ring lies: after the head of group 0 (docs/format.md).
const RING: std::ops::Range<u64> = 36..36 + JOURNAL_BYTES / BLOCK as u64;
const SUPERBLOCKS: [u64; 2] = [0, 35];
const UUID: [u8; 16] = *b"the fuzzed pool.";
/// What each block of data begins with.
const DATA_MARK: [u8; 8] = *b"a datum!";
