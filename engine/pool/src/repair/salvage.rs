//! From what can be read to a sound pool, in memory and on the overlay.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result, Storage};

use super::owners;
use super::parents;
use super::report::Loss;
use super::survey::{LostSubtree, Survey};
use crate::check;
use crate::convert::to_u64;
use crate::core::Core;
use crate::format::batch::pool_tag;
use crate::format::geometry::{GroupIndex, TABLE_HEIGHT};
use crate::format::pointer::BlockPtr;
use crate::format::record::Record;
use crate::format::superblock::Superblock;
use crate::journal::replay::{Journal, highest_sequence, read_until_damage};
use crate::journal::ring::Ring;
use crate::layers::layer::Layer;
use crate::map::tree::{Change, Tree};
use crate::need::Attempt;
use crate::open::{Roots, build_core, insert_record, resume_absorptions};
use crate::pool::OpenOptions;
use crate::space::{Extent, Space};
use crate::sync::atomic::Ordering;
use crate::types::{Epoch, LayerId, LogicalBlock, Namespace};

/// A superblock that is whole, and which of the two it is.
pub(super) struct Candidate {
    pub(super) superblock: Superblock,
    pub(super) home: usize,
}

/// How much is missing; the less the better, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Missing {
    layer_slots: u64,
    /// Is the journal damaged?
    journal: bool,
    changes: u64,
    blocks: u64,
}

impl Missing {
    pub(super) fn is_nothing(self) -> bool {
        self == Missing::default()
    }
}

/// What a superblock gave.
pub(super) struct Salvaged {
    pub(super) checkpoint: u64,
    pub(super) missing: Missing,
    pub(super) losses: Vec<Loss>,
    pub(super) replayed_changes: u64,
    pub(super) made_parents: u64,
}

/// A layer's namespace and name, unless it has none.
type Name = Option<(Namespace, String)>;

/// Writes to `storage` the pool that `candidate` still leads to.
pub(super) fn salvage(storage: &Arc<dyn Storage>, candidate: &Candidate) -> Result<Salvaged> {
    let superblock = &candidate.superblock;
    let survey = Survey::of(&**storage, superblock);
    let (journal, damage) = read_what_there_is(&**storage, superblock);
    let mut salvage = Salvage::new(storage, candidate, &survey, &journal)?;
    if let Err(error) = &damage {
        salvage.lose(None, None, format!("all changes after the damage to the journal ({error})"));
    }
    if survey.lost_slots > 0 {
        let message = format!(
            "the layers in {} places of the layer table, with their names, as far as there were any",
            survey.lost_slots
        );
        salvage.lose(None, None, message);
    }
    salvage.insert(&survey);
    let skipped = salvage.replay(&journal.records, &survey.lost_subtrees)?;
    if damage.is_err() || skipped > 0 {
        salvage.forget_checksums();
    }
    let made = parents::make_origins(&salvage.core)?;
    let mut inherited: Vec<LostSubtree> =
        survey.lost_subtrees.iter().filter(|lost| lost.is_inherited).copied().collect();
    // A layer takes from its origin what that one has got back.
    inherited.sort_by_key(|lost| salvage.base_of(lost.layer));
    for lost in owners::restore(&salvage.core, &made, &inherited)? {
        salvage.lose(Some(lost), None, "a part of its map that contradicts others".to_owned());
    }
    salvage.tidy();
    salvage.count()?;
    salvage.core.checkpoint_twice()?;
    Ok(Salvaged {
        checkpoint: superblock.checkpoint,
        missing: Missing {
            layer_slots: survey.lost_slots,
            journal: damage.is_err(),
            changes: skipped,
            blocks: survey.lost_blocks(),
        },
        losses: salvage.losses,
        replayed_changes: to_u64(journal.records.len()) - skipped,
        made_parents: to_u64(made.len()),
    })
}

/// The journal up to where it is damaged. A ring that the disk does not give is one without batches.
fn read_what_there_is(
    storage: &dyn Storage,
    superblock: &Superblock,
) -> (Journal, std::result::Result<(), Error>) {
    let ring = Ring { blocks: superblock.geometry.journal_blocks };
    let tag = pool_tag(&superblock.uuid);
    let (mut journal, damage) = read_until_damage(storage, ring, tag, superblock.journal)
        .unwrap_or_else(|error| {
            (Journal { records: Vec::new(), position: superblock.journal }, Err(error))
        });
    // Batches behind the damage must never look like the successors of what comes next.
    let highest = highest_sequence(storage, ring, tag).unwrap_or(journal.position.sequence);
    journal.position.sequence = journal.position.sequence.max(highest);
    (journal, damage)
}

