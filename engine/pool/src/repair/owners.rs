//! Finding owners again for what layers see of ancestors that were damaged, or that are new and empty.
//!
//! What a layer sees of an ancestor it sees through all layers between, each of which had it when it was
//! sealed. So a pointer to what was born in an ancestor's epochs is put in that ancestor's map, and in those
//! between, wherever they lost what stood there; whole subtrees at once. At one place of a map all
//! descendants that see anything born by then see the same: nothing collides.
//!
//! The other way round, what a layer lost and had not written itself is what its origin has there.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use thinstore_storage::Result;

use super::salvage::replace;
use super::survey::LostSubtree;
use crate::check::{Claim, Claims, Foreign, claims};
use crate::convert::to_u64;
use crate::core::Core;
use crate::format::pointer::{BlockPtr, POINTERS_PER_PAGE};
use crate::layers::layer::Layer;
use crate::layers::table::Table;
use crate::map::page::{index_at, span};
use crate::map::tree::Tree;
use crate::need::Attempt;
use crate::types::{LayerId, LogicalBlock, PoolBlock};

/// Gives every block that is seen an owner. `made` are layers that are still empty, `inherited` what layers
/// lost that was not their own. Gives the layers with a part that contradicts the rest, which was given up.
pub(super) fn restore(
    core: &Core,
    made: &[LayerId],
    inherited: &[LostSubtree],
) -> Result<BTreeSet<LayerId>> {
    let mut given_up = BTreeSet::new();
    // Each round settles what lies one layer deeper; a chain of origins ends.
    let rounds = core.table.read().iter().count() + 1;
    for _ in 0..rounds {
        let claims = claims(core)?;
        let open: HashSet<LayerId> = claims.lost.iter().chain(made).copied().collect();
        let mut foreign = claims.foreign.clone();
        // Subtrees before what lies in them.
        foreign.sort_by_key(|foreign| std::cmp::Reverse(foreign.level));
        let mut is_changed = false;
        for foreign in foreign {
            match place(core, &claims, &open, &foreign)? {
                Placed::Nothing => {}
                Placed::Something => is_changed = true,
                Placed::Contradiction => {
                    is_changed = true;
                    given_up.insert(foreign.layer);
                    let layer = layer(core, foreign.layer);
                    if let Some(layer) = layer {
                        replace(core, &layer, foreign.start, foreign.level, BlockPtr::LOST)?;
                    }
                }
            }
        }
        for lost in inherited {
            is_changed |= inherit(core, lost)?;
        }
        if !is_changed {
            break;
        }
    }
    Ok(given_up)
}

fn layer(core: &Core, id: LayerId) -> Option<Arc<Layer>> {
    core.table.read().get(id).ok().map(|entry| Arc::clone(&entry.layer))
}

/// The layer that a block belongs to.
pub(super) fn owner(claims: &Claims, block: PoolBlock) -> Option<LayerId> {
    match claims.owners.get(&block) {
        Some(Claim::Layer(owner)) => Some(*owner),
        _ => None,
    }
}

/// A layer and those below it, the nearest first. A circle, which is damage, ends it.
pub(super) fn chain(table: &Table, id: LayerId) -> Vec<LayerId> {
    let mut chain = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(id);
    while let Some(id) = next.filter(|id| seen.insert(*id)) {
        let Ok(entry) = table.get(id) else { break };
        chain.push(id);
        next = entry.meta.origin;
    }
    chain
}

enum Placed {
    /// It was where it belongs.
    Nothing,
    Something,
    /// No ancestor can have had it.
    Contradiction,
}

