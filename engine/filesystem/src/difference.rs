//! What changed from one tree to another, in the terms of `docker diff`.
//!
//! A path is changed if its type, mode, owner, attributes or device number differ, and but for folders
//! also if its time, size, target or content differ (the time of a folder says only that something in
//! it changed). A folder above a change counts as changed too. Of a removed folder only itself is
//! named; of an added one, everything in it.

use std::cmp::Ordering;
use std::fmt;

use thinstore_storage::Result;

use crate::hash::Guard;
use crate::tree::{FileContent, Metadata, Node, TreePath, TreeReader};

/// How a path changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It was there before and is different now.
    Changed,
    /// It is not there any more.
    Deleted,
}

impl ChangeKind {
    /// The letter of `docker diff`.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// A path and how it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// What.
    pub path: TreePath,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.letter(), self.path)
    }
}

/// Knows without reading whether the file at a path has the same content in both trees: for two file
/// systems of one origin, because its blocks are shared and lie at the same places in the file. A
/// `false` means "not known": the contents are then compared.
pub type SameContent<'a> = Box<dyn FnMut(&TreePath) -> Result<bool> + 'a>;

/// What changed from `old` to `new`, sorted by path.
pub fn difference(
    old: &dyn TreeReader,
    new: &dyn TreeReader,
    same_content: Option<SameContent<'_>>,
) -> Result<Vec<Change>> {
    let mut comparison = Comparison {
        old,
        new,
        same_content,
        changes: Vec::new(),
        old_guard: Guard::new(),
        new_guard: Guard::new(),
        buffers: (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]),
    };
    comparison.run()?;
    let mut changes = comparison.changes;
    changes.sort_by(|a, b| a.path.components().cmp(b.path.components()));
    changes.dedup();
    Ok(changes)
}

const BUFFER_BYTES: usize = 256 << 10;

struct Comparison<'a> {
    old: &'a dyn TreeReader,
    new: &'a dyn TreeReader,
    same_content: Option<SameContent<'a>>,
    changes: Vec<Change>,
    old_guard: Guard,
    new_guard: Guard,
    buffers: (Vec<u8>, Vec<u8>),
}

/// What is still to be done, for a path.
enum Task {
    /// It is in both trees.
    Compare(TreePath),
    /// It is in the new one only.
    Added(TreePath),
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<()> {
        let mut tasks = vec![Task::Compare(TreePath::root())];
        while let Some(task) = tasks.pop() {
            match task {
                Task::Compare(path) => self.compare(path, &mut tasks)?,
                Task::Added(path) => {
                    if matches!(self.new.node(&path)?.0, Node::Directory) {
                        self.new_guard.enter(self.new, &path)?;
                        let names = self.new.names(&path)?;
                        tasks.extend(names.iter().map(|name| Task::Added(path.join(name))));
                    }
                    self.report(ChangeKind::Added, path);
                }
            }
        }
        self.report_parents();
        Ok(())
    }

    fn report(&mut self, kind: ChangeKind, path: TreePath) {
        self.changes.push(Change { kind, path });
    }

    /// Every folder above a change that is not itself added has changed, but for the root, which
    /// `docker diff` does not name.
    fn report_parents(&mut self) {
        let mut known: std::collections::HashSet<TreePath> =
            self.changes.iter().map(|change| change.path.clone()).collect();
        let mut parents = Vec::new();
        for change in &self.changes {
            let mut parent = change.path.parent();
            while !parent.is_root() && known.insert(parent.clone()) {
                parents.push(Change { kind: ChangeKind::Changed, path: parent.clone() });
                parent = parent.parent();
            }
        }
        self.changes.extend(parents);
    }

    fn compare(&mut self, path: TreePath, tasks: &mut Vec<Task>) -> Result<()> {
        let (old_node, old_metadata) = self.old.node(&path)?;
        let (new_node, new_metadata) = self.new.node(&path)?;
        let both_folders =
            matches!(old_node, Node::Directory) && matches!(new_node, Node::Directory);
        if both_folders {
            self.compare_names(&path, tasks)?;
        } else if matches!(new_node, Node::Directory) {
            self.new_guard.enter(self.new, &path)?;
            let names = self.new.names(&path)?;
            tasks.extend(names.iter().map(|name| Task::Added(path.join(name))));
        }
        let same = !metadata_differs(&old_metadata, &new_metadata, both_folders)
            && old_node == new_node
            && (!matches!(new_node, Node::File { .. }) || self.same_file(&path)?);
        if !same && !path.is_root() {
            self.report(ChangeKind::Changed, path);
        }
        Ok(())
    }

