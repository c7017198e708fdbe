//! An image as an OCI archive: a tar of an image layout, with Docker's `manifest.json` beside it, so that
//! `docker load`, `podman load`, skopeo and containerd all take it.
//!
//! A blob's digest is its name and stands before its bytes, so every layer is kept in an unnamed temporary
//! file until the archive is written. The archive is the same for the same layers and configuration:
//! blobs stand in the order of their digests, and all times are 1970.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use thinstore_storage::{Error, ErrorKind, Result};

use super::tar::{TarWriter, WhiteoutNames};
use crate::compress::Compression;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::layout::{CONTAINERD_NAME, REFERENCE_NAME};
use crate::image::names::{Platform, familiar, full, tagged};
use crate::layer::media_type;
use crate::region::{CHUNK_BYTES, from_io, unnamed_file};
use crate::{refuse, to_u64};

/// A layer that waits for the archive to be written.
struct StoredLayer {
    diff_id: Digest,
    digest: Digest,
    size_bytes: u64,
    file: File,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenImage {
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The digest of the configuration: the image's id.
    pub config_digest: Digest,
}

/// Gathers layers and writes an archive of them.
pub struct OciArchiveWriter {
    temporary_folder: PathBuf,
    compression: Compression,
    layers: Vec<StoredLayer>,
}

impl OciArchiveWriter {
    /// An archive whose layers are compressed as said. Temporary files go to `temporary_folder`.
    pub fn new(temporary_folder: &Path, compression: Compression) -> OciArchiveWriter {
        let temporary_folder = temporary_folder.to_owned();
        OciArchiveWriter { temporary_folder, compression, layers: Vec::new() }
    }

    /// Adds the next higher layer: `write` writes its uncompressed tar. Gives its diff id.
    ///
    /// # Errors
    /// Those of `write`, and `Io` or `Full` if the temporary file cannot be written.
    pub fn add_layer(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Digest> {
        let file = unnamed_file(&self.temporary_folder)?;
        let failed = |error| {
            from_io(error, |error| Error::io("a layer cannot be kept in a temporary file", error))
        };
        let stored = Hashed::new(file);
        let mut tar = Hashed::new(Encoder::new(self.compression, stored).map_err(failed)?);
        {
            let mut buffered = BufWriter::with_capacity(CHUNK_BYTES, &mut tar);
            write(&mut buffered)?;
            buffered.flush().map_err(failed)?;
        }
        let (encoder, diff_id, _) = tar.finish();
        let (file, digest, size_bytes) = encoder.finish().map_err(failed)?.finish();
        self.layers.push(StoredLayer { diff_id: diff_id.clone(), digest, size_bytes, file });
        Ok(diff_id)
    }

    /// Writes the archive. `config` is an image configuration, of which the list of layers is replaced by the
    /// layers added, and the history dropped if it does not fit them. `name` is the image's name.
    ///
    /// # Errors
    /// `Refused` if `config` is no JSON object; `Io` if the output cannot be written.
    pub fn finish<W: Write>(
        self,
        config: &[u8],
        name: Option<&str>,
        output: W,
    ) -> Result<(W, WrittenImage)> {
        let (config, platform) = patched_config(config, &self.layers)?;
        let config_digest = Digest::of(&config);
        let manifest = self.manifest(&config, &config_digest).to_string().into_bytes();
        let manifest_digest = Digest::of(&manifest);
        let index = index(&manifest, &manifest_digest, &platform, name).to_string();
        let saved = self.docker_manifest(&config_digest, name).to_string();

        let mut documents = vec![(&config_digest, &config), (&manifest_digest, &manifest)];
        documents.sort();
        let mut writer = TarWriter::new(output, WhiteoutNames::Plain);
        let mut layers: Vec<StoredLayer> = self.layers;
        layers.sort_by(|first, second| first.digest.cmp(&second.digest));
        let mut written: BTreeSet<Digest> = BTreeSet::new();
        for (digest, bytes) in documents {
            writer.document(&blob_path(digest), bytes)?;
            written.insert(digest.clone());
        }
        for layer in &mut layers {
            if written.insert(layer.digest.clone()) {
                write_blob(&mut writer, layer)?;
            }
        }
        writer.document("index.json", index.as_bytes())?;
        writer.document("manifest.json", saved.as_bytes())?;
        writer.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok((writer.finish()?, WrittenImage { manifest_digest, config_digest }))
    }

    fn manifest(&self, config: &[u8], config_digest: &Digest) -> Value {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": media_type(self.compression),
                    "digest": layer.digest.to_string(),
                    "size": layer.size_bytes,
                })
            })
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest.to_string(),
                "size": to_u64(config.len()),
            },
            "layers": layers,
        })
    }

    fn docker_manifest(&self, config_digest: &Digest, name: Option<&str>) -> Value {
        let layers: Vec<String> =
            self.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        let tags = name.map(|name| vec![familiar(&tagged(name))]);
        json!([{ "Config": blob_path(config_digest), "RepoTags": tags, "Layers": layers }])
    }
}

