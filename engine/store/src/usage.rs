//! Who takes how much: see [`crate::types::UsageReport`] for what the figures mean.

use std::collections::{HashMap, HashSet};

use thinstore_pool::{LayerId, LayerInfo};
use thinstore_storage::Result;

use crate::catalog::{Catalog, uid_text};
use crate::listing::{count, image_id, own_bytes};
use crate::mounts::THIN;
use crate::names::VolumeName;
use crate::removal::unneeded_layers;
use crate::store::Store;
use crate::time::rfc3339;
use crate::types::{
    ContainerUsage, ImageUsage, UsageReport, UsageSummary, UsageTotals, VolumeUsage,
};

impl Store {
    pub(crate) fn report_usage(&self) -> Result<UsageReport> {
        let catalog = self.catalog();
        let images = self.image_usages(&catalog)?;
        let containers = self.container_usages(&catalog)?;
        let volumes = self.volume_usages(&catalog)?;
        let summary = UsageSummary {
            images: image_totals(&catalog, &images),
            containers: container_totals(&containers),
            volumes: volume_totals(&volumes),
        };
        Ok(UsageReport { summary, images, containers, volumes, ..self.report_pool() })
    }

    /// The pool's own figures.
    pub(crate) fn report_pool(&self) -> UsageReport {
        let pool = self.pool().usage();
        UsageReport {
            pool_size_bytes: pool.size_bytes,
            pool_used_bytes: pool.used_bytes,
            pending_free_bytes: pool.pending_free_bytes,
            data_bytes: pool.data_bytes,
            metadata_bytes: pool.metadata_bytes,
            fixed_bytes: pool.fixed_bytes,
            reserved_bytes: pool.reserved_bytes,
            pool_full_percent: pool.full_percent,
            pool_full_warning_percent: pool.full_warning_percent,
            host_bytes: self.host_bytes(),
            ..UsageReport::default()
        }
    }

    /// What the pool's file takes on the host; a block device is as large as it is.
    fn host_bytes(&self) -> u64 {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        match std::fs::metadata(self.layout().pool()) {
            Ok(metadata) if metadata.file_type().is_block_device() => {
                self.pool().usage().size_bytes
            }
            // st_blocks counts 512 bytes: stat(2)
            Ok(metadata) => metadata.blocks().saturating_mul(512),
            Err(_) => 0,
        }
    }

    fn image_usages(&self, catalog: &Catalog) -> Result<Vec<ImageUsage>> {
        let mut usages = Vec::new();
        for image in catalog.images() {
            let size_bytes = sum(&layers_of(catalog, image));
            let unique_bytes = self.image_unique_bytes(catalog, image)?.min(size_bytes);
            usages.push(ImageUsage {
                name: image.name.clone(),
                id: image_id(self.pool(), image)?,
                created: rfc3339(image.created_unix_ns),
                created_unix_ns: image.created_unix_ns,
                size_bytes,
                own_bytes: size_bytes,
                unique_bytes,
                shared_bytes: size_bytes.saturating_sub(unique_bytes),
                containers: count(catalog.containers_of(image.id).len()),
            });
        }
        Ok(usages)
    }

    /// What removing an image gives back once its own containers are gone. Where something else stands
    /// on a layer that goes, only what that does not see comes back.
    fn image_unique_bytes(&self, catalog: &Catalog, image: &LayerInfo) -> Result<u64> {
        let mut gone = vec![image.id];
        gone.extend(catalog.containers_of(image.id).into_iter().map(|container| container.id));
        let layers = unneeded_layers(catalog, image.reference, &gone);
        gone.extend(&layers);
        let mut bytes: u64 = 0;
        for id in layers {
            let layer = catalog.layer(id)?;
            let unique_bytes = match layer.children.iter().all(|child| gone.contains(child)) {
                true => own_bytes(layer),
                false => self.pool().unique_bytes(id)?,
            };
            bytes = bytes.saturating_add(unique_bytes);
        }
        Ok(bytes)
    }

    fn container_usages(&self, catalog: &Catalog) -> Result<Vec<ContainerUsage>> {
        let places = self.attachments().places()?;
        let mut walked = Walked::default();
        let mut usages = Vec::new();
        for container in catalog.containers() {
            let (size_bytes, unique_bytes) = self.device_bytes(container, &mut walked)?;
            usages.push(ContainerUsage {
                name: container.name.clone(),
                id: uid_text(container),
                image: catalog.image_of(container).map(|image| image.name.clone()),
                in_use: places.contains_key(&container.name),
                created: rfc3339(container.created_unix_ns),
                created_unix_ns: container.created_unix_ns,
                size_bytes,
                own_bytes: own_bytes(container),
                unique_bytes,
                shared_bytes: size_bytes.saturating_sub(unique_bytes),
            });
        }
        Ok(usages)
    }

