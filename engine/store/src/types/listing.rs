//! Listings and inspections.

use serde::{Deserialize, Serialize};

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The name with its tag.
    pub name: String,
    /// The part before the tag.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The digest of the image's configuration.
    pub id: String,
    /// When it came into the store.
    pub created: String,
    /// The same, in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// How many layers it stands on.
    pub layers: u64,
    /// The name of its top layer.
    pub top_layer: String,
    /// What its layers take in the pool, shared ones too.
    pub size_bytes: u64,
    /// The containers made from it.
    pub containers: Vec<String>,
}

/// A sealed layer that images stand on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// The chain id (`sha256:...`), or `thin:...` for one that a commit made.
    pub name: String,
    /// The digest of the layer's tar, where it came from one.
    pub diff_id: Option<String>,
    /// The layer below, if there is one.
    pub parent: Option<String>,
    /// How many layers are below it.
    pub depth: u64,
    /// What it holds of its own: data and map.
    pub own_bytes: u64,
    /// The size of its device.
    pub size_bytes: u64,
    /// When it came into the store.
    pub created: String,
    /// The same, in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// The images that stand on it.
    pub images: Vec<String>,
}

/// What stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeKind {
    /// An empty file system, made once for each device size.
    Template,
    /// A layer of an image.
    Layer,
    /// A container.
    Container,
    /// A volume that is a device.
    Volume,
    /// A state that only its children still need.
    Hidden,
    /// A layer of an import that is running.
    Transient,
}

/// One device of the store and what it stands on. The entries come parents first, each followed by all
/// that stands on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// The device's id in the pool.
    pub layer_id: u32,
    /// What it is.
    pub kind: TreeKind,
    /// Its name; empty where it has none.
    pub name: String,
    /// The id of what it stands on.
    pub parent_layer_id: Option<u32>,
    /// How many devices are below it.
    pub depth: u64,
    /// What it holds of its own: data and map.
    pub own_bytes: u64,
    /// The size of the device.
    pub size_bytes: u64,
    /// The images whose top layer this is.
    pub images: Vec<String>,
}

/// How far a container is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Only stored.
    Created,
    /// There is a block device for it.
    Attached,
    /// Its file system is mounted.
    Mounted,
}

impl ContainerState {
    /// The state as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Attached => "attached",
            ContainerState::Mounted => "mounted",
        }
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSummary {
    /// The name.
    pub name: String,
    /// The id, never used again.
    pub id: String,
    /// The image it was made from; none if it was made from a bare layer.
    pub image: Option<String>,
    /// How far it is in use.
    pub state: ContainerState,
    /// When it was made.
    pub created: String,
    /// The same, in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// The size of its device.
    pub size_bytes: u64,
    /// What it holds of its own: data and map.
    pub own_bytes: u64,
    /// The block device, while it is attached.
    pub device: Option<String>,
    /// Where it is mounted.
    pub mount_point: Option<String>,
    /// Is it mounted without writing?
    pub read_only: bool,
}

/// Which kind of object is meant, where a name could be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InspectKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A layer.
    Layer,
}

/// An object to describe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectRequest {
    /// A container, image or layer.
    pub name: String,
    /// Only this kind; without it the first of container, image and layer that has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<InspectKind>,
}

/// Something that `check` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFinding {
    /// Which structure of the pool is meant.
    pub structure: String,
    /// The layer, where the finding is about one.
    pub layer_id: Option<u32>,
    /// What is wrong.
    pub message: String,
}

/// What `check` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSummary {
    /// Is everything as it must be?
    pub clean: bool,
    /// Layers looked at.
    pub layers: u64,
    /// Map pages looked at.
    pub map_pages: u64,
    /// Data blocks accounted for.
    pub data_blocks: u64,
    /// What is wrong, in the order found.
    pub findings: Vec<CheckFinding>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Something that a repair could not give back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairLoss {
    /// The layer in the pool, where the loss is about one.
    pub layer_id: Option<u32>,
    /// `container`, `image`, `layer`, `template` or `volume`, where it has a name.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What is lost.
    pub message: String,
}

/// What a repair found, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairSummary {
    /// Was there anything to repair?
    pub damaged: bool,
    /// The file that was written: the pool, or the copy. None without `--yes`, and if nothing was to be done.
    pub written: Option<String>,
    /// What was wrong.
    pub findings: Vec<CheckFinding>,
    /// What cannot be given back.
    pub losses: Vec<RepairLoss>,
    /// What would still be wrong afterwards. Not empty: the pool cannot be repaired.
    pub remaining: Vec<CheckFinding>,
    /// The state was taken from the older of the two superblocks.
    pub from_older_superblock: bool,
    /// Changes in the journal that were applied.
    pub replayed_changes: u64,
    /// Layers without a name that were made for others to stand on.
    pub made_parents: u64,
    /// Blocks of 4096 bytes that the repair writes.
    pub written_blocks: u64,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The program's version.
    pub version: String,
    /// The version of the API; a client of another one does not fit.
    pub api_version: u32,
    /// The daemon's process.
    pub pid: u32,
    /// Was it started as a service (it does not end by itself)?
    pub service: bool,
    /// The inode of the daemon's mount namespace: what it mounts is seen there.
    pub mount_namespace: u64,
}
