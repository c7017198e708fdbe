//! The one kind of pointer, 16 bytes: `{ block: u48, kind: u16, birth: u32, crc: u32 }`.
//!
//! The checksum of a metadata page stands in the pointer to it, not in the page (as in ZFS: Bonwick et
//! al., "The Zettabyte File System", 2003), so that a lost or misdirected write is seen, not only a
//! torn one.

use crate::convert::{low_u16, low_u32};
use crate::types::{BLOCK_LENGTH, Epoch, PoolBlock};

/// Pointers in a page: 8 bits of the logical block number a level.
pub(crate) const POINTERS_PER_PAGE: usize = BLOCK_LENGTH / 16;

/// What a pointer points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointerKind {
    /// A block of a device's data. `crc` is 0.
    Data,
    /// A page of 256 pointers.
    Page,
    /// A page of layer records.
    Records,
    /// The allocation bitmap of a group. Here `birth` holds the group's count of free blocks.
    Bitmap,
    /// What was here was damaged, and given up by a repair: reading it is an error. All else is 0.
    Lost,
}

impl PointerKind {
    const ALL: [(u16, PointerKind); 5] = [
        (1, PointerKind::Data),
        (2, PointerKind::Page),
        (3, PointerKind::Records),
        (4, PointerKind::Bitmap),
        (5, PointerKind::Lost),
    ];

    fn code(self) -> u16 {
        match self {
            PointerKind::Data => 1,
            PointerKind::Page => 2,
            PointerKind::Records => 3,
            PointerKind::Bitmap => 4,
            PointerKind::Lost => 5,
        }
    }

    fn from_code(code: u16) -> Option<PointerKind> {
        Self::ALL.iter().find(|row| row.0 == code).map(|row| row.1)
    }
}

/// A pointer in memory: the two little-endian words as they stand on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockPtr {
    address: u64,
    check: u64,
}

impl BlockPtr {
    /// Nothing is there: a hole, an empty subtree, an empty table.
    pub(crate) const NULL: BlockPtr = BlockPtr { address: 0, check: 0 };

    /// In place of a block, or of a whole subtree, that a repair gave up. Born before everything, it is
    /// nobody's own: walks that free pass over it.
    pub(crate) const LOST: BlockPtr = BlockPtr { address: 5 << 48, check: 0 };

    pub(crate) fn new(kind: PointerKind, block: PoolBlock, birth: Epoch, crc: u32) -> BlockPtr {
        debug_assert!(block.get() < PoolBlock::LIMIT);
        BlockPtr {
            address: block.get() | (u64::from(kind.code()) << 48),
            check: u64::from(birth.get()) | (u64::from(crc) << 32),
        }
    }

    pub(crate) const fn from_words(address: u64, check: u64) -> BlockPtr {
        BlockPtr { address, check }
    }

    pub(crate) const fn words(self) -> (u64, u64) {
        (self.address, self.check)
    }

    pub(crate) const fn is_null(self) -> bool {
        self.address == 0
    }

    pub(crate) const fn block(self) -> PoolBlock {
        PoolBlock::new(self.address & (PoolBlock::LIMIT - 1))
    }

    pub(crate) fn is_lost(self) -> bool {
        self.kind() == Some(PointerKind::Lost)
    }

    /// `None` for a code that this version does not know.
    pub(crate) fn kind(self) -> Option<PointerKind> {
        PointerKind::from_code(low_u16(self.address >> 48))
    }

    pub(crate) const fn birth(self) -> Epoch {
        Epoch::new(low_u32(self.check & 0xffff_ffff))
    }

    pub(crate) const fn crc(self) -> u32 {
        low_u32(self.check >> 32)
    }

    #[must_use]
    pub(crate) fn with_crc(self, crc: u32) -> BlockPtr {
        BlockPtr {
            address: self.address,
            check: (self.check & 0xffff_ffff) | (u64::from(crc) << 32),
        }
    }

    #[must_use]
    pub(crate) fn with_birth(self, birth: Epoch) -> BlockPtr {
        BlockPtr {
            address: self.address,
            check: u64::from(birth.get()) | (u64::from(self.crc()) << 32),
        }
    }

    /// Do two pointers lead to the same place? The checksum is left out: a pointer to a page that is
    /// not written yet has none.
    pub(crate) fn same_target(self, other: BlockPtr) -> bool {
        self.address == other.address && self.birth() == other.birth()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_words_hold_block_kind_birth_and_crc() {
        let pointer = BlockPtr::new(
            PointerKind::Page,
            PoolBlock::new(0x1234_5678_9abc),
            Epoch::new(0xdead_beef),
            0x0bad_cafe,
        );
        assert_eq!(pointer.words(), (0x0002_1234_5678_9abc, 0x0bad_cafe_dead_beef));
        assert_eq!(pointer.block().get(), 0x1234_5678_9abc);
        assert_eq!(pointer.kind(), Some(PointerKind::Page));
        assert_eq!(pointer.birth().get(), 0xdead_beef);
        assert_eq!(pointer.crc(), 0x0bad_cafe);
        assert_eq!(pointer.with_crc(7).crc(), 7);
        assert!(!pointer.is_null() && !pointer.is_lost());
        assert!(BlockPtr::LOST.is_lost() && !BlockPtr::LOST.is_null());
        assert_eq!(BlockPtr::from_words(0x0009_0000_0000_0001, 0).kind(), None);
    }
}
