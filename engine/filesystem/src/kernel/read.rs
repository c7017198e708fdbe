//! Reading a directory of the host.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use thinstore_storage::{Error, ErrorKind, Result};

use super::metadata::xattrs;
use super::{DirectoryTree, FOLDER_FLAGS, Folder, failed, file_type, modified, stat};
use crate::tree::{FileContent, Metadata, Node, TreePath, TreeReader};

fn not_found(path: &TreePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("'{path}' does not exist"))
}

/// The names in an open folder, unsorted.
pub(super) fn list(folder: &Folder) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let own = rustix::fs::openat(&folder.fd, ".", FOLDER_FLAGS, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(own)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

impl DirectoryTree {
    /// The folder that holds `path`, and its name there; empty for the root.
    fn place<'a>(&self, path: &'a TreePath) -> Result<(std::sync::Arc<Folder>, &'a [u8])> {
        let Some(name) = path.name() else {
            return Ok((self.root.clone(), b""));
        };
        let folder = self.folder(&path.parent())?.ok_or_else(|| not_found(path))?;
        Ok((folder, name))
    }
}

impl TreeReader for DirectoryTree {
    fn node(&self, path: &TreePath) -> Result<(Node, Metadata)> {
        let (folder, name) = self.place(path)?;
        let stat = stat(&folder, name).map_err(|errno| failed("look at", path, errno))?;
        let stat = stat.ok_or_else(|| not_found(path))?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let node = match file_type(&stat) {
            FileType::Directory => Node::Directory,
            FileType::RegularFile => {
                Node::File { size_bytes: u64::try_from(stat.st_size).unwrap_or(0) }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&folder.fd, name, Vec::new())
                    .map_err(|errno| failed("read the symlink", path, errno))?;
                Node::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => Node::CharacterDevice { major, minor },
            FileType::BlockDevice => Node::BlockDevice { major, minor },
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            FileType::Unknown => {
                let why = format!("'{path}' is of a type that is not known");
                return Err(Error::new(ErrorKind::Unsupported, why));
            }
        };
        let shown = if name.is_empty() { &b"."[..] } else { name };
        let xattrs = xattrs(&folder, shown)
            .map_err(|errno| failed("read the extended attributes of", path, errno))?;
        let metadata = Metadata {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: modified(&stat),
            xattrs,
        };
        Ok((node, metadata))
    }

    fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        let folder = self.folder(path)?.ok_or_else(|| not_found(path))?;
        let names = list(&folder).map_err(|errno| failed("list", path, errno))?;
        let mut names: Vec<Vec<u8>> = names.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn content(&self, path: &TreePath) -> Result<Box<dyn FileContent + '_>> {
        let (folder, name) = self.place(path)?;
        // A fifo would block without O_NONBLOCK, which regular files do not care for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let shown = if name.is_empty() { &b"."[..] } else { name };
        let opened = rustix::fs::openat(&folder.fd, shown, flags, Mode::empty());
        let file = opened.map_err(|errno| match errno {
            Errno::NOENT => not_found(path),
            errno => failed("open", path, errno),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("look at", path, errno))?;
        if file_type(&stat) != FileType::RegularFile {
            return Err(Error::new(ErrorKind::Usage, format!("'{path}' is not a regular file")));
        }
        Ok(Box::new(Content { file, path: path.clone(), at: 0, data_end: 0 }))
    }

    fn identity(&self, path: &TreePath) -> Result<(u64, u64)> {
        let (folder, name) = self.place(path)?;
        let stat = stat(&folder, name).map_err(|errno| failed("look at", path, errno))?;
        let stat = stat.ok_or_else(|| not_found(path))?;
        // A tree can span file systems, whose inode numbers overlap.
        Ok((stat.st_ino ^ stat.st_dev.rotate_left(40), stat.st_nlink))
    }
}

/// The data of a file; holes are found by asking the file system.
struct Content {
    file: OwnedFd,
    path: TreePath,
    at: u64,
    /// Where the data that `at` is in ends.
    data_end: u64,
}

impl FileContent for Content {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let failed = |errno| failed("read", &self.path, errno);
        if buffer.is_empty() {
            return Ok(None);
        }
        if self.at >= self.data_end {
            match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
                Ok(data) => {
                    self.at = data;
                    let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(data));
                    self.data_end = hole.map_err(failed)?;
                }
                Err(Errno::NXIO) => return Ok(None),
                // Without holes in its repertoire, all of the file is data.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.data_end = u64::MAX,
                Err(errno) => return Err(failed(errno)),
            }
        }
        let left = usize::try_from(self.data_end - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let target = buffer.get_mut(..length).unwrap_or(&mut []);
        let count = rustix::io::pread(&self.file, target, self.at).map_err(failed)?;
        if count == 0 {
            return Ok(None);
        }
        let offset = self.at;
        self.at += u64::try_from(count).unwrap_or(0);
        Ok(Some((offset, count)))
    }
}
