//! Which drivers there are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind};

/// A driver.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum DriverName {
    /// Ours: thin devices of one pool.
    #[default]
    Thin,
    /// The kernel's overlay over folders, in Docker's layout.
    Overlay2,
    /// The same folders by a FUSE server.
    FuseOverlayfs,
    /// Subvolumes and snapshots of a btrfs.
    Btrfs,
    /// Disk images that share their blocks by FICLONE.
    Reflink,
    /// Disk images of QEMU's, each with what differs from the one below.
    Qcow2,
    /// Thin devices of the kernel's dm-thin.
    Devicemapper,
    /// Datasets of a zpool, snapshots and clones of them.
    Zfs,
    /// A full copy for each layer.
    Vfs,
}

/// What is said of a driver.
struct Row {
    name: DriverName,
    text: &'static str,
    how: &'static str,
    limits: &'static str,
}

const TABLE: [Row; 9] = [
    Row {
        name: DriverName::Thin,
        text: "thin",
        how: "copy-on-write maps of 4 KiB blocks in one pool; a device for each container",
        limits: "containers have sizes; page cache is not shared between containers",
    },
    Row {
        name: DriverName::Overlay2,
        text: "overlay2",
        how: "folders laid over each other by the kernel, in Docker's layout",
        limits: "the first change of a file copies all of it, and parts it from its hard links; renaming \
                 a folder of the image fails (EXDEV); up to 500 layers; commit of a mounted container copies file by file",
    },
    Row {
        name: DriverName::FuseOverlayfs,
        text: "fuse-overlayfs",
        how: "folders laid over each other by a FUSE server",
        limits: "as overlay2; every access goes through a process; no new names of more than 251 bytes; folders \
                 above a change get its time; the first change of a file loses setuid and makes a pipe a file; \
                 attributes of links go to what they lead to",
    },
    Row {
        name: DriverName::Btrfs,
        text: "btrfs",
        how: "a subvolume for each layer, snapshots of them",
        limits: "needs a btrfs: one in a file of the store, if the store lies on something else; commit of a \
                 mounted container holds no writer still",
    },
    Row {
        name: DriverName::Reflink,
        text: "reflink",
        how: "a disk image for each layer, cloned by FICLONE",
        limits: "needs xfs or btrfs: an xfs in a file of the store, if the store lies on something else; \
                 containers have sizes",
    },
    Row {
        name: DriverName::Qcow2,
        text: "qcow2",
        how: "a qcow2 file for each layer, shown by a process of qemu-storage-daemon and a loop device",
        limits: "qemu-storage-daemon (7.2 and 10.0.2 were tried) corrupts data when writes come together \
                 through FUSE: they are sent to it one at a time, which is slow, and nothing else may write \
                 to what it shows; it dies with the container's data in flight when memory is short; \
                 each commit makes the container's chain of files longer; containers have sizes",
    },
    Row {
        name: DriverName::Devicemapper,
        text: "devicemapper",
        how: "a thin device of the kernel's dm-thin for each layer, snapshots of them, in blocks of 64 KiB",
        limits: "needs dm_thin_pool; the pool lies on loop devices over sparse files of 100 GiB and 2 GiB, \
                 and keeps the space of removed layers; a small write to a shared block copies 64 KiB; \
                 containers have sizes",
    },
    Row {
        name: DriverName::Zfs,
        text: "zfs",
        how: "a dataset for each layer, clones of snapshots, in a zpool in a file of the store",
        limits: "needs OpenZFS in the kernel or a running zfs-fuse, and was tested with zfs-fuse 0.7.0 alone, \
                 started with --enable-xattr: that one keeps ACLs but does nothing with them, keeps times \
                 of whole seconds, has no O_TMPFILE and no fallocate, and does not give removed data's \
                 space back to the host",
    },
    Row {
        name: DriverName::Vfs,
        text: "vfs",
        how: "a full copy for each layer and container",
        limits: "takes the whole image's space and time for each container; commit of a mounted \
                 container copies file by file",
    },
];

/// What people may still ask for.
pub const AUFS: &str = "aufs";
/// Why there is none.
pub const AUFS_IS_GONE: &str =
    "aufs was never part of Linux, and Docker has given it up; overlay2 takes its place";

impl DriverName {
    /// All of them, ours first.
    pub fn all() -> impl Iterator<Item = DriverName> {
        TABLE.iter().map(|row| row.name)
    }

    fn row(self) -> &'static Row {
        // every name has a row: see the test
        TABLE.iter().find(|row| row.name == self).unwrap_or(&TABLE[0])
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        self.row().text
    }

    /// How it keeps layers, in a line.
    pub fn how(self) -> &'static str {
        self.row().how
    }

    /// What a person must know who relies on it.
    pub fn limits(self) -> &'static str {
        self.row().limits
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for DriverName {
    type Err = Error;

    fn from_str(text: &str) -> Result<DriverName, Error> {
        if text == AUFS {
            return Err(Error::new(ErrorKind::Usage, AUFS_IS_GONE));
        }
        DriverName::all().find(|name| name.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = DriverName::all().map(DriverName::as_str).collect();
            Error::new(
                ErrorKind::Usage,
                format!(
                    "there is no driver '{}'; there are {}",
                    text.escape_debug(),
                    names.join(", ")
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_is_called_in_one_way_only() {
        for name in DriverName::all() {
            assert_eq!(name.row().name, name);
            assert_eq!(name.as_str().parse::<DriverName>().expect("a driver"), name);
        }
        let error = "nonsense".parse::<DriverName>().expect_err("no driver").to_string();
        assert!(error.contains("overlay2") && error.contains("vfs"), "{error}");
        assert!("aufs".parse::<DriverName>().expect_err("gone").to_string().contains("overlay2"));
    }
}
