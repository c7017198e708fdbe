//! New layers in the place of lost ones, for those that stood on them.
//!
//! Whose a block is follows from its birth: it belongs to the ancestor that was sealed in that epoch or
//! next after it. So what a layer sees of a lost origin can be given to a new layer with the seal of the
//! lost one, which is the base of those that stood on it. Lost layers can have stood on each other:
//!
//!  - Layers whose origins are lost, and that still see the same lost block, had a common ancestor. What
//!    they share tells up to which epoch at least: the youngest birth among it. The new layers are joined by
//!    these epochs, the youngest first, which gives a tree that explains all that is seen.
//!  - What was sealed before the oldest of them stands on the youngest surviving layer of which they see
//!    anything.
//!
//! The new layers are empty: [`super::owners`] fills them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use thinstore_storage::Result;

use super::owners::{chain, owner};
use crate::check::{Claims, claims};
use crate::core::Core;
use crate::format::pointer::BlockPtr;
use crate::layers::layer::{Layer, LayerMap, LayerMeta};
use crate::map::page::span;
use crate::map::tree::Tree;
use crate::types::{Epoch, LayerId, LogicalBlock, Namespace, PoolBlock};

/// What layers that stood on the same lost one see.
#[derive(Default)]
struct Family {
    /// Those that stood on it.
    orphans: Vec<LayerId>,
    /// Surviving layers that own something that the family sees, by their seals.
    ancestors: BTreeMap<Epoch, LayerId>,
}

/// A layer to be made.
struct Node {
    seal: Epoch,
    parent: Option<usize>,
    families: Vec<Epoch>,
}

/// Makes the layers that lost origins are replaced with.
pub(super) fn make_origins(core: &Core) -> Result<Vec<LayerId>> {
    // A family goes by the epoch that its origin was sealed in: no two layers share one.
    let mut families = find_orphans(core);
    if families.is_empty() {
        return Ok(Vec::new());
    }
    let claims = claims(core)?;
    let shared = explore(core, &claims, &mut families)?;
    let nodes = join(&families, shared);
    let mut made: Vec<LayerId> = Vec::with_capacity(nodes.len());
    // The oldest first: each finds its parent made.
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|index| nodes.get(*index).map(|node| node.seal));
    let mut ids: HashMap<usize, LayerId> = HashMap::new();
    for index in order {
        let Some(node) = nodes.get(index) else { continue };
        let parent = node.parent.and_then(|parent| ids.get(&parent).copied());
        let origin = parent.or_else(|| {
            let known = family_ancestors(&families, &nodes, index);
            known.range(..node.seal).next_back().map(|(_, id)| *id)
        });
        let id = make_layer(core, &families, node, origin)?;
        ids.insert(index, id);
        made.push(id);
    }
    Ok(made)
}

/// The layers whose origin is not there, or is another by now, by their base.
fn find_orphans(core: &Core) -> BTreeMap<Epoch, Family> {
    let mut table = core.table.write();
    let mut families: BTreeMap<Epoch, Family> = BTreeMap::new();
    let mut without_base = Vec::new();
    for (id, entry) in table.iter() {
        let Some(origin) = entry.meta.origin else { continue };
        let base = entry.layer.map.read().base;
        let stands = table.get(origin).is_ok_and(|origin| {
            let map = origin.layer.map.read();
            map.sealed && map.seal_epoch == base
        });
        if stands {
            continue;
        }
        if base == Epoch::ZERO {
            without_base.push(*id);
        } else {
            families.entry(base).or_default().orphans.push(*id);
        }
    }
    for id in without_base {
        table.update(id, |meta| meta.origin = None);
    }
    families
}

