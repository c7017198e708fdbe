//! Cleaning up after a process that died while it served devices.
//!
//! What it leaves: the dead FUSE mount, loop devices on files of it, and file systems mounted from
//! those, all of which answer with errors from then on. Loop devices are told by the path of their file
//! or by their mark, file systems by their loop device; nothing else is touched. The dead connection is
//! unmounted last, so that a clean-up that is itself cut short is found and done again.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use thinstore_storage::{Error, Result};

use crate::bind::cut_off;
use crate::error::{io_error, system_error};
use crate::freeze::thaw;
use crate::fuse::{abort_connection, check_dead, unmount_dead};
use crate::holders::Holder;
use crate::isolation::isolated;
use crate::loop_device::{LoopDetach, LoopDevice, WhenHeld, bound_under};
use crate::mount_table::mounts_of;

/// A loop device that a dead process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredDevice {
    /// The name it was attached by.
    pub name: String,
    /// The loop device that it was.
    pub loop_device: LoopDevice,
    /// Where it was mounted; all of these are unmounted.
    pub mount_points: Vec<PathBuf>,
    /// Who holds the loop device still, in other mount namespaces; it goes when they let go, and serves
    /// nothing but errors until then.
    pub holders: Vec<Holder>,
}

/// What [`crate::Exporter::recover`] found and cleaned up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Loop devices.
    pub devices: Vec<RecoveredDevice>,
    /// Dead connections.
    pub connections: usize,
}

impl Recovered {
    /// Whether there was nothing to clean up.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.connections == 0
    }
}

/// What this store's loop devices carry: a short form of the directory's path (FNV-1a).
pub(crate) fn mark_of(directory: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = directory
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    format!("thinstore:{hash:016x}")
}

/// The absolute path without links of a directory that may be the root of a dead mount: asking for the
/// directory itself would fail, asking for its parent does not.
fn resolve(directory: &Path) -> Result<Option<PathBuf>> {
    let failed =
        |error| io_error(format!("finding the directory {} failed", directory.display()), error);
    match (directory.parent(), directory.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            match parent.canonicalize() {
                Ok(parent) => Ok(Some(parent.join(name))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(error)),
            }
        }
        _ => directory.canonicalize().map(Some).map_err(failed),
    }
}

/// Makes the directory, for root alone.
pub(crate) fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        io_error(format!("making the directory {} failed", directory.display()), error)
    })
}

/// See [`crate::Exporter::abort`].
pub(crate) fn abort(directory: &Path) -> Result<bool> {
    match resolve(directory)? {
        Some(directory) => abort_connection(&directory),
        None => Ok(false),
    }
}

/// See [`crate::Exporter::recover`].
pub(crate) fn recover(directory: &Path) -> Result<Recovered> {
    let Some(directory) = resolve(directory)? else {
        return Ok(Recovered::default());
    };
    // A living connection is refused before anything is touched.
    check_dead(&directory)?;
    let mut recovered = Recovered::default();
    for bound in bound_under(&directory, &mark_of(&directory))? {
        let mount_points = isolated(|| unmount_all(bound.device))?;
        let holders = match bound.device.detach(WhenHeld::Abandon)? {
            LoopDetach::Cleared => Vec::new(),
            LoopDetach::Deferred(holders) => holders,
        };
        let name = bound.backing_file.file_name().unwrap_or_default().to_string_lossy();
        recovered.devices.push(RecoveredDevice {
            name: name.into_owned(),
            loop_device: bound.device,
            mount_points,
            holders,
        });
    }
    recovered.connections = unmount_dead(&directory)?;
    Ok(recovered)
}

/// Lazily unmounts every file system that is mounted from a loop device. One that is frozen is thawed first:
/// once it is out of reach nobody could, and whoever waits to write there would wait for ever.
fn unmount_all(device: LoopDevice) -> Result<Vec<PathBuf>> {
    let mut mount_points = Vec::new();
    // The last mounted first; one that lay below another is gone with it.
    for entry in mounts_of(device.device_number())?.into_iter().rev() {
        if let Err(error) = thaw(&entry.mount_point) {
            // Something else may lie over it. Most are not frozen anyway.
            tracing::debug!("{error}");
        }
        // Binds that lie over it may share their mounts with the host.
        if let Err(error) = cut_off(&entry.mount_point) {
            tracing::debug!("{error}");
        }
        match umount2(&entry.mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => mount_points.push(entry.mount_point),
            Err(errno) => {
                let point = entry.mount_point.display();
                let error: Error = system_error(
                    format!("unmounting the dead file system on {point} failed"),
                    errno,
                );
                return Err(error);
            }
        }
    }
    Ok(mount_points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_fit_the_loop_device_and_differ_by_directory() {
        let mark = mark_of(Path::new("/var/lib/thinstore/devices"));
        assert!(mark.len() < 64);
        assert_ne!(mark, mark_of(Path::new("/var/lib/thinstore2/devices")));
    }

    #[test]
    fn a_directory_that_is_not_there_has_nothing_to_recover() {
        assert!(recover(Path::new("/nowhere/at/all")).unwrap().is_empty());
    }
}
