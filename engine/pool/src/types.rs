//! Addresses, counts and ids. Each has a type of its own, so that a block of the pool cannot be taken
//! for a block of a device, nor an epoch for a count.

use std::fmt;

/// Bytes in a block: the unit of mapping, copying and checksums.
pub const BLOCK_BYTES: u64 = 4096;

/// [`BLOCK_BYTES`] for lengths in memory.
pub(crate) const BLOCK_LENGTH: usize = 4096;

/// A block of the pool's storage: byte offset divided by [`BLOCK_BYTES`]. 48 bits on disk. Block 0 holds
/// a superblock, so no pointer ever names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolBlock(u64);

impl PoolBlock {
    /// One past the highest block that a pointer can name.
    pub(crate) const LIMIT: u64 = 1 << 48;

    pub(crate) const fn new(block: u64) -> PoolBlock {
        PoolBlock(block)
    }

    /// The block's number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where the block starts in the storage.
    pub(crate) const fn offset_bytes(self) -> u64 {
        self.0 * BLOCK_BYTES
    }

    /// The block `count` further on.
    pub(crate) const fn plus(self, count: u64) -> PoolBlock {
        PoolBlock(self.0 + count)
    }
}

impl fmt::Display for PoolBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "pool block {}", self.0)
    }
}

/// A block of a device, as its users see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalBlock(u64);

impl LogicalBlock {
    pub(crate) const fn new(block: u64) -> LogicalBlock {
        LogicalBlock(block)
    }

    /// The block's number.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn plus(self, count: u64) -> LogicalBlock {
        LogicalBlock(self.0 + count)
    }
}

/// The pool's logical clock: it advances when a layer is sealed, so that one comparison tells a
/// layer's own blocks from its ancestors'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u32);

impl Epoch {
    /// Older than everything: the base of a layer without an origin.
    pub(crate) const ZERO: Epoch = Epoch(0);
    /// The epoch of a new pool.
    pub(crate) const FIRST: Epoch = Epoch(1);

    pub(crate) const fn new(value: u32) -> Epoch {
        Epoch(value)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// The next epoch, unless this is the last that a pointer can hold.
    pub(crate) fn next(self) -> Option<Epoch> {
        self.0.checked_add(1).filter(|next| *next < u32::MAX).map(Epoch)
    }
}

/// A layer's slot in the layer table. Never 0. A slot is used again after its layer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(u32);

impl LayerId {
    /// The id of a slot; slot 0 does not exist.
    pub fn new(slot: u32) -> Option<LayerId> {
        (slot != 0).then_some(LayerId(slot))
    }

    /// The slot's number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "layer {}", self.0)
    }
}

/// Names are unique in a namespace; what a namespace means is the business of the floor above. 0 is
/// the pool's own: hidden layers and documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(pub u8);

impl Namespace {
    /// The pool's own namespace.
    pub const INTERNAL: Namespace = Namespace(0);
}
