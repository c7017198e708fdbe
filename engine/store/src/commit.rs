//! A container's content as a new image.

use thinstore_pool::{LayerId, LayerInfo, NewLayer};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::catalog::Catalog;
use crate::document::{HistoryEntry, ImageDocument, ImageLayer, extended_config};
use crate::kinds::{IMAGE, LAYER, committed_layer_name};
use crate::listing::{diff_id, own_bytes, readable_document};
use crate::names::{ImageName, hex};
use crate::store::Store;
use crate::time::{now_unix_ns, rfc3339};
use crate::types::{CommitOutcome, CommitRequest};

impl Store {
    /// Order: the container's blocks are sealed into a transient layer (its file system is frozen for
    /// that moment), then one transaction gives the layer its name and makes the image. A crash between
    /// the two leaves the transient layer, which the next open takes away.
    pub(crate) fn commit_container(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        let image = ImageName::parse(&request.image)?;
        let name = self.catalog().container(&request.name)?.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        self.refuse_existing_image(&image)?;
        let catalog = self.catalog();
        let container = catalog.container(&name)?;
        let base = match catalog.image_of(container) {
            Some(base) => readable_document(self.pool(), base)?,
            None => None,
        };
        let base = base.map_or(serde_json::Value::Null, |document| document.config_value());
        let new = NewLayer { namespace: LAYER, transient: true, ..NewLayer::default() };
        let sealed = self.held_still(container, || self.pool().seal_snapshot(container.id, new))?;
        let layer = sealed.value;
        let document = self.committed_document(request, &catalog, container, layer, &base);
        let published = document.and_then(|document| self.publish_commit(&image, layer, &document));
        let (id, layer_name) = match published {
            Ok(published) => published,
            Err(error) => {
                self.abandon(&[layer]);
                return Err(error);
            }
        };
        Ok(CommitOutcome {
            image: image.to_string(),
            id,
            layer: layer_name,
            own_bytes: own_bytes(&self.pool().layer(layer)?),
            live: sealed.live,
            frozen_us: sealed.frozen_us,
        })
    }

    pub(crate) fn refuse_existing_image(&self, image: &ImageName) -> Result<()> {
        if self.pool().find(IMAGE, &image.to_string()).is_none() {
            return Ok(());
        }
        Err(image_exists(image))
    }

    fn committed_document(
        &self,
        request: &CommitRequest,
        catalog: &Catalog,
        container: &LayerInfo,
        layer: LayerId,
        base: &serde_json::Value,
    ) -> Result<ImageDocument> {
        let uid = self.pool().layer(layer)?.uid;
        let mut layers: Vec<ImageLayer> = catalog
            .visible_ancestry(container.id)
            .into_iter()
            .rev()
            .map(|layer| ImageLayer { name: layer.name.clone(), diff_id: diff_id(layer) })
            .collect();
        layers.push(ImageLayer { name: committed_layer_name(&uid), diff_id: None });
        Ok(document_of_commit(request, &container.name, base, layers, &hex(&uid)))
    }

    fn publish_commit(
        &self,
        image: &ImageName,
        layer: LayerId,
        document: &ImageDocument,
    ) -> Result<(String, String)> {
        let name = committed_layer_name(&self.pool().layer(layer)?.uid);
        let stored = self.pool().store_document(&document.to_bytes()?)?;
        let mut transaction = self.pool().begin();
        transaction.publish(layer, Some(&name));
        let record = NewLayer {
            namespace: IMAGE,
            name: image.to_string(),
            reference: Some(layer),
            ..NewLayer::default()
        };
        transaction.create(record, true, Some(stored));
        if let Err(error) = self.pool().commit(transaction) {
            self.abandon(&[stored]);
            return Err(error);
        }
        Ok((document.id.clone(), name))
    }

    /// Removes transient layers after a failure, the last made first. One that cannot be removed now is
    /// gone at the next open.
    pub(crate) fn abandon(&self, layers: &[LayerId]) {
        for layer in layers.iter().rev() {
            if let Err(error) = self.pool().remove(*layer) {
                tracing::warn!("a layer that is not needed stays until the next start: {error}");
            }
        }
    }
}

/// What is kept of an image that a commit made, whose top layer has the id `uid`.
pub(crate) fn document_of_commit(
    request: &CommitRequest,
    container: &str,
    base: &serde_json::Value,
    layers: Vec<ImageLayer>,
    uid: &str,
) -> ImageDocument {
    let created = rfc3339(now_unix_ns());
    let history = HistoryEntry {
        created: created.clone(),
        created_by: format!("thinstore commit {container}"),
        author: request.author.clone(),
        comment: request.message.clone(),
    };
    // The layer's tar has not been made, so its digest is not known: the layer's own id stands in.
    let config = extended_config(base, &created, &format!("sha256:{uid}"), &history);
    ImageDocument::new(config, None, format!("container {container}"), layers)
}

pub(crate) fn image_exists(image: &ImageName) -> Error {
    Error::new(
        ErrorKind::Exists,
        format!(
            "there is an image '{image}' already; remove it first with 'thinstore rmi', or choose another name"
        ),
    )
}
