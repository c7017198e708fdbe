//! Owner, permissions, xattrs and times by the kernel.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use thinstore_storage::{Error, ErrorKind, Result};

use super::{DirectoryTree, Folder, descriptor_path, failed};
use crate::attributes::Settled;
use crate::ext4::storable;
use crate::tree::{Metadata, Node, Timestamp, TreePath};

/// The kernel makes this one by itself on hosts with SELinux, and nobody can take it away.
const LABEL: &[u8] = b"security.selinux";

pub(super) fn times(modified: Timestamp) -> Timestamps {
    let time = storable(modified);
    let spec = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec, last_modification: spec }
}

/// The names of all xattrs of a folder's child.
fn xattr_names(folder: &Folder, name: &[u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
    let path = descriptor_path(folder, name);
    let mut list = vec![0; 1024];
    loop {
        match rustix::fs::llistxattr(&path, list.as_mut_slice()) {
            Ok(length) => {
                list.truncate(length);
                break;
            }
            Err(Errno::RANGE) if list.len() < 65_536 => list.resize(65_536, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// All xattrs of a folder's child.
pub(super) fn xattrs(
    folder: &Folder,
    name: &[u8],
) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = descriptor_path(folder, name);
    let mut found = BTreeMap::new();
    for xattr in xattr_names(folder, name)? {
        let shown = OsStr::from_bytes(&xattr);
        let mut value = vec![0; 4096];
        let length = match rustix::fs::lgetxattr(&path, shown, value.as_mut_slice()) {
            Err(Errno::RANGE) => {
                value.resize(65_536, 0);
                rustix::fs::lgetxattr(&path, shown, value.as_mut_slice())
            }
            result => result,
        };
        match length {
            Ok(length) => value.truncate(length),
            // Gone since it was listed.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        }
        found.insert(xattr, value);
    }
    Ok(found)
}

impl DirectoryTree {
    /// Gives a folder's child its metadata. Owner first, since a change of it takes setuid bits and
    /// capabilities away; permissions after the access list, which has a word in them.
    pub(super) fn set_metadata(
        &self,
        path: &TreePath,
        folder: &Folder,
        name: &[u8],
        node: &Node,
        metadata: &Metadata,
        settled: &Settled,
    ) -> Result<()> {
        let name = if name.is_empty() { &b"."[..] } else { name };
        let link = AtFlags::SYMLINK_NOFOLLOW;
        let owner = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
        rustix::fs::chownat(&folder.fd, name, owner.0, owner.1, link)
            .map_err(|errno| failed("set the owner of", path, errno))?;
        self.set_xattrs(path, folder, name, settled)?;
        if !matches!(node, Node::Symlink { .. }) {
            self.set_permissions(path, folder, name, settled.permissions)?;
        }
        rustix::fs::utimensat(&folder.fd, name, &times(metadata.modified), link)
            .map_err(|errno| failed("set the time of", path, errno))
    }

    /// The same for a file that was just made, by its descriptor, which saves the kernel from finding
    /// it five times.
    pub(super) fn set_file_metadata(
        &self,
        path: &TreePath,
        (folder, name): (&Folder, &[u8]),
        file: &OwnedFd,
        metadata: &Metadata,
        settled: &Settled,
    ) -> Result<()> {
        let owner = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
        rustix::fs::fchown(file, owner.0, owner.1)
            .map_err(|errno| failed("set the owner of", path, errno))?;
        // No room for a name: an attribute that is there is an error of its own.
        let inherited = rustix::fs::flistxattr(file, [0; 1].as_mut_slice()) != Ok(0);
        if inherited || !settled.xattrs.is_empty() {
            self.set_xattrs(path, folder, name, settled)?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(settled.permissions))
            .map_err(|errno| failed("set the permissions of", path, errno))?;
        rustix::fs::futimens(file, &times(metadata.modified))
            .map_err(|errno| failed("set the time of", path, errno))
    }

    fn set_permissions(
        &self,
        path: &TreePath,
        folder: &Folder,
        name: &[u8],
        permissions: u32,
    ) -> Result<()> {
        // chmod follows symlinks (fchmodat2, which need not, is Linux 6.6): by way of a descriptor of
        // the very node it cannot be led elsewhere.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(&folder.fd, name, flags, Mode::empty())
            .map_err(|errno| failed("open", path, errno))?;
        let shown = format!("/proc/thread-self/fd/{}", node.as_raw_fd());
        rustix::fs::chmod(shown, Mode::from_raw_mode(permissions))
            .map_err(|errno| failed("set the permissions of", path, errno))
    }

    fn set_xattrs(
        &self,
        path: &TreePath,
        folder: &Folder,
        name: &[u8],
        settled: &Settled,
    ) -> Result<()> {
        let descriptor = descriptor_path(folder, name);
        let present = xattr_names(folder, name)
            .map_err(|errno| failed("list the extended attributes of", path, errno))?;
        // What a folder's default access list gave to a new child is not in its metadata.
        for old in present.iter().filter(|old| !settled.xattrs.contains_key(*old) && *old != LABEL)
        {
            match rustix::fs::lremovexattr(&descriptor, OsStr::from_bytes(old)) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(failed("remove an extended attribute of", path, errno)),
            }
        }
        for (xattr, value) in &settled.xattrs {
            let shown = OsStr::from_bytes(xattr);
            let set = rustix::fs::lsetxattr(&descriptor, shown, value, XattrFlags::empty());
            match set {
                Ok(()) => {}
                Err(Errno::NOSPC | Errno::RANGE | Errno::TOOBIG) => {
                    return Err(Error::new(
                        ErrorKind::Refused,
                        format!(
                            "'{path}' has more extended attributes than the file system can hold"
                        ),
                    ));
                }
                Err(errno) => {
                    let what = format!("set the extended attribute {} of", shown.display());
                    return Err(failed(&what, path, errno));
                }
            }
        }
        Ok(())
    }
}
