//! A writer of OCI image layouts, sound unless a test breaks one on purpose.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tar::{Header, TarWriter};
use crate::tree::hexadecimal;

/// The SHA-256 of bytes as a digest: `sha256:HEX`.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}

/// An OCI layout folder under construction.
pub struct Layout {
    folder: PathBuf,
}

/// One image of a layout: its layers as plain tar archives, and what to get wrong.
#[derive(Clone, Debug, Default)]
pub struct LayoutImage {
    layers: Vec<Vec<u8>>,
    wrong_diff_id: bool,
}

impl LayoutImage {
    /// An image without layers.
    pub fn new() -> LayoutImage {
        LayoutImage::default()
    }

    /// Adds a layer: a tar archive, stored uncompressed.
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>) -> LayoutImage {
        self.layers.push(tar);
        self
    }

    /// Makes the configuration name a wrong diff id for the last layer.
    #[must_use]
    pub fn with_wrong_diff_id(mut self) -> LayoutImage {
        self.wrong_diff_id = true;
        self
    }
}

impl Layout {
    /// Makes the folder of a layout that holds `image` under the tag `latest`.
    pub fn write(folder: &Path, image: &LayoutImage) -> Layout {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("make a layout's folder");
        let layout = Layout { folder: folder.to_owned() };
        let layers: Vec<Value> = image
            .layers
            .iter()
            .map(|tar| layout.descriptor("application/vnd.oci.image.layer.v1.tar", tar))
            .collect();
        let mut diff_ids: Vec<String> = image.layers.iter().map(|tar| digest_of(tar)).collect();
        if let Some(last) = diff_ids.last_mut().filter(|_| image.wrong_diff_id) {
            *last = digest_of(b"something else");
        }
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2025-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [],
        });
        let config =
            layout.descriptor("application/vnd.oci.image.config.v1+json", &bytes_of(&config));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let mut manifest =
            layout.descriptor("application/vnd.oci.image.manifest.v1+json", &bytes_of(&manifest));
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(folder.join("index.json"), bytes_of(&index)).expect("write index.json");
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("write oci-layout");
        layout
    }

    fn descriptor(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest_of(bytes);
        fs::write(self.blob(&digest), bytes).expect("write a blob");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let name = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
        self.folder.join("blobs/sha256").join(name)
    }
}

fn bytes_of(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of a value")
}

/// The digests of an image's layers, first one lowest, as the layout at `folder` says.
#[track_caller]
pub fn layer_digests(folder: &Path) -> Vec<String> {
    let read = |path: PathBuf| -> Value {
        let bytes = fs::read(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        serde_json::from_slice(&bytes).expect("JSON of a layout")
    };
    let layout = Layout { folder: folder.to_owned() };
    let index = read(folder.join("index.json"));
    let manifest = index["manifests"][0]["digest"].as_str().expect("a manifest").to_owned();
    let layers = read(layout.blob(&manifest))["layers"].clone();
    let layers = layers.as_array().expect("layers").iter();
    layers.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// Three layers with all that needs care between them.
pub fn rich_image() -> LayoutImage {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let suid = Header { name: b"bin/su", mode: 0o4755, gid: 8, ..Header::default() };
    let root = Header { name: b"./", kind: b'5', mode: 0o750, uid: 7, ..Header::default() };
    let pipe = Header { name: b"pipe", kind: b'6', mode: 0o600, ..Header::default() };
    let lowest = TarWriter::new()
        .entry(&root, b"")
        .directory("bin")
        .entry(&suid, b"su")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .file("bin/ping", b"ping")
        .directory("etc")
        .directory("etc/emptied")
        .file("etc/emptied/one", b"1")
        .directory("etc/emptied/two")
        .file("etc/emptied/two/inside", b"2")
        .file("etc/kept", b"kept")
        .file("etc/deleted", b"deleted")
        .directory("folder-to-file")
        .file("folder-to-file/inside", b"inside")
        .file("file-to-folder", b"file")
        .directory("away-and-back")
        .file("away-and-back/old", b"old")
        .directory("links")
        .file("links/first", b"one file")
        .hard_link("links/second", "links/first")
        .symlink("to-etc", "etc")
        .entry(&pipe, b"")
        .finish();
    let middle = TarWriter::new()
        .pax(&[("SCHILY.xattr.user.note", b"of the folder")])
        .directory("etc")
        .file("etc/.wh.deleted", b"")
        .directory("etc/emptied")
        .file("etc/emptied/.wh..wh..opq", b"")
        .file("etc/emptied/new", b"new")
        .file("folder-to-file", b"a file now")
        .directory("file-to-folder")
        .file("file-to-folder/inside", b"inside")
        .file(".wh.away-and-back", b"")
        .directory("links")
        .hard_link("links/third", "links/first")
        .finish();
    let highest = TarWriter::new()
        .directory("away-and-back")
        .file("away-and-back/new", b"new")
        .file("etc/deleted", b"there again")
        .finish();
    LayoutImage::new().layer(lowest).layer(middle).layer(highest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TarWriter;

    #[test]
    fn a_layout_says_its_layers_back() {
        let folder = tempfile::tempdir().unwrap();
        let tar = TarWriter::new().file("file", b"hello").finish();
        let image = LayoutImage::new().layer(tar.clone());
        let layout = Layout::write(folder.path(), &image);
        assert_eq!(layer_digests(folder.path()), [digest_of(&tar)]);
        assert!(layout.blob(&digest_of(&tar)).is_file());
    }

    #[test]
    #[ignore = "needs root: umoci unpacks with the owners of the image"]
    fn umoci_unpacks_a_handmade_layout() {
        let folder = tempfile::tempdir().unwrap();
        let tar = TarWriter::new().directory(".").directory("a").file("a/b", b"hello").finish();
        Layout::write(folder.path(), &LayoutImage::new().layer(tar));
        let unpacked = crate::images::umoci_unpack(folder.path());
        assert_eq!(std::fs::read(unpacked.root().join("a/b")).unwrap(), b"hello");
    }
}