struct Salvage {
    core: Core,
    losses: Vec<Loss>,
}

impl Salvage {
    fn new(
        storage: &Arc<dyn Storage>,
        candidate: &Candidate,
        survey: &Survey,
        journal: &Journal,
    ) -> Result<Salvage> {
        let geometry = candidate.superblock.geometry;
        let space =
            Space::rebuilt(geometry, &survey.saved_bitmaps, |block| survey.is_reachable(block))
                .map_err(|what| Error::new(ErrorKind::Corrupt, what))?;
        let roots =
            Roots { newest: candidate.superblock.clone(), home: candidate.home, older: None };
        let options = OpenOptions { background: false, ..OpenOptions::default() };
        let core = build_core(Arc::clone(storage), &roots, journal.position, &options, space)?;
        // Both tables are written anew.
        let empty = Tree { root: BlockPtr::NULL, height: TABLE_HEIGHT };
        let mut state = core.checkpoints.lock();
        state.layer_table = empty;
        state.space_map = empty;
        drop(state);
        Ok(Salvage { core, losses: Vec::new() })
    }

    fn lose(&mut self, layer: Option<LayerId>, name: Name, message: String) {
        self.losses.push(Loss { layer, name, message });
    }

    fn name_of(&self, id: LayerId) -> Name {
        let table = self.core.table.read();
        let meta = &table.get(id).ok()?.meta;
        (!meta.name.is_empty()).then(|| (meta.namespace, meta.name.clone()))
    }

    fn insert(&mut self, survey: &Survey) {
        for record in &survey.records {
            let mut table = self.core.table.write();
            let is_taken = !insert_record(&self.core, &mut table, record);
            table.next_serial = table.next_serial.max(record.serial.saturating_add(1));
            drop(table);
            if is_taken {
                let name = Some((record.namespace, record.name.clone()));
                self.lose(Some(record.id), name, "its name stands twice".to_owned());
            }
        }
        let mut table = self.core.table.write();
        // It fails for children that are not there: these were just looked up.
        let _ = resume_absorptions(&self.core, &table);
        table.derive_all_sums();
    }

    fn base_of(&self, id: LayerId) -> Epoch {
        let table = self.core.table.read();
        table.get(id).map(|entry| entry.layer.map.read().base).unwrap_or_default()
    }

    /// Puts lost pointers in the place of what cannot be read. Children come before their origins: each
    /// gets a copy of its own of the pages above, before the origin changes them.
    fn give_up(&self, lost: &[LostSubtree]) -> Result<()> {
        let mut lost = lost.to_vec();
        lost.sort_by_key(|lost| (std::cmp::Reverse(self.base_of(lost.layer)), lost.layer));
        let table = self.core.table.read();
        for subtree in lost {
            let Ok(entry) = table.get(subtree.layer) else { continue };
            replace(&self.core, &entry.layer, subtree.start, subtree.level, BlockPtr::LOST)?;
        }
        Ok(())
    }

    /// Gives up what cannot be read, and applies what the journal says as far as that can be; gives how many
    /// changes cannot.
    fn replay(&mut self, records: &[Record], lost: &[LostSubtree]) -> Result<u64> {
        let mut skipped: BTreeMap<Option<LayerId>, (u64, String)> = BTreeMap::new();
        let mut all = 0;
        let mut failed = |record: &Record, error: Error| {
            if error.kind() != ErrorKind::Corrupt {
                return Err(error);
            }
            all += 1;
            let about = skipped.entry(layer_of(record)).or_insert((0, error.to_string()));
            about.0 += 1;
            Ok(())
        };
        let kept = self.core.keep_named(records, &mut failed)?;
        self.give_up(lost)?;
        self.core.replay_kept(kept, &mut failed)?;
        for (layer, (changes, why)) in skipped {
            let name = layer.and_then(|id| self.name_of(id));
            self.lose(layer, name, format!("{changes} changes in the journal ({why})"));
        }
        Ok(all)
    }

