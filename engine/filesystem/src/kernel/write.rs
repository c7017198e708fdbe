//! Writing to a directory of the host.

use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thinstore_storage::{Error, ErrorKind, Result};

use super::metadata::times;
use super::{DirectoryTree, Folder, failed, file_type, modified, stat};
use crate::attributes;
use crate::resolve;
use crate::tree::{FileContent, Metadata, Node, Timestamp, TreePath, TreeWriter};

const BUFFER_BYTES: usize = 256 << 10;

fn refused(path: &TreePath, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Refused, format!("'{path}' {why}"))
}

impl DirectoryTree {
    /// Remembers the time that a folder had before anything in it changed.
    pub(super) fn touch(&mut self, folder: &Folder) -> Result<()> {
        if self.state_mut().times.contains_key(&folder.path) {
            return Ok(());
        }
        let stat = rustix::fs::fstat(&folder.fd)
            .map_err(|errno| failed("look at", &folder.path, errno))?;
        self.state_mut().times.insert(folder.path.clone(), modified(&stat));
        Ok(())
    }

    /// Drops the times of a folder that goes away, and of all below it.
    pub(super) fn forget_times(&mut self, path: &TreePath) {
        let times = &mut self.state_mut().times;
        times.remove(path);
        // All that lies below begins with the path and a slash, and '0' follows '/'.
        let below: Vec<TreePath> = times
            .range(path.join(b"")..)
            .map(|(below, _)| below)
            .take_while(|below| {
                below
                    .as_bytes()
                    .strip_prefix(path.as_bytes())
                    .is_some_and(|rest| rest.starts_with(b"/"))
            })
            .cloned()
            .collect();
        for path in below {
            times.remove(&path);
        }
    }

    pub(super) fn mark(&mut self, folder: &Folder, name: &[u8]) {
        let names = self.state_mut().ours.entry(folder.inode).or_default();
        if !names.contains(name) {
            names.insert(name.to_vec());
        }
    }

    pub(super) fn unmark(&mut self, folder: &Folder, name: &[u8]) {
        if let Some(names) = self.state_mut().ours.get_mut(&folder.inode) {
            names.remove(name);
        }
    }

    /// The folder at `path`, made if it is missing.
    fn made_folder(&mut self, path: &TreePath) -> Result<Arc<Folder>> {
        if let Some(folder) = self.state_mut().open.get(path) {
            let folder = folder.clone();
            // It may have been opened by a reader only, who marks nothing.
            if self.state_mut().ours.contains_key(&folder.inode) {
                return Ok(folder);
            }
        }
        let found = resolve::directory(self, path, true)?;
        let folder = found.ok_or_else(|| refused(path, "cannot be made a folder"))?;
        self.keep(path, &folder);
        Ok(folder)
    }

    pub(super) fn put_at(
        &mut self,
        path: &TreePath,
        folder: &Arc<Folder>,
        name: &[u8],
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        let settled = attributes::settle(path, node, metadata)?;
        self.touch(folder)?;
        let made = match self.create(path, folder, name, node)? {
            Created::New(file) => file,
            Created::Kept => None,
        };
        if let Some(file) = made {
            self.fill(path, &file, node, content)?;
            self.set_file_metadata(path, (folder, name), &file, metadata, &settled)?;
        } else {
            self.set_metadata(path, folder, name, node, metadata, &settled)?;
        }
        if matches!(node, Node::Directory) {
            let own = folder.path.join(name);
            self.state_mut().times.insert(own, metadata.modified);
        }
        self.mark(folder, name);
        Ok(())
    }

