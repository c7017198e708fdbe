//! Devices and mounts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::propagation::Propagation;

/// What is mounted over a path of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A folder of the store that outlives containers.
    Volume,
    /// A file or folder of the host.
    Bind,
    /// A file system in memory.
    Tmpfs,
}

impl MountKind {
    /// The kind as Docker writes it.
    pub fn name(self) -> &'static str {
        match self {
            MountKind::Volume => "volume",
            MountKind::Bind => "bind",
            MountKind::Tmpfs => "tmpfs",
        }
    }
}

/// One of `-v`, `--tmpfs` and `--mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpecification {
    /// What it is.
    pub kind: MountKind,
    /// A volume's name, or an absolute path of the host; none for tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// An absolute path in the container.
    #[serde(with = "super::byte_path")]
    pub destination: PathBuf,
    /// No writing through this mount.
    #[serde(default)]
    pub read_only: bool,
    /// Make a missing folder of the host (`-v` does, `--mount` does not).
    #[serde(default)]
    pub create_source: bool,
    /// Do not fill an empty volume with what the container has there.
    #[serde(default)]
    pub no_copy: bool,
    /// How mounts that are made later reach a bind mount, or leave it.
    #[serde(default, skip_serializing_if = "Propagation::is_default")]
    pub propagation: Propagation,
    /// A bind mount without what is mounted below its source.
    #[serde(default)]
    pub non_recursive: bool,
    /// The largest size of a tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs_size_bytes: Option<u64>,
    /// The mode of a tmpfs's root; 1777 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs_mode: Option<u32>,
}

/// A container to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The container.
    pub name: String,
    /// A device that cannot be written to.
    #[serde(default)]
    pub read_only: bool,
}

/// Where a container's device is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOutcome {
    /// The container.
    pub name: String,
    /// The block device, `/dev/loopN`.
    pub device: String,
    /// Was it attached before?
    pub was_attached: bool,
}

/// What a detach or umount found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachOutcome {
    /// The container.
    pub name: String,
    /// Was there anything to do?
    pub was_attached: bool,
}

/// A container to mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// The container.
    pub name: String,
    /// An existing, empty folder of the host, as an absolute path.
    #[serde(with = "super::byte_path")]
    pub directory: PathBuf,
    /// No writing to the container's file system.
    #[serde(default)]
    pub read_only: bool,
    /// What is mounted over paths of it.
    #[serde(default)]
    pub mounts: Vec<MountSpecification>,
    /// The caller's mount namespace (the inode of `/proc/self/ns/mnt`); a daemon in another one refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_namespace: Option<u64>,
}

/// Where a container is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOutcome {
    /// The container.
    pub name: String,
    /// The block device.
    pub device: String,
    /// The folder.
    #[serde(with = "super::byte_path")]
    pub directory: PathBuf,
    /// Was it mounted there before?
    pub was_mounted: bool,
}

/// A mount in a container, with Docker's field names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountInfo {
    /// `volume`, `bind` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A volume's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The path on the host; empty for tmpfs.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// `local` for volumes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// The options as given: `ro` or empty.
    pub mode: String,
    /// Can it be written to?
    #[serde(rename = "RW")]
    pub writable: bool,
    /// How mounts propagate, `rprivate` unless something else was asked for; empty if it is no bind mount.
    pub propagation: String,
}
