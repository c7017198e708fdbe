//! Reading the files of containers, images and layers.
//!
//! What is not attached is read from the pool directly, without the kernel and without root. A
//! container that is attached may have newer contents in the kernel than on its device: it is read
//! through the kernel for a single file, and by a sealed copy of its blocks for a whole tree, which
//! must not change while it is walked.

use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_export::MountEntry;
use thinstore_filesystem::{DirectoryTree, Ext4Reader, TreeReader};
use thinstore_pool::{LayerId, NewLayer};
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::catalog::{Catalog, Target};
use crate::detached_mount::DetachedMount;
use crate::kinds::LAYER;
use crate::store::Store;

/// A file system that can be read.
pub(crate) enum View {
    /// From the pool.
    Ext4(Box<Ext4Reader>),
    /// Through the kernel. The tree is dropped before the mount that it is in.
    Kernel(Box<DirectoryTree>, #[allow(dead_code)] DetachedMount),
}

impl View {
    /// The files.
    pub(crate) fn tree(&self) -> &dyn TreeReader {
        match self {
            View::Ext4(reader) => reader.as_ref(),
            View::Kernel(tree, _) => tree.as_ref(),
        }
    }
}

/// A device whose contents do not change while it is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StillDevice {
    pub(crate) id: LayerId,
    /// A sealed copy that is to be removed afterwards.
    temporary: bool,
}

impl Store {
    /// Reads the ext4 of a device of the pool.
    pub(crate) fn ext4(&self, id: LayerId) -> Result<Ext4Reader> {
        let device: Arc<dyn BlockDevice> = Arc::new(self.pool().device(id)?);
        Ext4Reader::open(device)
    }

    /// Does something with the files of a target as they are now.
    pub(crate) fn with_view<T>(
        &self,
        name: &str,
        action: impl FnOnce(&View) -> Result<T>,
    ) -> Result<T> {
        let catalog = self.catalog();
        let target = catalog.resolve(name, None)?;
        let Target::Container(id) = target else {
            let reader = self.ext4(catalog.device_of(target)?)?;
            return action(&View::Ext4(Box::new(reader)));
        };
        let name = catalog.layer(id)?.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let view = match self.attachments().place_of(&name)? {
            Some(place) => {
                let read_only_system =
                    place.read_only || place.mount.as_ref().is_some_and(system_is_read_only);
                let mount = DetachedMount::of(&place.device, read_only_system, true)?;
                View::Kernel(Box::new(DirectoryTree::open(&mount.path())?), mount)
            }
            None => View::Ext4(Box::new(self.ext4(id)?)),
        };
        action(&view)
    }

    /// Does something with the devices of some targets while none of them changes. The containers
    /// among them are locked in the order of their names, so that two such calls cannot wait for each
    /// other.
    pub(crate) fn with_still_devices<T>(
        &self,
        targets: &[Target],
        action: impl FnOnce(&Catalog, &[LayerId]) -> Result<T>,
    ) -> Result<T> {
        let catalog = self.catalog();
        let mut names: Vec<String> = Vec::new();
        for target in targets {
            if let Target::Container(id) = target {
                names.push(catalog.layer(*id)?.name.clone());
            }
        }
        names.sort();
        names.dedup();
        let locks: Vec<Arc<Mutex<()>>> =
            names.iter().map(|name| self.attachments().lock_of(name)).collect();
        let _held: Vec<_> = locks.iter().map(|lock| lock.lock()).collect();
        // what was attached or removed before the locks were held
        let catalog = self.catalog();
        let mut devices: Vec<StillDevice> = Vec::new();
        let mut ids = Vec::new();
        let mut prepare = || {
            for target in targets {
                let device = self.still_device(&catalog, *target)?;
                devices.push(device);
                ids.push(device.id);
            }
            Ok(())
        };
        let result = prepare().and_then(|()| action(&catalog, &ids));
        let temporary: Vec<LayerId> =
            devices.iter().filter(|device| device.temporary).map(|device| device.id).collect();
        self.abandon(&temporary);
        result
    }

    fn still_device(&self, catalog: &Catalog, target: Target) -> Result<StillDevice> {
        let id = catalog.device_of(target)?;
        let fixed = StillDevice { id, temporary: false };
        let Target::Container(_) = target else { return Ok(fixed) };
        let container = catalog.layer(id)?;
        if self.attachments().place_of(&container.name)?.is_none() {
            return Ok(fixed);
        }
        let new = NewLayer { namespace: LAYER, transient: true, ..NewLayer::default() };
        let copy = self.held_still(container, || self.pool().seal_snapshot(id, new))?.value;
        Ok(StillDevice { id: copy, temporary: true })
    }

    /// What a target is compared with when nothing else is named: of a container the image that it was
    /// made from, of an image or layer the layer below, of the lowest the empty file system.
    pub(crate) fn base_of(catalog: &Catalog, target: Target) -> Result<LayerId> {
        let device = catalog.layer(catalog.device_of(target)?)?;
        if let Target::Container(_) = target
            && let Some(image) = catalog.image_of(device)
        {
            return catalog.top_layer(image).map(|top| top.id);
        }
        let below = catalog.ancestry(device.id).into_iter().skip(1);
        let base = below.into_iter().find(|layer| !layer.hidden && !layer.transient);
        base.map(|base| base.id).ok_or_else(|| {
            Error::new(
                ErrorKind::Usage,
                format!("'{}' stands on nothing; name what to compare it with", device.name),
            )
        })
    }
}

/// Is the file system itself read-only, not only this way to it?
pub(crate) fn system_is_read_only(mount: &MountEntry) -> bool {
    mount.super_options.split(',').any(|option| option == "ro")
}
