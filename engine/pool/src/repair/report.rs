//! What a repair says.

use crate::check::Finding;
use crate::types::{LayerId, Namespace};

/// Something that a repair could not give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose, where that is known.
    pub layer: Option<LayerId>,
    /// The layer's namespace and name, where it has one.
    pub name: Option<(Namespace, String)>,
    /// What is lost.
    pub message: String,
}

/// What was wrong, what a repair gives back, and what is lost.
#[derive(Clone, Debug, Default)]
pub struct RepairReport {
    /// What was wrong. Empty: there is nothing to repair.
    pub findings: Vec<Finding>,
    /// What could not be given back.
    pub losses: Vec<Loss>,
    /// The state was taken from the older of the two superblocks.
    pub from_older_superblock: bool,
    /// Changes in the journal that were applied.
    pub replayed_changes: u64,
    /// Layers that were made for others to stand on, from what these still see of the lost ones.
    pub made_parents: u64,
    /// Blocks that the repair writes.
    pub written_blocks: u64,
    /// What a check of the repaired pool finds, but for the losses. Not empty: it cannot be repaired.
    pub remaining: Vec<Finding>,
}
