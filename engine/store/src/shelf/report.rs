//! What there is, and who takes how much.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use serde_json::{Map, Value};
use thinstore_drivers::{LayerId, Stack};
use thinstore_storage::Result;

use super::Shelf;
use super::contents::{Contents, Target};
use super::records::{ContainerRecord, ImageRecord, LayerRecord};
use crate::listing::count;
use crate::mounts::{MountRecord, mount_infos};
use crate::names::ImageName;
use crate::shape::{ShownContainer, ShownImage, ShownLayer};
use crate::time::rfc3339;
use crate::types::{
    CheckFinding, CheckSummary, ContainerState, ContainerSummary, ContainerUsage, ImageSummary,
    ImageUsage, InspectRequest, LayerSummary, TreeEntry, TreeKind, UsageReport, UsageSummary,
    UsageTotals,
};
use crate::usage::volume_totals;

fn sum(layers: &[&LayerRecord]) -> u64 {
    layers.iter().map(|layer| layer.own_bytes).sum()
}

impl Shelf {
    pub(super) fn list_images(&self, contents: &Contents) -> Vec<ImageSummary> {
        let summary = |image: &ImageRecord| {
            let layers = contents.ancestry(image.top.as_ref());
            let (repository, tag) = match ImageName::parse(&image.name) {
                Ok(name) => (name.repository().to_owned(), name.tag().to_owned()),
                Err(_) => (image.name.clone(), String::new()),
            };
            ImageSummary {
                name: image.name.clone(),
                repository,
                tag,
                id: image.document.id.clone(),
                created: rfc3339(image.created_unix_ns),
                created_unix_ns: image.created_unix_ns,
                layers: count(layers.len()),
                top_layer: layers.first().map(|top| top.name.clone()).unwrap_or_default(),
                size_bytes: sum(&layers),
                containers: names(contents.containers_of(image)),
            }
        };
        contents.images.iter().map(summary).collect()
    }

    pub(super) fn list_layers(&self, contents: &Contents) -> Vec<LayerSummary> {
        let summary = |layer: &LayerRecord| {
            let below = contents.ancestry(layer.parent.as_ref());
            let stands_on = |image: &&ImageRecord| {
                let layers = contents.ancestry(image.top.as_ref());
                layers.iter().any(|below| below.id == layer.id)
            };
            let images = contents.images.iter().filter(stands_on);
            LayerSummary {
                name: layer.name.clone(),
                diff_id: layer.diff_id.clone(),
                parent: below.first().map(|parent| parent.name.clone()),
                depth: count(below.len()),
                own_bytes: layer.own_bytes,
                size_bytes: layer.own_bytes.saturating_add(sum(&below)),
                created: rfc3339(layer.created_unix_ns),
                created_unix_ns: layer.created_unix_ns,
                images: images.map(|image| image.name.clone()).collect(),
            }
        };
        let named = contents.layers.values().filter(|layer| !layer.name.is_empty());
        let mut layers: Vec<LayerSummary> = named.map(summary).collect();
        layers.sort_by(|a, b| (a.depth, &a.name).cmp(&(b.depth, &b.name)));
        layers
    }

