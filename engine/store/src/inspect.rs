//! One object of the pool in Docker's shape.

use serde_json::{Map, Value};
use thinstore_pool::LayerInfo;
use thinstore_storage::Result;

use crate::catalog::{Catalog, Target, uid_text};
use crate::listing::{diff_id, image_document, own_bytes, readable_document};
use crate::mounts::THIN;
use crate::shape::{ShownContainer, ShownImage, ShownLayer};
use crate::store::Store;
use crate::types::InspectRequest;

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
        let mut data = device_data(container, &container.name);
        if let Some(place) = &place {
            data.insert("DevicePath".to_owned(), place.device.display().to_string().into());
        }
        if let Some(mount) = mount {
            let mount_point = mount.mount_point.display().to_string();
            data.insert("MountPoint".to_owned(), mount_point.clone().into());
            // where Docker's drivers say that the whole file system is seen
            data.insert("MergedDir".to_owned(), mount_point.into());
        }
        let shown = ShownContainer {
            id: &uid_text(container),
            created_unix_ns: container.created_unix_ns,
            name: &container.name,
            image: image.map(|image| image.name.as_str()),
            document: document.as_ref(),
            status: match (&place, mount) {
                (_, Some(_)) => "mounted",
                (Some(_), None) => "attached",
                (None, None) => "created",
            },
            own_bytes: own_bytes(container),
            driver: THIN,
            data,
            mounts: match mount {
                Some(_) => self.mount_infos(container)?,
                None => Vec::new(),
            },
        };
        Ok(shown.into_value())
    }

    fn describe_image(&self, catalog: &Catalog, image: &LayerInfo) -> Result<Value> {
        let document = image_document(self.pool(), image)?;
        let top = catalog.top_layer(image)?;
        let layers = catalog.visible_ancestry(top.id);
        let same = |other: &&LayerInfo| {
            other.reference == image.reference
                && image_document(self.pool(), other).is_ok_and(|other| other.id == document.id)
        };
        let images = catalog.images();
        let shown = ShownImage {
            document: &document,
            created_unix_ns: image.created_unix_ns,
            names: images.into_iter().filter(same).map(|other| other.name.as_str()).collect(),
            size_bytes: layers.iter().map(|layer| own_bytes(layer)).sum::<u64>(),
            driver: THIN,
            data: device_data(top, &top.name),
        };
        Ok(shown.into_value())
    }
}

fn describe_layer(catalog: &Catalog, layer: &LayerInfo) -> Value {
    let below = catalog.visible_ancestry(layer.id);
    let images = catalog.images_on(layer.id).into_iter();
    let shown = ShownLayer {
        name: &layer.name,
        created_unix_ns: layer.created_unix_ns,
        diff_id: diff_id(layer),
        parent: below.get(1).map(|parent| parent.name.as_str()),
        images: images.map(|image| image.name.as_str()).collect(),
        own_bytes: own_bytes(layer),
        driver: THIN,
        data: device_data(layer, &layer.name),
    };
    shown.into_value()
}

/// What Docker's devicemapper told of a device, and what is ours.
fn device_data(layer: &LayerInfo, device_name: &str) -> Map<String, Value> {
    let texts = [
        ("DeviceId", layer.id.get().to_string()),
        ("DeviceName", device_name.to_owned()),
        ("DeviceSize", layer.size_bytes.to_string()),
        ("OwnBytes", own_bytes(layer).to_string()),
        ("ChecksummedBytes", layer.checksummed_bytes.to_string()),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}
