//! A file tree as the kernel shows it, written down entry by entry: an independent judge of whether
//! two trees are the same. It shares no code with the program's own tree hash.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a path is, with what belongs to that type alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file: its size and the SHA-256 of its content.
    File {
        /// Holes count.
        size_bytes: u64,
        /// Hexadecimal.
        sha256: String,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major and minor.
    CharacterDevice(u32, u32),
    /// A block device: major and minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Everything about a path that an image can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its type and what belongs to it.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Extended attributes by full name.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in byte order, that is the same file; its own if it has no other name.
    pub same_as: Vec<u8>,
    /// How many names the file has, in the tree or out of it; 1 for folders.
    pub names: u64,
}

/// A whole tree: every path below the root, and the root itself as the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
}

impl Tree {
    /// Reads the tree at `root`, without leaving its file system and without following links.
    #[track_caller]
    pub fn read(root: &Path) -> Tree {
        let device = stat(root).dev();
        let mut entries = BTreeMap::new();
        let mut files: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        let mut pending = vec![(Vec::new(), root.to_owned())];
        while let Some((name, path)) = pending.pop() {
            let metadata = stat(&path);
            if metadata.dev() != device {
                panic!("{} lies on another file system", path.display());
            }
            if metadata.is_dir() {
                for child in fs::read_dir(&path).expect("read a folder of the tree") {
                    let child = child.expect("an entry of a folder").file_name();
                    let mut child_name = name.clone();
                    if !child_name.is_empty() {
                        child_name.push(b'/');
                    }
                    child_name.extend_from_slice(child.as_bytes());
                    pending.push((child_name, path.join(&child)));
                }
            } else {
                files.entry(metadata.ino()).or_default().push(name.clone());
            }
            let entry = Entry {
                kind: kind_of(&path, &metadata),
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                attributes: attributes_of(&path),
                same_as: name.clone(),
                names: if metadata.is_dir() { 1 } else { metadata.nlink() },
            };
            entries.insert(name, entry);
        }
        for names in files.values() {
            let first = names.iter().min().expect("a file has a name").clone();
            for name in names {
                entries.get_mut(name).expect("an entry read before").same_as = first.clone();
            }
        }
        Tree { entries }
    }

    /// The entry of a path, relative to the root.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path.as_bytes())
    }

    /// How many paths there are, the root included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there nothing? Never so for a tree that was read: the root is there.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many regular files there are, by name.
    pub fn file_count(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry.kind, Kind::File { .. })).count()
    }

    /// The same tree without a path and what lies below it.
    #[must_use]
    pub fn without(mut self, path: &str) -> Tree {
        let below = format!("{path}/").into_bytes();
        self.entries.retain(|name, _| name != path.as_bytes() && !name.starts_with(&below));
        self
    }

    /// The same tree without one entry; what lies below it stays.
    #[must_use]
    pub fn without_entry(mut self, path: &str) -> Tree {
        self.entries.remove(path.as_bytes());
        self
    }

    /// The same tree without some of its attributes.
    #[must_use]
    pub fn without_attributes(mut self, leaves_out: fn(&[u8]) -> bool) -> Tree {
        for entry in self.entries.values_mut() {
            entry.attributes.retain(|name, _| !leaves_out(name));
        }
        self
    }

    /// The same tree with a deletion of an overlay's being just that: the kernel links several together.
    #[must_use]
    pub fn with_bare_deletions(mut self) -> Tree {
        for (path, entry) in &mut self.entries {
            if entry.kind == Kind::CharacterDevice(0, 0) {
                (entry.modified, entry.names) = ((0, 0), 1);
                entry.same_as.clone_from(path);
            }
        }
        self
    }

    /// The same tree with every time replaced, for what was done in two places.
    #[must_use]
    pub fn without_times(mut self) -> Tree {
        for entry in self.entries.values_mut() {
            entry.modified = (0, 0);
        }
        self
    }

    /// The same tree with every owner replaced, for a host that could not set them.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Tree {
        for entry in self.entries.values_mut() {
            (entry.uid, entry.gid) = (uid, gid);
        }
        self
    }

    /// The same tree with the names of files counted as the tree shows them: an overlay still counts those
    /// that were deleted in a layer above.
    #[must_use]
    pub fn with_shown_names(mut self) -> Tree {
        let mut shown: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for entry in self.entries.values() {
            *shown.entry(entry.same_as.clone()).or_default() += 1;
        }
        for entry in self.entries.values_mut() {
            entry.names = shown[&entry.same_as];
        }
        self
    }

    /// One hash over everything.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            let text = describe(entry);
            for part in [name.as_slice(), text.as_bytes()] {
                hash.update(u64::try_from(part.len()).expect("a length").to_le_bytes());
                hash.update(part);
            }
        }
        hexadecimal(&hash.finalize())
    }

    /// What differs, one line a path: what `self` has against what `other` has.
    pub fn differences(&self, other: &Tree) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, entry) in &self.entries {
            let path = String::from_utf8_lossy(name);
            match other.entries.get(name) {
                None => lines.push(format!("/{path}: only in the first: {}", describe(entry))),
                Some(theirs) if theirs != entry => lines.push(format!(
                    "/{path}:\n    first:  {}\n    second: {}",
                    describe(entry),
                    describe(theirs)
                )),
                Some(_) => {}
            }
        }
        for (name, entry) in &other.entries {
            if !self.entries.contains_key(name) {
                let path = String::from_utf8_lossy(name);
                lines.push(format!("/{path}: only in the second: {}", describe(entry)));
            }
        }
        lines
    }

    /// Fails the test unless both trees are the same in everything.
    #[track_caller]
    pub fn assert_same(&self, other: &Tree) {
        let lines = self.differences(other);
        if !lines.is_empty() {
            let shown: Vec<&str> = lines.iter().take(40).map(String::as_str).collect();
            panic!("the trees differ in {} paths:\n{}", lines.len(), shown.join("\n"));
        }
        assert_eq!(self.hash(), other.hash());
    }
}

