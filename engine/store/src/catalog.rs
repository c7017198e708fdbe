//! What is in the pool, read once and asked many times: which layer is what, who stands on whom, and
//! which object a user means by a word.

use std::collections::{BTreeMap, HashMap};

use thinstore_pool::{LayerId, LayerInfo, Pool};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::kinds::{CONTAINER, IMAGE, LAYER, TEMPLATE, VOLUME};
use crate::names::{ImageName, digest_prefix, hex};
use crate::types::{InspectKind, TreeKind};

/// A chain of origins is never longer than the layer table; this bounds a walk through a damaged one.
const DEPTH_LIMIT: usize = 1 << 24;

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Container(LayerId),
    /// The image's record.
    Image(LayerId),
    Layer(LayerId),
}

/// The layers of a pool at one moment.
pub(crate) struct Catalog {
    layers: HashMap<LayerId, LayerInfo>,
    /// For the documents of images, which hold their ids.
    pool: Pool,
}

/// How an id of 32 bytes is shown.
pub(crate) fn uid_text(layer: &LayerInfo) -> String {
    hex(&layer.uid)
}

impl Catalog {
    pub(crate) fn read(pool: &Pool) -> Catalog {
        let layers = pool.layers().into_iter().map(|layer| (layer.id, layer)).collect();
        Catalog { layers, pool: pool.clone() }
    }

    pub(crate) fn get(&self, id: LayerId) -> Option<&LayerInfo> {
        self.layers.get(&id)
    }

    /// As [`Catalog::get`], for ids that the pool itself named.
    pub(crate) fn layer(&self, id: LayerId) -> Result<&LayerInfo> {
        self.layers.get(&id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the layer {} has just been removed; try again", id.get()),
            )
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &LayerInfo> {
        self.layers.values()
    }

    fn named(&self, namespace: thinstore_pool::Namespace) -> Vec<&LayerInfo> {
        let mut found: Vec<&LayerInfo> = self
            .layers
            .values()
            .filter(|layer| {
                layer.namespace == namespace
                    && !layer.hidden
                    && !layer.transient
                    && !layer.name.is_empty()
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// All containers, by name.
    pub(crate) fn containers(&self) -> Vec<&LayerInfo> {
        self.named(CONTAINER)
    }

    /// All volumes that are devices, by name.
    pub(crate) fn volumes(&self) -> Vec<&LayerInfo> {
        self.named(VOLUME)
    }

    /// The device of a volume, if it is one.
    pub(crate) fn volume(&self, name: &str) -> Option<&LayerInfo> {
        self.volumes().into_iter().find(|volume| volume.name == name)
    }

    /// All image records, by name.
    pub(crate) fn images(&self) -> Vec<&LayerInfo> {
        self.named(IMAGE)
    }

    /// All layers of images, by name.
    pub(crate) fn image_layers(&self) -> Vec<&LayerInfo> {
        self.named(LAYER)
    }

    /// The layer itself and what it stands on, down to the bottom.
    pub(crate) fn ancestry(&self, id: LayerId) -> Vec<&LayerInfo> {
        let mut found = Vec::new();
        let mut next = self.get(id);
        while let Some(layer) = next {
            found.push(layer);
            if found.len() >= DEPTH_LIMIT {
                break;
            }
            next = layer.origin.and_then(|origin| self.get(origin));
        }
        found
    }

    /// As [`Catalog::ancestry`], only visible layers of images: what a user would count.
    pub(crate) fn visible_ancestry(&self, id: LayerId) -> Vec<&LayerInfo> {
        let all = self.ancestry(id).into_iter();
        all.filter(|layer| layer.namespace == LAYER && !layer.hidden).collect()
    }

    /// What a layer is, for the tree. Image records stand on nothing and are not part of it.
    pub(crate) fn kind(layer: &LayerInfo) -> Option<TreeKind> {
        match layer.namespace {
            _ if layer.hidden => Some(TreeKind::Hidden),
            _ if layer.transient => Some(TreeKind::Transient),
            IMAGE => None,
            LAYER => Some(TreeKind::Layer),
            CONTAINER => Some(TreeKind::Container),
            TEMPLATE => Some(TreeKind::Template),
            VOLUME => Some(TreeKind::Volume),
            _ => Some(TreeKind::Hidden),
        }
    }

    /// The image record that a container was made from.
    pub(crate) fn image_of(&self, container: &LayerInfo) -> Option<&LayerInfo> {
        let image = container.reference.and_then(|reference| self.get(reference))?;
        (image.namespace == IMAGE).then_some(image)
    }

    /// The containers that were made from an image.
    pub(crate) fn containers_of(&self, image: LayerId) -> Vec<&LayerInfo> {
        let all = self.containers().into_iter();
        all.filter(|container| container.reference == Some(image)).collect()
    }

    /// The images whose top layer this is.
    pub(crate) fn images_on(&self, top: LayerId) -> Vec<&LayerInfo> {
        self.images().into_iter().filter(|image| image.reference == Some(top)).collect()
    }

    /// The container of a name.
    pub(crate) fn container(&self, name: &str) -> Result<&LayerInfo> {
        let found = self.find_container(name)?;
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no container '{}'; 'thinstore ls' shows those there are",
                    name.escape_debug()
                ),
            )
        })
    }

