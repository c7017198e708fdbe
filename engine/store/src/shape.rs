//! Objects in Docker's shape (the answers of `docker inspect`), whatever their driver.

use serde_json::{Map, Value, json};

use crate::document::ImageDocument;
use crate::time::rfc3339;
use crate::types::MountInfo;

/// What Docker shows as `GraphDriver`. The values of its data are all texts.
pub(crate) fn graph_driver(name: &str, data: Map<String, Value>) -> Value {
    json!({"Name": name, "Data": data})
}

/// A container to show.
pub(crate) struct ShownContainer<'a> {
    pub(crate) id: &'a str,
    pub(crate) created_unix_ns: i64,
    pub(crate) name: &'a str,
    pub(crate) image: Option<&'a str>,
    pub(crate) document: Option<&'a ImageDocument>,
    pub(crate) status: &'a str,
    pub(crate) own_bytes: u64,
    pub(crate) driver: &'a str,
    pub(crate) data: Map<String, Value>,
    pub(crate) mounts: Vec<MountInfo>,
}

impl ShownContainer<'_> {
    pub(crate) fn into_value(self) -> Value {
        let config = self.document.map(ImageDocument::config_value);
        let config = config.and_then(|mut config| config.get_mut("config").map(Value::take));
        json!({
            "Id": self.id,
            "Created": rfc3339(self.created_unix_ns),
            "Name": format!("/{}", self.name),
            "Image": self.document.map(|document| document.id.as_str()).unwrap_or_default(),
            "Driver": self.driver,
            "Platform": "linux",
            "State": {"Status": self.status, "Running": false, "Paused": false},
            "Config": with_image(config, self.image),
            "SizeRw": self.own_bytes,
            "GraphDriver": graph_driver(self.driver, self.data),
            "Mounts": self.mounts,
        })
    }
}

/// A container's configuration names its image, as Docker's does.
fn with_image(config: Option<Value>, image: Option<&str>) -> Value {
    let mut config = match config {
        Some(config @ Value::Object(_)) => config,
        _ => json!({}),
    };
    if let Some(fields) = config.as_object_mut() {
        fields.insert("Image".to_owned(), image.unwrap_or_default().into());
    }
    config
}

/// An image to show.
pub(crate) struct ShownImage<'a> {
    pub(crate) document: &'a ImageDocument,
    pub(crate) created_unix_ns: i64,
    /// All that it is called.
    pub(crate) names: Vec<&'a str>,
    pub(crate) size_bytes: u64,
    pub(crate) driver: &'a str,
    /// Of its top layer.
    pub(crate) data: Map<String, Value>,
}

impl ShownImage<'_> {
    pub(crate) fn into_value(self) -> Value {
        let config = self.document.config_value();
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
        let comment = config
            .get("history")
            .and_then(Value::as_array)
            .and_then(|history| history.last()?.get("comment")?.as_str())
            .unwrap_or_default();
        let layers = self.document.layers.iter();
        let diff_ids: Vec<String> = layers
            .map(|layer| layer.diff_id.clone().unwrap_or_else(|| layer.name.clone()))
            .collect();
        json!({
            "Id": self.document.id,
            "RepoTags": self.names,
            "RepoDigests": [],
            "Created": match text("created") {
                "" => rfc3339(self.created_unix_ns),
                created => created.to_owned(),
            },
            "Author": text("author"),
            "Comment": comment,
            "Architecture": text("architecture"),
            "Os": text("os"),
            "Config": config.get("config").cloned().unwrap_or(Value::Null),
            "Size": self.size_bytes,
            "GraphDriver": graph_driver(self.driver, self.data),
            "RootFS": {"Type": "layers", "Layers": diff_ids},
            "Metadata": {
                "LastTagTime": rfc3339(self.created_unix_ns),
                "Source": self.document.source,
            },
            "Mounts": [],
        })
    }
}

/// A layer to show.
pub(crate) struct ShownLayer<'a> {
    pub(crate) name: &'a str,
    pub(crate) created_unix_ns: i64,
    pub(crate) diff_id: Option<String>,
    pub(crate) parent: Option<&'a str>,
    pub(crate) images: Vec<&'a str>,
    pub(crate) own_bytes: u64,
    pub(crate) driver: &'a str,
    pub(crate) data: Map<String, Value>,
}

impl ShownLayer<'_> {
    pub(crate) fn into_value(self) -> Value {
        json!({
            "Id": self.name,
            "Created": rfc3339(self.created_unix_ns),
            "DiffId": self.diff_id,
            "Parent": self.parent,
            "RepoTags": self.images,
            "Size": self.own_bytes,
            "GraphDriver": graph_driver(self.driver, self.data),
            "Mounts": [],
        })
    }
}
