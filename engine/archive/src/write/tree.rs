//! A whole tree, or a part of one, as a tar: folders before what is in them, names in byte order, the
//! second and further names of a file as hard links to the first.

use std::collections::HashMap;
use std::io::Write;

use thinstore_filesystem::{Metadata, Node, TreePath, TreeReader, TreeWriter};
use thinstore_storage::{Error, ErrorKind, Result};

use super::tar::{TarWriter, WhiteoutNames};
use crate::host::HostTree;
use crate::printable;

/// What a walk comes upon.
pub(crate) struct Visit<'a> {
    /// Where it is in the tree.
    pub(crate) path: &'a TreePath,
    /// What it is called in the tar.
    pub(crate) name: &'a TreePath,
    pub(crate) node: &'a Node,
    pub(crate) metadata: &'a Metadata,
    /// The name in the tar under which this file has been visited already.
    pub(crate) first_name: Option<&'a TreePath>,
}

/// Visits what stands at `start` and all below it, but for sockets, which no tar can hold. Paths above
/// 4095 bytes are an error, which also ends a walk over a damaged tree that contains itself.
pub(crate) fn walk(
    reader: &dyn TreeReader,
    start: &TreePath,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<()>,
) -> Result<()> {
    let mut first_names: HashMap<u64, TreePath> = HashMap::new();
    let mut waiting = vec![(start.clone(), None::<TreePath>)];
    while let Some((path, name)) = waiting.pop() {
        let (node, metadata) = reader.node(&path)?;
        let name = match name {
            Some(name) => name,
            None if node == Node::Directory => TreePath::root(),
            None => TreePath::root().join(start.name().unwrap_or_default()),
        };
        if node == Node::Directory {
            visit(Visit {
                path: &path,
                name: &name,
                node: &node,
                metadata: &metadata,
                first_name: None,
            })?;
            for child in reader.names(&path)?.iter().rev() {
                waiting.push((checked_join(&path, child)?, Some(name.join(child))));
            }
        } else if node != Node::Socket {
            let (identity, links) = reader.identity(&path)?;
            let first_name = if links > 1 { first_names.get(&identity) } else { None };
            let first = first_name.is_none() && links > 1;
            visit(Visit {
                path: &path,
                name: &name,
                node: &node,
                metadata: &metadata,
                first_name,
            })?;
            if first {
                first_names.insert(identity, name);
            }
        }
    }
    Ok(())
}

fn checked_join(folder: &TreePath, name: &[u8]) -> Result<TreePath> {
    let valid =
        !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0));
    let path = folder.join(name);
    if valid && path.as_bytes().len() < 4096 {
        return Ok(path);
    }
    let (kind, why) = if valid {
        (ErrorKind::Unsupported, "is longer than 4095 bytes and cannot be archived")
    } else {
        (ErrorKind::Corrupt, "is no possible name; the file system is damaged")
    };
    Err(Error::new(kind, format!("'{}' {why}", printable(path.to_string().as_bytes()))))
}

/// Writes what stands at `start` and below it. Names in the tar are relative to `start`; if it is not a
/// folder, the tar has one entry of its last name. The archive is left open for more.
///
/// # Errors
/// Those of the reader, and of [`TarWriter::node`].
pub fn write_tree<W: Write>(
    reader: &dyn TreeReader,
    start: &TreePath,
    writer: &mut TarWriter<W>,
) -> Result<()> {
    walk(reader, start, &mut |visit| write_visit(reader, writer, &visit))
}

fn write_visit<W: Write>(
    reader: &dyn TreeReader,
    writer: &mut TarWriter<W>,
    visit: &Visit<'_>,
) -> Result<()> {
    if let Some(first) = visit.first_name {
        return writer.hard_link(visit.name, first, visit.metadata);
    }
    if let Node::File { .. } = visit.node {
        let mut content = reader.content(visit.path)?;
        return writer.node(visit.name, visit.node, visit.metadata, Some(&mut *content));
    }
    writer.node(visit.name, visit.node, visit.metadata, None)
}

/// Puts everything that is in one tree into another, but for sockets: the root's own metadata too.
///
/// # Errors
/// Those of the reader and of the writer, which has not been finished then.
pub fn copy_tree(reader: &dyn TreeReader, writer: &mut dyn TreeWriter) -> Result<()> {
    walk(reader, &TreePath::root(), &mut |visit| {
        if let Some(first) = visit.first_name {
            return writer.hard_link(visit.path, first);
        }
        if let Node::File { .. } = visit.node {
            let mut content = reader.content(visit.path)?;
            return writer.put(visit.path, visit.node, visit.metadata, Some(&mut *content));
        }
        writer.put(visit.path, visit.node, visit.metadata, None)
    })?;
    writer.finish()
}

/// Writes a folder of the host as a layer, holes kept.
pub(crate) fn write_host_tree(tree: &HostTree, output: impl Write) -> Result<()> {
    let mut writer = TarWriter::new(output, WhiteoutNames::Refused);
    walk(tree, &TreePath::root(), &mut |visit| {
        if let (Node::File { size_bytes }, None) = (visit.node, visit.first_name)
            && let Some(pieces) = tree.holes(visit.path)?
        {
            let mut content = tree.pieces(visit.path, pieces.clone())?;
            let (name, size_bytes) = (visit.name, *size_bytes);
            return writer.sparse_file(name, size_bytes, visit.metadata, &pieces, &mut content);
        }
        write_visit(tree, &mut writer, &visit)
    })?;
    writer.finish().map(drop)
}
