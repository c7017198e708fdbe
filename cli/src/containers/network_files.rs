//! A container has the host's network, so it has the host's names too: `/etc/resolv.conf`, `/etc/hosts` and
//! `/etc/hostname` are files of the run's folder, mounted over the container's own, read-only.
//!
//! A file that the container does not have is made, empty, for as long as it runs: something has to be there
//! to mount on. Which these are is remembered before they are made. No link of the container's is followed.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use thinstore_runtime::FileMount;
use thinstore_storage::{Error, Result};

use super::Run;

const NAMES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

/// Writes the files, and makes what they are to be mounted on. The container is mounted.
pub fn prepare(run: &Run) -> Result<Vec<FileMount>> {
    let Some(etc) = etc_of(run) else { return Ok(Vec::new()) };
    let mut remembered = run.state().unwrap_or_default().mount_points;
    remembered.retain(|name| is_empty_file(&etc, name));
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for name in NAMES.into_iter().filter(|name| !is_covered(run, name)) {
        match status(&etc, name) {
            Ok(status) if is_file(&status) => there.push(name),
            Err(Errno::ENOENT) => missing.push(name),
            // A link leads to what somebody else looks after.
            _ => {}
        }
    }
    if !missing.is_empty() {
        remembered.extend(missing.iter().map(|name| (*name).to_owned()));
        run.set_mount_points(remembered)?;
        match make(&etc, &missing) {
            Ok(()) => there.extend(missing),
            // A container that is full runs without them.
            Err(error) => {
                tracing::warn!("'{}' lacks names of the host's: {error}", run.record.name);
            }
        }
    }
    there.into_iter().map(|name| file_mount(run, name)).collect()
}

/// Removes what was made to be mounted on. What cannot be reached stays remembered.
pub fn remove_mount_points(run: &Run) -> Result<()> {
    let mut remembered = run.state().unwrap_or_default().mount_points;
    if remembered.is_empty() {
        return Ok(());
    }
    let Some(etc) = etc_of(run) else { return Ok(()) };
    let is_left = |name: &String| {
        is_empty_file(&etc, name)
            && unlinkat(&etc, name.as_str(), UnlinkatFlags::NoRemoveDir).is_err()
    };
    let removed = leaving_times(&etc, || {
        remembered.retain(is_left);
        Ok(())
    });
    if let Err(error) = removed {
        tracing::warn!("/etc of '{}' has other times than before: {error}", run.record.name);
    }
    run.set_mount_points(remembered)
}

fn make(etc: &OwnedFd, names: &[&str]) -> nix::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    leaving_times(etc, || {
        names.iter().try_for_each(|name| openat(etc, *name, flags, mode).map(drop))
    })
}

fn file_mount(run: &Run, name: &str) -> Result<FileMount> {
    let source = run.bundle().join(name);
    std::fs::write(&source, content_of(name, &run.record.hostname))
        .map_err(|error| Error::io(format!("cannot write {}", source.display()), error))?;
    Ok(FileMount { source, target: Path::new("/etc").join(name) })
}

/// The host's, and the container's own name.
fn content_of(name: &str, hostname: &str) -> String {
    let host = || std::fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
    match name {
        "hostname" => format!("{hostname}\n"),
        "hosts" => format!("{}\n127.0.1.1\t{hostname}\n", host().trim_end()),
        _ => host(),
    }
}

/// Does something else lie over it?
fn is_covered(run: &Run, name: &str) -> bool {
    let path = Path::new("/etc").join(name);
    run.record.mounts.iter().any(|mount| path.starts_with(&mount.destination))
}

fn etc_of(run: &Run) -> Option<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = open(&run.root(), flags, Mode::empty()).ok()?;
    openat(&root, "etc", flags, Mode::empty()).ok()
}

fn status(etc: &OwnedFd, name: &str) -> nix::Result<FileStat> {
    fstatat(etc, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is_file(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

fn is_empty_file(etc: &OwnedFd, name: &str) -> bool {
    status(etc, name).is_ok_and(|status| is_file(&status) && status.st_size == 0)
}

/// Changes what is in the folder, but not when it was changed.
fn leaving_times(etc: &OwnedFd, change: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    let before = fstat(etc)?;
    let changed = change();
    let accessed = TimeSpec::new(before.st_atime, before.st_atime_nsec);
    let modified = TimeSpec::new(before.st_mtime, before.st_mtime_nsec);
    changed.and(futimens(etc, &accessed, &modified))
}
