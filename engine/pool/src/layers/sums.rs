//! How far checksums of data count: which layers have all theirs, and up to which epoch a reader of a
//! layer can ask for them.
//!
//! An entry in a group's head carries no validity of its own. It counts for the own blocks of a sealed layer
//! whose pass is complete. A reader of layer L meets blocks of L and of its ancestors, told apart by their
//! birth alone: so L has one epoch up to which everything has its checksum, which is where the ancestor was
//! sealed below which no pass is missing.

use super::table::Table;
use crate::core::Core;
use crate::map::walk::tree_end;
use crate::need::{Attempt, Need};
use crate::types::{Epoch, LayerId, LogicalBlock};

impl Table {
    /// The epoch up to which all data that `id` leads to has its checksum.
    fn summed_until_of(&self, id: LayerId) -> Epoch {
        let Ok(entry) = self.get(id) else { return Epoch::ZERO };
        let origin = entry.meta.origin.and_then(|origin| self.get(origin).ok());
        let below = origin.map_or(Epoch::ZERO, |origin| origin.layer.summed_until());
        let map = entry.layer.map.read();
        // Everything below is summed if it is so up to where the origin was sealed.
        let all_below = entry.meta.origin.is_none() || below == map.base;
        if all_below && map.is_summed(entry.meta.summed_blocks) { map.seal_epoch } else { below }
    }

    /// To be called when a layer came, changed its origin, or changed how far it is summed. Takes maps'
    /// locks, one at a time.
    pub(crate) fn derive_summed_until(&self, id: LayerId) {
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            let Ok(entry) = self.get(id) else { continue };
            // Where it stays as it was, those that stand on the layer do so as well.
            if entry.layer.set_summed_until(self.summed_until_of(id)) {
                next.extend(self.children(id));
            }
        }
    }

    fn forget_summed(&mut self, id: LayerId) {
        let Ok(entry) = self.get(id) else { return };
        let epoch = entry.layer.map.read().seal_epoch;
        self.unsummed.remove(&(epoch, id));
    }

    /// A layer was sealed, or has more of its own than it had: there may be work for the pass.
    pub(crate) fn note_unsummed(&mut self, id: LayerId) {
        let Ok(entry) = self.get(id) else { return };
        let epoch = {
            let map = entry.layer.map.read();
            (map.sealed && !map.is_summed(entry.meta.summed_blocks)).then_some(map.seal_epoch)
        };
        self.unsummed.extend(epoch.map(|epoch| (epoch, id)));
    }

    /// For a table that was just read. A layer in a circle of origins, which is damage, is not reached.
    pub(crate) fn derive_all_sums(&mut self) {
        for id in self.iter().map(|(id, _)| *id).collect::<Vec<_>>() {
            self.note_unsummed(id);
        }
        let roots = self.iter().filter(|(_, entry)| entry.meta.origin.is_none());
        for id in roots.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.derive_summed_until(id);
        }
    }
}

impl Core {
    /// The checksums of a sealed layer have come to `cursor`, or go back to it.
    pub(crate) fn apply_summed(
        &self,
        table: &mut Table,
        id: LayerId,
        cursor: LogicalBlock,
    ) -> Attempt<()> {
        let contradiction = |what: String| Need::Corrupt { what };
        let entry = table.get(id).map_err(|error| contradiction(error.to_string()))?;
        {
            let map = entry.layer.map.read();
            if !map.sealed || cursor > tree_end(&map.tree) {
                return Err(contradiction(format!(
                    "{id} has checksums up to block {}, which cannot be",
                    cursor.get()
                )));
            }
        }
        table.update(id, |meta| meta.summed_blocks = cursor);
        table.forget_summed(id);
        table.note_unsummed(id);
        table.derive_summed_until(id);
        Ok(())
    }
}
