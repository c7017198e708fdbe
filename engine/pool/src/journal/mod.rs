//! The journal: what happened since the last checkpoint, in a ring of batches, and the group commit that
//! makes it durable.

pub(crate) mod commit;
pub(crate) mod pending;
pub(crate) mod replay;
pub(crate) mod ring;
pub(crate) mod writer;
