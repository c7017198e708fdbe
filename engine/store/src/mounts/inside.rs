//! What is mounted over paths of a container.
//!
//! An image may hold a symbolic link where something is to be mounted. Every step is therefore
//! resolved with the container's root as the root (openat2(2), RESOLVE_IN_ROOT), and the mount is made
//! at the path that the resolved folder really has.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use thinstore_export::{MountFlags, TmpfsOptions, Unmount, mount_bind, mount_tmpfs, unmount};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::names::VolumeName;
use crate::store::Store;
use crate::types::{MountKind, MountSpecification};

/// Where a destination is seen from outside, if no symbolic link leads elsewhere.
pub(super) fn shown_at(directory: &Path, destination: &Path) -> PathBuf {
    directory.join(destination.strip_prefix("/").unwrap_or(destination))
}

impl Store {
    /// Mounts all of them, or none.
    pub(super) fn mount_inside(
        &self,
        directory: &Path,
        specifications: &[MountSpecification],
    ) -> Result<()> {
        let mut done: Vec<PathBuf> = Vec::new();
        for specification in specifications {
            match self.mount_one(directory, specification) {
                Ok(target) => done.push(target),
                Err(error) => {
                    for target in done.iter().rev() {
                        drop(unmount(target, Unmount::Normal));
                    }
                    let place = specification.destination.display();
                    return Err(error.context(format!("the mount at {place}")));
                }
            }
        }
        Ok(())
    }

    fn mount_one(&self, directory: &Path, specification: &MountSpecification) -> Result<PathBuf> {
        let read_only = specification.read_only;
        let text = specification.source.as_deref().unwrap_or_default();
        let source = match specification.kind {
            MountKind::Volume => self.require_volume(&VolumeName::parse(text)?)?,
            MountKind::Bind => host_path(text, specification.create_source)?,
            MountKind::Tmpfs => {
                let target = make_target(directory, &specification.destination, true)?;
                let flags = MountFlags {
                    read_only,
                    no_set_user_id: true,
                    no_devices: true,
                    no_execution: true,
                    ..MountFlags::default()
                };
                let size_bytes = specification.tmpfs_size_bytes;
                let mode = specification.tmpfs_mode;
                mount_tmpfs(&target, &TmpfsOptions { flags, size_bytes, mode })?;
                return Ok(target);
            }
        };
        let target = make_target(directory, &specification.destination, source.is_dir())?;
        let flags = MountFlags { read_only, ..MountFlags::default() };
        mount_bind(&source, &target, true, flags)?;
        Ok(target)
    }
}

fn host_path(text: &str, create: bool) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if create && !path.exists() {
        std::fs::create_dir_all(&path)
            .map_err(|error| Error::io(format!("cannot make {}", path.display()), error))?;
    }
    path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("{} is not there on the host; make it first", path.display()),
        ),
        _ => Error::io(format!("cannot look at {}", path.display()), error),
    })
}

/// Finds or makes the folder (or empty file) that is mounted over; the path that it really has.
fn make_target(directory: &Path, destination: &Path, is_directory: bool) -> Result<PathBuf> {
    let failed = |errno: Errno| match errno {
        Errno::ROFS => Error::new(
            ErrorKind::ReadOnly,
            format!(
                "{} is not in the container and cannot be made, because it is mounted read-only",
                destination.display()
            ),
        ),
        _ => Error::io(
            format!("cannot make {} in the container", destination.display()),
            errno.into(),
        ),
    };
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, directory, folder, Mode::empty()).map_err(failed)?;
    let components: Vec<_> = destination
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut reached = PathBuf::new();
    let mut parent = open_in(&root, Path::new("."), true).map_err(failed)?;
    let last = components.len().saturating_sub(1);
    for (index, name) in components.iter().enumerate() {
        reached.push(name);
        let wants_directory = index < last || is_directory;
        let opened = match open_in(&root, &reached, wants_directory) {
            Err(Errno::NOENT) => {
                make_node(&parent, Path::new(name), wants_directory).map_err(failed)?;
                open_in(&root, &reached, wants_directory)
            }
            other => other,
        };
        parent = opened.map_err(failed)?;
    }
    std::fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd())).map_err(|error| {
        Error::io(format!("cannot find out where {} is", destination.display()), error)
    })
}

fn open_in(root: &OwnedFd, path: &Path, is_directory: bool) -> std::result::Result<OwnedFd, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if is_directory {
        flags |= OFlags::DIRECTORY;
    }
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

fn make_node(parent: &OwnedFd, name: &Path, is_directory: bool) -> std::result::Result<(), Errno> {
    if is_directory {
        return mkdirat(parent, name, Mode::from_raw_mode(0o755));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}
