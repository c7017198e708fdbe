//! One number for a whole tree, and the text that it is taken over.
//!
//! The manifest has one line a path, in the order of the paths' components by bytes, a folder before
//! what it holds. Fields are divided by single spaces:
//!
//! ```text
//! PATH TYPE MODE UID GID SECONDS.NANOSECONDS DETAIL [xattr:NAME=HEX]...
//! ```
//!
//! TYPE is `d`, `f`, `l`, `c`, `b`, `p` or `s`. DETAIL is `SIZE SHA256` of a file, the target of a
//! symlink, `MAJOR:MINOR` of a device and `-` of the rest. A path that is another name of a file that
//! came before has `= FIRST_PATH` in place of all fields after the path.
//!
//! SHA256 is what `sha256sum` gives, but for files in which a whole mebibyte (counted from the start of
//! the file) is zeroes: of them the hash is taken over the other mebibytes, and then, for each run of
//! those left out, its first number and its length as 64-bit little-endian numbers. Where a file has
//! holes makes no difference.
//!
//! Bytes of paths, targets and names that are not visible ASCII, and backslashes, are written `\xHH`.
//! The tree hash is the SHA-256 of the manifest.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Write;

use sha2::{Digest, Sha256};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::tree::{Metadata, Node, TreePath, TreeReader};

const BUFFER_BYTES: usize = 256 << 10;

/// What is left out of the hash where it is all zeroes.
const CHUNK_BYTES: u64 = 1 << 20;

/// How deep folders may lie: as deep as the longest path allows.
pub(crate) const DEPTH_MAX: usize = 2048;

/// The SHA-256 of a tree's manifest. Trees are the same in every path, type, content, mode, owner,
/// time, link, attribute and device number if and only if their hashes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeHash(pub [u8; 32]);

impl fmt::Display for TreeHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The hash of a whole tree.
pub fn tree_hash(tree: &dyn TreeReader) -> Result<TreeHash> {
    let mut hasher = Sha256::new();
    walk(tree, &mut |line| {
        hasher.update(line);
        Ok(())
    })?;
    Ok(TreeHash(hasher.finalize().into()))
}

/// Writes the manifest of a whole tree, which `diff` compares with another.
pub fn manifest(tree: &dyn TreeReader, output: &mut dyn Write) -> Result<()> {
    walk(tree, &mut |line| {
        output.write_all(line).map_err(|error| Error::io("cannot write the manifest", error))
    })
}

fn escape(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            line.push(*byte);
        } else {
            line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
}

fn hexadecimal(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        line.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
}

/// The depth and the folder check that keep a walk over a damaged file system finite.
pub(crate) struct Guard {
    seen: HashSet<u64>,
}

impl Guard {
    pub(crate) fn new() -> Guard {
        Guard { seen: HashSet::new() }
    }

    /// Enters a folder; one that is entered twice, or lies too deep, is an error.
    pub(crate) fn enter(&mut self, tree: &dyn TreeReader, path: &TreePath) -> Result<()> {
        let deep = path.components().count() > DEPTH_MAX;
        if deep || !self.seen.insert(tree.identity(path)?.0) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the folder '{path}' lies in itself, or too deep; run e2fsck on it"),
            ));
        }
        Ok(())
    }
}

fn walk(tree: &dyn TreeReader, emit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut first_names: HashMap<u64, TreePath> = HashMap::new();
    let mut guard = Guard::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    // Paths still to visit, the next one last.
    let mut pending = vec![TreePath::root()];
    let mut line = Vec::new();
    while let Some(path) = pending.pop() {
        line.clear();
        line.push(b'/');
        escape_path(&mut line, &path);
        let (node, metadata) = tree.node(&path)?;
        if matches!(node, Node::Directory) {
            guard.enter(tree, &path)?;
            let names = tree.names(&path)?;
            pending.extend(names.iter().rev().map(|name| path.join(name)));
        } else {
            let (number, links) = tree.identity(&path)?;
            if links > 1 {
                if let Some(first) = first_names.get(&number) {
                    line.extend_from_slice(b" = /");
                    escape_path(&mut line, first);
                    line.push(b'\n');
                    emit(&line)?;
                    continue;
                }
                first_names.insert(number, path.clone());
            }
        }
        describe(tree, &path, &node, &metadata, &mut buffer, &mut line)?;
        emit(&line)?;
    }
    Ok(())
}

fn escape_path(line: &mut Vec<u8>, path: &TreePath) {
    escape(line, path.as_bytes());
}

fn describe(
    tree: &dyn TreeReader,
    path: &TreePath,
    node: &Node,
    metadata: &Metadata,
    buffer: &mut [u8],
    line: &mut Vec<u8>,
) -> Result<()> {
    let letter = match node {
        Node::Directory => 'd',
        Node::File { .. } => 'f',
        Node::Symlink { .. } => 'l',
        Node::CharacterDevice { .. } => 'c',
        Node::BlockDevice { .. } => 'b',
        Node::Fifo => 'p',
        Node::Socket => 's',
    };
    let fields = format!(
        " {letter} {:04o} {} {} {}.{:09} ",
        metadata.mode,
        metadata.uid,
        metadata.gid,
        metadata.modified.seconds,
        metadata.modified.nanoseconds
    );
    line.extend_from_slice(fields.as_bytes());
    match node {
        Node::File { size_bytes } => {
            line.extend_from_slice(format!("{size_bytes} ").as_bytes());
            let hash = content_hash(tree, path, *size_bytes, buffer)?;
            hexadecimal(line, &hash);
        }
        Node::Symlink { target } => escape(line, target),
        Node::CharacterDevice { major, minor } | Node::BlockDevice { major, minor } => {
            line.extend_from_slice(format!("{major}:{minor}").as_bytes());
        }
        Node::Directory | Node::Fifo | Node::Socket => line.push(b'-'),
    }
    for (name, value) in &metadata.xattrs {
        line.extend_from_slice(b" xattr:");
        escape(line, name);
        line.push(b'=');
        hexadecimal(line, value);
    }
    line.push(b'\n');
    Ok(())
}

