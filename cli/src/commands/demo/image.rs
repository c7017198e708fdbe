//! A small OCI image: four layers, with a whiteout, an opaque folder, a hard link, symbolic links and a
//! setuid file. Its bytes are the same every time.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The large file that containers share.
pub const LARGE_FILE: &str = "srv/data.bin";

/// Its length.
pub const LARGE_FILE_BYTES: u64 = 8 << 20;

/// All times in the image: 2024-01-01.
const TIME: u64 = 1_704_067_200;

const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What an image came to.
pub struct MadeImage {
    pub layers: u64,
    pub bytes: u64,
}

/// A layer that is being written.
struct LayerTar(Builder<Vec<u8>>);

impl LayerTar {
    fn new() -> LayerTar {
        LayerTar(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size_bytes: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_size(size_bytes);
        header
    }

    fn folder(&mut self, path: &str) -> io::Result<()> {
        let mut header = LayerTar::header(EntryType::Directory, 0o755, 0);
        self.0.append_data(&mut header, path, io::empty())
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let mut header = LayerTar::header(EntryType::Regular, mode, length);
        self.0.append_data(&mut header, path, content)
    }

    fn link(&mut self, kind: EntryType, path: &str, target: &str) -> io::Result<()> {
        let mut header = LayerTar::header(kind, 0o777, 0);
        self.0.append_link(&mut header, path, target)
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        self.0.into_inner()
    }
}

/// Bytes that do not compress and are the same every time (xorshift64).
fn noise(length: u64) -> Vec<u8> {
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let mut bytes = Vec::new();
    for _ in 0..length / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn layers() -> io::Result<Vec<Vec<u8>>> {
    let mut base = LayerTar::new();
    for folder in ["bin", "etc", "srv", "tmp", "usr", "usr/lib", "var", "var/cache"] {
        base.folder(folder)?;
    }
    base.file("etc/os-release", 0o644, b"NAME=\"thinstore demo\"\nVERSION_ID=1\n")?;
    base.file("etc/motd", 0o644, b"This file is deleted by the second layer.\n")?;
    base.file("bin/hello", 0o755, b"#!/bin/sh\necho hello from the base layer\n")?;
    base.file("bin/su", 0o4755, b"#!/bin/sh\nexit 1\n")?;
    base.link(EntryType::Symlink, "lib", "usr/lib")?;
    base.file("var/cache/old-1", 0o644, b"hidden by the third layer\n")?;
    base.file("var/cache/old-2", 0o644, b"hidden by the third layer\n")?;
    base.file(LARGE_FILE, 0o644, &noise(LARGE_FILE_BYTES))?;

    let mut tools = LayerTar::new();
    tools.folder("etc")?;
    tools.file("etc/.wh.motd", 0o644, b"")?;
    tools.file("usr/lib/tool.so", 0o644, &noise(256 << 10))?;
    tools.link(EntryType::Link, "usr/lib/tool.so.1", "usr/lib/tool.so")?;

    let mut clean = LayerTar::new();
    clean.folder("var/cache")?;
    clean.file("var/cache/.wh..wh..opq", 0o644, b"")?;
    clean.file("var/cache/fresh", 0o644, b"the only file here now\n")?;

    let mut application = LayerTar::new();
    application.folder("app")?;
    application.file("app/config", 0o600, b"colour = blue\n")?;
    application.file("bin/hello", 0o755, b"#!/bin/sh\necho hello from the application layer\n")?;
    [base, tools, clean, application].into_iter().map(LayerTar::finish).collect()
}

/// Writes an OCI layout with one image called `name` to `folder`. Its last layer says `edition`, so that
/// two editions share all layers but that one.
pub fn write(folder: &Path, name: &str, edition: &str) -> io::Result<MadeImage> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let mut layers = layers()?;
    let mut edition_layer = LayerTar::new();
    edition_layer.file("etc/edition", 0o644, edition.as_bytes())?;
    layers.push(edition_layer.finish()?);

    let mut bytes: u64 = 0;
    let mut blob = |content: &[u8]| -> io::Result<(String, u64)> {
        let digest: String =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::File::create(blobs.join(&digest))?.write_all(content)?;
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        bytes = bytes.saturating_add(length);
        Ok((format!("sha256:{digest}"), length))
    };
    let stored = layers.iter().map(|layer| blob(layer)).collect::<io::Result<Vec<_>>>()?;
    let diff_ids: Vec<&str> = stored.iter().map(|(digest, _)| digest.as_str()).collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/hello"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let (config_digest, config_bytes) = blob(config.to_string().as_bytes())?;
    let descriptors: Vec<serde_json::Value> = stored
        .iter()
        .map(|(digest, size)| {
            serde_json::json!({"mediaType": MEDIA_LAYER, "digest": digest, "size": size})
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": {"mediaType": MEDIA_CONFIG, "digest": config_digest, "size": config_bytes},
        "layers": descriptors,
    });
    let (manifest_digest, manifest_bytes) = blob(manifest.to_string().as_bytes())?;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MEDIA_MANIFEST,
            "digest": manifest_digest,
            "size": manifest_bytes,
            "annotations": {"org.opencontainers.image.ref.name": name},
        }],
    });
    fs::write(folder.join("index.json"), index.to_string())?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(MadeImage { layers: u64::try_from(layers.len()).unwrap_or(u64::MAX), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editions_share_all_layers_but_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = |edition: &str| {
            let place = folder.path().join(edition);
            write(&place, "demo:1", edition).expect("written");
            let names = fs::read_dir(place.join("blobs/sha256")).expect("blobs");
            names.map(|entry| entry.expect("entry").file_name()).collect::<Vec<_>>()
        };
        let (first, second) = (blobs("1"), blobs("2"));
        assert_eq!(first.len(), 7);
        assert_eq!(first.iter().filter(|blob| second.contains(blob)).count(), 4);
    }
}