    /// Everything that a device sees, and what of it comes back when it is removed.
    fn device_bytes(&self, device: &LayerInfo, walked: &mut Walked) -> Result<(u64, u64)> {
        let own = own_bytes(device);
        let mapped_bytes = match device.origin {
            Some(origin) if own == 0 => match walked.get(&origin) {
                Some(bytes) => *bytes,
                None => {
                    let bytes = self.pool().mapped_bytes(device.id)?;
                    walked.insert(origin, bytes);
                    bytes
                }
            },
            _ => self.pool().mapped_bytes(device.id)?,
        };
        // if nothing stands on it, all that is its own comes back
        let unique_bytes = match device.children.is_empty() {
            true => own,
            false => self.pool().unique_bytes(device.id)?,
        };
        let size_bytes = mapped_bytes.saturating_add(device.own_map_bytes).max(unique_bytes);
        Ok((size_bytes, unique_bytes))
    }

    /// Volumes of both drivers, by name.
    fn volume_usages(&self, catalog: &Catalog) -> Result<Vec<VolumeUsage>> {
        let uses = self.folders().uses()?;
        let mut walked = Walked::default();
        let mut usages = self.folders().usages()?;
        for volume in catalog.volumes() {
            let (size_bytes, unique_bytes) = self.device_bytes(volume, &mut walked)?;
            let size_bytes = size_bytes.saturating_add(volume.document_bytes);
            let unique_bytes = unique_bytes.saturating_add(volume.document_bytes);
            let name = VolumeName::parse(&volume.name)?;
            usages.push(VolumeUsage {
                links: count(uses.names_of(&name).len()),
                name: volume.name.clone(),
                driver: THIN.to_owned(),
                size_bytes,
                own_bytes: own_bytes(volume).saturating_add(volume.document_bytes),
                unique_bytes,
                shared_bytes: size_bytes.saturating_sub(unique_bytes),
            });
        }
        usages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(usages)
    }
}

/// What those that have written nothing see is exactly what they stand on: walked once.
type Walked = HashMap<LayerId, u64>;

fn layers_of<'a>(catalog: &'a Catalog, image: &LayerInfo) -> Vec<&'a LayerInfo> {
    image.reference.map(|top| catalog.visible_ancestry(top)).unwrap_or_default()
}

fn sum(layers: &[&LayerInfo]) -> u64 {
    layers.iter().map(|layer| own_bytes(layer)).sum()
}

fn image_totals(catalog: &Catalog, images: &[ImageUsage]) -> UsageTotals {
    let mut all = HashSet::new();
    let mut needed = HashSet::new();
    for container in catalog.containers() {
        needed.extend(catalog.visible_ancestry(container.id).into_iter().map(|layer| layer.id));
    }
    for image in catalog.images() {
        let layers = layers_of(catalog, image);
        let active = !catalog.containers_of(image.id).is_empty();
        for layer in layers {
            all.insert(layer.id);
            if active {
                needed.insert(layer.id);
            }
        }
    }
    let bytes = |ids: &HashSet<LayerId>| -> u64 {
        ids.iter().filter_map(|id| catalog.get(*id)).map(own_bytes).sum()
    };
    let reclaimable: HashSet<LayerId> = all.difference(&needed).copied().collect();
    UsageTotals {
        total: count(images.len()),
        active: count(images.iter().filter(|image| image.containers > 0).count()),
        size_bytes: bytes(&all),
        reclaimable_bytes: bytes(&reclaimable),
    }
}

fn container_totals(containers: &[ContainerUsage]) -> UsageTotals {
    let idle = containers.iter().filter(|container| !container.in_use);
    UsageTotals {
        total: count(containers.len()),
        active: count(containers.iter().filter(|container| container.in_use).count()),
        size_bytes: containers.iter().map(|container| container.own_bytes).sum(),
        reclaimable_bytes: idle.map(|container| container.unique_bytes).sum(),
    }
}

pub(crate) fn volume_totals(volumes: &[VolumeUsage]) -> UsageTotals {
    let idle = volumes.iter().filter(|volume| volume.links == 0);
    UsageTotals {
        total: count(volumes.len()),
        active: count(volumes.iter().filter(|volume| volume.links > 0).count()),
        size_bytes: volumes.iter().map(|volume| volume.own_bytes).sum(),
        reclaimable_bytes: idle.map(|volume| volume.unique_bytes).sum(),
    }
}