#[track_caller]
fn stat(path: &Path) -> Metadata {
    match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => panic!("cannot look at {}: {error}", path.display()),
    }
}

fn kind_of(path: &Path, metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::File { size_bytes: metadata.len(), sha256: file_hash(path) }
    } else if kind.is_symlink() {
        let target: PathBuf = fs::read_link(path).expect("read a symbolic link");
        Kind::Symlink(target.as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        Kind::CharacterDevice(major, minor)
    } else if kind.is_block_device() {
        Kind::BlockDevice(major, minor)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    }
}

/// The SHA-256 of a file's content, in hexadecimal.
#[track_caller]
pub fn file_hash(path: &Path) -> String {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => panic!("cannot open {}: {error}", path.display()),
    };
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => panic!("cannot read {}: {error}", path.display()),
        };
        hash.update(&chunk[..count]);
    }
    hexadecimal(&hash.finalize())
}

/// Bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn attributes_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut attributes = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let name_for_kernel = CString::new(name).expect("no NUL in a name between NULs");
        let size = rustix::fs::lgetxattr(path, &name_for_kernel, &mut value[..])
            .unwrap_or_else(|error| panic!("attribute of {}: {error}", path.display()));
        value.truncate(size);
        attributes.insert(name.to_vec(), value);
    }
    attributes
}

