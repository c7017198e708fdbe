//! Which boxes a picture of the tree has, and where they are: what stands on something is above it, and no wider
//! than that.

use std::collections::HashMap;

use thinstore_store::types::{TreeEntry, TreeKind};

/// Chains of layers that nothing else stands on are folded if more than so many would be left out.
const FOLDED_LAYERS: usize = 2;
/// Of the containers that stand on one layer, so many are shown.
const SHOWN_CONTAINERS: usize = 8;

/// What a box shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// One entry.
    Entry(&'a TreeEntry),
    /// Layers that stand on each other.
    Layers(usize),
    /// Containers that stand beside each other.
    Containers(usize),
}

/// A box of the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    pub shown: Shown<'a>,
    /// What it holds of its own.
    pub own_bytes: u64,
    /// What it sees of those below.
    pub shared_bytes: u64,
    /// How many boxes are below it.
    pub level: usize,
    /// Where it begins.
    pub column: usize,
    /// How many columns wide it is.
    pub columns: usize,
}

/// An entry, or several as one, and what it stands on.
struct Node<'a> {
    shown: Shown<'a>,
    own_bytes: u64,
    parent: Option<usize>,
}

/// The boxes of a tree, in which parents come before what stands on them.
pub fn blocks(entries: &[TreeEntry]) -> Vec<Block<'_>> {
    let nodes = folded(entries);
    let mut columns = vec![0_usize; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        let own = columns.get(index).copied().unwrap_or(0).max(1);
        if let Some(place) = columns.get_mut(index) {
            *place = own;
        }
        if let Some(place) = node.parent.and_then(|parent| columns.get_mut(parent)) {
            *place += own;
        }
    }
    let mut next_root = 0;
    let mut next_child: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut blocks: Vec<Block<'_>> = Vec::with_capacity(nodes.len());
    for (node, columns) in nodes.into_iter().zip(columns) {
        let (level, shared_bytes) = match node.parent.and_then(|parent| blocks.get(parent)) {
            Some(below) => (below.level + 1, below.shared_bytes.saturating_add(below.own_bytes)),
            None => (0, 0),
        };
        let next = match node.parent {
            Some(parent) => next_child.get_mut(parent).unwrap_or(&mut next_root),
            None => &mut next_root,
        };
        let column = *next;
        *next += columns;
        next_child.push(column);
        let (shown, own_bytes) = (node.shown, node.own_bytes);
        blocks.push(Block { shown, own_bytes, shared_bytes, level, column, columns });
    }
    blocks
}

