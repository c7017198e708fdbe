//! Images, layers, the tree and containers, as lists.

use std::collections::HashMap;

use thinstore_pool::{LayerId, LayerInfo, Pool};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::attachments::Place;
use crate::catalog::{Catalog, uid_text};
use crate::document::ImageDocument;
use crate::names::{ImageName, hex};
use crate::store::Store;
use crate::time::rfc3339;
use crate::types::{
    ContainerState, ContainerSummary, ImageSummary, LayerSummary, TreeEntry, TreeKind,
};

/// A count as the JSON has it.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What a layer holds of its own: data and map.
pub(crate) fn own_bytes(layer: &LayerInfo) -> u64 {
    layer.own_data_bytes.saturating_add(layer.own_map_bytes)
}

/// The document of an image record.
pub(crate) fn image_document(pool: &Pool, image: &LayerInfo) -> Result<ImageDocument> {
    match pool.document(image.id)? {
        Some(bytes) => ImageDocument::from_bytes(&image.name, &bytes),
        None => Err(Error::new(
            ErrorKind::Corrupt,
            format!("the image '{}' has no document; remove it and import it again", image.name),
        )),
    }
}

/// The document of an image record, unless it was lost to damage: what only tells of it does without.
pub(crate) fn readable_document(pool: &Pool, image: &LayerInfo) -> Result<Option<ImageDocument>> {
    match image_document(pool, image) {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of an image; empty if it was lost to damage.
pub(crate) fn image_id(pool: &Pool, image: &LayerInfo) -> Result<String> {
    Ok(readable_document(pool, image)?.map(|document| document.id).unwrap_or_default())
}

/// The digest in a layer's tag; none if the tag is empty.
pub(crate) fn diff_id(layer: &LayerInfo) -> Option<String> {
    (layer.tag != [0; 32]).then(|| format!("sha256:{}", hex(&layer.tag)))
}

fn names(layers: Vec<&LayerInfo>) -> Vec<String> {
    layers.into_iter().map(|layer| layer.name.clone()).collect()
}

impl Store {
    pub(crate) fn list_images(&self) -> Result<Vec<ImageSummary>> {
        let catalog = self.catalog();
        catalog.images().into_iter().map(|image| self.image_summary(&catalog, image)).collect()
    }

    fn image_summary(&self, catalog: &Catalog, image: &LayerInfo) -> Result<ImageSummary> {
        let id = image_id(self.pool(), image)?;
        let top = catalog.top_layer(image)?;
        let layers = catalog.visible_ancestry(top.id);
        let (repository, tag) = match ImageName::parse(&image.name) {
            Ok(name) => (name.repository().to_owned(), name.tag().to_owned()),
            Err(_) => (image.name.clone(), String::new()),
        };
        Ok(ImageSummary {
            name: image.name.clone(),
            repository,
            tag,
            id,
            created: rfc3339(image.created_unix_ns),
            created_unix_ns: image.created_unix_ns,
            layers: count(layers.len()),
            top_layer: top.name.clone(),
            size_bytes: layers.iter().map(|layer| own_bytes(layer)).sum(),
            containers: names(catalog.containers_of(image.id)),
        })
    }

    pub(crate) fn list_layers(&self) -> Vec<LayerSummary> {
        let catalog = self.catalog();
        let mut found: Vec<LayerSummary> = catalog
            .image_layers()
            .into_iter()
            .map(|layer| {
                let below = catalog.visible_ancestry(layer.id);
                LayerSummary {
                    name: layer.name.clone(),
                    diff_id: diff_id(layer),
                    parent: below.get(1).map(|parent| parent.name.clone()),
                    depth: count(below.len().saturating_sub(1)),
                    own_bytes: own_bytes(layer),
                    size_bytes: layer.size_bytes,
                    created: rfc3339(layer.created_unix_ns),
                    created_unix_ns: layer.created_unix_ns,
                    images: names(images_above(&catalog, layer.id)),
                }
            })
            .collect();
        found.sort_by(|a, b| (a.depth, &a.name).cmp(&(b.depth, &b.name)));
        found
    }

    pub(crate) fn list_tree(&self) -> Vec<TreeEntry> {
        tree_of(&self.catalog())
    }

    pub(crate) fn list_containers(&self) -> Result<Vec<ContainerSummary>> {
        let catalog = self.catalog();
        let places = self.attachments().places()?;
        let summary = |container: &LayerInfo| {
            container_summary(&catalog, container, places.get(&container.name))
        };
        Ok(catalog.containers().into_iter().map(summary).collect())
    }
}

/// A container and where it is.
pub(crate) fn container_summary(
    catalog: &Catalog,
    container: &LayerInfo,
    place: Option<&Place>,
) -> ContainerSummary {
    let mount = place.and_then(|place| place.mount.as_ref());
    ContainerSummary {
        name: container.name.clone(),
        id: uid_text(container),
        image: catalog.image_of(container).map(|image| image.name.clone()),
        state: match (place, mount) {
            (_, Some(_)) => ContainerState::Mounted,
            (Some(_), None) => ContainerState::Attached,
            (None, None) => ContainerState::Created,
        },
        created: rfc3339(container.created_unix_ns),
        created_unix_ns: container.created_unix_ns,
        size_bytes: container.size_bytes,
        own_bytes: own_bytes(container),
        device: place.map(|place| place.device.display().to_string()),
        mount_point: mount.map(|mount| mount.mount_point.display().to_string()),
        read_only: mount.is_some_and(|mount| mount.is_read_only()),
    }
}

/// The images that stand on a layer, by name.
fn images_above(catalog: &Catalog, id: LayerId) -> Vec<&LayerInfo> {
    let stands_on = |image: &&LayerInfo| {
        image.reference.is_some_and(|top| catalog.ancestry(top).iter().any(|layer| layer.id == id))
    };
    catalog.images().into_iter().filter(stands_on).collect()
}

/// Parents before children, siblings by name, without recursion: chains can be very long.
pub(crate) fn tree_of(catalog: &Catalog) -> Vec<TreeEntry> {
    let mut children: HashMap<Option<LayerId>, Vec<(&LayerInfo, TreeKind)>> = HashMap::new();
    for layer in catalog.all() {
        if let Some(kind) = Catalog::kind(layer) {
            let parent = layer.origin.filter(|origin| catalog.get(*origin).is_some());
            // documents stand alone without a name: they are the pool's own
            if parent.is_some() || !layer.name.is_empty() || kind == TreeKind::Transient {
                children.entry(parent).or_default().push((layer, kind));
            }
        }
    }
    for siblings in children.values_mut() {
        // the last one is taken first
        siblings.sort_by(|(a, _), (b, _)| (&b.name, b.id).cmp(&(&a.name, a.id)));
    }
    let mut waiting: Vec<(u64, &LayerInfo, TreeKind)> = Vec::new();
    let mut place = |waiting: &mut Vec<_>, parent, depth| {
        let found = children.remove(&parent).unwrap_or_default().into_iter();
        waiting.extend(found.map(|(layer, kind)| (depth, layer, kind)));
    };
    place(&mut waiting, None, 0);
    let mut entries = Vec::new();
    while let Some((depth, layer, kind)) = waiting.pop() {
        entries.push(TreeEntry {
            layer_id: layer.id.get(),
            kind,
            name: layer.name.clone(),
            parent_layer_id: layer.origin.map(LayerId::get),
            depth,
            own_bytes: own_bytes(layer),
            size_bytes: layer.size_bytes,
            images: names(catalog.images_on(layer.id)),
        });
        place(&mut waiting, Some(layer.id), depth.saturating_add(1));
    }
    entries
}
