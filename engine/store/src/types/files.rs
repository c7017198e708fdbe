//! Differences, files and streams.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is compared: two objects (containers, images, layers), or one with what it was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffRequest {
    /// A container, image or layer. Alone, it is compared with its image (a container) or its parent
    /// layer.
    pub from: String,
    /// What it is compared with; what is only here counts as added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// Only the second one has it.
    #[serde(rename = "A")]
    Added,
    /// Both have it, with another content or other metadata.
    #[serde(rename = "C")]
    Changed,
    /// Only the first one has it.
    #[serde(rename = "D")]
    Deleted,
}

impl ChangeKind {
    /// `A`, `C` or `D`, as `docker diff` prints it.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    /// `A`, `C` or `D`.
    pub kind: ChangeKind,
    /// The path from the root; bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// The path's exact bytes in hex, where `path` could not show them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

/// A range of a device that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRange {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
    /// Does the second one hold data there (or nothing: a hole)?
    pub mapped: bool,
}

/// A file to print.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatRequest {
    /// A container, image or layer.
    pub name: String,
    /// The file's path; symbolic links are followed inside the file system.
    #[serde(with = "super::byte_path")]
    pub path: PathBuf,
}

/// A file or folder to take out, as a tar: of a folder all that is in it, with an entry for itself
/// first; of anything else one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOutRequest {
    /// A container, image or layer.
    pub name: String,
    /// The path; a symbolic link is copied as a link unless `follow` is set.
    #[serde(with = "super::byte_path")]
    pub path: PathBuf,
    /// Copy what a symbolic link points at.
    #[serde(default)]
    pub follow: bool,
}

/// A file or folder to put in, from such a tar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyInRequest {
    /// The container.
    pub name: String,
    /// Where to: as for `docker cp`, an existing folder takes the item into it, otherwise this is the
    /// item's new path.
    #[serde(with = "super::byte_path")]
    pub path: PathBuf,
    /// What the item is called at its source: its name in an existing folder.
    pub item_name: String,
    /// Is the item a folder?
    pub item_is_directory: bool,
    /// Was the source written as `FOLDER/.`: its contents, not itself?
    #[serde(default)]
    pub contents_only: bool,
    /// Keep the owners that the tar names; without it, everything is root's.
    #[serde(default)]
    pub keep_owners: bool,
}

/// What an export is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// One tar of the whole file system.
    #[default]
    Tar,
    /// An OCI archive, a layer for each layer.
    Oci,
    /// An OCI archive of layers as overlay2 has them: not compressed, each with the root folder, and with
    /// marks of folders of which nothing is left.
    Layers,
}

/// A file system to write out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// A container, image or layer.
    pub name: String,
    /// As what.
    #[serde(default)]
    pub format: ExportFormat,
}
