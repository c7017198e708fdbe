//! Who sees a block: its owner, and those that stand on the owner and have not replaced it.

use crate::core::Core;
use crate::format::pointer::BlockPtr;
use crate::need::Need;
use crate::types::{LayerId, LogicalBlock};

impl Core {
    /// The layers that see what `owner` has behind `pointer`, by their ids. Removed ones have no name to be
    /// told by, and are left out.
    pub(super) fn seen_by(
        &self,
        owner: LayerId,
        pointer: BlockPtr,
        level: u8,
        start: u64,
    ) -> Vec<LayerId> {
        let mut seeing = vec![owner];
        let mut next = vec![owner];
        while let Some(id) = next.pop() {
            // Collected first: a look at a map may have to read.
            let children: Vec<LayerId> = self.table.read().children(id).collect();
            for child in children {
                if !seeing.contains(&child) && self.sees(child, pointer, level, start) {
                    seeing.push(child);
                    next.push(child);
                }
            }
        }
        let table = self.table.read();
        let documents = table
            .iter()
            .filter(|(_, entry)| entry.meta.document.is_some_and(|id| seeing.contains(&id)))
            .map(|(id, _)| *id);
        let mut affected: Vec<LayerId> = documents.chain(seeing.iter().copied()).collect();
        affected.retain(|id| table.get(*id).is_ok_and(|entry| !entry.meta.is_removed()));
        affected.sort_unstable();
        affected
    }

    fn sees(&self, id: LayerId, pointer: BlockPtr, level: u8, start: u64) -> bool {
        let found = self.attempt(|| {
            let table = self.table.read();
            let map = table.get(id).map_err(Need::Missing)?.layer.map.read();
            map.tree.pointer_at(&self.pages, LogicalBlock::new(start), level)
        });
        // Whose map cannot be read sees nothing there, which is worse.
        found.map_or(true, |found| found.same_target(pointer))
    }
}
