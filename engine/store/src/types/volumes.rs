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
    /// A folder of the host, or a device of the pool.
    #[serde(default)]
    pub driver: VolumeDriver,
    /// The size of a device; the size of the store's devices if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// What a volume is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeDriver {
    /// A folder of the host.
    #[default]
    Local,
    /// A device of the pool, limited in size.
    Thin,
}

/// A volume of driver `thin` to copy, as it is at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeCopyRequest {
    /// What to copy.
    pub source: String,
    /// The copy's name.
    pub name: String,
    /// Can the copy be written to? Else it is a snapshot, which never changes.
    pub writable: bool,
    /// What its maker wants to remember of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A volume of driver `thin` to make larger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeResizeRequest {
    /// The volume.
    pub name: String,
    /// Not less than it has.
    pub size_bytes: u64,
}

/// What a volume has become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeResizeOutcome {
    /// The volume.
    pub name: String,
    /// The size of its device.
    pub size_bytes: u64,
    /// Its file system fills the device only when it is mounted next.
    pub grows_at_next_mount: bool,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// `local`: a folder of the host; `thin`: a device of the pool.
    pub driver: String,
    /// The folder of its data; of a device, where it is mounted while containers use it.
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
    /// The size of its device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What its device holds of its own: data and map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_bytes: Option<u64>,
    /// Its block device, while a container has it mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A snapshot, which never changes.
    #[serde(default)]
    pub read_only: bool,
    /// The volume that it is a copy of, by the name that one had then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
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
    /// What they took, on the host or in the pool.
    pub reclaimed_bytes: u64,
}