    /// Makes the bare node, after what stood there was removed.
    fn create(
        &mut self,
        path: &TreePath,
        folder: &Arc<Folder>,
        name: &[u8],
        node: &Node,
    ) -> Result<Created> {
        match create_bare(folder, name, node) {
            Ok(file) => return Ok(Created::New(file)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make", path, errno)),
        }
        let existing = stat(folder, name).map_err(|errno| failed("look at", path, errno))?;
        let is_folder =
            existing.is_some_and(|existing| file_type(&existing) == FileType::Directory);
        if is_folder && matches!(node, Node::Directory) {
            return Ok(Created::Kept);
        }
        self.remove_child(folder, name)?;
        let file = create_bare(folder, name, node).map_err(|errno| failed("make", path, errno))?;
        Ok(Created::New(file))
    }

    fn fill(
        &mut self,
        path: &TreePath,
        file: &rustix::fd::OwnedFd,
        node: &Node,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        let Node::File { size_bytes } = node else {
            return Ok(());
        };
        let mut end_bytes = 0;
        if let Some(content) = content {
            self.buffer.resize(BUFFER_BYTES, 0);
            while let Some((offset, count)) = content.next(&mut self.buffer)? {
                let mut data = self.buffer.get(..count).unwrap_or(&[]);
                let mut at = offset;
                let end = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                if offset < end_bytes || end > *size_bytes {
                    return Err(Error::new(
                        ErrorKind::Refused,
                        format!(
                            "the content of '{path}' does not fit its size of {size_bytes} bytes, \
                             or does not come in order"
                        ),
                    ));
                }
                end_bytes = end;
                while !data.is_empty() {
                    let written = rustix::io::pwrite(file, data, at)
                        .map_err(|errno| failed("write", path, errno))?;
                    data = data.get(written..).unwrap_or(&[]);
                    at += u64::try_from(written).unwrap_or(0);
                }
            }
        }
        if end_bytes < *size_bytes {
            rustix::fs::ftruncate(file, *size_bytes)
                .map_err(|errno| failed("set the size of", path, errno))?;
        }
        Ok(())
    }

    /// Sets what must come last, as [`TreeWriter::finish`] does, and leaves it to the caller to make it
    /// durable.
    ///
    /// # Errors
    /// `Io` or `Permission` as the host says.
    pub fn set_folder_times(&mut self) -> Result<()> {
        let times = std::mem::take(&mut self.state_mut().times);
        for (path, time) in times.iter().rev() {
            self.set_folder_time(path, *time)?;
        }
        Ok(())
    }

    fn set_folder_time(&self, path: &TreePath, time: Timestamp) -> Result<()> {
        // The path has no symlinks in it; one that came since would lead elsewhere.
        let name = if path.is_root() { &b"."[..] } else { path.as_bytes() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root.fd, name, flags, Mode::empty(), resolve)
            .and_then(|folder| rustix::fs::futimens(&folder, &times(time)))
            .map_err(|errno| failed("set the time of", path, errno))
    }
}

enum Created {
    New(Option<rustix::fd::OwnedFd>),
    Kept,
}

/// Makes a node that does not exist, for its owner only until its metadata is set.
fn create_bare(
    folder: &Folder,
    name: &[u8],
    node: &Node,
) -> rustix::io::Result<Option<rustix::fd::OwnedFd>> {
    let own = Mode::RUSR | Mode::WUSR;
    let special = |kind, device| rustix::fs::mknodat(&folder.fd, name, kind, own, device);
    match node {
        Node::Directory => rustix::fs::mkdirat(&folder.fd, name, Mode::RWXU)?,
        Node::File { .. } => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return rustix::fs::openat(&folder.fd, name, flags, own).map(Some);
        }
        Node::Symlink { target } => {
            rustix::fs::symlinkat(target.as_slice(), &folder.fd, name)?;
        }
        Node::CharacterDevice { major, minor } => {
            special(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))?;
        }
        Node::BlockDevice { major, minor } => {
            special(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))?;
        }
        Node::Fifo => special(FileType::Fifo, 0)?,
        Node::Socket => special(FileType::Socket, 0)?,
    }
    Ok(None)
}

impl TreeWriter for DirectoryTree {
    fn put(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        let Some(name) = path.name() else {
            if !matches!(node, Node::Directory) {
                return Err(refused(path, "is the root of the tree and stays a folder"));
            }
            let settled = attributes::settle(path, node, metadata)?;
            let root = self.root.clone();
            self.set_metadata(path, &root, b"", node, metadata, &settled)?;
            self.state_mut().times.insert(path.clone(), metadata.modified);
            return Ok(());
        };
        let folder = self.made_folder(&path.parent())?;
        self.put_at(path, &folder, name, node, metadata, content)
    }

    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let missing =
            || refused(path, format_args!("is a hard link to '{target}', which does not exist"));
        let look = |tree: &mut DirectoryTree| {
            let Some(name) = target.name() else {
                return Err(refused(path, format_args!("is a hard link to the folder '{target}'")));
            };
            let folder = tree.folder_to_change(&target.parent())?.ok_or_else(missing)?;
            let found = stat(&folder, name).map_err(|errno| failed("look at", target, errno))?;
            let found = found.ok_or_else(missing)?;
            if file_type(&found) == FileType::Directory {
                return Err(refused(path, format_args!("is a hard link to the folder '{target}'")));
            }
            Ok((folder, name, found))
        };
        let (_, _, found) = look(self)?;
        let Some(name) = path.name() else {
            return Err(refused(path, "is the root of the tree and stays a folder"));
        };
        let folder = self.made_folder(&path.parent())?;
        let existing = stat(&folder, name).map_err(|errno| failed("look at", path, errno))?;
        if let Some(existing) = existing {
            if (existing.st_dev, existing.st_ino) == (found.st_dev, found.st_ino) {
                self.mark(&folder, name);
                return Ok(());
            }
            self.remove_child(&folder, name)?;
        }
        self.touch(&folder)?;
        // What stood at the path, or was in the way to it, may have held the target.
        let (target_folder, target_name, _) = look(self)?;
        rustix::fs::linkat(&target_folder.fd, target_name, &folder.fd, name, AtFlags::empty())
            .map_err(|errno| match errno {
                Errno::MLINK => {
                    refused(path, format_args!("is one hard link too many of '{target}'"))
                }
                errno => failed("make the hard link", path, errno),
            })?;
        self.mark(&folder, name);
        Ok(())
    }

    fn remove(&mut self, path: &TreePath) -> Result<()> {
        let Some(name) = path.name() else {
            return Err(refused(path, "is the root of the tree"));
        };
        match self.folder_to_change(&path.parent())? {
            Some(folder) => self.remove_child(&folder, name),
            None => Ok(()),
        }
    }

    fn clear(&mut self, path: &TreePath) -> Result<()> {
        match self.folder_to_change(path)? {
            Some(folder) => self.clear_folder(folder),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.set_folder_times()?;
        rustix::fs::syncfs(&self.root.fd).map_err(|errno| {
            let what = format!("cannot make the folder '{}' durable", self.name.display());
            Error::io(what, errno.into())
        })
    }
}
