//! A container's content as a new image, and the removal of images.

use thinstore_storage::Result;

use super::Shelf;
use super::contents::Contents;
use super::lock::Lock;
use super::records::{ImageRecord, LayerRecord};
use crate::commit::{document_of_commit, image_exists};
use crate::document::{ImageDocument, ImageLayer};
use crate::names::ImageName;
use crate::removal::image_in_use;
use crate::time::now_unix_ns;
use crate::types::{CommitOutcome, CommitRequest, RemovedImage};

impl Shelf {
    pub(super) fn refuse_existing_image(&self, name: &ImageName) -> Result<()> {
        let images = self.records.all::<ImageRecord>()?;
        match images.iter().any(|image| image.name == name.to_string()) {
            true => Err(image_exists(name)),
            false => Ok(()),
        }
    }

    /// Order: the layer, then its record, then the image's. A crash before the last leaves a layer that
    /// nothing stands on, which goes with the next one that is removed.
    pub(super) fn commit_container(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        let name = ImageName::parse(&request.image)?;
        self.refuse_existing_image(&name)?;
        let held = self.hold(&request.name)?;
        let (layer, sealed) = self.seal_copy(&held, self.driver_name().as_str())?;
        let published = self.publish_commit(request, &name, &held.record.name, &layer);
        let document = match published {
            Ok(document) => document,
            Err(error) => {
                self.abandon(&layer.id);
                return Err(error);
            }
        };
        Ok(CommitOutcome {
            image: name.to_string(),
            id: document.id,
            layer: layer.name,
            own_bytes: layer.own_bytes,
            live: sealed.live,
            frozen_us: sealed.frozen_us,
        })
    }

    fn publish_commit(
        &self,
        request: &CommitRequest,
        name: &ImageName,
        container: &str,
        layer: &LayerRecord,
    ) -> Result<ImageDocument> {
        let publishing = self.publishing()?;
        let contents = self.contents()?;
        let base = contents.container(container).ok().and_then(|one| contents.image_of(one));
        let base = base.map_or(serde_json::Value::Null, |image| image.document.config_value());
        let below = contents.ancestry(layer.parent.as_ref()).into_iter().rev();
        let named = |layer: &LayerRecord| ImageLayer {
            name: layer.name.clone(),
            diff_id: layer.diff_id.clone(),
        };
        let layers = below.filter(|layer| !layer.name.is_empty()).chain([layer]).map(named);
        let document =
            document_of_commit(request, container, &base, layers.collect(), layer.id.as_str());
        self.publish_image(&publishing, name, &contents, std::slice::from_ref(layer), &document)?;
        Ok(document)
    }

    /// Gives an image its name, and its new layers, the lowest first, their records. The right to publish is
    /// held. After an error none of them has a record.
    pub(super) fn publish_image(
        &self,
        publishing: &Lock,
        name: &ImageName,
        contents: &Contents,
        new_layers: &[LayerRecord],
        document: &ImageDocument,
    ) -> Result<()> {
        let top = match new_layers.last() {
            Some(layer) => Some(layer.id.clone()),
            None => document
                .layers
                .last()
                .and_then(|layer| contents.layer_named(&layer.name))
                .map(|layer| layer.id.clone()),
        };
        let image = ImageRecord {
            name: name.to_string(),
            top,
            document: document.clone(),
            created_unix_ns: now_unix_ns(),
        };
        let publish = || {
            for layer in new_layers {
                self.records.publish(layer)?;
            }
            match self.records.publish(&image)? {
                true => Ok(()),
                false => Err(image_exists(name)),
            }
        };
        let begun_before = publishing.begin()?;
        publish().inspect_err(|_| {
            for layer in new_layers {
                drop(self.records.forget(layer));
            }
        })?;
        match begun_before {
            true => Ok(()),
            false => publishing.end(),
        }
    }

    pub(super) fn remove_one_image(&self, name: &str) -> Result<RemovedImage> {
        let image = {
            let publishing = self.publishing()?;
            let contents = self.contents()?;
            let image = contents.image(name)?;
            let containers = contents.containers_of(image);
            if let Some(first) = containers.first() {
                return Err(image_in_use(&image.name, &first.name, containers.len()));
            }
            publishing.begin()?;
            self.records.forget(image)?;
            image.clone()
        };
        Ok(RemovedImage { name: image.name, layers: self.remove_unneeded_layers()? })
    }
}
