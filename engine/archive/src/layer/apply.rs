//! Applying a layer to a tree.
//!
//! A whiteout and an opaque folder hide what *lower* layers have, wherever the mark stands in the tar:
//! entries of the same layer survive it. So the result must be that of applying all marks first and then
//! all entries in order. A tree cannot be asked what of it is lower, therefore:
//!
//! 1. The layer is applied in the order in which it stands, keeping account of the paths it has put.
//!    While every mark comes before the entries that it could touch, this is the same thing, and it
//!    is what archives look like: marks sort before nearly all names.
//! 2. On the first mark that would touch an entry of this layer, and on the first hard link to a file
//!    that this layer has not put, the layer is read again for its marks alone, all are applied, and the
//!    layer is applied once more from its start with marks passed over.
//!
//! Starting over is sound because what was done before is done again the same way: every path put by the
//! first attempt is put again and ends as it would have. What could differ is only a link to a lower file
//! that the layer replaces later; hence the second half of the condition: no such link is ever made before
//! the start over.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use thinstore_filesystem::{Node, TreePath, TreeWriter};
use thinstore_storage::{ErrorKind, Result};

use super::reader::{LayerItem, LayerReader, LayerTotals};
use crate::refuse;

/// What applying a layer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Regular files put.
    pub files: u64,
    /// Folders put.
    pub directories: u64,
    /// Symbolic links put.
    pub symlinks: u64,
    /// Devices and pipes put.
    pub specials: u64,
    /// Hard links made.
    pub hard_links: u64,
    /// Whiteouts and opaque folders.
    pub whiteouts: u64,
    /// Lengths of the files put, holes counted.
    pub content_bytes: u64,
    /// What the layer came to.
    pub totals: LayerTotals,
}

/// Applies a layer to a tree and verifies its digests. `writer.finish()` is left to the caller.
///
/// # Errors
/// `Refused` for a hostile or damaged layer; the tree then holds a part of it and is to be thrown away.
/// Errors of the writer keep their kind and name the entry.
pub fn apply_layer(reader: &mut LayerReader, writer: &mut dyn TreeWriter) -> Result<LayerStats> {
    let marks_done = reader.layer().lowest;
    let stats = match attempt(reader, writer, marks_done)? {
        Some(stats) => stats,
        None => {
            let layer = reader.layer().clone();
            apply_marks(&mut layer.open_unverified()?, writer)?;
            *reader = layer.open(None)?;
            attempt(reader, writer, true)?
                .ok_or_else(|| refuse("a layer asked to be started over twice"))?
        }
    };
    let totals = reader.finish()?;
    Ok(LayerStats { totals, ..stats })
}

/// Applies the marks of a layer and nothing else.
fn apply_marks(reader: &mut LayerReader, writer: &mut dyn TreeWriter) -> Result<()> {
    while let Some(item) = reader.next_item()? {
        match item {
            LayerItem::Whiteout { path } => {
                writer.remove(&path).map_err(|error| reader.at_entry(error, &path))?;
            }
            LayerItem::Opaque { path } => clear(reader, writer, &path)?,
            LayerItem::Node { .. } | LayerItem::HardLink { .. } => {}
        }
    }
    Ok(())
}

/// Applies a layer in its own order; none if it must be started over with its marks first.
fn attempt(
    reader: &mut LayerReader,
    writer: &mut dyn TreeWriter,
    marks_done: bool,
) -> Result<Option<LayerStats>> {
    let mut stats = LayerStats::default();
    let mut placed = Placed::default();
    while let Some(item) = reader.next_item()? {
        match item {
            LayerItem::Whiteout { path } => {
                stats.whiteouts += 1;
                if marks_done || placed.replaced(&path) {
                    continue;
                }
                if placed.at_or_below(&path) {
                    return Ok(None);
                }
                writer.remove(&path).map_err(|error| reader.at_entry(error, &path))?;
            }
            LayerItem::Opaque { path } => {
                stats.whiteouts += 1;
                if marks_done {
                    continue;
                }
                if placed.below(&path) {
                    return Ok(None);
                }
                clear(reader, writer, &path)?;
            }
            LayerItem::HardLink { path, target } => {
                if !marks_done && !placed.at(&target) {
                    return Ok(None);
                }
                link(reader, writer, &path, &target)?;
                stats.hard_links += 1;
                placed.note(&path, false);
            }
            LayerItem::Node { path, node, metadata } => {
                let outcome = if let Node::File { size_bytes } = node {
                    stats.content_bytes += size_bytes;
                    writer.put(&path, &node, &metadata, Some(&mut reader.content()))
                } else {
                    writer.put(&path, &node, &metadata, None)
                };
                outcome.map_err(|error| reader.at_entry(error, &path))?;
                stats.count(&node);
                placed.note(&path, node == Node::Directory);
            }
        }
    }
    Ok(Some(stats))
}

/// A folder that is not there has nothing to hide.
fn clear(reader: &LayerReader, writer: &mut dyn TreeWriter, path: &TreePath) -> Result<()> {
    match writer.clear(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|error| reader.at_entry(error, path)),
    }
}

fn link(
    reader: &LayerReader,
    writer: &mut dyn TreeWriter,
    path: &TreePath,
    target: &TreePath,
) -> Result<()> {
    writer.hard_link(path, target).map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return reader.at_entry(error, path);
        }
        refuse(format!(
            "{}: the entry '{path}' is a hard link to '{target}', which does not exist",
            reader.layer().name
        ))
    })
}

impl LayerStats {
    fn count(&mut self, node: &Node) {
        match node {
            Node::File { .. } => self.files += 1,
            Node::Directory => self.directories += 1,
            Node::Symlink { .. } => self.symlinks += 1,
            _ => self.specials += 1,
        }
    }
}

/// Which paths a layer has put, by hashes of 128 bits: a layer may have millions, and a false match would
/// cost a start over at worst.
#[derive(Default)]
struct Placed {
    paths: HashMap<(u64, u64), Marks>,
    first: RandomState,
    second: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Marks {
    /// Something was put here.
    put: bool,
    /// A folder was put here: it keeps what lower layers have in it.
    directory: bool,
    /// Something was put below.
    below: bool,
}

impl Placed {
    fn key(&self, path: &[u8]) -> (u64, u64) {
        (self.first.hash_one(path), self.second.hash_one(path))
    }

    fn get(&self, path: &TreePath) -> Marks {
        self.paths.get(&self.key(path.as_bytes())).copied().unwrap_or_default()
    }

    fn at(&self, path: &TreePath) -> bool {
        self.get(path).put
    }

    fn below(&self, path: &TreePath) -> bool {
        self.get(path).below
    }

    fn at_or_below(&self, path: &TreePath) -> bool {
        let marks = self.get(path);
        marks.put || marks.below
    }

    /// Has this layer put something here that left nothing of what was there?
    fn replaced(&self, path: &TreePath) -> bool {
        let marks = self.get(path);
        marks.put && !marks.directory && !marks.below
    }

    fn note(&mut self, path: &TreePath, directory: bool) {
        let key = self.key(path.as_bytes());
        let marks = self.paths.entry(key).or_default();
        marks.put = true;
        // Once a folder, always a folder: it may have kept something.
        marks.directory |= directory;
        let mut rest = path.as_bytes();
        while !rest.is_empty() {
            let parent = rest.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            rest = rest.get(..parent).unwrap_or_default();
            let key = self.key(rest);
            let marks = self.paths.entry(key).or_default();
            if marks.below {
                break;
            }
            marks.below = true;
        }
    }
}
