//! A folder of the host as a tree.
//!
//! Every path is opened below the folder by the kernel's own resolution that follows no symlink
//! (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), so that a folder that somebody changes
//! during the walk cannot lead out of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    Dir, Mode, OFlags, ResolveFlags, SeekFrom, getxattr, listxattr, major, minor, openat2,
    readlinkat, seek,
};
use rustix::io::Errno;
use thinstore_filesystem::{FileContent, Metadata, Node, Timestamp, TreePath, TreeReader};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::tar::acl;
use crate::tar::header::Piece;
use crate::{printable, to_u64};

/// Attributes that the host's own policy writes, and that mean nothing in another tree.
const OF_THE_HOST: [&[u8]; 2] = [b"security.selinux", b"security.evm"];

/// A sparse file of more pieces than this is taken with its holes as zeroes.
const MAX_PIECES: usize = 100_000;

/// A folder of the host, read as a [`TreeReader`]. Needs Linux 5.6 and a mounted `/proc`.
#[derive(Debug)]
pub struct HostTree {
    root: OwnedFd,
    place: PathBuf,
    /// Numbers for files with several names: inode numbers alone repeat across file systems.
    identities: Mutex<HashMap<(u64, u64), u64>>,
}

impl HostTree {
    /// The tree below `folder`, which may itself be named through symlinks.
    ///
    /// # Errors
    /// `NotFound`, `Permission` or `Io` as the host says.
    pub fn open(folder: &Path) -> Result<HostTree> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| {
            Error::io(format!("the folder '{}' cannot be opened", folder.display()), error.into())
        })?;
        Ok(HostTree { root, place: folder.to_owned(), identities: Mutex::default() })
    }

    fn failed(&self, doing: &str, path: &TreePath, error: io::Error) -> Error {
        let path = printable(path.as_bytes());
        Error::io(format!("'{path}' in '{}' cannot be {doing}", self.place.display()), error)
    }

    fn open_path(&self, path: &TreePath, flags: OFlags) -> Result<File> {
        let name = if path.is_root() { b"." } else { path.as_bytes() };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut attempts = 0;
        loop {
            match openat2(&self.root, name, flags, Mode::empty(), resolve) {
                Ok(file) => return Ok(File::from(file)),
                // Somebody renames folders meanwhile; the kernel asks to try again.
                Err(Errno::AGAIN | Errno::INTR) if attempts < 100 => attempts += 1,
                Err(error) => return Err(self.failed("opened", path, error.into())),
            }
        }
    }

    /// Opens a node for its metadata alone, whatever it is.
    fn look(&self, path: &TreePath) -> Result<(File, std::fs::Metadata)> {
        let file = self.open_path(path, OFlags::PATH)?;
        let status = file.metadata().map_err(|error| self.failed("examined", path, error))?;
        Ok((file, status))
    }

    fn open_file(&self, path: &TreePath) -> Result<(File, std::fs::Metadata)> {
        // Non-blocking: should it have become a pipe, opening must not wait for a writer.
        let file = self.open_path(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let status = file.metadata().map_err(|error| self.failed("examined", path, error))?;
        if !status.is_file() {
            let path = printable(path.as_bytes());
            return Err(Error::new(
                ErrorKind::InUse,
                format!("'{path}' in '{}' was replaced meanwhile; try again", self.place.display()),
            ));
        }
        Ok((file, status))
    }

    /// A regular file by the name that a layer's tar gives it, and what it is called in messages. Symlinks
    /// on the way lead where they led when the layer was unpacked: inside the tree, as if it was `/`.
    pub(crate) fn file_of_layer(&self, name: &[u8]) -> Result<(File, String)> {
        let place = format!("'{}' in '{}'", printable(name), self.place.display());
        let open = |flags| {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat2(&self.root, name, flags, Mode::empty(), resolve)
                .map(File::from)
                .map_err(io::Error::from)
                .and_then(|file| file.metadata().map(|status| (file, status.is_file())))
                .map_err(|error| Error::io(format!("{place} cannot be opened"), error))
        };
        // Opened for its path alone at first: opening a device or a pipe does something.
        for flags in [OFlags::PATH, OFlags::RDONLY | OFlags::NONBLOCK] {
            let (file, is_file) = open(flags)?;
            if !is_file {
                return Err(crate::refuse(format!("{place} is not a regular file")));
            }
            if flags != OFlags::PATH {
                return Ok((file, place));
            }
        }
        Err(crate::refuse(format!("{place} cannot be opened")))
    }

    fn xattrs(&self, path: &TreePath, file: &File) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        // A descriptor opened for its path alone takes no xattr calls; its entry in /proc does, for
        // symlinks too.
        let place = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
        let failed =
            |error: Errno| self.failed("asked for extended attributes", path, error.into());
        let names = match whole(|buffer| listxattr(&place, buffer)) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut xattrs = BTreeMap::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if OF_THE_HOST.contains(&name) {
                continue;
            }
            match whole(|buffer| getxattr(&place, name, buffer)) {
                Ok(value) => {
                    xattrs.insert(name.to_vec(), value);
                }
                Err(Errno::NODATA) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(xattrs)
    }

    /// Where the data of a file is, if it has holes; none if it has not, or if they are too many to be
    /// worth it.
    pub(crate) fn holes(&self, path: &TreePath) -> Result<Option<Vec<Piece>>> {
        let (_, status) = self.look(path)?;
        if status.blocks().saturating_mul(512) >= status.size() {
            return Ok(None);
        }
        let (file, status) = self.open_file(path)?;
        let mut pieces = Vec::new();
        let mut position = 0;
        while position < status.size() {
            let piece = next_data(&file, position, status.size())
                .map_err(|error| self.failed("searched for holes", path, error))?;
            let Some((offset, length)) = piece else { break };
            if pieces.len() >= MAX_PIECES {
                return Ok(None);
            }
            pieces.push((offset, length));
            position = offset + length;
        }
        let whole_file = pieces.iter().map(|piece| piece.1).sum::<u64>() == status.size();
        Ok((!whole_file).then_some(pieces))
    }

    /// The given pieces of a file, and nothing else of it.
    pub(crate) fn pieces(&self, path: &TreePath, pieces: Vec<Piece>) -> Result<HostContent> {
        let (file, _) = self.open_file(path)?;
        let name = format!("'{}' in '{}'", printable(path.as_bytes()), self.place.display());
        let pieces = Pieces::Given(pieces.into_iter());
        Ok(HostContent { file, name, pieces, current: (0, 0) })
    }
}