/// The SHA-256 of a file's content, in time that goes by its data and not by its size: a container can
/// make a file of 16 TiB with one call.
fn content_hash(
    tree: &dyn TreeReader,
    path: &TreePath,
    size_bytes: u64,
    buffer: &mut [u8],
) -> Result<[u8; 32]> {
    let mut content_hash = ContentHash {
        hasher: Sha256::new(),
        size_bytes,
        chunk: Vec::new(),
        at_chunk: 0,
        skipped: Vec::new(),
    };
    let mut content = tree.content(path)?;
    while let Some((offset, count)) = content.next(buffer)? {
        content_hash.take(offset, buffer.get(..count).unwrap_or(&[]));
    }
    Ok(content_hash.finish())
}

struct ContentHash {
    hasher: Sha256,
    size_bytes: u64,
    /// What came of the current chunk so far, zeroes behind it left out.
    chunk: Vec<u8>,
    /// The current chunk's number.
    at_chunk: u64,
    /// Runs of chunks that are all zeroes: first and count.
    skipped: Vec<(u64, u64)>,
}

impl ContentHash {
    fn take(&mut self, offset: u64, data: &[u8]) {
        let (mut offset, mut rest) = (offset, data);
        while !rest.is_empty() {
            self.advance(offset / CHUNK_BYTES);
            let inside = usize::try_from(offset % CHUNK_BYTES).unwrap_or(0);
            let room = usize::try_from(CHUNK_BYTES).unwrap_or(0).saturating_sub(inside);
            let (now, later) = rest.split_at(rest.len().min(room));
            self.chunk.resize(inside.max(self.chunk.len()), 0);
            self.chunk.truncate(inside);
            self.chunk.extend_from_slice(now);
            offset = offset.saturating_add(u64::try_from(now.len()).unwrap_or(0));
            rest = later;
        }
    }

    /// Ends the current chunk and all before `chunk`.
    fn advance(&mut self, chunk: u64) {
        if self.at_chunk >= chunk {
            return;
        }
        if self.chunk.iter().any(|byte| *byte != 0) {
            self.chunk.resize(usize::try_from(CHUNK_BYTES).unwrap_or(0), 0);
            self.hasher.update(&self.chunk);
            self.at_chunk += 1;
        }
        self.chunk.clear();
        let zeroes = chunk - self.at_chunk;
        if zeroes > 0 {
            match self.skipped.last_mut() {
                Some((first, count)) if *first + *count == self.at_chunk => *count += zeroes,
                _ => self.skipped.push((self.at_chunk, zeroes)),
            }
        }
        self.at_chunk = chunk;
    }

    fn finish(mut self) -> [u8; 32] {
        self.advance(self.size_bytes / CHUNK_BYTES);
        // The last, shorter chunk is hashed as it is.
        let last = usize::try_from(self.size_bytes % CHUNK_BYTES).unwrap_or(0);
        self.chunk.resize(last, 0);
        self.hasher.update(&self.chunk);
        for (first, count) in &self.skipped {
            self.hasher.update(first.to_le_bytes());
            self.hasher.update(count.to_le_bytes());
        }
        self.hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(size_bytes: u64, parts: &[(u64, &[u8])]) -> String {
        let mut hash = ContentHash {
            hasher: Sha256::new(),
            size_bytes,
            chunk: Vec::new(),
            at_chunk: 0,
            skipped: Vec::new(),
        };
        parts.iter().for_each(|(offset, data)| hash.take(*offset, data));
        TreeHash(hash.finish()).to_string()
    }

    #[test]
    fn a_file_without_long_zeroes_has_the_hash_that_sha256sum_gives() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_of(3, &[(0, b"abc")]), abc);
        assert_eq!(hash_of(3, &[(0, b"a"), (1, b"bc")]), abc);
        let data = vec![5; 3 << 20];
        let whole = TreeHash(Sha256::digest(&data).into()).to_string();
        assert_eq!(hash_of(3 << 20, &[(0, &data)]), whole);
        let (a, b) = data.split_at(1_234_567);
        assert_eq!(hash_of(3 << 20, &[(0, a), (1_234_567, b)]), whole);
    }

    #[test]
    fn holes_and_zeroes_are_the_same_and_their_places_count() {
        let zeroes = vec![0; 4 << 20];
        let mut data = zeroes.clone();
        data[(2 << 20) + 5] = 1;
        let written = hash_of(4 << 20, &[(0, &data)]);
        assert_eq!(hash_of(4 << 20, &[((2 << 20) + 5, b"\x01")]), written);
        assert_ne!(hash_of(4 << 20, &[((1 << 20) + 5, b"\x01")]), written);
        assert_ne!(hash_of(5 << 20, &[((2 << 20) + 5, b"\x01")]), written);
        assert_eq!(hash_of(4 << 20, &[(0, &zeroes)]), hash_of(4 << 20, &[]));
        // A file of 16 TiB takes no time.
        assert_ne!(hash_of(16 << 40, &[]), hash_of((16 << 40) - 1, &[]));
    }
}