    /// Parents before children, siblings by name. Numbers stand in for the ids that devices of a pool have.
    pub(super) fn list_tree(&self, contents: &Contents) -> Result<Vec<TreeEntry>> {
        let mut children: BTreeMap<Option<&LayerId>, Vec<Node<'_>>> = BTreeMap::new();
        for layer in contents.layers.values() {
            children.entry(layer.parent.as_ref()).or_default().push(Node::Layer(layer));
        }
        for container in &contents.containers {
            children.entry(container.parent.as_ref()).or_default().push(Node::Container(container));
        }
        for siblings in children.values_mut() {
            // the last one is taken first
            siblings.sort_by(|a, b| b.name().cmp(a.name()));
        }
        let mut waiting: Vec<(u64, Option<u32>, Node<'_>)> = Vec::new();
        let roots = children.remove(&None).unwrap_or_default();
        waiting.extend(roots.into_iter().map(|node| (0, None, node)));
        let mut entries: Vec<TreeEntry> = Vec::new();
        while let Some((depth, parent_layer_id, node)) = waiting.pop() {
            let layer_id = u32::try_from(entries.len()).unwrap_or(u32::MAX).saturating_add(1);
            let (kind, id, own_bytes) = match node {
                Node::Layer(layer) if layer.name.is_empty() => {
                    (TreeKind::Hidden, &layer.id, layer.own_bytes)
                }
                Node::Layer(layer) => (TreeKind::Layer, &layer.id, layer.own_bytes),
                Node::Container(container) => {
                    (TreeKind::Container, &container.id, self.driver.own_bytes(&container.id)?)
                }
            };
            let images = match node {
                Node::Layer(layer) => contents.images_on(&layer.id),
                Node::Container(_) => Vec::new(),
            };
            entries.push(TreeEntry {
                layer_id,
                kind,
                name: node.name().to_owned(),
                parent_layer_id,
                depth,
                own_bytes,
                size_bytes: own_bytes.saturating_add(sum(&contents.ancestry(node.parent()))),
                images: images.into_iter().map(|image| image.name.clone()).collect(),
            });
            let above = children.remove(&Some(id)).unwrap_or_default();
            let above = above.into_iter().map(|one| (depth.saturating_add(1), Some(layer_id), one));
            waiting.extend(above);
        }
        Ok(entries)
    }

    pub(super) fn list_containers(&self) -> Result<Vec<ContainerSummary>> {
        let mut summaries = Vec::new();
        for container in self.records.all::<ContainerRecord>()? {
            let mount = self.mount_of(&container)?.map(|(record, _)| record);
            summaries.push(self.summary(&container, mount.as_ref())?);
        }
        Ok(summaries)
    }

    pub(super) fn summary(
        &self,
        container: &ContainerRecord,
        mount: Option<&MountRecord>,
    ) -> Result<ContainerSummary> {
        let own_bytes = self.driver.own_bytes(&container.id)?;
        let below: u64 = {
            let chain = self.chain(container.parent.as_ref())?;
            let layers = chain.iter().map(|id| self.records.read::<LayerRecord>(id.as_str()));
            let mut bytes: u64 = 0;
            for layer in layers {
                bytes = bytes.saturating_add(layer?.map(|layer| layer.own_bytes).unwrap_or(0));
            }
            bytes
        };
        Ok(ContainerSummary {
            name: container.name.clone(),
            id: container.id.to_string(),
            image: container.image.clone(),
            state: match mount {
                Some(_) => ContainerState::Mounted,
                None => ContainerState::Created,
            },
            created: rfc3339(container.created_unix_ns),
            created_unix_ns: container.created_unix_ns,
            size_bytes: own_bytes.saturating_add(below),
            own_bytes,
            device: match mount {
                Some(_) => self.device_text(&container.id)?,
                None => None,
            },
            mount_point: mount.map(|mount| mount.directory.display().to_string()),
            read_only: mount.is_some_and(|mount| mount.read_only),
        })
    }

    pub(super) fn describe(&self, request: &InspectRequest) -> Result<Value> {
        let contents = self.contents()?;
        match contents.resolve(&request.name, request.kind)? {
            Target::Container(container) => self.describe_container(&contents, container),
            Target::Image(image) => Ok(self.describe_image(&contents, image)),
            Target::Layer(layer) => Ok(self.describe_layer(&contents, layer)),
        }
    }

    fn facts(&self, stack: &Stack) -> Map<String, Value> {
        let facts = self.driver.facts(stack).into_iter();
        facts.map(|(name, text)| (name, text.into())).collect()
    }

    fn describe_container(
        &self,
        contents: &Contents,
        container: &ContainerRecord,
    ) -> Result<Value> {
        let mount = self.mount_of(container)?.map(|(record, _)| record);
        let image = contents.image_of(container);
        let mut data = self.facts(&contents.stack_of(container));
        if let Some(mount) = &mount {
            let mount_point = mount.directory.display().to_string();
            data.insert("MountPoint".to_owned(), mount_point.clone().into());
            // where Docker's drivers say that the whole file system is seen
            data.entry("MergedDir").or_insert(mount_point.into());
            if let Some(device) = self.device_text(&container.id)? {
                data.insert("DevicePath".to_owned(), device.into());
            }
        }
        let shown = ShownContainer {
            id: container.id.as_str(),
            created_unix_ns: container.created_unix_ns,
            name: &container.name,
            image: container.image.as_deref(),
            document: image.map(|image| &image.document),
            status: if mount.is_some() { "mounted" } else { "created" },
            own_bytes: self.driver.own_bytes(&container.id)?,
            driver: self.driver_name().as_str(),
            data,
            mounts: mount.map_or_else(Vec::new, |mount| mount_infos(&self.volumes, mount.mounts)),
        };
        Ok(shown.into_value())
    }

    fn describe_image(&self, contents: &Contents, image: &ImageRecord) -> Value {
        let layers = contents.ancestry(image.top.as_ref());
        let same = contents
            .images
            .iter()
            .filter(|other| other.top == image.top && other.document.id == image.document.id);
        let top = layers.first().map(|top| self.facts(&contents.stack(top)));
        let shown = ShownImage {
            document: &image.document,
            created_unix_ns: image.created_unix_ns,
            names: same.map(|other| other.name.as_str()).collect(),
            size_bytes: sum(&layers),
            driver: self.driver_name().as_str(),
            data: without_place_of_writing(top.unwrap_or_default()),
        };
        shown.into_value()
    }

    fn describe_layer(&self, contents: &Contents, layer: &LayerRecord) -> Value {
        let parent = layer.parent.as_ref().and_then(|id| contents.layers.get(id));
        let images = contents.images_on(&layer.id);
        let shown = ShownLayer {
            name: &layer.name,
            created_unix_ns: layer.created_unix_ns,
            diff_id: layer.diff_id.clone(),
            parent: parent.map(|parent| parent.name.as_str()),
            images: images.into_iter().map(|image| image.name.as_str()).collect(),
            own_bytes: layer.own_bytes,
            driver: self.driver_name().as_str(),
            data: without_place_of_writing(self.facts(&contents.stack(layer))),
        };
        shown.into_value()
    }

    pub(super) fn report_usage(&self) -> Result<UsageReport> {
        let contents = self.contents()?;
        let images = image_usages(&contents);
        let mut containers = Vec::new();
        for container in &contents.containers {
            containers.push(self.container_usage(&contents, container)?);
        }
        let volumes = self.volumes.usages()?;
        let data_bytes = contents.layers.values().map(|layer| layer.own_bytes).sum::<u64>();
        let own = containers.iter().map(|container| container.own_bytes).sum::<u64>();
        let summary = UsageSummary {
            images: image_totals(&contents),
            containers: UsageTotals {
                total: count(containers.len()),
                active: count(containers.iter().filter(|one| one.in_use).count()),
                size_bytes: own,
                reclaimable_bytes: containers
                    .iter()
                    .filter(|one| !one.in_use)
                    .map(|one| one.unique_bytes)
                    .sum(),
            },
            volumes: volume_totals(&volumes),
        };
        Ok(UsageReport {
            data_bytes: data_bytes.saturating_add(own),
            summary,
            images,
            containers,
            volumes,
            ..UsageReport::default()
        })
    }

    fn container_usage(
        &self,
        contents: &Contents,
        container: &ContainerRecord,
    ) -> Result<ContainerUsage> {
        let own_bytes = self.driver.own_bytes(&container.id)?;
        let shared_bytes = sum(&contents.ancestry(container.parent.as_ref()));
        Ok(ContainerUsage {
            name: container.name.clone(),
            id: container.id.to_string(),
            image: container.image.clone(),
            in_use: self.mount_of(container)?.is_some(),
            created: rfc3339(container.created_unix_ns),
            created_unix_ns: container.created_unix_ns,
            size_bytes: own_bytes.saturating_add(shared_bytes),
            own_bytes,
            unique_bytes: own_bytes,
            shared_bytes,
        })
    }

    /// Holds the records against what the driver has.
    pub(super) fn compare_with_records(&self) -> Result<CheckSummary> {
        let started = Instant::now();
        let contents = self.contents()?;
        let there: HashSet<LayerId> = self.driver.layers()?.into_iter().collect();
        let mut findings = Vec::new();
        let mut find = |structure: &str, message: String| {
            let structure = structure.to_owned();
            findings.push(CheckFinding { structure, layer_id: None, message });
        };
        let driver = self.driver_name();
        for layer in contents.layers.values() {
            if !there.contains(&layer.id) {
                find("layer", format!("the layer {} is not among those of {driver}", layer.id));
            }
            if let Some(parent) =
                layer.parent.as_ref().filter(|id| !contents.layers.contains_key(id))
            {
                find(
                    "layer",
                    format!("the layer {} stands on {parent}, which has no record", layer.id),
                );
            }
        }
        for container in &contents.containers {
            if !there.contains(&container.id) {
                let name = &container.name;
                find(
                    "container",
                    format!("what the container '{name}' has is not among the layers of {driver}"),
                );
            }
        }
        for image in &contents.images {
            if let Some(top) = image.top.as_ref().filter(|id| !contents.layers.contains_key(id)) {
                find(
                    "image",
                    format!("the image '{}' stands on {top}, which has no record", image.name),
                );
            }
        }
        Ok(CheckSummary {
            clean: findings.is_empty(),
            layers: count(there.len()),
            findings,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..CheckSummary::default()
        })
    }
}

/// Something that stands in the tree.
#[derive(Clone, Copy)]
enum Node<'a> {
    Layer(&'a LayerRecord),
    Container(&'a ContainerRecord),
}

impl<'a> Node<'a> {
    fn name(&self) -> &'a str {
        match self {
            Node::Layer(layer) => &layer.name,
            Node::Container(container) => &container.name,
        }
    }

    fn parent(&self) -> Option<&'a LayerId> {
        match self {
            Node::Layer(layer) => layer.parent.as_ref(),
            Node::Container(container) => container.parent.as_ref(),
        }
    }
}

