//! A file system that is mounted nowhere: only this process can reach it, through a descriptor, and it
//! is gone when the descriptor is closed, also if the process is killed (fsopen(2), fsmount(2)).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use thinstore_storage::{Error, Result};

/// The ext4 of a block device, reachable through a descriptor.
pub(crate) struct DetachedMount {
    root: OwnedFd,
}

impl DetachedMount {
    /// Mounts the ext4 of `device`. A device that is mounted elsewhere shows the same file system;
    /// `read_only_system` must then say whether that one is read-only. `read_only` closes only this way
    /// to it.
    pub(crate) fn of(
        device: &Path,
        read_only_system: bool,
        read_only: bool,
    ) -> Result<DetachedMount> {
        let failed = |errno: rustix::io::Errno| {
            Error::io(format!("cannot mount the ext4 of {}", device.display()), errno.into())
        };
        let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
        fsconfig_set_string(context.as_fd(), "source", device).map_err(failed)?;
        if read_only_system {
            fsconfig_set_flag(context.as_fd(), "ro").map_err(failed)?;
        }
        fsconfig_create(context.as_fd()).map_err(failed)?;
        // nothing in a foreign image is to act through this mount
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOATIME;
        if read_only {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        let root =
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
        Ok(DetachedMount { root })
    }

    /// A path that leads to its root, in this process.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/thread-self/fd/{}", self.root.as_raw_fd()))
    }

    /// Writes everything that is dirty to the device.
    pub(crate) fn sync(&self) -> Result<()> {
        // the descriptor of a mount is an O_PATH one, which cannot be synced itself
        let root = std::fs::File::open(self.path());
        root.and_then(|root| rustix::fs::syncfs(&root).map_err(Into::into))
            .map_err(|error| Error::io("cannot write the file system to its device", error))
    }
}
