//! The JSON documents of images, as far as they are needed here. Unknown fields are passed over, null
//! stands for absent.
//!
//! Sources: the OCI image specification (image-layout.md, image-index.md, manifest.md, config.md) and
//! Docker's image specification 1.2 (`manifest.json`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::digest::Digest;
use crate::refuse;

/// `oci-layout`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayoutMark {
    pub(crate) image_layout_version: String,
}

/// A reference to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: Option<String>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    pub(crate) platform: Option<PlatformField>,
}

impl Descriptor {
    pub(crate) fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }

    pub(crate) fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or_default()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Signatures, build provenance and the like, which stand among an index's images.
    pub(crate) fn is_attestation(&self) -> bool {
        let marked = self.annotation("vnd.docker.reference.type").is_some()
            || self.artifact_type.as_ref().is_some_and(|kind| !kind.is_empty());
        let unknown = self
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown");
        marked || unknown
    }
}

/// For what system an image is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PlatformField {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    pub(crate) variant: Option<String>,
}

/// `index.json` and nested indexes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u64,
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

/// An image manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u64,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
}

/// What is needed of an image's configuration.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) rootfs: RootFs,
}

/// The layers of a configuration, lowest first.
#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) diff_ids: Option<Vec<String>>,
}

/// One image of Docker's `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SavedImage {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Option<Vec<String>>,
}

/// Reads a document; `name` is what it is called in a refusal.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| refuse(format!("{name} is not the JSON document it should be: {error}")))
}

/// The diff ids of a configuration.
pub(crate) fn diff_ids(config: &[u8], name: &str) -> Result<Vec<Digest>> {
    let config: Config = parse(config, name)?;
    if config.rootfs.kind.as_deref().is_some_and(|kind| kind != "layers") {
        return Err(Error::new(
            ErrorKind::Incompatible,
            format!("{name} describes a root file system that does not consist of layers"),
        ));
    }
    config.rootfs.diff_ids.unwrap_or_default().iter().map(|text| text.parse()).collect()
}

/// A configuration for what has none: a tar or a folder.
pub(crate) fn bare_config(platform: &super::Platform, diff_id: &Digest) -> Vec<u8> {
    let document = serde_json::json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "thinstore import" }],
    });
    document.to_string().into_bytes()
}