/// Calls for a value of unknown length until the buffer is large enough: it may grow in between.
fn whole(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for names and for a value.
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(buffer.len() * 16, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The next stretch of data at or behind `position`; none if a hole reaches to the end.
fn next_data(file: &File, position: u64, size_bytes: u64) -> io::Result<Option<Piece>> {
    let start = match seek(file.as_fd(), SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system knows no holes: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => position,
        Err(error) => return Err(error.into()),
    };
    let end = match seek(file.as_fd(), SeekFrom::Hole(start)) {
        Ok(end) => end.min(size_bytes),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => size_bytes,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok((start < end).then_some((start, end.saturating_sub(start))))
}

fn node_of(status: &std::fs::Metadata, target: impl FnOnce() -> Result<Vec<u8>>) -> Result<Node> {
    let kind = status.file_type();
    let (major, minor) = (major(status.rdev()), minor(status.rdev()));
    Ok(if kind.is_dir() {
        Node::Directory
    } else if kind.is_symlink() {
        Node::Symlink { target: target()? }
    } else if kind.is_char_device() {
        Node::CharacterDevice { major, minor }
    } else if kind.is_block_device() {
        Node::BlockDevice { major, minor }
    } else if kind.is_fifo() {
        Node::Fifo
    } else if kind.is_socket() {
        Node::Socket
    } else {
        Node::File { size_bytes: status.size() }
    })
}

impl TreeReader for HostTree {
    fn node(&self, path: &TreePath) -> Result<(Node, Metadata)> {
        let (file, status) = self.look(path)?;
        let node = node_of(&status, || {
            readlinkat(&file, c"", Vec::new())
                .map(std::ffi::CString::into_bytes)
                .map_err(|error| self.failed("read as a link", path, error.into()))
        })?;
        let mut metadata = Metadata {
            mode: status.mode() & 0o7777,
            uid: status.uid(),
            gid: status.gid(),
            modified: Timestamp {
                seconds: status.mtime(),
                nanoseconds: u32::try_from(status.mtime_nsec()).unwrap_or(0),
            },
            xattrs: self.xattrs(path, &file)?,
        };
        let is_symlink = matches!(node, Node::Symlink { .. });
        let entry = format!("'{}'", printable(path.as_bytes()));
        acl::normalise(&mut metadata, node == Node::Directory, is_symlink, &entry)?;
        Ok((node, metadata))
    }

    fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        let folder = self.open_path(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let failed = |error: Errno| self.failed("listed", path, error.into());
        let mut names = Vec::new();
        for entry in Dir::new(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn content(&self, path: &TreePath) -> Result<Box<dyn FileContent + '_>> {
        let (file, status) = self.open_file(path)?;
        let name = format!("'{}' in '{}'", printable(path.as_bytes()), self.place.display());
        let pieces = Pieces::Sought { position: 0, size_bytes: status.size() };
        Ok(Box::new(HostContent { file, name, pieces, current: (0, 0) }))
    }

    fn identity(&self, path: &TreePath) -> Result<(u64, u64)> {
        let (_, status) = self.look(path)?;
        if status.nlink() < 2 {
            // Nothing shares it; only the count matters, and the numbers below stay small.
            return Ok((status.dev().rotate_right(16) ^ status.ino() | 1 << 63, status.nlink()));
        }
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let next = to_u64(identities.len());
        let number = *identities.entry((status.dev(), status.ino())).or_insert(next);
        Ok((number, status.nlink()))
    }
}

#[derive(Debug)]
enum Pieces {
    Given(std::vec::IntoIter<Piece>),
    Sought { position: u64, size_bytes: u64 },
}

/// The content of a file of the host.
#[derive(Debug)]
pub(crate) struct HostContent {
    file: File,
    name: String,
    pieces: Pieces,
    current: Piece,
}

impl FileContent for HostContent {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let failed = |error| Error::io(format!("{} cannot be read", self.name), error);
        while self.current.1 == 0 {
            let piece = match &mut self.pieces {
                Pieces::Given(pieces) => pieces.next(),
                Pieces::Sought { position, size_bytes } => {
                    let piece = next_data(&self.file, *position, *size_bytes).map_err(failed)?;
                    *position = piece.map_or(*size_bytes, |piece| piece.0 + piece.1);
                    piece
                }
            };
            match piece {
                Some(piece) => self.current = piece,
                None => return Ok(None),
            }
        }
        let (offset, length) = self.current;
        let want = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let target = buffer.get_mut(..want).unwrap_or_default();
        let count = loop {
            match self.file.read_at(target, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(failed)?,
            }
        };
        if count == 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} became shorter while it was read; try again", self.name),
            ));
        }
        self.current = (offset + to_u64(count), length - to_u64(count));
        Ok(Some((offset, count)))
    }
}
