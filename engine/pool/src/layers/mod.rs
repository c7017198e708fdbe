//! Layers: what they are in memory, and what can be done to them.

pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod document;
pub(crate) mod fork;
pub(crate) mod info;
pub(crate) mod layer;
pub(crate) mod reclaim;
pub(crate) mod sums;
pub(crate) mod table;
