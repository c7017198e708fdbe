//! The drivers that the thin one is compared with: how a stack of layers becomes a directory by overlays,
//! by copies, by the snapshots of other file systems and block devices.
//!
//! A [`LayerDriver`] knows layers by their ids, and what each stands on only as it is told. What images and
//! containers are, what they are called, and that all of it survives a crash together is the business
//! of the floor above. One driver, one file or folder; [`DriverName`] is the table of them.

// `ioctl` and one function of `program` lift this.
#![deny(unsafe_code)]

mod backing;
mod btrfs;
mod devicemapper;
mod directory;
mod disk_image;
mod driver;
mod fuse_overlayfs;
mod ioctl;
mod lock;
mod name;
mod overlay;
mod overlay2;
mod program;
mod qcow2;
mod reflink;
mod still;
mod vfs;
mod zfs;

pub use directory::folder_bytes;
pub use driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
pub use name::{AUFS, AUFS_IS_GONE, DriverName};

use std::path::Path;

use thinstore_storage::{Error, ErrorKind, Result};

/// Opens a driver's part of the store at `root`, and makes it if it is not there.
///
/// # Errors
/// `Unsupported` with what this host lacks (a kernel's feature, or a program and the package that has it),
/// `Permission` without root, `Usage` for the thin driver, which is not one of layers.
pub fn open(name: DriverName, root: &Path) -> Result<Box<dyn LayerDriver>> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new(
            ErrorKind::Permission,
            format!(
                "the driver {name} needs root: it mounts file systems; the driver thin does without"
            ),
        ));
    }
    Ok(match name {
        DriverName::Thin => {
            return Err(Error::new(ErrorKind::Usage, "the thin driver is the pool itself"));
        }
        DriverName::Overlay2 => Box::new(overlay2::Overlay2::open(root)?),
        DriverName::FuseOverlayfs => Box::new(fuse_overlayfs::FuseOverlayfs::open(root)?),
        DriverName::Btrfs => Box::new(btrfs::Btrfs::open(root)?),
        DriverName::Reflink => Box::new(reflink::Reflink::open(root)?),
        DriverName::Qcow2 => Box::new(qcow2::Qcow2::open(root)?),
        DriverName::Devicemapper => Box::new(devicemapper::Devicemapper::open(root)?),
        DriverName::Zfs => Box::new(zfs::Zfs::open(root)?),
        DriverName::Vfs => Box::new(vfs::Vfs::open(root)?),
    })
}

/// Why a driver cannot run on this host for the store at `root`; `None` if it can. Makes nothing.
///
/// # Errors
/// When the host cannot be asked.
pub fn obstacle(name: DriverName, root: &Path) -> Result<Option<String>> {
    match name {
        DriverName::Thin => Ok(None),
        DriverName::Overlay2 => Ok(overlay2::obstacle()),
        DriverName::FuseOverlayfs => Ok(fuse_overlayfs::obstacle()),
        DriverName::Btrfs => btrfs::obstacle(root),
        DriverName::Reflink => reflink::obstacle(root),
        DriverName::Qcow2 => Ok(qcow2::obstacle()),
        DriverName::Devicemapper => Ok(devicemapper::obstacle()),
        DriverName::Zfs => Ok(zfs::obstacle()),
        DriverName::Vfs => Ok(None),
    }
}
