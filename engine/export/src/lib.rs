//! The export floor: devices of a store as block devices of the kernel, and what is mounted from them.
//!
//! [`Exporter`] serves any [`thinstore_storage::BlockDevice`] as a file of one FUSE connection and puts
//! a loop device on it, which every kernel since 5.8 can do. Beside it stand the things that one does
//! with a block device: mount, unmount, freeze, trim, and find out who holds it. Nothing here knows
//! what a pool, a layer or a container is. All of it needs root.
//!
//! A process that serves devices must not wait for them with its open files in hand, or it cannot be
//! killed: see [`isolated`].

// `ioctl` alone lifts this.
#![deny(unsafe_code)]

mod bind;
mod error;
mod exporter;
mod freeze;
mod fuse;
mod harden;
mod holders;
mod ioctl;
mod isolation;
pub mod loop_device;
pub mod mount;
pub mod mount_table;
mod placement;
mod recover;

pub use bind::{BindOptions, Propagation, mount_bind, unmount_all_below};
pub use exporter::{Detached, Exported, Exporter};
pub use freeze::{Frozen, freeze, thaw, trim};
pub use harden::{NotHardened, harden};
pub use holders::{Holder, holders_of};
pub use isolation::isolated;
pub use loop_device::LoopDevice;
pub use mount::{
    Ext4Options, MountFlags, TmpfsOptions, Unmount, make_private_mount_point, mount_ext4,
    mount_tmpfs, unmount,
};
pub use mount_table::{DeviceNumber, MountEntry, mounted_at, mounts, mounts_of};
pub use placement::lies_on;
pub use recover::{Recovered, RecoveredDevice};