    /// Goes through the sorted names of a folder in both trees in step.
    fn compare_names(&mut self, path: &TreePath, tasks: &mut Vec<Task>) -> Result<()> {
        self.old_guard.enter(self.old, path)?;
        self.new_guard.enter(self.new, path)?;
        let old_names = self.old.names(path)?;
        let new_names = self.new.names(path)?;
        let (mut old_names, mut new_names) =
            (old_names.iter().peekable(), new_names.iter().peekable());
        loop {
            let order = match (old_names.peek(), new_names.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.cmp(new),
            };
            let old = if order.is_le() { old_names.next() } else { None };
            let new = if order.is_ge() { new_names.next() } else { None };
            match (old, new) {
                (Some(name), Some(_)) => tasks.push(Task::Compare(path.join(name))),
                (Some(name), None) => self.report(ChangeKind::Deleted, path.join(name)),
                (None, Some(name)) => tasks.push(Task::Added(path.join(name))),
                (None, None) => return Ok(()),
            }
        }
    }

    fn same_file(&mut self, path: &TreePath) -> Result<bool> {
        if let Some(same_content) = &mut self.same_content
            && same_content(path)?
        {
            return Ok(true);
        }
        let (old_buffer, new_buffer) = &mut self.buffers;
        let mut old = Bytes::new(self.old.content(path)?, old_buffer);
        let mut new = Bytes::new(self.new.content(path)?, new_buffer);
        same_bytes(&mut old, &mut new)
    }
}

fn metadata_differs(old: &Metadata, new: &Metadata, folders: bool) -> bool {
    old.mode != new.mode
        || old.uid != new.uid
        || old.gid != new.gid
        || old.xattrs != new.xattrs
        || (!folders && old.modified != new.modified)
}

/// A file's data, part by part, whatever the sizes in which it comes.
struct Bytes<'a> {
    content: Box<dyn FileContent + 'a>,
    buffer: &'a mut Vec<u8>,
    /// Where the part in the buffer begins in the file, and what of the buffer is left of it.
    offset: u64,
    left: std::ops::Range<usize>,
}

impl<'a> Bytes<'a> {
    fn new(content: Box<dyn FileContent + 'a>, buffer: &'a mut Vec<u8>) -> Bytes<'a> {
        Bytes { content, buffer, offset: 0, left: 0..0 }
    }

    /// Makes sure that there is a part; false at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.left.is_empty() {
            match self.content.next(self.buffer)? {
                Some((offset, count)) => (self.offset, self.left) = (offset, 0..count),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn part(&self) -> &[u8] {
        self.buffer.get(self.left.clone()).unwrap_or(&[])
    }

    fn skip(&mut self, count: usize) {
        self.left.start += count;
        self.offset += u64::try_from(count).unwrap_or(0);
    }

    /// Takes what lies before `end`; false if any of it is not zero.
    fn only_zeroes_before(&mut self, end: u64) -> bool {
        let before = usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let count = before.min(self.left.len());
        let zeroes = self.part().iter().take(count).all(|byte| *byte == 0);
        self.skip(count);
        zeroes
    }
}

/// Compares two files; a hole is as good as zeroes.
fn same_bytes(old: &mut Bytes<'_>, new: &mut Bytes<'_>) -> Result<bool> {
    loop {
        let same = match (old.fill()?, new.fill()?) {
            (false, false) => return Ok(true),
            (true, false) => old.only_zeroes_before(u64::MAX),
            (false, true) => new.only_zeroes_before(u64::MAX),
            (true, true) if old.offset < new.offset => old.only_zeroes_before(new.offset),
            (true, true) if new.offset < old.offset => new.only_zeroes_before(old.offset),
            (true, true) => {
                let count = old.left.len().min(new.left.len());
                let same = old.part().get(..count) == new.part().get(..count);
                old.skip(count);
                new.skip(count);
                same
            }
        };
        if !same {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data that comes in the given parts.
    struct Parts(Vec<(u64, Vec<u8>)>);

    impl FileContent for Parts {
        fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
            if self.0.is_empty() {
                return Ok(None);
            }
            let (offset, data) = self.0.remove(0);
            buffer[..data.len()].copy_from_slice(&data);
            Ok(Some((offset, data.len())))
        }
    }

    fn same(old: &[(u64, &[u8])], new: &[(u64, &[u8])]) -> bool {
        let parts = |from: &[(u64, &[u8])]| {
            Box::new(Parts(from.iter().map(|(at, data)| (*at, data.to_vec())).collect()))
        };
        let (mut a, mut b) = (vec![0; 64], vec![0; 64]);
        same_bytes(&mut Bytes::new(parts(old), &mut a), &mut Bytes::new(parts(new), &mut b))
            .expect("compare")
    }

    #[test]
    fn contents_are_the_same_however_they_are_cut_and_wherever_their_holes_are() {
        assert!(same(&[(0, b"abcdef")], &[(0, b"ab"), (2, b"cdef")]));
        assert!(same(&[(0, b"a\0\0\0"), (4, b"b")], &[(0, b"a"), (4, b"b\0\0")]));
        assert!(same(&[(8, b"\0\0")], &[]));
        assert!(!same(&[(0, b"a")], &[(1, b"a")]));
        assert!(!same(&[(0, b"ab")], &[(0, b"a")]));
        assert!(!same(&[], &[(9, b"\0x")]));
    }
}
