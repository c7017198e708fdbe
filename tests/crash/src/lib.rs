//! Attacks on the pool engine: power that fails at any moment, and disks that fail at any operation.
//!
//! A [`scenario`] is a story of operations on a pool, named or drawn from a seed, told by one thread or
//! by several. While it runs, a plain [`model`] notes what may be found if the power fails now: what was
//! acknowledged, and every value written since. [`search`] cuts the power at each write and each flush,
//! with the unsynced writes kept, dropped, reordered and torn, opens what is left, and lets the
//! [`oracle`] compare. [`failing`] lets the n-th read, write or flush fail, for every n.
//!
//! The rooms: [`random`] and [`content`] (what a written sector looks like), [`model`], [`oracle`],
//! [`watched`] (a disk that is looked at after each operation), [`actor`] (operations that keep the model
//! true), [`scenario`], [`search`], [`failing`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions, clippy::panic)]

pub mod actor;
pub mod content;
pub mod failing;
pub mod model;
pub mod oracle;
pub mod random;
pub mod scenario;
pub mod search;
pub mod watched;
