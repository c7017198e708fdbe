//! Everything that a shelf has, as it was at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};

use thinstore_drivers::{LayerId, Stack};
use thinstore_storage::{Error, ErrorKind, Result};

use super::records::{ContainerRecord, ImageRecord, LayerRecord, Records};
use crate::catalog::only;
use crate::names::{ImageName, digest_prefix};
use crate::types::InspectKind;

/// What a word means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    Container(&'a ContainerRecord),
    Image(&'a ImageRecord),
    Layer(&'a LayerRecord),
}

pub(super) struct Contents {
    pub(super) layers: HashMap<LayerId, LayerRecord>,
    /// By name.
    pub(super) images: Vec<ImageRecord>,
    /// By name.
    pub(super) containers: Vec<ContainerRecord>,
}

impl Contents {
    pub(super) fn read(records: &Records) -> Result<Contents> {
        // what stands on something before what it stands on: nothing is removed in this order
        let containers = records.all()?;
        let images = records.all()?;
        let layers = records.all::<LayerRecord>()?;
        let layers = layers.into_iter().map(|layer| (layer.id.clone(), layer)).collect();
        Ok(Contents { layers, images, containers })
    }

    /// A layer and those below it, it first.
    pub(super) fn ancestry(&self, top: Option<&LayerId>) -> Vec<&LayerRecord> {
        let mut found: Vec<&LayerRecord> = Vec::new();
        let mut next = top;
        while let Some(layer) = next.and_then(|id| self.layers.get(id)) {
            if found.len() > self.layers.len() {
                break;
            }
            found.push(layer);
            next = layer.parent.as_ref();
        }
        found
    }

    fn ids(&self, top: Option<&LayerId>) -> Vec<LayerId> {
        self.ancestry(top).into_iter().map(|layer| layer.id.clone()).collect()
    }

    /// A layer as its driver takes it.
    pub(super) fn stack(&self, layer: &LayerRecord) -> Stack {
        Stack { id: layer.id.clone(), below: self.ids(layer.parent.as_ref()) }
    }

    /// Something of this id on a parent.
    pub(super) fn stack_on(&self, id: LayerId, parent: Option<&LayerId>) -> Stack {
        Stack { id, below: self.ids(parent) }
    }

    pub(super) fn stack_of(&self, container: &ContainerRecord) -> Stack {
        self.stack_on(container.id.clone(), container.parent.as_ref())
    }

    pub(super) fn image_of(&self, container: &ContainerRecord) -> Option<&ImageRecord> {
        let name = container.image.as_ref()?;
        self.images.iter().find(|image| image.name == *name)
    }

    pub(super) fn containers_of(&self, image: &ImageRecord) -> Vec<&ContainerRecord> {
        let is_of = |container: &&ContainerRecord| container.image.as_ref() == Some(&image.name);
        self.containers.iter().filter(is_of).collect()
    }

    /// The images whose top layer is this.
    pub(super) fn images_on(&self, layer: &LayerId) -> Vec<&ImageRecord> {
        self.images.iter().filter(|image| image.top.as_ref() == Some(layer)).collect()
    }

    pub(super) fn layer_named(&self, name: &str) -> Option<&LayerRecord> {
        self.layers.values().find(|layer| layer.name == name)
    }

    /// The layers that nothing stands on, the top ones first.
    pub(super) fn unneeded(&self) -> Vec<&LayerRecord> {
        let tops = self.images.iter().filter_map(|image| image.top.as_ref());
        let parents = self.containers.iter().filter_map(|container| container.parent.as_ref());
        let needed: HashSet<&LayerId> = tops
            .chain(parents)
            .flat_map(|top| self.ancestry(Some(top)))
            .map(|layer| &layer.id)
            .collect();
        let mut unneeded: Vec<&LayerRecord> =
            self.layers.values().filter(|layer| !needed.contains(&layer.id)).collect();
        unneeded.sort_by_key(|layer| std::cmp::Reverse(self.ancestry(Some(&layer.id)).len()));
        unneeded
    }

    pub(super) fn container(&self, name: &str) -> Result<&ContainerRecord> {
        self.find_container(name)?.ok_or_else(|| missing("container", name, "ls"))
    }

    fn find_container(&self, name: &str) -> Result<Option<&ContainerRecord>> {
        if let Some(found) = self.containers.iter().find(|container| container.name == name) {
            return Ok(Some(found));
        }
        let Some(prefix) = digest_prefix(name).filter(|_| !name.contains(':')) else {
            return Ok(None);
        };
        let is_meant = |one: &&ContainerRecord| one.id.as_str().starts_with(prefix);
        only(name, "containers", self.containers.iter().filter(is_meant))
    }

    pub(super) fn image(&self, name: &str) -> Result<&ImageRecord> {
        self.find_image(name)?.ok_or_else(|| missing("image", name, "images"))
    }

    fn find_image(&self, name: &str) -> Result<Option<&ImageRecord>> {
        if let Ok(full) = ImageName::parse(name) {
            let full = full.to_string();
            if let Some(found) = self.images.iter().find(|image| image.name == full) {
                return Ok(Some(found));
            }
        }
        let Some(prefix) = digest_prefix(name) else { return Ok(None) };
        // by id: several names of one image are one image
        let mut matching = BTreeMap::new();
        for image in &self.images {
            let id = &image.document.id;
            if id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(prefix)) {
                matching.entry(id).or_insert(image);
            }
        }
        only(name, "images", matching.into_values())
    }

    fn find_layer(&self, name: &str) -> Result<Option<&LayerRecord>> {
        if let Some(found) = self.layer_named(name).filter(|_| !name.is_empty()) {
            return Ok(Some(found));
        }
        let hex = name.split_once(':').map_or(name, |(_, hex)| hex);
        let Some(prefix) = digest_prefix(hex) else { return Ok(None) };
        let mut layers: Vec<&LayerRecord> = self.layers.values().collect();
        layers.sort_by(|a, b| a.name.cmp(&b.name));
        let matching = layers.into_iter().filter(|layer| {
            let digits = layer.name.split_once(':').map(|(_, digits)| digits);
            let scheme = name.strip_suffix(hex).unwrap_or_default();
            layer.name.starts_with(scheme) && digits.is_some_and(|all| all.starts_with(prefix))
        });
        only(name, "layers", matching)
    }

    /// What a word means: a container, else an image, else a layer.
    pub(super) fn resolve(&self, name: &str, kind: Option<InspectKind>) -> Result<Target<'_>> {
        let wanted = |asked: InspectKind| kind.is_none_or(|kind| kind == asked);
        if wanted(InspectKind::Container)
            && let Some(found) = self.find_container(name)?
        {
            return Ok(Target::Container(found));
        }
        if wanted(InspectKind::Image)
            && let Some(found) = self.find_image(name)?
        {
            return Ok(Target::Image(found));
        }
        if wanted(InspectKind::Layer)
            && let Some(found) = self.find_layer(name)?
        {
            return Ok(Target::Layer(found));
        }
        Err(crate::catalog::nothing_named(name, kind))
    }
}

fn missing(kind: &str, name: &str, command: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no {kind} '{}'; 'thinstore {command}' shows those there are",
            name.escape_debug()
        ),
    )
}
