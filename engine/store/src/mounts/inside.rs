//! What is mounted over paths of a container.
//!
//! An image may hold a symbolic link where something is to be mounted. Every step is therefore taken
//! here, with the container's root as the root (openat2(2), RESOLVE_IN_ROOT), and the mount is made at
//! the path that the folder found really has.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::Errno;
use thinstore_export::{
    BindOptions, MountFlags, Propagation, TmpfsOptions, mount_bind, mount_tmpfs, unmount_all_below,
};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::names::VolumeName;
use crate::types::{MountKind, MountSpecification};
use crate::volumes::VolumeProvider;

/// Where a destination is seen from outside, if no symbolic link leads elsewhere.
pub(super) fn shown_at(directory: &Path, destination: &Path) -> PathBuf {
    directory.join(destination.strip_prefix("/").unwrap_or(destination))
}

/// Mounts all of them below a container's mount, or none. The container's mount is recorded, so that
/// the volumes count as used.
pub(crate) fn mount_inside(
    volumes: &dyn VolumeProvider,
    directory: &Path,
    specifications: &[MountSpecification],
) -> Result<()> {
    let mut done: Vec<PathBuf> = Vec::new();
    for specification in specifications {
        match mount_one(volumes, directory, specification) {
            Ok(target) => done.push(target),
            Err(error) => {
                for target in done.iter().rev() {
                    drop(unmount_all_below(target));
                }
                let place = specification.destination.display();
                return Err(error.context(format!("the mount at {place}")));
            }
        }
    }
    Ok(())
}

fn mount_one(
    volumes: &dyn VolumeProvider,
    directory: &Path,
    specification: &MountSpecification,
) -> Result<PathBuf> {
    let read_only = specification.read_only;
    let text = specification.source.as_deref().unwrap_or_default();
    let source = match specification.kind {
        MountKind::Volume => {
            let name = VolumeName::parse(text)?;
            let target = make_target(directory, &specification.destination, true)?;
            let source = volumes.prepare(&name, &target, specification)?;
            mount_bind(&source, &target, &bind_options(specification))?;
            return Ok(target);
        }
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
    mount_bind(&source, &target, &bind_options(specification))?;
    Ok(target)
}

fn bind_options(specification: &MountSpecification) -> BindOptions {
    let propagation = specification.propagation;
    BindOptions {
        recursive: !specification.non_recursive,
        flags: MountFlags { read_only: specification.read_only, ..MountFlags::default() },
        propagation: match propagation {
            _ if propagation.is_shared() => Propagation::Shared,
            _ if propagation.is_slave() => Propagation::Slave,
            _ => Propagation::Private,
        },
        recursive_propagation: propagation.is_recursive(),
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

/// How many symbolic links one path may lead through, as in the kernel.
const LINK_LIMIT: usize = 40;

/// The components of a path, the first one last; `..` stays.
fn steps(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// Finds or makes the folder (or empty file) that is mounted over; the path that it really has. A link
/// on the way is followed as a process in the container would follow it, also to what is not there yet.
fn make_target(directory: &Path, destination: &Path, is_directory: bool) -> Result<PathBuf> {
    let failed = |errno: Errno| match errno {
        Errno::ROFS => Error::new(
            ErrorKind::ReadOnly,
            format!(
                "{} is not in the container and cannot be made, because it is mounted read-only",
                destination.display()
            ),
        ),
        Errno::NOTDIR => Error::new(
            ErrorKind::Usage,
            format!("{} leads through something that is not a folder", destination.display()),
        ),
        _ => Error::io(
            format!("cannot make {} in the container", destination.display()),
            errno.into(),
        ),
    };
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, directory, folder, Mode::empty()).map_err(failed)?;
    let mut waiting = steps(destination);
    // without links, below the root
    let mut reached = PathBuf::new();
    let mut links = 0;
    while let Some(name) = waiting.pop() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let next = reached.join(&name);
        let wants_directory = is_directory || !waiting.is_empty();
        let opened = match open_below(&root, &next) {
            Err(Errno::NOENT) => {
                let parent = open_below(&root, &reached).map_err(failed)?;
                make_node(&parent, Path::new(&name), wants_directory).map_err(failed)?;
                open_below(&root, &next)
            }
            other => other,
        };
        let opened = opened.map_err(failed)?;
        let kind = FileType::from_raw_mode(fstat(&opened).map_err(failed)?.st_mode);
        if kind == FileType::Symlink {
            links += 1;
            if links > LINK_LIMIT {
                return Err(failed(Errno::LOOP));
            }
            let target = readlinkat(&opened, "", Vec::new()).map_err(failed)?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                reached = PathBuf::new();
            }
            waiting.extend(steps(&target));
        } else if wants_directory && kind != FileType::Directory {
            return Err(failed(Errno::NOTDIR));
        } else {
            reached = next;
        }
    }
    let target = open_below(&root, &reached).map_err(failed)?;
    std::fs::read_link(format!("/proc/thread-self/fd/{}", target.as_raw_fd())).map_err(|error| {
        Error::io(format!("cannot find out where {} is", destination.display()), error)
    })
}

/// Opens a path that has no links, and a link at its end as itself.
fn open_below(root: &OwnedFd, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn make_node(parent: &OwnedFd, name: &Path, is_directory: bool) -> std::result::Result<(), Errno> {
    if is_directory {
        return mkdirat(parent, name, Mode::from_raw_mode(0o755));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}
