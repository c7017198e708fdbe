//! Where a request's blocks lie: memory only.

use std::ops::Range;

use crate::core::Core;
use crate::format::pointer::{BlockPtr, PointerKind};
use crate::layers::layer::LayerMap;
use crate::map::page::index_at;
use crate::need::{Attempt, Need};
use crate::planted::{Fault, planted};
use crate::types::{Epoch, LogicalBlock, PoolBlock};

/// A stretch of a read: contiguous in the pool, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadPiece {
    pub(super) count: u64,
    /// None: a hole, which reads as zeroes.
    pub(super) block: Option<PoolBlock>,
    /// Those of its blocks, counted from its start, that have checksums; the rest is empty. A read takes nothing from the
    /// heap, so there is an end to how often they may take turns with those that have none.
    pub(super) summed: [Range<u64>; SUMMED_RANGES],
}

/// What is contiguous was mostly written at once, and has checksums or has none.
const SUMMED_RANGES: usize = 4;

impl ReadPiece {
    fn new() -> ReadPiece {
        ReadPiece { count: 0, block: None, summed: std::array::from_fn(|_| 0..0) }
    }

    /// Notes that the next block has a checksum; false if there is no room for that.
    fn note_summed(&mut self) -> bool {
        let next = self.count;
        let Some(range) =
            self.summed.iter_mut().find(|range| range.is_empty() || range.end == next)
        else {
            return false;
        };
        if range.is_empty() {
            range.start = next;
        }
        range.end = next + 1;
        true
    }
}

/// A stretch of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WritePiece {
    /// The layer's own blocks, contiguous in the pool: overwritten where they are.
    InPlace { count: u64, block: PoolBlock },
    /// Blocks that are not there yet, or an ancestor's, or named in an unsettled batch: written anew.
    New { count: u64 },
}

fn data_block(pointer: BlockPtr) -> Attempt<Option<PoolBlock>> {
    match pointer.kind() {
        _ if pointer.is_null() => Ok(None),
        Some(PointerKind::Data) => Ok(Some(pointer.block())),
        Some(PointerKind::Lost) => {
            Err(Need::Corrupt { what: "a block of this device was lost in a repair".to_owned() })
        }
        _ => Err(Need::Corrupt {
            what: format!("a map entry to {} that is no data", pointer.block()),
        }),
    }
}

impl Core {
    /// Calls `visit` with the pointer of each block from `from` on, `count` at most, until it says stop.
    fn each_pointer(
        &self,
        map: &LayerMap,
        from: LogicalBlock,
        count: u64,
        mut visit: impl FnMut(u64, BlockPtr) -> Attempt<bool>,
    ) -> Attempt<()> {
        let end = from.get() + count;
        let mut at = from.get();
        while at < end {
            let leaf = map.tree.leaf(&self.pages, LogicalBlock::new(at))?;
            let leaf_end = (at / 256 + 1) * 256;
            while at < end.min(leaf_end) {
                let pointer =
                    leaf.as_ref().map_or(BlockPtr::NULL, |leaf| leaf.pointer(index_at(1, at)));
                if !visit(at, pointer)? {
                    return Ok(());
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// The first stretch of a read of `count` blocks at `from`; what was born up to `summed_until` has
    /// checksums.
    pub(super) fn resolve_read(
        &self,
        map: &LayerMap,
        from: LogicalBlock,
        count: u64,
        summed_until: Epoch,
    ) -> Attempt<ReadPiece> {
        let mut piece = ReadPiece::new();
        self.each_pointer(map, from, count, |_, pointer| {
            let block = data_block(pointer)?;
            if piece.count == 0 {
                piece.block = block;
            } else if block != piece.block.map(|first| first.plus(piece.count)) {
                return Ok(false);
            }
            if block.is_some() && pointer.birth() <= summed_until && !piece.note_summed() {
                return Ok(false);
            }
            piece.count += 1;
            Ok(true)
        })?;
        self.check_place(piece.block, piece.count)?;
        Ok(piece)
    }

    /// A damaged map may lead anywhere: what it leads to is read and overwritten only where data can be.
    fn check_place(&self, block: Option<PoolBlock>, count: u64) -> Attempt<()> {
        match block {
            Some(block) if !self.pages.space.can_be_data(block, count) => {
                Err(Need::Corrupt { what: format!("a map entry to {block}, where no data can be") })
            }
            _ => Ok(()),
        }
    }

    /// The first stretch of a write of `count` blocks at `from`.
    pub(super) fn resolve_write(
        &self,
        map: &LayerMap,
        from: LogicalBlock,
        count: u64,
    ) -> Attempt<WritePiece> {
        let ownership = map.ownership();
        let mut own: Option<PoolBlock> = None;
        let mut length = 0;
        self.each_pointer(map, from, count, |logical, pointer| {
            // What is written whole takes the place of what was lost.
            let pointer = if pointer.is_lost() { BlockPtr::NULL } else { pointer };
            let block = data_block(pointer)?.filter(|block| {
                ownership.owns(pointer.birth(), logical + 1)
                    && (planted(Fault::UnsettledOverwritten)
                        || !self.pages.space.is_unsettled(*block))
            });
            if length == 0 {
                own = block;
            } else if block != own.map(|first| first.plus(length)) {
                return Ok(false);
            }
            length += 1;
            Ok(true)
        })?;
        self.check_place(own, length)?;
        Ok(match own {
            Some(block) => WritePiece::InPlace { count: length, block },
            None => WritePiece::New { count: length },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_knows_a_few_ranges_with_checksums_and_ends_at_one_more() {
        let mut piece = ReadPiece::new();
        // Of ten blocks two have checksums, then one has none, and so on.
        for block in 0..10 {
            if block % 3 != 2 {
                assert!(piece.note_summed(), "{block}");
            }
            piece.count += 1;
        }
        assert_eq!(piece.summed, [0..2, 3..5, 6..8, 9..10]);
        assert!(piece.note_summed(), "what continues a range is no new one");
        piece.count += 2;
        assert!(!piece.note_summed());
    }
}
