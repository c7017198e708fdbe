//! Volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A volume to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeCreateRequest {
    /// Its name; without one it gets 64 hex digits, and is anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its maker wants to remember of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// `local`: a folder of the host.
    pub driver: String,
    /// The folder of its data.
    pub mount_point: String,
    /// When it was made.
    pub created: String,
    /// The same in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// As its maker gave them.
    pub labels: BTreeMap<String, String>,
    /// It was made without a name.
    pub anonymous: bool,
    /// The containers that use it: those that are mounted with it, and those that were run with it.
    pub used_by: Vec<String>,
}

/// Which volumes to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePruneRequest {
    /// Those with a name too, not only anonymous ones.
    #[serde(default)]
    pub all: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedVolumes {
    /// Their names.
    pub volumes: Vec<String>,
    /// What they took on the host.
    pub reclaimed_bytes: u64,
}
