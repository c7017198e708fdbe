//! Bringing images in.
//!
//! Order: the source is opened and named; each layer that the store does not have is written to a
//! transient child of the layer below and sealed; one transaction then gives all of them their names
//! and makes the image. Until that transaction there is nothing to see, and after a failure the
//! transient layers are removed; after a crash the next open removes them.

mod apply;
mod source;
mod template;
mod tracker;

use std::sync::Arc;
use std::time::Instant;

use thinstore_archive::Image;
use thinstore_pool::{LayerId, NewLayer};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::document::ImageDocument;
use crate::kinds::{IMAGE, LAYER};
use crate::listing::{count, own_bytes};
use crate::names::{ImageName, digest_bytes};
use crate::operations::{Input, Progress, ProgressEvent};
use crate::store::Store;
use crate::types::{ImportOutcome, ImportRequest};

use apply::Method;
pub(crate) use source::{document_of, explained, name_of, open_source};
pub(crate) use tracker::Tracker;

/// A layer of an import: what the image says of it, and where it is in the pool.
struct PlannedLayer {
    chain_id: String,
    diff_id: String,
    /// None: it has to be written.
    found: Option<LayerId>,
}

/// The layers that an import has made so far; removed when this is dropped before they are published.
struct Unpublished<'a> {
    store: &'a Store,
    layers: Vec<LayerId>,
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        self.store.abandon(&self.layers);
    }
}

impl Store {
    pub(crate) fn import_image(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome> {
        let started = Instant::now();
        let wanted = request.name.as_deref().map(ImageName::parse).transpose()?;
        if let Some(name) = &wanted {
            self.refuse_existing_image(name)?;
        }
        let image = open_source(self.layout(), request, input, wanted.as_ref(), &progress)?;
        let name = match wanted {
            Some(name) => name,
            None => name_of(&request.source, &image)?,
        };
        // imports follow each other: two of one image would write its layers twice
        let _importing = self.importing().lock();
        self.refuse_existing_image(&name)?;
        let plan = self.plan(&image);
        let reused = plan.iter().filter(|layer| layer.found.is_some()).count();
        progress.report(&ProgressEvent::Start {
            name: name.to_string(),
            layers: count(plan.len()),
            total_bytes: total_bytes(&image, &plan),
        });
        let method = Method::choose(self, request.user_space);
        if method == Method::Kernel {
            self.attachments().start()?;
        }
        let mut made = Unpublished { store: self, layers: Vec::new() };
        let chain = self.write_layers(&image, &plan, &mut made, method, &progress)?;
        if progress.cancelled() {
            return Err(crate::interrupted("the import"));
        }
        let layers = plan.iter().map(|layer| (layer.chain_id.as_str(), layer.diff_id.as_str()));
        let document = document_of(request, &image, layers)?;
        let new_bytes = self.sum_own(&made.layers)?;
        self.publish_image(&name, &document, &plan, &chain, &mut made)?;
        Ok(ImportOutcome {
            name: name.to_string(),
            id: document.id,
            layers: count(plan.len()),
            reused_layers: count(reused),
            new_bytes,
            size_bytes: self.sum_own(&chain)?,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            method: method.name().to_owned(),
        })
    }

    fn sum_own(&self, layers: &[LayerId]) -> Result<u64> {
        layers.iter().map(|layer| Ok(own_bytes(&self.pool().layer(*layer)?))).sum()
    }

    fn plan(&self, image: &Image) -> Vec<PlannedLayer> {
        let chain_ids = image.chain_ids();
        let layers = image.diff_ids().into_iter().zip(chain_ids);
        layers
            .map(|(diff_id, chain_id)| {
                let chain_id = chain_id.to_string();
                PlannedLayer {
                    found: self.pool().find(LAYER, &chain_id),
                    diff_id: diff_id.to_string(),
                    chain_id,
                }
            })
            .collect()
    }

    /// Writes what is missing; the image's layers in the pool, lowest first.
    fn write_layers(
        &self,
        image: &Image,
        plan: &[PlannedLayer],
        made: &mut Unpublished<'_>,
        method: Method,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<LayerId>> {
        let mut below = self.template(self.pool().default_device_size_bytes())?;
        let mut chain = Vec::new();
        for (index, (layer, planned)) in image.layers.iter().zip(plan).enumerate() {
            let number = count(index).saturating_add(1);
            let digest = planned.diff_id.clone();
            if let Some(found) = planned.found {
                progress.report(&ProgressEvent::Reused { layer: number, digest });
                chain.push(found);
                below = found;
                continue;
            }
            let size_bytes = Some(layer.compressed_size_bytes);
            progress.report(&ProgressEvent::Layer { layer: number, digest, size_bytes });
            let new = NewLayer {
                namespace: LAYER,
                transient: true,
                tag: digest_bytes(&planned.diff_id).unwrap_or_default(),
                ..NewLayer::default()
            };
            let id = self.pool().snapshot(below, new)?;
            made.layers.push(id);
            let tracker = Tracker::new(progress.clone());
            self.apply(id, layer, method, &tracker).map_err(|error| {
                match progress.cancelled() {
                    // it ended on purpose, whichever entry it was at
                    true => crate::interrupted("the import"),
                    false => explained(error, number, plan.len()),
                }
            })?;
            self.pool().seal(id)?;
            let own_bytes = own_bytes(&self.pool().layer(id)?);
            progress.report(&ProgressEvent::Sealed { layer: number, own_bytes });
            chain.push(id);
            below = id;
        }
        Ok(chain)
    }

    fn publish_image(
        &self,
        name: &ImageName,
        document: &ImageDocument,
        plan: &[PlannedLayer],
        chain: &[LayerId],
        made: &mut Unpublished<'_>,
    ) -> Result<()> {
        let top = match chain.last() {
            Some(top) => *top,
            // an image without layers is an empty file system
            None => self.template(self.pool().default_device_size_bytes())?,
        };
        let _publishing = self.publishing().lock();
        // a layer that was there at the start may have been removed with its image meanwhile
        for layer in plan {
            if let Some(found) = layer.found
                && self.pool().find(LAYER, &layer.chain_id) != Some(found)
            {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("the layer {} was removed meanwhile; import again", layer.chain_id),
                ));
            }
        }
        let stored = self.pool().store_document(&document.to_bytes()?)?;
        made.layers.push(stored);
        let mut transaction = self.pool().begin();
        for (layer, id) in plan.iter().zip(chain) {
            if layer.found.is_none() {
                transaction.publish(*id, Some(&layer.chain_id));
            }
        }
        let record = NewLayer {
            namespace: IMAGE,
            name: name.to_string(),
            reference: Some(top),
            ..NewLayer::default()
        };
        transaction.create(record, true, Some(stored));
        self.pool().commit(transaction)?;
        made.layers.clear();
        Ok(())
    }
}

/// What the missing layers have in the source together.
fn total_bytes(image: &Image, plan: &[PlannedLayer]) -> Option<u64> {
    let missing = image.layers.iter().zip(plan).filter(|(_, planned)| planned.found.is_none());
    let total: u64 = missing.map(|(layer, _)| layer.compressed_size_bytes).sum();
    (total > 0).then_some(total)
}
