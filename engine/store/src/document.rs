//! What the store keeps of an image beside its layers: a JSON document in the pool, named by the
//! image's record and published in the same transaction.

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};

/// The version of the document's layout.
const DOCUMENT_VERSION: u32 = 1;

/// A layer as its image names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// The layer's name in the pool: its chain id, or `thin:...` for one that a commit made.
    pub name: String,
    /// The digest of its tar, where it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
}

/// An image's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDocument {
    /// 1.
    pub version: u32,
    /// `sha256:` of the configuration's exact bytes.
    pub id: String,
    /// The configuration (OCI image configuration), byte for byte as its digest says.
    pub config: String,
    /// The manifest it came with, if it came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Where it came from, in words: a path, `stdin`, or the container it was committed from.
    pub source: String,
    /// The bottom layer first.
    pub layers: Vec<ImageLayer>,
}

impl ImageDocument {
    /// A document of the current version; the id is that of `config`.
    pub fn new(
        config: String,
        manifest: Option<String>,
        source: String,
        layers: Vec<ImageLayer>,
    ) -> ImageDocument {
        let id = crate::names::sha256_digest(config.as_bytes());
        ImageDocument { version: DOCUMENT_VERSION, id, config, manifest, source, layers }
    }

    /// The document's bytes as the pool keeps them.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot write the image's document: {error}"))
        })
    }

    /// Takes a document's bytes; `image` is named in errors.
    pub fn from_bytes(image: &str, bytes: &[u8]) -> Result<ImageDocument> {
        let document: ImageDocument = serde_json::from_slice(bytes).map_err(|error| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the document of the image '{image}' cannot be read ({error}); remove the image and import it again"),
            )
        })?;
        if document.version != DOCUMENT_VERSION {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the document of the image '{image}' has version {}, this program knows {DOCUMENT_VERSION}; use a newer thinstore",
                    document.version
                ),
            ));
        }
        Ok(document)
    }

    /// The configuration as JSON; `null` if it is not JSON.
    pub fn config_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.config).unwrap_or(serde_json::Value::Null)
    }
}

/// One line of an image's history, as the OCI image specification has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    pub created: String,
    /// By what.
    pub created_by: String,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// The architecture as OCI names it.
pub fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The configuration of an image that has none of its own (a tar, a folder).
pub fn plain_config(created: &str, diff_ids: &[String], history: &HistoryEntry) -> String {
    serde_json::json!({
        "created": created,
        "architecture": oci_architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [history],
    })
    .to_string()
}

/// The configuration of an image with one more layer on `base`.
pub fn extended_config(
    base: &serde_json::Value,
    created: &str,
    diff_id: &str,
    history: &HistoryEntry,
) -> String {
    let mut config = match base {
        serde_json::Value::Object(_) => base.clone(),
        _ => serde_json::json!({"architecture": oci_architecture(), "os": "linux", "config": {}}),
    };
    let append = |list: &mut serde_json::Value, item: serde_json::Value| match list {
        serde_json::Value::Array(items) => items.push(item),
        other => *other = serde_json::Value::Array(vec![item]),
    };
    if let serde_json::Value::Object(fields) = &mut config {
        fields.insert("created".to_owned(), created.into());
        let rootfs = fields
            .entry("rootfs")
            .or_insert_with(|| serde_json::json!({"type": "layers", "diff_ids": []}));
        if !rootfs.is_object() {
            *rootfs = serde_json::json!({"type": "layers", "diff_ids": []});
        }
        if let Some(rootfs) = rootfs.as_object_mut() {
            append(
                rootfs.entry("diff_ids").or_insert_with(|| serde_json::json!([])),
                diff_id.into(),
            );
        }
        let entry = serde_json::to_value(history).unwrap_or_default();
        append(fields.entry("history").or_insert_with(|| serde_json::json!([])), entry);
    }
    config.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_its_bytes_and_refuses_a_newer_version() {
        let config = plain_config("2024-01-01T00:00:00Z", &[], &HistoryEntry::default());
        let mut document = ImageDocument::new(config, None, "stdin".to_owned(), Vec::new());
        let bytes = document.to_bytes().expect("bytes");
        assert_eq!(ImageDocument::from_bytes("x", &bytes).expect("same"), document);
        document.version = 2;
        let bytes = document.to_bytes().expect("bytes");
        let error = ImageDocument::from_bytes("x", &bytes).expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let error = ImageDocument::from_bytes("x", b"{").expect_err("cut off");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_commit_adds_one_layer_and_one_line_of_history_whatever_the_base_is() {
        let history = HistoryEntry { comment: Some("why".to_owned()), ..HistoryEntry::default() };
        for base in [
            serde_json::Value::Null,
            serde_json::json!({"rootfs": 1, "history": "x"}),
            serde_json::json!({"rootfs": {"type": "layers", "diff_ids": ["a"]}, "os": "linux"}),
        ] {
            let config = extended_config(&base, "now", "sha256:1", &history);
            let config: serde_json::Value = serde_json::from_str(&config).expect("json");
            let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("a list");
            assert_eq!(diff_ids.last().expect("one"), "sha256:1");
            assert_eq!(config["history"].as_array().expect("a list").len(), 1);
            assert_eq!(config["history"][0]["comment"], "why");
        }
    }
}
