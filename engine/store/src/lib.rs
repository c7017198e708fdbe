//! The store: images, containers, volumes and mounts on top of a pool, and who runs what.
//!
//! [`Operations`] is everything that can be asked; [`Store`] answers in this process, [`Client`] through
//! the daemon that owns the pool, and a [`Shelf`] for the drivers that the thin one is compared with;
//! [`connect()`] finds out which. What an image or a container is stands in
//! the pool itself, in its names and documents: there is no second database that could say otherwise.

#![forbid(unsafe_code)]

mod apart;
mod attachments;
mod catalog;
mod check;
mod commit;
mod connect;
mod copy;
mod daemon;
mod detached_mount;
mod diff;
mod document;
mod export;
mod files;
mod frozen;
mod import;
mod inspect;
mod kinds;
mod layout;
mod listing;
mod mounts;
pub mod names;
mod operations;
mod overlay2;
mod removal;
mod repair;
mod scrub;
mod shape;
mod shelf;
pub mod size;
mod snapshot;
mod store;
mod takeover;
mod thin_volumes;
pub mod time;
mod trace;
pub mod types;
mod usage;
mod view;
mod volumes;
mod writing;

pub use connect::{Access, Connection, connect};
pub use copy::{CopyTarget, PathState, copy_target};
pub use daemon::{
    API_VERSION, Client, DaemonCommand, DaemonRecord, ErrorBody, ServeOptions, mount_namespace,
    routes, serve, start_daemon,
};
pub use document::{HistoryEntry, ImageDocument, ImageLayer};
pub use layout::Layout;
pub use operations::{Input, NoProgress, Operations, Progress, ProgressEvent};
pub use overlay2::Overlay2Export;
pub use repair::{RepairTarget, repair, survey};
pub use shelf::Shelf;
pub use store::{DEVICE_SIZE_LIMIT_BYTES, InitOptions, OpenMode, POOL_SIZE_LIMIT_BYTES, Store};

pub use thinstore_drivers::{AUFS, AUFS_IS_GONE, DriverName, obstacle};
pub use thinstore_pool::OnFull;
use thinstore_storage::{Error, ErrorKind};

/// The error of an operation that was told to end.
pub fn interrupted(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("{what} was interrupted; the store is as it was before"))
}

/// The error of an output that takes nothing more.
pub fn output_failed(error: std::io::Error) -> Error {
    Error::io("cannot write the output", error)
}
