//! Removing containers and images, and with them the layers that nothing needs any more.

use std::collections::HashSet;

use thinstore_pool::{LayerId, LayerInfo};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::catalog::Catalog;
use crate::kinds::{CONTAINER, IMAGE};
use crate::store::{OpenMode, Store};
use crate::types::RemovedImage;

/// The layers below `start`, and `start` itself, that nothing needs once those in `gone` are: no other
/// image stands on them, no container that was made from a bare layer, and no import that is running.
/// A container that was made from an image does not need layers that others have put below it since, as
/// a commit does: it takes over what it sees of them. The top one comes first.
pub(crate) fn unneeded_layers(
    catalog: &Catalog,
    start: Option<LayerId>,
    gone: &[LayerId],
) -> Vec<LayerId> {
    let mut needed = HashSet::new();
    for layer in catalog.all().filter(|layer| !gone.contains(&layer.id)) {
        let from = match layer.namespace {
            _ if layer.transient => layer.origin,
            IMAGE => layer.reference,
            CONTAINER if layer.reference.is_none() => layer.origin,
            _ => None,
        };
        let below = from.map(|from| catalog.ancestry(from)).unwrap_or_default();
        needed.extend(below.into_iter().map(|layer| layer.id));
    }
    let below = start.map(|start| catalog.visible_ancestry(start)).unwrap_or_default();
    below
        .into_iter()
        .filter(|layer| !layer.transient && !needed.contains(&layer.id))
        .map(|layer| layer.id)
        .collect()
}

impl Store {
    pub(crate) fn remove_one_container(&self, name: &str) -> Result<()> {
        let name = self.catalog().container(name)?.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let _publishing = self.publishing().lock();
        let catalog = self.catalog();
        let container = catalog.container(&name)?;
        self.refuse_in_use(container)?;
        self.attachments().detach(&container.name)?;
        let layers = unneeded_layers(&catalog, container.origin, &[container.id]);
        let mut transaction = self.pool().begin();
        transaction.remove(container.id);
        for layer in layers {
            transaction.remove(layer);
        }
        self.pool().commit(transaction)?;
        self.forget_mount(container)?;
        self.finish_frees()
    }

    /// A container that is mounted or attached is not removed.
    fn refuse_in_use(&self, container: &LayerInfo) -> Result<()> {
        let name = &container.name;
        let Some(place) = self.attachments().place_of(name)? else { return Ok(()) };
        let how = match &place.mount {
            Some(mount) => format!(
                "mounted on {}; unmount it first with 'thinstore umount {name}'",
                mount.mount_point.display()
            ),
            None => format!(
                "attached as {}; detach it first with 'thinstore detach {name}'",
                place.device.display()
            ),
        };
        Err(Error::new(ErrorKind::InUse, format!("the container '{name}' is {how}")))
    }

    pub(crate) fn remove_one_image(&self, name: &str) -> Result<RemovedImage> {
        let _publishing = self.publishing().lock();
        let catalog = self.catalog();
        let image = catalog.image(name)?;
        let containers = catalog.containers_of(image.id);
        if let Some(first) = containers.first() {
            return Err(image_in_use(&image.name, &first.name, containers.len()));
        }
        let layers = unneeded_layers(&catalog, image.reference, &[image.id]);
        let mut transaction = self.pool().begin();
        transaction.remove(image.id);
        let mut names = Vec::new();
        for id in layers {
            transaction.remove(id);
            names.push(catalog.layer(id)?.name.clone());
        }
        let removed = RemovedImage { name: image.name.clone(), layers: names };
        self.pool().commit(transaction)?;
        self.finish_frees()?;
        Ok(removed)
    }

    /// A process that ends with its command gives the space back before it does: nobody else would
    /// until the next one opens the pool.
    pub(crate) fn finish_frees(&self) -> Result<()> {
        match self.mode() {
            OpenMode::Daemon => Ok(()),
            OpenMode::Read | OpenMode::Write => self.pool().wait_for_frees(),
        }
    }
}

/// The refusal to remove an image that containers were made of.
pub(crate) fn image_in_use(image: &str, first: &str, containers: usize) -> Error {
    let more = match containers {
        1 => String::new(),
        several => format!(" and {} more", several.saturating_sub(1)),
    };
    Error::new(
        ErrorKind::InUse,
        format!(
            "the image '{image}' is needed by the container '{first}'{more}; remove them first with 'thinstore rm'"
        ),
    )
}
