//! `scrub`: the pool's findings, by the names that people know.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Instant;

use thinstore_pool::{BLOCK_BYTES, Damage, LayerId, LayerInfo, ScrubProgress};
use thinstore_storage::{ErrorKind, Result};

use crate::catalog::{Catalog, Target};
use crate::kinds::{CONTAINER, IMAGE, LAYER, TEMPLATE, VOLUME};
use crate::operations::{Progress, ProgressEvent};
use crate::store::Store;
use crate::types::{DamageKind, ObjectKind, ObjectName, ScrubFinding, ScrubRequest, ScrubSummary};

impl Store {
    pub(crate) fn scrub_pool(
        &self,
        request: &ScrubRequest,
        progress: &dyn Progress,
    ) -> Result<ScrubSummary> {
        let begin = Instant::now();
        let catalog = self.catalog();
        let mut only = Vec::new();
        for name in &request.names {
            // An image is scrubbed by its record, which leads to its document as well.
            only.push(match catalog.resolve(name, None) {
                Ok(Target::Container(id) | Target::Image(id) | Target::Layer(id)) => id,
                Err(error) => match catalog.volume(name) {
                    Some(volume) if error.kind() == ErrorKind::NotFound => volume.id,
                    _ => return Err(error),
                },
            });
        }
        let mut last: Option<ScrubProgress> = None;
        let report = self.pool().scrub(&only, &mut |now| {
            tell(progress, last.replace(now), now);
            if progress.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if !report.complete {
            return Err(crate::interrupted("the scrub"));
        }
        // Read again: containers and layers may have been made meanwhile.
        let catalog = self.catalog();
        let findings: Vec<ScrubFinding> =
            report.findings.iter().map(|finding| named(&catalog, finding)).collect();
        Ok(ScrubSummary {
            clean: report.is_clean(),
            layers: report.layers,
            data_bytes: report.data_bytes,
            data_blocks: report.data_bytes / BLOCK_BYTES,
            metadata_bytes: report.metadata_bytes,
            metadata_blocks: report.metadata_bytes / BLOCK_BYTES,
            unsummed_bytes: report.unsummed_bytes,
            unsummed_blocks: report.unsummed_bytes / BLOCK_BYTES,
            findings,
            more_findings: report.more_findings,
            elapsed_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// What happened since progress was told last.
fn tell(progress: &dyn Progress, last: Option<ScrubProgress>, now: ScrubProgress) {
    match last {
        None => progress.report(&ProgressEvent::Start {
            name: "scrub".to_owned(),
            layers: now.layers,
            total_bytes: Some(now.total_bytes),
        }),
        Some(last) => {
            let bytes = now.done_bytes.saturating_sub(last.done_bytes);
            progress.report(&ProgressEvent::Advanced { bytes });
        }
    }
}

fn named(catalog: &Catalog, finding: &thinstore_pool::ScrubFinding) -> ScrubFinding {
    let owner = finding.layer.and_then(|id| catalog.get(id));
    let (damage, found, recorded) = match finding.damage {
        Damage::Mismatch { found, recorded } => (DamageKind::Mismatch, Some(found), Some(recorded)),
        Damage::Unreadable { .. } => (DamageKind::Unreadable, None, None),
    };
    let crc = |crc: u32| format!("{crc:08x}");
    ScrubFinding {
        structure: finding.structure.to_owned(),
        layer_id: finding.layer.map(LayerId::get),
        owner: owner.and_then(object_of),
        first_block: finding.blocks.as_ref().map(|blocks| blocks.start),
        block_count: finding.blocks.as_ref().map(|blocks| blocks.end.saturating_sub(blocks.start)),
        pool_block: finding.pool_block,
        damage,
        found_crc: found.map(crc),
        recorded_crc: recorded.map(crc),
        message: finding.message(),
        affected: affected(catalog, &finding.affected),
    }
}

/// A layer of the pool as what people know it as, if they do.
fn object_of(layer: &LayerInfo) -> Option<ObjectName> {
    let kind = match layer.namespace {
        _ if layer.hidden || layer.transient || layer.name.is_empty() => return None,
        IMAGE => ObjectKind::Image,
        CONTAINER => ObjectKind::Container,
        LAYER => ObjectKind::Layer,
        TEMPLATE => ObjectKind::Template,
        VOLUME => ObjectKind::Volume,
        _ => return None,
    };
    Some(ObjectName { kind, name: layer.name.clone() })
}

/// These layers, and the images whose top layer is among them.
fn affected(catalog: &Catalog, ids: &[LayerId]) -> Vec<ObjectName> {
    let ids: BTreeSet<LayerId> = ids.iter().copied().collect();
    let is_affected = |layer: &&LayerInfo| {
        let top = layer.reference.filter(|_| layer.namespace == IMAGE);
        ids.contains(&layer.id) || top.is_some_and(|top| ids.contains(&top))
    };
    let mut found: Vec<ObjectName> =
        catalog.all().filter(is_affected).filter_map(object_of).collect();
    found.sort();
    found
}
