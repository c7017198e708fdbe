//! Bind mounts, and what is mounted or unmounted below them and what they show.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::error::{io_error, system_error};
use crate::isolation::isolated;
use crate::mount::{MountFlags, Unmount, mount, set_propagation, unmount_here};
use crate::mount_table::{covering, mounted_at, mounts};

/// Which way a mount that is made later, below what a bind mount shows or below the bind mount itself,
/// appears at the other place (the kernel's Documentation/filesystems/sharedsubtree.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// From the source to the bind mount.
    Slave,
    /// Both ways.
    Shared,
}

/// How to bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// With the mounts that lie below the source.
    pub recursive: bool,
    /// Flags that are added to those of the source's mount, for mounts below too.
    pub flags: MountFlags,
    /// What becomes of later mounts.
    pub propagation: Propagation,
    /// Those below get this propagation too, instead of keeping their source's.
    pub recursive_propagation: bool,
}

/// Shows a file or directory at a second place. Flags that the source's mount has stay set.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when mounts are to propagate from a source where none do, and those of
/// mount(2). Nothing stays mounted then.
pub fn mount_bind(source: &Path, target: &Path, options: &BindOptions) -> Result<()> {
    isolated(|| mount_bind_here(source, target, options))
}

pub(crate) fn mount_bind_here(source: &Path, target: &Path, options: &BindOptions) -> Result<()> {
    refuse_unless_it_propagates(source, options.propagation)?;
    let recursion = if options.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    let what = || format!("binding {} to {} failed", source.display(), target.display());
    mount(source, target, None, MsFlags::MS_BIND | recursion, "", what)?;
    finish_bind(target, options).inspect_err(|_| drop(take_away(target)))
}

fn finish_bind(target: &Path, options: &BindOptions) -> Result<()> {
    let kind = match options.propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::Slave => MsFlags::MS_SLAVE,
        Propagation::Shared => MsFlags::MS_SHARED,
    };
    let recursion = match options.recursive_propagation {
        true => MsFlags::MS_REC,
        false => MsFlags::empty(),
    };
    set_propagation(target, kind | recursion)?;
    match options.flags == MountFlags::default() {
        true => Ok(()),
        false => add_flags_below(target, options.flags),
    }
}

/// The kernel would take it, and nothing would ever arrive.
fn refuse_unless_it_propagates(source: &Path, propagation: Propagation) -> Result<()> {
    let (kinds, needed): (&[&str], _) = match propagation {
        Propagation::Private => return Ok(()),
        Propagation::Slave => (&["shared:", "master:"], "neither shared nor a slave"),
        Propagation::Shared => (&["shared:"], "not shared"),
    };
    let source = source
        .canonicalize()
        .map_err(|error| io_error(format!("finding {} failed", source.display()), error))?;
    let table = mounts()?;
    let Some(entry) = covering(&table, &source) else { return Ok(()) };
    if entry.propagation.iter().any(|group| kinds.iter().any(|kind| group.starts_with(kind))) {
        return Ok(());
    }
    let point = entry.mount_point.display();
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} lies on the mount {point}, which is {needed}, so that no mount would propagate; say 'mount --make-rshared {point}' first, or leave the propagation out",
            source.display()
        ),
    ))
}

/// Adds flags to the mount at `target` and to those below it.
fn add_flags_below(target: &Path, flags: MountFlags) -> Result<()> {
    let target = target.canonicalize().map_err(|error| {
        io_error(format!("finding the mount {} failed", target.display()), error)
    })?;
    let mut points = points_below(&target)?;
    points.dedup();
    for point in points {
        let failed = |errno| {
            system_error(
                format!("changing the flags of the mount {} failed", point.display()),
                errno,
            )
        };
        let kept = flags_of(&point).map_err(failed)?;
        let all = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | kept | flags.bits();
        nix::mount::mount(None::<&str>, &point, None::<&str>, all, None::<&str>).map_err(failed)?;
    }
    Ok(())
}

/// Where something is mounted at a directory or below it, the first mounted first.
fn points_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let points = mounts()?.into_iter().map(|entry| entry.mount_point);
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// The flags of the mount at a path. A remount sets all of them, so what is to stay must be named.
fn flags_of(path: &Path) -> std::result::Result<MsFlags, Errno> {
    let have = statvfs(path)?.flags();
    Ok([
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(flag, _)| have.contains(*flag))
    .fold(MsFlags::empty(), |bits, (_, flag)| bits | flag))
}

/// Cuts the mount at a directory, and those below it, off from all others: what is unmounted below a mount
/// that shares its mounts is unmounted at the other places too.
pub(crate) fn cut_off(directory: &Path) -> Result<()> {
    set_propagation(directory, MsFlags::MS_PRIVATE | MsFlags::MS_REC)
}

/// Ends a mount and all below it as soon as nobody uses them.
pub(crate) fn take_away(directory: &Path) -> Result<()> {
    cut_off(directory)?;
    umount2(directory, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .map_err(|errno| system_error(format!("unmounting {} failed", directory.display()), errno))
}

/// Unmounts all that is mounted on a directory or below it, the latest first, and nothing at the places that
/// a bind mount shows.
///
/// # Errors
/// Those of [`crate::unmount`], of the first that stays mounted.
pub fn unmount_all_below(directory: &Path) -> Result<()> {
    isolated(|| {
        if mounted_at(directory)?.is_some() {
            cut_off(directory)?;
        }
        let points = points_below(directory)?;
        points.iter().rev().try_for_each(|point| unmount_here(point, Unmount::Normal))
    })
}