fn names(containers: Vec<&ContainerRecord>) -> Vec<String> {
    containers.into_iter().map(|container| container.name.clone()).collect()
}

/// Nobody mounts a sealed layer, or writes to it.
fn without_place_of_writing(mut data: Map<String, Value>) -> Map<String, Value> {
    data.remove("MergedDir");
    data
}

fn image_usages(contents: &Contents) -> Vec<ImageUsage> {
    let usage = |image: &ImageRecord| {
        let layers = contents.ancestry(image.top.as_ref());
        let size_bytes = sum(&layers);
        let needed_elsewhere: HashSet<&LayerId> = contents
            .images
            .iter()
            .filter(|other| other.name != image.name)
            .flat_map(|other| contents.ancestry(other.top.as_ref()))
            .map(|layer| &layer.id)
            .collect();
        let own = layers.iter().filter(|layer| !needed_elsewhere.contains(&layer.id));
        let unique_bytes = own.map(|layer| layer.own_bytes).sum::<u64>();
        ImageUsage {
            name: image.name.clone(),
            id: image.document.id.clone(),
            created: rfc3339(image.created_unix_ns),
            created_unix_ns: image.created_unix_ns,
            size_bytes,
            own_bytes: size_bytes,
            unique_bytes,
            shared_bytes: size_bytes.saturating_sub(unique_bytes),
            containers: count(contents.containers_of(image).len()),
        }
    };
    contents.images.iter().map(usage).collect()
}

fn image_totals(contents: &Contents) -> UsageTotals {
    let mut needed: HashSet<&LayerId> = HashSet::new();
    for container in &contents.containers {
        needed.extend(contents.ancestry(container.parent.as_ref()).into_iter().map(|one| &one.id));
    }
    let of_images = contents.layers.values().filter(|layer| !layer.name.is_empty());
    let (mut size_bytes, mut reclaimable_bytes) = (0_u64, 0_u64);
    for layer in of_images {
        size_bytes = size_bytes.saturating_add(layer.own_bytes);
        if !needed.contains(&layer.id) {
            reclaimable_bytes = reclaimable_bytes.saturating_add(layer.own_bytes);
        }
    }
    let is_active = |image: &&ImageRecord| !contents.containers_of(image).is_empty();
    UsageTotals {
        total: count(contents.images.len()),
        active: count(contents.images.iter().filter(is_active).count()),
        size_bytes,
        reclaimable_bytes,
    }
}
