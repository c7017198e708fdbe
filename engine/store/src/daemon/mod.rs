//! The daemon: one process that owns the pool and keeps devices and mounts, spoken to over the
//! store's Unix socket in HTTP and JSON.
//!
//! | route | answer |
//! |---|---|
//! | `GET /version` | [`VersionInfo`](crate::types::VersionInfo) |
//! | `GET /metrics` | figures as Prometheus text |
//! | `GET /v1/images`, `layers`, `tree`, `containers`, `inspect`, `usage`, `diff`, `block-diff`, `volumes`, `check` | JSON |
//! | `GET /v1/cat`, `copy-out`, `export`, `trace` | a stream of bytes |
//! | `POST /v1/snapshot`, `commit`, `attach`, `detach`, `mount`, `unmount`, `remove-container`, `remove-image`, `create-volume`, `remove-volume`, `prune-volumes`, `end-trace` | JSON; the request is the JSON body |
//! | `POST /v1/copy-in` | takes a tar as body |
//! | `POST /v1/import` | takes a stream as body; answers a line of JSON for each step, the outcome in the last |
//! | `POST /v1/scrub` | takes JSON; answers in such lines |
//! | `POST /v1/stop` | ends the daemon |
//!
//! A `GET` and the two that take a stream have their request in the query string. An error is
//! `{"error": {"code", "message"}}` with a status that fits; an error in the middle of a stream of bytes
//! comes as the trailer `thinstore-error` to who sent `TE: trailers`, and breaks the stream off for
//! others.

mod bridge;
mod client;
mod life;
mod listener;
mod metrics;
mod server;
mod start;
mod wire;

pub use client::Client;
pub use life::{ServeOptions, serve};
pub use server::routes;
pub use start::{DaemonCommand, DaemonRecord, start_daemon};
pub use wire::ErrorBody;

/// The version of the daemon's API.
pub const API_VERSION: u32 = 1;

/// The inode of this thread's mount namespace; 0 if the kernel does not say.
pub fn mount_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/thread-self/ns/mnt").map_or(0, |metadata| metadata.ino())
}
