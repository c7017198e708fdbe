//! A tree in memory, written and read by the same words as any other.

use std::collections::BTreeMap;

use thinstore_filesystem::{FileContent, Metadata, Node, TreePath, TreeReader, TreeWriter};
use thinstore_storage::{Error, ErrorKind, Result};

const BLOCK: u64 = 4096;

/// Blocks of a file that are not all zero.
pub type Blocks = BTreeMap<u64, Vec<u8>>;

#[derive(Clone, Debug, Default)]
struct Inode {
    node: Option<Node>,
    metadata: Metadata,
    blocks: Blocks,
    /// Where the archive said that data is.
    extents: Vec<(u64, u64)>,
}

/// A tree in memory.
#[derive(Clone, Debug)]
pub struct MemoryTree {
    names: BTreeMap<TreePath, u64>,
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// What was asked of the writer, in order.
    pub calls: Vec<String>,
}

/// All there is to say about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub node: Node,
    pub metadata: Metadata,
    pub blocks: Blocks,
    /// The first name of the same file.
    pub first_name: TreePath,
}

impl MemoryTree {
    pub fn new() -> MemoryTree {
        let mut tree = MemoryTree {
            names: BTreeMap::new(),
            inodes: BTreeMap::new(),
            next: 1,
            calls: Vec::new(),
        };
        tree.insert(&TreePath::root(), directory());
        tree
    }

    fn insert(&mut self, path: &TreePath, inode: Inode) {
        self.names.insert(path.clone(), self.next);
        self.inodes.insert(self.next, inode);
        self.next += 1;
    }

    fn inode(&self, path: &TreePath) -> Result<&Inode> {
        let number = self.names.get(path).ok_or_else(|| missing(path))?;
        Ok(&self.inodes[number])
    }

    fn is_directory(&self, path: &TreePath) -> bool {
        self.inode(path).is_ok_and(|inode| inode.node == Some(Node::Directory))
    }

    fn remove_below(&mut self, path: &TreePath) {
        let below: Vec<TreePath> =
            self.names.keys().filter(|other| is_below(other, path)).cloned().collect();
        for name in below {
            self.names.remove(&name);
        }
    }

    fn make_parents(&mut self, path: &TreePath) {
        let mut parents = Vec::new();
        let mut parent = path.parent();
        while !parent.is_root() {
            parents.push(parent.clone());
            parent = parent.parent();
        }
        for parent in parents.into_iter().rev() {
            if !self.is_directory(&parent) {
                self.remove_below(&parent);
                self.insert(&parent, directory());
            }
        }
    }

    pub fn paths(&self) -> Vec<String> {
        self.names
            .keys()
            .map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned())
            .collect()
    }

    /// All bytes of a small file.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let inode = self.inode(&tree_path(path)).unwrap();
        let Some(Node::File { size_bytes }) = inode.node else { panic!("{path} is no file") };
        let mut bytes = vec![0; size_bytes as usize];
        for (block, data) in &inode.blocks {
            let start = (block * BLOCK) as usize;
            let end = (start + data.len()).min(bytes.len());
            bytes[start..end].copy_from_slice(&data[..end - start]);
        }
        bytes
    }

    pub fn extents(&self, path: &str) -> Vec<(u64, u64)> {
        self.inode(&tree_path(path)).unwrap().extents.clone()
    }

    pub fn get(&self, path: &str) -> (Node, Metadata) {
        self.node(&tree_path(path)).unwrap()
    }

    pub fn get_raw(&self, path: &[u8]) -> (Node, Metadata) {
        self.node(&TreePath::from_archive(path).unwrap()).unwrap()
    }

    pub fn has(&self, path: &str) -> bool {
        self.names.contains_key(&tree_path(path))
    }

    pub fn same_file(&self, first: &str, second: &str) -> bool {
        self.names[&tree_path(first)] == self.names[&tree_path(second)]
    }
}

pub fn tree_path(path: &str) -> TreePath {
    TreePath::from_archive(path.as_bytes()).unwrap()
}

fn directory() -> Inode {
    Inode {
        node: Some(Node::Directory),
        metadata: Metadata { mode: 0o755, ..Metadata::default() },
        ..Inode::default()
    }
}

fn missing(path: &TreePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("'{path}' does not exist"))
}

fn is_below(path: &TreePath, folder: &TreePath) -> bool {
    if folder.is_root() {
        return !path.is_root();
    }
    path.as_bytes().strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}

pub fn read_blocks(
    content: &mut dyn FileContent,
    buffer: usize,
) -> Result<(Blocks, Vec<(u64, u64)>)> {
    let mut blocks: Blocks = BTreeMap::new();
    let mut extents: Vec<(u64, u64)> = Vec::new();
    let mut buffer = vec![0; buffer];
    while let Some((offset, count)) = content.next(&mut buffer)? {
        assert!(count > 0, "content without bytes");
        match extents.last_mut() {
            Some((start, length)) if *start + *length == offset => *length += count as u64,
            last => {
                assert!(last.is_none_or(|last| last.0 + last.1 < offset), "content not in order");
                extents.push((offset, count as u64));
            }
        }
        let mut place = offset;
        let mut data = &buffer[..count];
        while !data.is_empty() {
            let (block, within) = (place / BLOCK, (place % BLOCK) as usize);
            let step = data.len().min(BLOCK as usize - within);
            if data[..step].iter().any(|byte| *byte != 0) {
                let target = blocks.entry(block).or_insert_with(|| vec![0; BLOCK as usize]);
                target[within..within + step].copy_from_slice(&data[..step]);
            }
            data = &data[step..];
            place += step as u64;
        }
    }
    Ok((blocks, extents))
}

