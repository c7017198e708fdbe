//! The block engine of thinstore: a pool of thin devices with copy-on-write snapshots.
//!
//! A [`Pool`] lies on a [`thinstore_storage::Storage`]. It holds layers: thin devices, each with a map
//! from its blocks to the pool's. A layer that is sealed never changes; a writable one is a [`Device`] to
//! read and write. A snapshot costs one record, whatever the size and depth; a read costs the same at any
//! depth; a write costs one block.
//!
//! The rooms, from the bottom up: `format` (bytes on disk), `space` (which blocks are free), `map` (trees of
//! pages), `journal` (batches, group commit, replay), `checkpoint`, `layers` (what can be done to them),
//! `device` (requests), `check`, `scrub`, `repair`. Nothing here knows of containers, of FUSE, or of a path.
//!
//! `docs/design.md` has the reasons and the crash argument, `docs/format.md` every byte.

#![forbid(unsafe_code)]

mod check;
mod checkpoint;
mod convert;
mod core;
mod device;
mod format;
mod host_space;
mod journal;
mod layers;
mod maintenance;
mod map;
mod need;
mod open;
#[cfg(feature = "planted-faults")]
pub mod planted;
#[cfg(not(feature = "planted-faults"))]
mod planted;
mod pool;
mod repair;
mod room;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;
mod scrub;
mod space;
mod sums;
mod sync;
mod types;

pub use check::{CheckReport, Finding};
pub use device::Device;
pub use layers::change::{NewLayer, Transaction};
pub use layers::info::{Difference, LayerInfo, Usage};
pub use pool::{OpenOptions, Pool, PoolOptions};
pub use repair::{Loss, Repair, RepairReport};
pub use room::OnFull;
pub use scrub::{Damage, OnProgress, ScrubFinding, ScrubProgress, ScrubReport};
pub use types::{BLOCK_BYTES, LayerId, Namespace};