/// Looks at all that the families see and do not own: gives, for two families, the youngest birth among
/// the blocks that both see and nobody owns.
fn explore(
    core: &Core,
    claims: &Claims,
    families: &mut BTreeMap<Epoch, Family>,
) -> Result<BTreeMap<(Epoch, Epoch), Epoch>> {
    let family_of: HashMap<LayerId, Epoch> = {
        let table = core.table.read();
        let bases = families
            .iter()
            .flat_map(|(base, family)| family.orphans.iter().map(|orphan| (*orphan, *base)))
            .collect::<HashMap<_, _>>();
        let members = table.iter().filter_map(|(id, _)| {
            // Up to the nearest layer without an origin: the rest of the chain is lost.
            let mut chain = chain(&table, *id).into_iter();
            chain.find_map(|below| bases.get(&below)).map(|base| (*id, *base))
        });
        members.collect()
    };
    let mut exploration = Exploration {
        core,
        claims,
        first_seen_by: HashMap::new(),
        visited: HashSet::new(),
        shared: BTreeMap::new(),
        ancestors: BTreeSet::new(),
    };
    for foreign in &claims.foreign {
        let Some(base) = family_of.get(&foreign.layer).copied() else { continue };
        exploration.visit(base, foreign.pointer, foreign.level)?;
    }
    let table = core.table.read();
    for (base, ancestor) in std::mem::take(&mut exploration.ancestors) {
        let Ok(entry) = table.get(ancestor) else { continue };
        let map = entry.layer.map.read();
        // Its own descendants, and itself, come after what it lost.
        if map.sealed
            && map.seal_epoch < base
            && let Some(family) = families.get_mut(&base)
        {
            family.ancestors.insert(map.seal_epoch, ancestor);
        }
    }
    Ok(exploration.shared)
}

struct Exploration<'a> {
    core: &'a Core,
    claims: &'a Claims,
    /// Of blocks that nobody owns.
    first_seen_by: HashMap<PoolBlock, Epoch>,
    visited: HashSet<(Epoch, PoolBlock)>,
    shared: BTreeMap<(Epoch, Epoch), Epoch>,
    ancestors: BTreeSet<(Epoch, LayerId)>,
}

impl Exploration<'_> {
    /// Depth is that of a map, at most 5.
    fn visit(&mut self, family: Epoch, pointer: BlockPtr, level: u8) -> Result<()> {
        let block = pointer.block();
        if pointer.is_null() || pointer.is_lost() || !self.visited.insert((family, block)) {
            return Ok(());
        }
        if let Some(owner) = owner(self.claims, block) {
            self.ancestors.insert((family, owner));
        } else if pointer.birth() <= family {
            let other = *self.first_seen_by.entry(block).or_insert(family);
            if other != family {
                let pair = (other.min(family), other.max(family));
                let youngest = self.shared.entry(pair).or_insert(Epoch::ZERO);
                *youngest = (*youngest).max(pointer.birth());
            }
        }
        if level == 0 {
            return Ok(());
        }
        let page = self.core.attempt(|| self.core.pages.get(pointer))?;
        for below in page.pointers() {
            self.visit(family, below, level - 1)?;
        }
        Ok(())
    }
}

/// One node for each family, and further ones where families meet.
fn join(families: &BTreeMap<Epoch, Family>, shared: BTreeMap<(Epoch, Epoch), Epoch>) -> Vec<Node> {
    let mut nodes: Vec<Node> = families
        .keys()
        .map(|base| Node { seal: *base, parent: None, families: vec![*base] })
        .collect();
    let index_of: HashMap<Epoch, usize> =
        families.keys().enumerate().map(|(index, base)| (*base, index)).collect();
    let mut meetings: Vec<((Epoch, Epoch), Epoch)> = shared.into_iter().collect();
    meetings.sort_by_key(|(pair, youngest)| (std::cmp::Reverse(*youngest), *pair));
    for ((first, second), youngest) in meetings {
        // What both see of a surviving ancestor's past is that one's to explain.
        let explained = |base: Epoch| {
            let ancestors = families.get(&base).map(|family| &family.ancestors);
            ancestors.is_some_and(|seals| seals.range(youngest..).next().is_some())
        };
        if explained(first) || explained(second) {
            continue;
        }
        let (Some(first), Some(second)) = (index_of.get(&first), index_of.get(&second)) else {
            continue;
        };
        let (first, second) = (root(&nodes, *first), root(&nodes, *second));
        if first == second {
            continue;
        }
        let seal_of = |index: usize| nodes.get(index).map_or(Epoch::ZERO, |node| node.seal);
        let (below, above) =
            if seal_of(first) <= seal_of(second) { (first, second) } else { (second, first) };
        if seal_of(below) == youngest {
            adopt(&mut nodes, below, above);
        } else {
            let all = nodes.len();
            nodes.push(Node { seal: youngest, parent: None, families: Vec::new() });
            adopt(&mut nodes, all, below);
            adopt(&mut nodes, all, above);
        }
    }
    nodes
}

