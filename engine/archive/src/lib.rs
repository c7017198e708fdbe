//! Container images and tar archives: read with suspicion, written with care.
//!
//! [`ImageSource`] opens whatever a person calls an image - an OCI layout, an OCI archive, what `docker
//! save` wrote, Docker's own folders, a tar of a root file system, a folder - and gives its configuration and its layers.
//! [`Layer::open`] streams a layer's entries while a second thread decompresses and hashes, and
//! [`apply_layer`] drives a [`TreeWriter`](thinstore_filesystem::TreeWriter) with them. The other way,
//! [`TarWriter`] writes trees and differences as tars that come out the same every time, and
//! [`OciArchiveWriter`] makes an image archive of them.
//!
//! Nothing read here is believed: sizes are bounded before they are used, paths stay inside the tree,
//! and every digest is checked. What is refused is refused as
//! [`ErrorKind::Refused`], with a sentence that names the entry
//! or the blob.

#![forbid(unsafe_code)]

mod compress;
mod digest;
mod host;
mod image;
mod layer;
mod limits;
mod recipe;
mod region;
mod tar;
mod write;

pub use compress::Compression;
pub use digest::{Algorithm, Digest, chain_id, chain_ids};
pub use host::HostTree;
pub use image::{Image, ImageSource, OpenProgress, Platform, SourceKind, SourceOptions};
pub use layer::apply::{LayerStats, apply_layer};
pub use layer::pump::Progress;
pub use layer::reader::{LayerContent, LayerItem, LayerReader, LayerTotals};
pub use layer::{Layer, MEDIA_TYPE_TAR};
pub use limits::Limits;
pub use write::changes::{Change, ChangeKind, write_changes};
pub use write::data_root::write_data_root;
pub use write::oci::{OciArchiveWriter, WrittenImage};
pub use write::tar::{TarWriter, WhiteoutNames};
pub use write::tree::{copy_tree, write_tree};

use thinstore_storage::{Error, ErrorKind};

/// The refusal of an archive or an image.
pub(crate) fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Refused, message)
}

/// Bytes of an archive as they may stand in a message: without control characters, which a terminal
/// would obey.
pub(crate) fn printable(raw: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(raw).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// A length as a number of the archive; no length of this machine is larger.
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
