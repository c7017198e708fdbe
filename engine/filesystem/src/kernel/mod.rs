//! A directory of the host as a tree: every access is by the kernel, relative to an open folder, and
//! follows no symlink that was not looked at before. What others do in the directory at the same time
//! can make a call fail; it cannot lead one out of the directory.

mod metadata;
mod read;
mod remove;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use thinstore_storage::{Error, Result};

use crate::resolve::{self, Child, Lookup};
use crate::tree::{Metadata, Node, Timestamp, TreePath};

/// How many folders are kept open.
const OPEN_MAX: usize = 256;

const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder and its path in the tree, all symlinks resolved.
pub(crate) struct Folder {
    fd: OwnedFd,
    path: TreePath,
    inode: u64,
}

/// What is known of the tree besides what the kernel knows.
#[derive(Default)]
struct State {
    /// Folders by the path that was asked for.
    open: HashMap<TreePath, Arc<Folder>>,
    /// The times that folders must have in the end: those that were put, and those that changed only
    /// because something in them did.
    times: BTreeMap<TreePath, Timestamp>,
    /// The names that were put, by the inode of the folder: what an opaque folder keeps.
    ours: HashMap<u64, HashSet<Vec<u8>>>,
}

/// A tree over a directory of the host. Writing owners, devices and most xattrs needs root.
pub struct DirectoryTree {
    root: Arc<Folder>,
    name: PathBuf,
    state: Mutex<State>,
    buffer: Vec<u8>,
}

/// The name of an open folder's child, for the calls that take paths only.
fn descriptor_path(folder: &Folder, name: &[u8]) -> PathBuf {
    Path::new(&format!("/proc/thread-self/fd/{}", folder.fd.as_raw_fd()))
        .join(OsStr::from_bytes(name))
}

/// An error of the kernel in terms of the tree.
fn failed(what: &str, path: &TreePath, errno: Errno) -> Error {
    Error::io(format!("cannot {what} '{path}'"), errno.into())
}

fn stat(folder: &Folder, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    let name = if name.is_empty() { &b"."[..] } else { name };
    match rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn modified(stat: &Stat) -> Timestamp {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp { seconds: stat.st_mtime, nanoseconds }
}

impl DirectoryTree {
    /// The tree at `path`, which must be a folder.
    pub fn open(path: &Path) -> Result<DirectoryTree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty())
            .and_then(|fd| rustix::fs::fstat(&fd).map(|stat| (fd, stat.st_ino)));
        let (fd, inode) = opened.map_err(|errno| {
            Error::io(format!("cannot open the folder '{}'", path.display()), errno.into())
        })?;
        Ok(DirectoryTree {
            root: Arc::new(Folder { fd, path: TreePath::root(), inode }),
            name: path.to_owned(),
            state: Mutex::default(),
            buffer: Vec::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is kept is right after every single change of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&mut self) -> &mut State {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_child(&self, folder: &Folder, name: &[u8]) -> rustix::io::Result<Arc<Folder>> {
        let fd = rustix::fs::openat(&folder.fd, name, FOLDER_FLAGS, Mode::empty())?;
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Arc::new(Folder { fd, path: folder.path.join(name), inode }))
    }

    fn keep(&self, path: &TreePath, folder: &Arc<Folder>) {
        let mut state = self.state();
        if state.open.len() >= OPEN_MAX {
            state.open.clear();
        }
        state.open.insert(path.clone(), folder.clone());
    }

    /// The folder at `path` for a reader, if there is one; all symlinks are followed.
    fn folder(&self, path: &TreePath) -> Result<Option<Arc<Folder>>> {
        if let Some(folder) = self.state().open.get(path) {
            return Ok(Some(folder.clone()));
        }
        let mut reading = Reading { tree: self, stayed_in_root: false };
        let folder = resolve::directory(&mut reading, path, false)?;
        // What is kept is there for writers too, who refuse this way.
        if let Some(folder) = &folder
            && !reading.stayed_in_root
        {
            self.keep(path, folder);
        }
        Ok(folder)
    }

    /// The folder at `path` for a writer, if there is one; nothing is made.
    fn folder_to_change(&mut self, path: &TreePath) -> Result<Option<Arc<Folder>>> {
        if let Some(folder) = self.state_mut().open.get(path) {
            return Ok(Some(folder.clone()));
        }
        let folder = resolve::directory(self, path, false)?;
        if let Some(folder) = &folder {
            self.keep(path, folder);
        }
        Ok(folder)
    }

    fn child_of(&self, folder: &Arc<Folder>, name: &[u8]) -> Result<Child<Arc<Folder>>> {
        let path = folder.path.join(name);
        match self.open_child(folder, name) {
            Ok(child) => return Ok(Child::Directory(child)),
            Err(Errno::NOENT) => return Ok(Child::Missing),
            // With O_DIRECTORY a symlink is "not a folder" (with O_NOFOLLOW alone, a loop).
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed("open", &path, errno)),
        }
        match rustix::fs::readlinkat(&folder.fd, name, Vec::new()) {
            Ok(target) => Ok(Child::Symlink(target.into_bytes())),
            Err(Errno::INVAL) => Ok(Child::Other),
            Err(errno) => Err(failed("read the symlink", &path, errno)),
        }
    }
}

/// Resolves paths without making anything.
struct Reading<'a> {
    tree: &'a DirectoryTree,
    /// Did the path try to climb above the root?
    stayed_in_root: bool,
}

impl Lookup for Reading<'_> {
    type Directory = Arc<Folder>;

    fn root(&mut self) -> Arc<Folder> {
        self.tree.root.clone()
    }

    fn child(&mut self, folder: &Arc<Folder>, name: &[u8]) -> Result<Child<Arc<Folder>>> {
        self.tree.child_of(folder, name)
    }

    fn make(&mut self, folder: &Arc<Folder>, name: &[u8]) -> Result<Arc<Folder>> {
        Err(failed("make the folder", &folder.path.join(name), Errno::ROFS))
    }

    fn stays_in_root(&mut self) -> bool {
        self.stayed_in_root = true;
        true
    }

    fn passed(&mut self, _folder: &Arc<Folder>, _name: &[u8]) {}
}

impl Lookup for DirectoryTree {
    type Directory = Arc<Folder>;

    fn root(&mut self) -> Arc<Folder> {
        self.root.clone()
    }

    fn child(&mut self, folder: &Arc<Folder>, name: &[u8]) -> Result<Child<Arc<Folder>>> {
        self.child_of(folder, name)
    }

    fn make(&mut self, folder: &Arc<Folder>, name: &[u8]) -> Result<Arc<Folder>> {
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        let path = folder.path.join(name);
        self.put_at(&path, folder, name, &Node::Directory, &metadata, None)?;
        self.open_child(folder, name).map_err(|errno| failed("open", &path, errno))
    }

    fn stays_in_root(&mut self) -> bool {
        false
    }

    fn passed(&mut self, folder: &Arc<Folder>, name: &[u8]) {
        self.mark(folder, name);
    }
}
