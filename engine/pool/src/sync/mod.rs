//! Where the pool takes its locks, atomics and threads from: parking_lot and std; or, for tests with the
//! feature `shuttle`, a scheduler that decides at each of them who goes on, and so tries interleavings that a
//! machine rarely comes to.
//!
//! Words of pages and bits of groups stay std's own: they are guarded by locks, and so many that a schedule
//! would consist of nothing else.

#[cfg(not(feature = "shuttle"))]
mod real {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread;

    pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
}

#[cfg(feature = "shuttle")]
mod scheduled;

#[cfg(not(feature = "shuttle"))]
pub(crate) use real::*;
#[cfg(feature = "shuttle")]
pub(crate) use scheduled::*;
