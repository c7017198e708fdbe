//! The words in which archives, directories and ext4 file systems speak to each other: paths, nodes,
//! their metadata, and the two traits of a tree that is written and a tree that is read.

use std::collections::BTreeMap;
use std::fmt;

use thinstore_storage::{Error, ErrorKind, Result};

/// A path inside a tree: raw bytes, relative to the tree's root, without empty, `.` or `..`
/// components and without NUL. The root itself is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of a tree.
    pub fn root() -> TreePath {
        TreePath::default()
    }

    /// Takes a path as archives write it: leading `./` and `.` components and doubled slashes are
    /// dropped; an absolute path, a `..` component, a NUL, a component above 255 bytes and a path of
    /// 4096 bytes or more are refused.
    pub fn from_archive(raw: &[u8]) -> Result<TreePath> {
        let refuse = |why: &str| {
            Err(Error::new(
                ErrorKind::Refused,
                format!("the path '{}' {why}", String::from_utf8_lossy(raw)),
            ))
        };
        if raw.first() == Some(&b'/') {
            return refuse("is absolute");
        }
        if raw.contains(&0) {
            return refuse("contains a NUL");
        }
        if raw.len() >= 4096 {
            return refuse("is longer than 4095 bytes");
        }
        let mut path = Vec::with_capacity(raw.len());
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return refuse("leaves the root through '..'"),
                name if name.len() > 255 => return refuse("has a component above 255 bytes"),
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        Ok(TreePath(path))
    }

    /// The raw bytes, components joined by single slashes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Is this the tree's root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's components.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The folder that holds this path; the root's is the root.
    #[must_use]
    pub fn parent(&self) -> TreePath {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => TreePath(self.0[..slash].to_vec()),
            None => TreePath::root(),
        }
    }

    /// The last component; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// This path with one more component, which must be valid (see [`TreePath::from_archive`]).
    #[must_use]
    pub fn join(&self, name: &[u8]) -> TreePath {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        TreePath(path)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from archives: nothing in them may speak to a terminal.
        formatter.write_str("/")?;
        for character in String::from_utf8_lossy(&self.0).chars() {
            if character.is_control() {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

/// A point in time, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970; before it, negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What every node of a tree has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The permission bits with setuid, setgid and sticky (0o7777).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content last changed.
    pub modified: Timestamp,
    /// Extended attributes by full name (`user.x`, `security.capability`,
    /// `system.posix_acl_access` in the kernel's form).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Directory,
    /// A regular file.
    File {
        /// Its length; holes count.
        size_bytes: u64,
    },
    /// A symbolic link: its target, as it stands.
    Symlink {
        /// Raw bytes.
        target: Vec<u8>,
    },
    /// A character device.
    CharacterDevice {
        /// Up to 4095.
        major: u32,
        /// Up to 1,048,575.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Up to 4095.
        major: u32,
        /// Up to 1,048,575.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket: found in directories, never in archives.
    Socket,
}

/// The bytes of a regular file, holes left out, in ascending order.
pub trait FileContent {
    /// Fills `buffer` from the next bytes that are data: their offset in the file and how many came.
    /// `None` at the end.
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>>;
}

/// A tree that layers are applied to.
///
/// Missing parents are made (root:root, 0755). Symlinks on the way are followed inside the root, absolute
/// ones from the root; a path on which one climbs above the root with `..` is `Refused`. Something of
/// another type in the way is replaced, a directory over a directory keeps its children.
pub trait TreeWriter {
    /// Makes or replaces a node. `content` goes with `Node::File` only.
    fn put(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()>;

    /// Makes `path` another name of the file at `target`, which must exist.
    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()>;

    /// Removes `path` and all below it (a whiteout). Nothing there is no error.
    fn remove(&mut self, path: &TreePath) -> Result<()>;

    /// Removes all below the directory `path` that came from lower layers (an opaque folder).
    fn clear(&mut self, path: &TreePath) -> Result<()>;

    /// Sets what must come last (times of folders), and makes all of it durable.
    fn finish(&mut self) -> Result<()>;
}

/// A tree that can be walked and read.
pub trait TreeReader {
    /// Node and metadata of a path; the last component is not followed if it is a symlink.
    fn node(&self, path: &TreePath) -> Result<(Node, Metadata)>;

    /// The names in a folder, sorted by bytes, without `.` and `..`.
    fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>>;

    /// The content of a regular file.
    fn content(&self, path: &TreePath) -> Result<Box<dyn FileContent + '_>>;

    /// A number that two paths share when they are hard links of one file, and the count of links.
    fn identity(&self, path: &TreePath) -> Result<(u64, u64)>;
}
