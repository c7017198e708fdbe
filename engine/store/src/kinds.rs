//! What the pool's namespaces mean here.

use thinstore_pool::Namespace;

/// Sealed layers of images: chain ids, or `thin:<uid>` for those that a commit made.
pub const LAYER: Namespace = Namespace(1);
/// Image records: empty, their `reference` is the top layer, their document an `ImageDocument`.
pub const IMAGE: Namespace = Namespace(2);
/// Containers: writable devices, their `reference` is the image's record.
pub const CONTAINER: Namespace = Namespace(3);
/// Volumes that are devices: writable, or sealed if they are snapshots; their document is a
/// `VolumeDocument`.
pub const VOLUME: Namespace = Namespace(5);
/// Sealed, empty ext4 file systems, one for each device size: `ext4-<bytes>`.
pub const TEMPLATE: Namespace = Namespace(4);

/// The name of the layer that a commit makes: it has no tar, hence no digest; the pool's uid of it is
/// as unique.
pub fn committed_layer_name(uid: &[u8; 32]) -> String {
    format!("thin:{}", crate::names::hex(uid))
}

/// The name of the template of a device size.
pub fn template_name(size_bytes: u64) -> String {
    format!("ext4-{size_bytes}")
}