    fn find_container(&self, name: &str) -> Result<Option<&LayerInfo>> {
        let containers = self.containers();
        if let Some(found) = containers.iter().find(|container| container.name == name) {
            return Ok(Some(found));
        }
        let Some(prefix) = digest_prefix(name).filter(|_| !name.contains(':')) else {
            return Ok(None);
        };
        let matching = containers.into_iter().filter(|layer| uid_text(layer).starts_with(prefix));
        only(name, "containers", matching)
    }

    /// The image record of a name, or of an id or a unique prefix of it.
    pub(crate) fn image(&self, name: &str) -> Result<&LayerInfo> {
        self.find_image(name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no image '{}'; 'thinstore images' shows those there are",
                    name.escape_debug()
                ),
            )
        })
    }

    fn find_image(&self, name: &str) -> Result<Option<&LayerInfo>> {
        let images = self.images();
        if let Ok(full) = ImageName::parse(name) {
            let full = full.to_string();
            if let Some(found) = images.iter().find(|image| image.name == full) {
                return Ok(Some(found));
            }
        }
        let Some(prefix) = digest_prefix(name).filter(|_| !name.starts_with("thin:")) else {
            return Ok(None);
        };
        // by id: several names of one image are one image
        let mut matching = BTreeMap::new();
        for image in images {
            let id = crate::listing::image_id(&self.pool, image)?;
            if id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(prefix)) {
                matching.entry(id).or_insert(image);
            }
        }
        only(name, "images", matching.into_values())
    }

    fn find_layer(&self, name: &str) -> Result<Option<&LayerInfo>> {
        let layers = self.image_layers();
        if let Some(found) = layers.iter().find(|layer| layer.name == name) {
            return Ok(Some(found));
        }
        let Some(prefix) = digest_prefix(name) else { return Ok(None) };
        let scheme = name.split_once(':').map(|(scheme, _)| scheme);
        let matching = layers.into_iter().filter(|layer| {
            layer.name.split_once(':').is_some_and(|(kind, hex)| {
                scheme.is_none_or(|scheme| scheme == kind) && hex.starts_with(prefix)
            })
        });
        only(name, "layers", matching)
    }

    /// What a word means: a container, else an image, else a layer.
    pub(crate) fn resolve(&self, name: &str, kind: Option<InspectKind>) -> Result<Target> {
        let wanted = |asked: InspectKind| kind.is_none_or(|kind| kind == asked);
        if wanted(InspectKind::Container)
            && let Some(found) = self.find_container(name)?
        {
            return Ok(Target::Container(found.id));
        }
        if wanted(InspectKind::Image)
            && let Some(found) = self.find_image(name)?
        {
            return Ok(Target::Image(found.id));
        }
        if wanted(InspectKind::Layer)
            && let Some(found) = self.find_layer(name)?
        {
            return Ok(Target::Layer(found.id));
        }
        Err(nothing_named(name, kind))
    }

    /// The device that holds a target's file system.
    pub(crate) fn device_of(&self, target: Target) -> Result<LayerId> {
        match target {
            Target::Container(id) | Target::Layer(id) => Ok(id),
            Target::Image(id) => self.top_layer(self.layer(id)?).map(|layer| layer.id),
        }
    }

    /// The top layer of an image.
    pub(crate) fn top_layer(&self, image: &LayerInfo) -> Result<&LayerInfo> {
        let top = image.reference.and_then(|reference| self.get(reference));
        top.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the image '{}' has no top layer; remove it and import it again",
                    image.name
                ),
            )
        })
    }
}

/// The error of a word that means nothing here.
pub(crate) fn nothing_named(name: &str, kind: Option<InspectKind>) -> Error {
    let what = match kind {
        None => "container, image or layer",
        Some(InspectKind::Container) => "container",
        Some(InspectKind::Image) => "image",
        Some(InspectKind::Layer) => "layer",
    };
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no {what} '{}'; 'thinstore tree' shows all there is",
            name.escape_debug()
        ),
    )
}

/// The only one of those that match, none, or an error that says that there are several.
pub(crate) fn only<T>(
    name: &str,
    what: &str,
    mut matching: impl Iterator<Item = T>,
) -> Result<Option<T>> {
    let first = matching.next();
    if matching.next().is_some() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("'{name}' is the beginning of several {what}; write more of it"),
        ));
    }
    Ok(first)
}