fn root(nodes: &[Node], mut index: usize) -> usize {
    while let Some(parent) = nodes.get(index).and_then(|node| node.parent) {
        index = parent;
    }
    index
}

fn adopt(nodes: &mut [Node], parent: usize, child: usize) {
    let families = nodes.get(child).map(|node| node.families.clone()).unwrap_or_default();
    if let Some(node) = nodes.get_mut(child) {
        node.parent = Some(parent);
    }
    if let Some(node) = nodes.get_mut(parent) {
        node.families.extend(families);
    }
}

fn family_ancestors(
    families: &BTreeMap<Epoch, Family>,
    nodes: &[Node],
    index: usize,
) -> BTreeMap<Epoch, LayerId> {
    let bases = nodes.get(index).map(|node| node.families.clone()).unwrap_or_default();
    bases
        .iter()
        .filter_map(|base| families.get(base))
        .flat_map(|family| family.ancestors.iter().map(|(seal, id)| (*seal, *id)))
        .collect()
}

/// A sealed layer without a name and without contents, which the orphans of its epoch stand on.
fn make_layer(
    core: &Core,
    families: &BTreeMap<Epoch, Family>,
    node: &Node,
    origin: Option<LayerId>,
) -> Result<LayerId> {
    let mut table = core.table.write();
    let mut size_blocks = 1;
    let mut height = 1;
    let mut created_unix_ns = 0;
    for orphan in
        node.families.iter().filter_map(|base| families.get(base)).flat_map(|f| &f.orphans)
    {
        let Ok(entry) = table.get(*orphan) else { continue };
        let map = entry.layer.map.read();
        size_blocks = map.size_blocks.max(size_blocks);
        height = map.tree.height.max(height);
        created_unix_ns = entry.meta.created_unix_ns;
    }
    let base = match origin {
        Some(origin) => table.get(origin)?.layer.map.read().seal_epoch,
        None => Epoch::ZERO,
    };
    debug_assert!(size_blocks <= span(height));
    let id = table.free_id()?;
    let map = LayerMap {
        tree: Tree { root: BlockPtr::NULL, height },
        size_blocks,
        base,
        sealed: true,
        seal_epoch: node.seal,
        absorption: None,
    };
    let meta = LayerMeta {
        namespace: Namespace::INTERNAL,
        name: String::new(),
        tag: [0; 32],
        origin,
        reference: None,
        document: None,
        transient: false,
        hidden: true,
        deleting: false,
        absorbing: false,
        trimmed: false,
        cursor: LogicalBlock::new(0),
        serial: table.next_serial,
        created_unix_ns,
        content_bytes: 0,
        summed_blocks: LogicalBlock::new(0),
    };
    table.next_serial += 1;
    table.insert(Arc::new(Layer::new(id, map, core.allocation_run_blocks)), meta);
    // Only those whose base it is stood on it; the others stand on layers between.
    let orphans = families.get(&node.seal).map(|family| family.orphans.clone()).unwrap_or_default();
    for orphan in orphans {
        table.update(orphan, |meta| meta.origin = Some(id));
    }
    Ok(id)
}
