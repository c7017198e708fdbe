//! The difference of two trees as a layer: what is new or changed, and whiteouts for what is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

use thinstore_filesystem::{Node, TreePath, TreeReader};
use thinstore_storage::Result;

use super::tar::TarWriter;
use super::tree::walk;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// Its content, metadata or type is another.
    Modified,
    /// It is there no more.
    Deleted,
    /// It is a folder before and after, and of what was in it before nothing is there any more.
    Emptied,
}

/// One changed path. A folder that is new has a change for itself and one for each path in it; of a folder
/// that is gone, what was in it may be listed or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Where. Both kinds may be given for a path: it was replaced by something new.
    pub path: TreePath,
}

/// What is to be written of a path.
#[derive(Clone, Debug, Default)]
struct Plan {
    path: TreePath,
    whiteout: bool,
    node: bool,
    opaque: bool,
}

/// The plans, folders before what is in them.
#[derive(Default)]
struct Plans(BTreeMap<Vec<u8>, Plan>);

impl Plans {
    /// Orders as a walk does: NUL, which no name contains, sorts before all bytes of names.
    fn key(path: &TreePath) -> Vec<u8> {
        path.as_bytes().iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
    }

    fn at(&mut self, path: &TreePath) -> &mut Plan {
        self.0
            .entry(Plans::key(path))
            .or_insert_with(|| Plan { path: path.clone(), ..Plan::default() })
    }

    /// Plans a node, and the folders above it: an unpacker that does not find a folder in the layer may
    /// make it anew, with another owner and mode than it has below.
    fn node(&mut self, path: &TreePath) {
        self.at(path).node = true;
        self.folders_above(path);
    }

    fn folders_above(&mut self, path: &TreePath) {
        let mut path = path.clone();
        while !path.is_root() {
            path = path.parent();
            let plan = self.at(&path);
            if plan.node {
                break;
            }
            plan.node = true;
        }
    }
}

/// Writes a layer that turns the tree before into `reader`'s tree. The archive is left open for more.
///
/// The folders above every change are written too. Where a changed file has further names that are not
/// among the changes, they are looked for in the whole tree and written with it, so that they stay names of
/// one file.
///
/// # Errors
/// Those of the reader, and of [`TarWriter::node`].
pub fn write_changes<W: Write>(
    reader: &dyn TreeReader,
    changes: &[Change],
    writer: &mut TarWriter<W>,
) -> Result<()> {
    let mut plans = Plans::default();
    for change in changes {
        match change.kind {
            ChangeKind::Deleted => plans.at(&change.path).whiteout = true,
            ChangeKind::Emptied => {
                plans.node(&change.path);
                plans.at(&change.path).opaque = true;
            }
            ChangeKind::Added | ChangeKind::Modified => plans.node(&change.path),
        }
    }
    let gone: HashSet<TreePath> =
        plans.0.values().filter(|plan| plan.whiteout).map(|plan| plan.path.clone()).collect();
    for path in &gone {
        // What was in a folder that is gone goes with it.
        let mut above = path.clone();
        let mut within = false;
        while !above.is_root() && !within {
            above = above.parent();
            within = gone.contains(&above);
        }
        if within {
            plans.at(path).whiteout = false;
        } else {
            plans.folders_above(path);
        }
    }
    add_missing_names(reader, &mut plans)?;
    write_plans(reader, &plans, writer)
}

/// Adds the names of changed files that are not among the changes.
fn add_missing_names(reader: &dyn TreeReader, plans: &mut Plans) -> Result<()> {
    let mut known: HashMap<u64, (u64, u64)> = HashMap::new();
    for plan in plans.0.values().filter(|plan| plan.node) {
        if reader.node(&plan.path)?.0 == Node::Directory {
            continue;
        }
        let (identity, links) = reader.identity(&plan.path)?;
        if links > 1 {
            let counts = known.entry(identity).or_insert((0, links));
            counts.0 += 1;
        }
    }
    if known.values().all(|(found, links)| found >= links) {
        return Ok(());
    }
    let mut missing = Vec::new();
    walk(reader, &TreePath::root(), &mut |visit| {
        if *visit.node != Node::Directory {
            let (identity, links) = reader.identity(visit.path)?;
            if links > 1 && known.contains_key(&identity) {
                missing.push(visit.path.clone());
            }
        }
        Ok(())
    })?;
    for path in missing {
        plans.node(&path);
    }
    Ok(())
}

fn write_plans<W: Write>(
    reader: &dyn TreeReader,
    plans: &Plans,
    writer: &mut TarWriter<W>,
) -> Result<()> {
    let mut folders: HashSet<&TreePath> = HashSet::new();
    let mut first_names: HashMap<u64, &TreePath> = HashMap::new();
    for plan in plans.0.values() {
        let path = &plan.path;
        // Where something else took a folder's place, what was in it needs no whiteout.
        if plan.whiteout && folders.contains(&path.parent()) {
            writer.whiteout(path)?;
        }
        if !plan.node {
            continue;
        }
        let (node, metadata) = reader.node(path)?;
        if node == Node::Directory {
            folders.insert(path);
            writer.node(path, &node, &metadata, None)?;
            if plan.opaque {
                writer.opaque(path)?;
            }
            continue;
        }
        if node == Node::Socket {
            continue;
        }
        let (identity, links) = reader.identity(path)?;
        if links > 1 {
            if let Some(first) = first_names.get(&identity) {
                writer.hard_link(path, first, &metadata)?;
                continue;
            }
            first_names.insert(identity, path);
        }
        if let Node::File { .. } = node {
            writer.node(path, &node, &metadata, Some(&mut *reader.content(path)?))?;
        } else {
            writer.node(path, &node, &metadata, None)?;
        }
    }
    Ok(())
}
