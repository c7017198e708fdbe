//! Maps: which block of the pool holds which block of a device.
//!
//! A map is a radix tree of 4 KiB pages of 256 pointers, a page table for a disk. Devices share pages
//! and blocks with their ancestors; a page is copied before it is first changed by a layer that does
//! not own it, or that has written it out in an earlier checkpoint.
//!
//! Invariants:
//!  - a page belongs to one *interval*, the time between two checkpoints in which it got its block. It
//!    changes in memory during that interval only, and only by the layer that owns it;
//!  - a page that is not written yet is never dropped from the cache; its pointer's CRC is 0 until the
//!    checkpoint that writes it;
//!  - no page is empty: an empty subtree is a null pointer.

pub(crate) mod cache;
pub(crate) mod ownership;
pub(crate) mod page;
pub(crate) mod store;
pub(crate) mod tree;
pub(crate) mod unmap;
pub(crate) mod walk;