fn index(manifest: &[u8], digest: &Digest, platform: &Platform, name: Option<&str>) -> Value {
    let mut descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest.to_string(),
        "size": to_u64(manifest.len()),
        "platform": { "architecture": platform.architecture, "os": platform.os },
    });
    if let (Some(name), Some(descriptor)) = (name, descriptor.as_object_mut()) {
        let full = full(name);
        let last = full.rsplit('/').next().unwrap_or(&full);
        let tag = last.split_once(':').map_or("latest", |(_, tag)| tag).to_owned();
        let annotations = json!({ CONTAINERD_NAME: full, REFERENCE_NAME: tag });
        descriptor.insert("annotations".to_owned(), annotations);
    }
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    })
}

/// The configuration with the layers in it, and what system it says it is for.
fn patched_config(config: &[u8], layers: &[StoredLayer]) -> Result<(Vec<u8>, Platform)> {
    let mut document: Value = serde_json::from_slice(config)
        .map_err(|error| refuse(format!("the image configuration is not JSON: {error}")))?;
    let Some(fields) = document.as_object_mut() else {
        return Err(refuse("the image configuration is not a JSON object"));
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    fields.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let described = fields.get("history").and_then(Value::as_array).map(|history| {
        let empty = |step: &&Value| step.get("empty_layer").and_then(Value::as_bool) != Some(true);
        history.iter().filter(empty).count()
    });
    if described.is_some_and(|count| count != layers.len()) {
        fields.remove("history");
    }
    let mut platform = Platform::host();
    for (key, value) in [("os", &mut platform.os), ("architecture", &mut platform.architecture)] {
        match fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => text.clone_into(value),
            None => drop(fields.insert(key.to_owned(), Value::String(value.clone()))),
        }
    }
    Ok((document.to_string().into_bytes(), platform))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Copies a stored layer into the archive.
fn write_blob<W: Write>(writer: &mut TarWriter<W>, layer: &mut StoredLayer) -> Result<()> {
    let failed = |error| Error::io("a layer in a temporary file cannot be read back", error);
    layer.file.seek(SeekFrom::Start(0)).map_err(failed)?;
    writer.document_header(&blob_path(&layer.digest), layer.size_bytes)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let count = layer.file.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            break;
        }
        writer.raw(chunk.get(..count).unwrap_or_default())?;
        copied += to_u64(count);
    }
    if copied != layer.size_bytes {
        return Err(Error::new(ErrorKind::Corrupt, "a layer in a temporary file changed its size"));
    }
    writer.pad(copied)
}

/// Hashes and counts what passes through.
struct Hashed<W> {
    output: W,
    hasher: Hasher,
    size_bytes: u64,
}

impl<W> Hashed<W> {
    fn new(output: W) -> Hashed<W> {
        Hashed { output, hasher: Hasher::new(Algorithm::Sha256), size_bytes: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.output, self.hasher.finish(), self.size_bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let count = self.output.write(data)?;
        self.hasher.update(data.get(..count).unwrap_or_default());
        self.size_bytes += to_u64(count);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// Compresses what passes through. Neither form records a time or a name.
enum Encoder<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    fn new(compression: Compression, output: W) -> std::io::Result<Encoder<W>> {
        Ok(match compression {
            Compression::None => Encoder::None(output),
            Compression::Gzip => {
                Encoder::Gzip(GzEncoder::new(output, flate2::Compression::default()))
            }
            Compression::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(output, 3)?),
        })
    }

    fn finish(self) -> std::io::Result<W> {
        match self {
            Encoder::None(output) => Ok(output),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match self {
            Encoder::None(output) => output.write(data),
            Encoder::Gzip(encoder) => encoder.write(data),
            Encoder::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Encoder::None(output) => output.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}
