//! Power is cut under the whole program: containers that are mounted and written, on a real kernel, on a disk of
//! which everything is recorded, or in a machine that is killed.
//!
//! In the guest ([`load`]) containers are written, copied and removed, and a [`history`] outside of what is attacked notes
//! what was begun and what was acknowledged. On the host the disk is brought to the state of some moment ([`log`], [`cuts`]), and
//! the [`judge`] opens the pool on it and holds everything against the history at that moment.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test reports by panicking; what reads a log or a history returns errors"
)]

pub mod attack;
pub mod cuts;
pub mod database;
pub mod history;
pub mod judge;
pub mod load;
pub mod log;