/// Puts together what is too much to be shown one by one.
fn folded(entries: &[TreeEntry]) -> Vec<Node<'_>> {
    let by_id: HashMap<u32, usize> =
        entries.iter().enumerate().map(|(index, entry)| (entry.layer_id, index)).collect();
    let parent_of =
        |entry: &TreeEntry| entry.parent_layer_id.and_then(|id| by_id.get(&id).copied());
    let mut children = vec![0_usize; entries.len()];
    for parent in entries.iter().filter_map(parent_of) {
        if let Some(count) = children.get_mut(parent) {
            *count += 1;
        }
    }
    let is_link = |index: usize| {
        let has_one = children.get(index) == Some(&1);
        has_one && entries.get(index).is_some_and(is_plain_layer)
    };
    // which entries are inside of a chain, and so may be left out: neither its first nor its last one
    let is_inside = |index: usize| {
        let entry = entries.get(index);
        let below = entry.and_then(parent_of);
        is_link(index) && below.is_some_and(is_link)
    };
    let mut chains: HashMap<usize, usize> = HashMap::new();
    let mut chain_of: Vec<Option<usize>> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let begun = parent_of(entry).and_then(|parent| chain_of.get(parent).copied().flatten());
        let chain = is_inside(index).then(|| begun.unwrap_or(index));
        if let Some(chain) = chain {
            *chains.entry(chain).or_default() += 1;
        }
        chain_of.push(chain);
    }
    let mut nodes: Vec<Node<'_>> = Vec::new();
    let mut node_of: Vec<Option<usize>> = Vec::with_capacity(entries.len());
    let mut shown_on: HashMap<Option<usize>, usize> = HashMap::new();
    let mut rest_on: HashMap<Option<usize>, usize> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let parent = parent_of(entry).and_then(|parent| node_of.get(parent).copied().flatten());
        let length = |chain: &usize| chains.get(chain).copied().unwrap_or(0);
        let folds =
            chain_of.get(index).copied().flatten().filter(|one| length(one) > FOLDED_LAYERS);
        let is_leaf = entry.kind == TreeKind::Container && children.get(index) == Some(&0);
        let join = if folds.is_some_and(|chain| chain != index) {
            parent
        } else if is_leaf {
            let shown = shown_on.entry(parent).or_default();
            *shown += 1;
            if *shown > SHOWN_CONTAINERS { rest_on.get(&parent).copied() } else { None }
        } else {
            None
        };
        if let Some(node) = join.and_then(|join| nodes.get_mut(join)) {
            node.own_bytes = node.own_bytes.saturating_add(entry.own_bytes);
            match &mut node.shown {
                Shown::Layers(count) | Shown::Containers(count) => *count += 1,
                Shown::Entry(_) => {}
            }
            node_of.push(join);
            continue;
        }
        let shown = match (folds, shown_on.get(&parent)) {
            (Some(_), _) => Shown::Layers(1),
            (None, Some(shown)) if is_leaf && *shown > SHOWN_CONTAINERS => {
                rest_on.insert(parent, nodes.len());
                Shown::Containers(1)
            }
            _ => Shown::Entry(entry),
        };
        node_of.push(Some(nodes.len()));
        nodes.push(Node { shown, own_bytes: entry.own_bytes, parent });
    }
    nodes
}

/// A layer that says nothing that would be missed.
fn is_plain_layer(entry: &TreeEntry) -> bool {
    matches!(entry.kind, TreeKind::Layer | TreeKind::Hidden) && entry.images.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    fn texts(blocks: &[Block<'_>]) -> Vec<String> {
        let text = |block: &Block<'_>| {
            let name = match &block.shown {
                Shown::Entry(entry) => entry.name.clone(),
                Shown::Layers(count) => format!("{count} layers"),
                Shown::Containers(count) => format!("{count} containers"),
            };
            let (level, column, columns) = (block.level, block.column, block.columns);
            format!("{name} {level} {column}+{columns}")
        };
        blocks.iter().map(text).collect()
    }

    #[test]
    fn what_stands_on_a_box_is_above_it_and_no_wider() {
        let entries = tree(&[("a", 0), ("b", 1), ("one", 2), ("two", 2), ("c", 1), ("d", 0)]);
        assert_eq!(
            texts(&blocks(&entries)),
            ["a 0 0+3", "b 1 0+2", "one 2 0+1", "two 2 1+1", "c 1 2+1", "d 0 3+1"]
        );
    }

    #[test]
    fn a_chain_is_folded_between_its_ends_and_shares_the_same() {
        let names: Vec<String> = (0..128).map(|number| format!("l{number}")).collect();
        let mut shape: Vec<(&str, u64)> =
            names.iter().zip(0..).map(|(name, depth)| (name.as_str(), depth)).collect();
        shape.push(("one", 128));
        let entries = tree(&shape);
        let blocks = blocks(&entries);
        assert_eq!(texts(&blocks), ["l0 0 0+1", "127 layers 1 0+1", "one 2 0+1"]);
        assert_eq!(blocks.last().map(|one| one.shared_bytes), Some(128 * 4096));
    }

    #[test]
    fn of_a_crowd_of_containers_some_are_shown() {
        let names: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
        let mut shape: Vec<(&str, u64)> = vec![("a", 0)];
        shape.extend(names.iter().map(|name| (name.as_str(), 1)));
        let entries = tree(&shape);
        let blocks = blocks(&entries);
        assert_eq!(blocks.len(), 1 + SHOWN_CONTAINERS + 1);
        assert_eq!(texts(&blocks).last().map(String::as_str), Some("992 containers 1 8+1"));
        assert_eq!(blocks.last().map(|rest| rest.own_bytes), Some(992 * 4096));
    }
}
