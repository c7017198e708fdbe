//! Bringing images in, for drivers of layers. Order: as for the thin driver, every layer that is not there is
//! made and sealed, and then all get their records, the image last.

use std::sync::Arc;
use std::time::Instant;

use thinstore_archive::{Image, Layer, apply_layer};
use thinstore_drivers::{LayerId, Stack};
use thinstore_filesystem::{DirectoryTree, TreeWriter};
use thinstore_storage::{Error, ErrorKind, Result};

use super::Shelf;
use super::contents::Contents;
use super::links::WithLinks;
use super::lock::Lock;
use super::place::WorkPlace;
use super::records::LayerRecord;
use crate::import::{Tracker, document_of, explained, name_of, open_source};
use crate::listing::count;
use crate::names::ImageName;
use crate::operations::{Input, Progress, ProgressEvent};
use crate::time::now_unix_ns;
use crate::types::{ImportOutcome, ImportRequest};

/// The layers that an import has made so far; removed when this is dropped before they are published.
struct Unpublished<'a> {
    shelf: &'a Shelf,
    layers: Vec<LayerRecord>,
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        for layer in self.layers.iter().rev() {
            self.shelf.abandon(&layer.id);
        }
    }
}

/// A layer of an import as its image has it.
struct Planned<'a> {
    layer: &'a Layer,
    chain_id: String,
    diff_id: String,
}

impl Shelf {
    pub(super) fn import_image(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome> {
        let started = Instant::now();
        if request.user_space {
            return self.unsupported("cannot write layers without the kernel");
        }
        let wanted = request.name.as_deref().map(ImageName::parse).transpose()?;
        if let Some(name) = &wanted {
            self.refuse_existing_image(name)?;
        }
        let image = open_source(&self.layout, request, input, wanted.as_ref(), &progress)?;
        let name = match wanted {
            Some(name) => name,
            None => name_of(&request.source, &image)?,
        };
        // imports follow each other: two of one image would write its layers twice
        let _importing = Lock::exclusive(&self.records.folder().join("importing.lock"))?;
        self.refuse_existing_image(&name)?;
        let plan = plan(&image);
        let contents = self.contents()?;
        let missing = plan.iter().filter(|one| contents.layer_named(&one.chain_id).is_none());
        let total_bytes: u64 = missing.map(|one| one.layer.compressed_size_bytes).sum();
        progress.report(&ProgressEvent::Start {
            name: name.to_string(),
            layers: count(plan.len()),
            total_bytes: Some(total_bytes).filter(|bytes| *bytes > 0),
        });
        let mut made = Unpublished { shelf: self, layers: Vec::new() };
        self.write_layers(&plan, &contents, &mut made, &progress)?;
        if progress.cancelled() {
            return Err(crate::interrupted("the import"));
        }
        let layers = plan.iter().map(|one| (one.chain_id.as_str(), one.diff_id.as_str()));
        let document = document_of(request, &image, layers)?;
        let new_bytes = made.layers.iter().map(|layer| layer.own_bytes).sum();
        let reused_layers = count(plan.len().saturating_sub(made.layers.len()));
        {
            let publishing = self.publishing()?;
            let contents = self.contents()?;
            refuse_missing(&plan, &contents, &made.layers)?;
            self.publish_image(&publishing, &name, &contents, &made.layers, &document)?;
            made.layers.clear();
        }
        let contents = self.contents()?;
        let top = contents.image(&name.to_string())?.top.clone();
        Ok(ImportOutcome {
            name: name.to_string(),
            id: document.id,
            layers: count(plan.len()),
            reused_layers,
            new_bytes,
            size_bytes: contents.ancestry(top.as_ref()).iter().map(|layer| layer.own_bytes).sum(),
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            method: "kernel".to_owned(),
        })
    }

    fn write_layers(
        &self,
        plan: &[Planned<'_>],
        contents: &Contents,
        made: &mut Unpublished<'_>,
        progress: &Arc<dyn Progress>,
    ) -> Result<()> {
        let mut below: Vec<LayerId> = Vec::new();
        for (index, planned) in plan.iter().enumerate() {
            let number = count(index).saturating_add(1);
            let digest = planned.diff_id.clone();
            if let Some(found) = contents.layer_named(&planned.chain_id) {
                progress.report(&ProgressEvent::Reused { layer: number, digest });
                below.insert(0, found.id.clone());
                continue;
            }
            let size_bytes = Some(planned.layer.compressed_size_bytes);
            progress.report(&ProgressEvent::Layer { layer: number, digest, size_bytes });
            let stack = Stack { id: LayerId::random()?, below: below.clone() };
            let mut record = LayerRecord {
                id: stack.id.clone(),
                name: planned.chain_id.clone(),
                diff_id: Some(planned.diff_id.clone()),
                parent: below.first().cloned(),
                own_bytes: 0,
                created_unix_ns: now_unix_ns(),
            };
            made.layers.push(record.clone());
            let tracker = Tracker::new(progress.clone());
            self.write_layer(&stack, planned.layer, &tracker).map_err(|error| {
                match progress.cancelled() {
                    // it ended on purpose, whichever entry it was at
                    true => crate::interrupted("the import"),
                    false => explained(error, number, plan.len()),
                }
            })?;
            record.own_bytes = self.driver.own_bytes(&stack.id)?;
            let own_bytes = record.own_bytes;
            progress.report(&ProgressEvent::Sealed { layer: number, own_bytes });
            if let Some(last) = made.layers.last_mut() {
                *last = record;
            }
            below.insert(0, stack.id);
        }
        Ok(())
    }

    fn write_layer(&self, stack: &Stack, layer: &Layer, tracker: &Tracker) -> Result<()> {
        self.driver.create(stack)?;
        let place = WorkPlace::make(&self.layout, self.driver.as_ref(), &stack.id)?;
        self.driver.fill(stack, place.path())?;
        let written = (|| {
            let mut tree = DirectoryTree::open(place.path())?;
            let mut reader = layer.open(Some(tracker.source_progress()))?;
            let mut linking;
            let writer: &mut dyn TreeWriter = match self.driver.parts_hard_links() {
                true => {
                    linking = WithLinks::new(&mut tree);
                    &mut linking
                }
                false => &mut tree,
            };
            let mut watched = tracker.watch(writer);
            apply_layer(&mut reader, &mut watched)?;
            // it becomes durable when it is sealed
            tree.set_folder_times()
        })();
        let released = place.unmount().and_then(|()| self.driver.release(&stack.id));
        written.and(released)?;
        self.driver.seal(stack)
    }
}

fn plan(image: &Image) -> Vec<Planned<'_>> {
    let ids = image.diff_ids().into_iter().zip(image.chain_ids());
    let layers = image.layers.iter().zip(ids);
    layers
        .map(|(layer, (diff_id, chain_id))| Planned {
            layer,
            chain_id: chain_id.to_string(),
            diff_id: diff_id.to_string(),
        })
        .collect()
}

/// A layer that was there at the start may have been removed with its image meanwhile.
fn refuse_missing(plan: &[Planned<'_>], contents: &Contents, made: &[LayerRecord]) -> Result<()> {
    for planned in plan {
        let is_made = made.iter().any(|layer| layer.name == planned.chain_id);
        if !is_made && contents.layer_named(&planned.chain_id).is_none() {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("the layer {} was removed meanwhile; import again", planned.chain_id),
            ));
        }
    }
    Ok(())
}