fn describe(entry: &Entry) -> String {
    let mut text = match &entry.kind {
        Kind::File { size_bytes, sha256 } => format!("file of {size_bytes} bytes, {sha256}"),
        Kind::Symlink(target) => format!("symlink to '{}'", target.escape_ascii()),
        other => format!("{other:?}"),
    };
    let (seconds, nanoseconds) = entry.modified;
    let _ = write!(
        text,
        ", mode {:04o}, owner {}:{}, time {seconds}.{nanoseconds:09}, {} names, same as '{}'",
        entry.mode,
        entry.uid,
        entry.gid,
        entry.names,
        entry.same_as.escape_ascii()
    );
    for (name, value) in &entry.attributes {
        let _ = write!(text, ", {}={}", name.escape_ascii(), hexadecimal(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn small_tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "content").unwrap();
        fs::hard_link(root.join("a/file"), root.join("a/b/link")).unwrap();
        symlink("../nowhere", root.join("a/symlink")).unwrap();
        run_fifo(&root.join("fifo"));
        folder
    }

    fn run_fifo(path: &Path) {
        crate::run_tool("mkfifo", &[path.to_str().unwrap()]);
    }

    fn copy_of(tree: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let source = format!("{}/.", tree.display());
        crate::run_tool("cp", &["-a", source.as_str(), copy.path().to_str().unwrap()]);
        copy
    }

    #[test]
    fn a_faithful_copy_is_the_same_tree() {
        let original = small_tree();
        let copy = copy_of(original.path());
        Tree::read(original.path()).assert_same(&Tree::read(copy.path()));
    }

    /// Every kind of change, each alone, must show in the hash and on exactly the right paths.
    #[test]
    fn every_kind_of_change_is_seen() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 9] = [
            ("/a/file", |root| {
                // Same length, same time: only the content tells.
                let path = root.join("a/file");
                let time = fs::metadata(&path).unwrap().modified().unwrap();
                fs::write(&path, "CONTENT").unwrap();
                File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            }),
            ("/a/b", |root| {
                fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o1700)).unwrap();
            }),
            ("/a/symlink", |root| {
                let path = root.join("a/symlink");
                crate::run_tool("ln", &["-snf", "../elsewhere", path.to_str().unwrap()]);
            }),
            ("/a/b/new", |root| fs::write(root.join("a/b/new"), "").unwrap()),
            ("/fifo", |root| fs::remove_file(root.join("fifo")).unwrap()),
            ("/fifo", |root| {
                fs::remove_file(root.join("fifo")).unwrap();
                fs::write(root.join("fifo"), "").unwrap();
            }),
            ("/a/file", |root| {
                let file = File::open(root.join("a/file")).unwrap();
                let time = file.metadata().unwrap().modified().unwrap();
                file.set_modified(time + std::time::Duration::from_nanos(1)).unwrap();
            }),
            ("/a/file", |root| {
                let path = root.join("a/file");
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(&path, c"user.one", b"1", flags).unwrap();
            }),
            ("/a/b/link", |root| {
                // The same bytes, but a file of its own.
                let path = root.join("a/b/link");
                crate::run_tool(
                    "cp",
                    &[
                        "-a",
                        "--remove-destination",
                        root.join("a/file").to_str().unwrap(),
                        path.to_str().unwrap(),
                    ],
                );
            }),
        ];
        for (path, change) in changes {
            let original = small_tree();
            let copy = copy_of(original.path());
            change(copy.path());
            let (first, second) = (Tree::read(original.path()), Tree::read(copy.path()));
            assert_ne!(first.hash(), second.hash(), "{path}");
            let lines = first.differences(&second);
            assert!(lines.iter().any(|line| line.starts_with(&format!("{path}:"))), "{lines:?}");
        }
    }

    #[test]
    fn hard_links_are_told_from_equal_files() {
        let tree = small_tree();
        let read = Tree::read(tree.path());
        assert_eq!(read.get("a/file").unwrap().same_as, b"a/b/link");
        assert_eq!(read.get("a/file").unwrap().names, 2);
        assert_eq!(read.get("a/symlink").unwrap().kind, Kind::Symlink(b"../nowhere".to_vec()));
        assert_eq!(read.get("fifo").unwrap().kind, Kind::Fifo);
        assert_eq!(read.len(), 7);
        assert_eq!(read.file_count(), 2);
        assert_eq!(read.without("a").len(), 2);
    }

    #[test]
    #[ignore = "needs root: makes device nodes and changes owners"]
    fn devices_and_owners_are_compared() {
        let tree = small_tree();
        let (one, two) = (tree.path().join("one"), tree.path().join("two"));
        crate::run_tool("mknod", &[one.to_str().unwrap(), "c", "4000", "1000000"]);
        crate::run_tool("mknod", &[two.to_str().unwrap(), "b", "259", "300"]);
        std::os::unix::fs::lchown(&two, Some(3_000_000), Some(4_000_000_000)).unwrap();
        let read = Tree::read(tree.path());
        assert_eq!(read.get("one").unwrap().kind, Kind::CharacterDevice(4000, 1_000_000));
        let block = read.get("two").unwrap();
        assert_eq!(block.kind, Kind::BlockDevice(259, 300));
        assert_eq!((block.uid, block.gid), (3_000_000, 4_000_000_000));
        Tree::read(copy_of(tree.path()).path()).assert_same(&read);
    }
}