/// Puts a pointer in the map of the ancestor that it was born in, and of those between, which lost it.
fn place(
    core: &Core,
    claims: &Claims,
    open: &HashSet<LayerId>,
    foreign: &Foreign,
) -> Result<Placed> {
    let owner = owner(claims, foreign.pointer.block());
    let ancestors = {
        let table = core.table.read();
        chain(&table, foreign.layer).into_iter().skip(1).collect::<Vec<_>>()
    };
    let mut placed = Placed::Nothing;
    for id in ancestors {
        let is_owner = owner == Some(id);
        if open.contains(&id) {
            let Some(ancestor) = layer(core, id) else { break };
            let is_born_later = {
                let map = ancestor.map.read();
                !map.sealed || foreign.pointer.birth() > map.seal_epoch
            };
            if is_born_later {
                break;
            }
            match core.attempt(|| vacancy(core, &ancestor, foreign))? {
                Vacancy::Taken if is_owner => {}
                Vacancy::Taken => return Ok(Placed::Contradiction),
                Vacancy::There => {}
                Vacancy::Free => {
                    replace(core, &ancestor, foreign.start, foreign.level, foreign.pointer)?;
                    placed = Placed::Something;
                }
            }
            let is_born_here = foreign.pointer.birth() > ancestor.map.read().base;
            if is_born_here && owner.is_none() {
                return Ok(placed);
            }
        }
        if is_owner {
            return Ok(placed);
        }
    }
    Ok(Placed::Contradiction)
}

enum Vacancy {
    /// Nothing is there, in pages that nobody else sees yet.
    Free,
    /// The very pointer is there.
    There,
    Taken,
}

fn vacancy(core: &Core, layer: &Layer, foreign: &Foreign) -> Attempt<Vacancy> {
    let map = layer.map.read();
    if foreign.level > map.tree.height {
        return Ok(Vacancy::Taken);
    }
    let mut pointer = map.tree.root;
    let mut is_fresh = true;
    for level in (foreign.level + 1..=map.tree.height).rev() {
        if pointer.is_null() || pointer.is_lost() {
            return Ok(if is_fresh { Vacancy::Free } else { Vacancy::Taken });
        }
        let page = core.pages.get(pointer)?;
        is_fresh = page.interval() == core.pages.interval();
        pointer = page.pointer(index_at(level, foreign.start.get()));
    }
    Ok(match pointer {
        there if there.same_target(foreign.pointer) => Vacancy::There,
        there if (there.is_null() || there.is_lost()) && is_fresh => Vacancy::Free,
        _ => Vacancy::Taken,
    })
}

/// Gives a layer what its origin has where the layer lost what it had not written; true if there is any.
fn inherit(core: &Core, lost: &LostSubtree) -> Result<bool> {
    let (Some(heir), Some(origin)) = (layer(core, lost.layer), {
        let table = core.table.read();
        let origin = table.get(lost.layer).ok().and_then(|entry| entry.meta.origin);
        drop(table);
        origin.and_then(|origin| layer(core, origin))
    }) else {
        return Ok(false);
    };
    let found = core.attempt(|| {
        let (heir, origin) = (heir.map.read().tree, origin.map.read().tree);
        let mut found = Vec::new();
        what_to_inherit(core, &heir, &origin, lost.start.get(), lost.level, &mut found)?;
        Ok(found)
    })?;
    for (start, level, pointer) in &found {
        replace(core, &heir, *start, *level, *pointer)?;
    }
    Ok(!found.is_empty())
}

/// The lost subtrees in a part of `heir` that `origin` has. Depth is that of a map, at most 5.
fn what_to_inherit(
    core: &Core,
    heir: &Tree,
    origin: &Tree,
    start: u64,
    level: u8,
    found: &mut Vec<(LogicalBlock, u8, BlockPtr)>,
) -> Attempt<()> {
    let place = LogicalBlock::new(start);
    let mine = heir.pointer_at(&core.pages, place, level)?;
    if mine.is_null() || (level == 0 && !mine.is_lost()) {
        return Ok(());
    }
    if mine.is_lost() {
        // A lower tree ends where a higher one goes on.
        let is_in_origin = origin.height >= level;
        let theirs =
            if is_in_origin { origin.pointer_at(&core.pages, place, level)? } else { mine };
        if !theirs.is_lost() {
            found.push((place, level, theirs));
        }
        return Ok(());
    }
    for index in 0..POINTERS_PER_PAGE {
        let inside = start + to_u64(index) * span(level - 1);
        what_to_inherit(core, heir, origin, inside, level - 1, found)?;
    }
    Ok(())
}
