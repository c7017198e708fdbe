//! Import, snapshot, commit and removal.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What to import, and how to call it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// A path of the host (absolute), or `-`: the bytes that come with the request.
    #[serde(with = "super::byte_path")]
    pub source: PathBuf,
    /// The image's name; without it, what the source calls itself, or the source's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Write the file systems without the kernel, as is done without root.
    #[serde(default)]
    pub user_space: bool,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOutcome {
    /// The image's name, with its tag.
    pub name: String,
    /// The image's id: the digest of its configuration.
    pub id: String,
    /// How many layers the image has.
    pub layers: u64,
    /// How many of them the store had already.
    pub reused_layers: u64,
    /// What the new layers take in the pool.
    pub new_bytes: u64,
    /// What all layers of the image take.
    pub size_bytes: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// `kernel` (mounted, as root) or `user` (written in user space).
    pub method: String,
}

/// A new container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// An image, a layer (digest or a prefix of it) or a container.
    pub source: String,
    /// The new container's name.
    pub name: String,
    /// The new device's size; that of the source if it is not given. It cannot be smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// A container's content as a new image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The container.
    pub name: String,
    /// The new image's name.
    pub image: String,
    /// A comment for the image's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who made it, for the image's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

/// What a commit made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitOutcome {
    /// The image's name, with its tag.
    pub image: String,
    /// The image's id.
    pub id: String,
    /// The name of the new layer.
    pub layer: String,
    /// What the new layer holds of its own.
    pub own_bytes: u64,
    /// Was the container's file system frozen meanwhile (it was mounted)?
    pub live: bool,
    /// How long the file system was frozen; 0 if it was not.
    pub frozen_us: u64,
}

/// An operation on one object, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRequest {
    /// The object's name.
    pub name: String,
}

/// What the removal of an image removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedImage {
    /// The image's name, with its tag.
    pub name: String,
    /// The names of the layers that nothing needed any more, the top one first.
    pub layers: Vec<String>,
}
