//! One object in Docker's shape (the answers of `docker inspect`).

use serde_json::{Value, json};
use thinstore_pool::LayerInfo;
use thinstore_storage::Result;

use crate::catalog::{Catalog, Target, uid_text};
use crate::listing::{diff_id, image_document, own_bytes, readable_document};
use crate::store::Store;
use crate::time::rfc3339;
use crate::types::InspectRequest;

/// What Docker calls the storage driver.
const DRIVER: &str = "thin";

impl Store {
    pub(crate) fn describe(&self, request: &InspectRequest) -> Result<Value> {
        let catalog = self.catalog();
        match catalog.resolve(&request.name, request.kind)? {
            Target::Container(id) => self.describe_container(&catalog, catalog.layer(id)?),
            Target::Image(id) => self.describe_image(&catalog, catalog.layer(id)?),
            Target::Layer(id) => Ok(describe_layer(&catalog, catalog.layer(id)?)),
        }
    }

    fn describe_container(&self, catalog: &Catalog, container: &LayerInfo) -> Result<Value> {
        let place = self.attachments().place_of(&container.name)?;
        let mount = place.as_ref().and_then(|place| place.mount.as_ref());
        let image = catalog.image_of(container);
        let document = match image {
            Some(image) => readable_document(self.pool(), image)?,
            None => None,
        };
        let mut graph_driver = graph_driver(container, &container.name);
        if let Some(data) = graph_driver.get_mut("Data").and_then(Value::as_object_mut) {
            if let Some(place) = &place {
                data.insert("DevicePath".to_owned(), place.device.display().to_string().into());
            }
            if let Some(mount) = mount {
                let mount_point = mount.mount_point.display().to_string();
                data.insert("MountPoint".to_owned(), mount_point.clone().into());
                // where Docker's drivers say that the whole file system is seen
                data.insert("MergedDir".to_owned(), mount_point.into());
            }
        }
        let status = match (&place, mount) {
            (_, Some(_)) => "mounted",
            (Some(_), None) => "attached",
            (None, None) => "created",
        };
        let mounts = match mount {
            Some(_) => self.mount_infos(container)?,
            None => Vec::new(),
        };
        let config = document.as_ref().map(|document| document.config_value());
        let config = config.and_then(|mut config| config.get_mut("config").map(Value::take));
        Ok(json!({
            "Id": uid_text(container),
            "Created": rfc3339(container.created_unix_ns),
            "Name": format!("/{}", container.name),
            "Image": document.as_ref().map(|document| document.id.clone()).unwrap_or_default(),
            "Driver": DRIVER,
            "Platform": "linux",
            "State": {"Status": status, "Running": false, "Paused": false},
            "Config": with_image(config, image.map(|image| image.name.as_str())),
            "SizeRw": own_bytes(container),
            "GraphDriver": graph_driver,
            "Mounts": mounts,
        }))
    }

    fn describe_image(&self, catalog: &Catalog, image: &LayerInfo) -> Result<Value> {
        let document = image_document(self.pool(), image)?;
        let config = document.config_value();
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
        let top = catalog.top_layer(image)?;
        let layers = catalog.visible_ancestry(top.id);
        let names: Vec<&str> = catalog
            .images()
            .into_iter()
            .filter(|other| other.reference == image.reference)
            .filter(|other| {
                image_document(self.pool(), other).is_ok_and(|other| other.id == document.id)
            })
            .map(|other| other.name.as_str())
            .collect();
        let comment = config
            .get("history")
            .and_then(Value::as_array)
            .and_then(|history| history.last()?.get("comment")?.as_str())
            .unwrap_or_default();
        let diff_ids: Vec<String> = document
            .layers
            .iter()
            .map(|layer| layer.diff_id.clone().unwrap_or_else(|| layer.name.clone()))
            .collect();
        Ok(json!({
            "Id": document.id,
            "RepoTags": names,
            "RepoDigests": [],
            "Created": match text("created") {
                "" => rfc3339(image.created_unix_ns),
                created => created.to_owned(),
            },
            "Author": text("author"),
            "Comment": comment,
            "Architecture": text("architecture"),
            "Os": text("os"),
            "Config": config.get("config").cloned().unwrap_or(Value::Null),
            "Size": layers.iter().map(|layer| own_bytes(layer)).sum::<u64>(),
            "GraphDriver": graph_driver(top, &top.name),
            "RootFS": {"Type": "layers", "Layers": diff_ids},
            "Metadata": {"LastTagTime": rfc3339(image.created_unix_ns), "Source": document.source},
            "Mounts": [],
        }))
    }
}

fn describe_layer(catalog: &Catalog, layer: &LayerInfo) -> Value {
    let below = catalog.visible_ancestry(layer.id);
    let images: Vec<&str> =
        catalog.images_on(layer.id).into_iter().map(|image| image.name.as_str()).collect();
    json!({
        "Id": layer.name,
        "Created": rfc3339(layer.created_unix_ns),
        "DiffId": diff_id(layer),
        "Parent": below.get(1).map(|parent| parent.name.clone()),
        "RepoTags": images,
        "Size": own_bytes(layer),
        "GraphDriver": graph_driver(layer, &layer.name),
        "Mounts": [],
    })
}

/// Docker's driver data are all texts.
fn graph_driver(layer: &LayerInfo, device_name: &str) -> Value {
    json!({
        "Name": DRIVER,
        "Data": {
            "DeviceId": layer.id.get().to_string(),
            "DeviceName": device_name,
            "DeviceSize": layer.size_bytes.to_string(),
            "OwnBytes": own_bytes(layer).to_string(),
            "ChecksummedBytes": layer.checksummed_bytes.to_string(),
        },
    })
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