impl TreeWriter for MemoryTree {
    fn put(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        self.calls.push(format!("put {path}"));
        assert_eq!(content.is_some(), matches!(node, Node::File { .. }));
        let (blocks, extents) = match content {
            Some(content) => read_blocks(content, 10_000)?,
            None => Default::default(),
        };
        self.make_parents(path);
        let inode = Inode { node: Some(node.clone()), metadata: metadata.clone(), blocks, extents };
        if *node == Node::Directory && self.is_directory(path) {
            let number = self.names[path];
            self.inodes.insert(number, inode);
            return Ok(());
        }
        self.remove_below(path);
        self.insert(path, inode);
        Ok(())
    }

    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        self.calls.push(format!("link {path} {target}"));
        if self.is_directory(target) {
            return Err(Error::new(ErrorKind::Refused, format!("'{target}' is a folder")));
        }
        let number = *self.names.get(target).ok_or_else(|| missing(target))?;
        self.make_parents(path);
        self.remove_below(path);
        self.names.insert(path.clone(), number);
        Ok(())
    }

    fn remove(&mut self, path: &TreePath) -> Result<()> {
        self.calls.push(format!("remove {path}"));
        self.remove_below(path);
        self.names.remove(path);
        Ok(())
    }

    fn clear(&mut self, path: &TreePath) -> Result<()> {
        self.calls.push(format!("clear {path}"));
        self.remove_below(path);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

struct MemoryContent {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl FileContent for MemoryContent {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let Some((offset, data)) = self.pieces.first_mut() else {
            return Ok(None);
        };
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        let place = *offset;
        *offset += count as u64;
        data.drain(..count);
        if data.is_empty() {
            self.pieces.remove(0);
        }
        Ok(Some((place, count)))
    }
}

impl TreeReader for MemoryTree {
    fn node(&self, path: &TreePath) -> Result<(Node, Metadata)> {
        let inode = self.inode(path)?;
        Ok((inode.node.clone().unwrap(), inode.metadata.clone()))
    }

    fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        self.inode(path)?;
        let children =
            self.names.keys().filter(|other| !other.is_root() && other.parent() == *path);
        let mut names: Vec<Vec<u8>> =
            children.map(|child| child.name().unwrap().to_vec()).collect();
        names.sort();
        Ok(names)
    }

    fn content(&self, path: &TreePath) -> Result<Box<dyn FileContent + '_>> {
        let inode = self.inode(path)?;
        let Some(Node::File { size_bytes }) = inode.node else { panic!("{path} is no file") };
        let pieces = inode
            .blocks
            .iter()
            .map(|(block, data)| {
                let start = block * BLOCK;
                let length = (size_bytes - start).min(BLOCK) as usize;
                (start, data[..length].to_vec())
            })
            .collect();
        Ok(Box::new(MemoryContent { pieces }))
    }

    fn identity(&self, path: &TreePath) -> Result<(u64, u64)> {
        let number = *self.names.get(path).ok_or_else(|| missing(path))?;
        let links = self.names.values().filter(|other| **other == number).count();
        Ok((number, links as u64))
    }
}

/// Describes every path of a tree, so that two trees can be compared whatever reads them.
pub fn describe(reader: &dyn TreeReader) -> BTreeMap<TreePath, Description> {
    let mut found = BTreeMap::new();
    let mut first_names: BTreeMap<u64, TreePath> = BTreeMap::new();
    let mut waiting = vec![TreePath::root()];
    while let Some(path) = waiting.pop() {
        let (node, metadata) = reader.node(&path).unwrap();
        let mut first_name = path.clone();
        if node == Node::Directory {
            for name in reader.names(&path).unwrap().into_iter().rev() {
                waiting.push(path.join(&name));
            }
        } else {
            let (identity, links) = reader.identity(&path).unwrap();
            if links > 1 {
                first_name = first_names.entry(identity).or_insert_with(|| path.clone()).clone();
            }
        }
        let blocks = match node {
            Node::File { .. } => {
                read_blocks(&mut *reader.content(&path).unwrap(), 65536).unwrap().0
            }
            _ => Blocks::new(),
        };
        found.insert(path, Description { node, metadata, blocks, first_name });
    }
    found
}

/// Fails with the first difference of two trees.
pub fn assert_same(first: &dyn TreeReader, second: &dyn TreeReader) {
    let (first, second) = (describe(first), describe(second));
    let names = |tree: &BTreeMap<TreePath, Description>| -> Vec<String> {
        tree.keys().map(ToString::to_string).collect()
    };
    assert_eq!(names(&first), names(&second));
    for (path, description) in &first {
        let other = &second[path];
        assert_eq!(description.node, other.node, "{path}");
        assert_eq!(description.metadata, other.metadata, "{path}");
        assert_eq!(description.first_name, other.first_name, "{path}");
        assert!(description.blocks == other.blocks, "the content of {path} differs");
    }
}