    /// Records that say which checksums stopped to count may be among those that are missing.
    fn forget_checksums(&self) {
        let mut table = self.core.table.write();
        for id in ids(&table) {
            table.update(id, |meta| meta.summed_blocks = LogicalBlock::new(0));
        }
    }

    /// Lets go of what leads nowhere.
    fn tidy(&mut self) {
        let mut table = self.core.table.write();
        let ids = ids(&table);
        let known: HashSet<LayerId> = ids.iter().copied().collect();
        let mut gone = Vec::new();
        for id in ids {
            let Ok(entry) = table.get(id) else { continue };
            let meta = entry.meta.clone();
            let name = (!meta.name.is_empty()).then(|| (meta.namespace, meta.name.clone()));
            let is_there =
                |other: Option<LayerId>| other.is_none_or(|other| known.contains(&other));
            if !is_there(meta.reference) {
                let what = "it stands for a layer that is lost, and is removed".to_owned();
                gone.push(Loss { layer: Some(id), name: name.clone(), message: what });
            }
            if !is_there(meta.document) {
                gone.push(Loss { layer: Some(id), name, message: "its description".to_owned() });
            }
            let has_children = table.children(id).next().is_some();
            let is_useless = !is_there(meta.reference) && !meta.is_removed();
            table.update(id, |meta| {
                meta.document = meta.document.filter(|other| known.contains(other));
                if is_useless {
                    meta.name = String::new();
                    meta.namespace = Namespace::INTERNAL;
                    meta.reference = None;
                }
                if is_useless || meta.is_removed() {
                    // Who stands on it may have changed.
                    meta.hidden = has_children;
                    meta.deleting = !has_children;
                    meta.absorbing &= has_children;
                    meta.trimmed = false;
                }
            });
        }
        table.removed.clear();
        drop(table);
        self.losses.extend(gone);
    }

    /// Brings counts and bitmaps to what the maps say.
    fn count(&self) -> Result<()> {
        let claims = check::claims(&self.core)?;
        for (id, entry) in self.core.table.read().iter() {
            let (data, pages) = claims.of(*id);
            entry.layer.set_own_blocks(data, pages);
            entry.layer.mark_changed();
        }
        self.core.data_blocks.store(claims.data_blocks.cast_signed(), Ordering::Relaxed);
        let space = &self.core.pages.space;
        let geometry = space.geometry();
        for group in (0..geometry.group_count()).map(GroupIndex::new) {
            if space.is_empty_group(group) {
                continue;
            }
            let first = group.first_block();
            for block in geometry.fixed_in(group)..geometry.blocks_in(group) {
                let block = first.plus(block);
                let is_used = self.core.attempt(|| space.is_used(block))?;
                if is_used && !claims.owners.contains_key(&block) {
                    space.free(Extent::one(block));
                }
            }
        }
        Ok(())
    }
}

fn ids(table: &crate::layers::table::Table) -> Vec<LayerId> {
    table.iter().map(|(id, _)| *id).collect()
}

/// The layer that a change is about.
fn layer_of(record: &Record) -> Option<LayerId> {
    match record {
        Record::Map { layer, .. }
        | Record::Unmap { layer, .. }
        | Record::Seal { layer }
        | Record::Resize { layer, .. }
        | Record::Remove { layer }
        | Record::DeleteWalk { layer, .. }
        | Record::AbsorbWalk { layer, .. }
        | Record::Trimmed { layer }
        | Record::Summed { layer, .. } => Some(*layer),
        Record::Create(record) | Record::Describe(record) => Some(record.id),
        Record::Fork { source, .. } => Some(*source),
        Record::Grow { .. } => None,
    }
}

/// Puts a pointer in its place in a layer's map. Pages above it become the layer's own.
pub(super) fn replace(
    core: &Core,
    layer: &Layer,
    start: LogicalBlock,
    level: u8,
    pointer: BlockPtr,
) -> Result<()> {
    core.attempt(|| -> Attempt<()> {
        let mut map = layer.map.write();
        // A sealed layer's own were all born before its seal.
        let epoch = if map.sealed { map.seal_epoch } else { core.epoch() };
        let change =
            Change { pages: &core.pages, ownership: map.ownership(), epoch, is_table: true };
        map.tree.replace(&change, start, level, pointer)
    })
}
