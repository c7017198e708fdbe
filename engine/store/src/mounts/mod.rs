//! Containers as directories: attach, mount, unmount, and what is mounted over them.

mod growing;
mod inside;
mod over;
mod record;
mod specification;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinstore_export::{Ext4Options, MountFlags, Unmount, mount_ext4, unmount};
use thinstore_pool::LayerInfo;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::attachments::Place;
use crate::catalog::uid_text;
use crate::daemon::mount_namespace;
use crate::store::Store;
use crate::types::{
    AttachOutcome, AttachRequest, DetachOutcome, MountInfo, MountOutcome, MountRequest,
};

pub(crate) use inside::mount_inside;
pub(crate) use over::{
    existing_directory, mount_infos, ordered, refuse_unusable, unmount_with_all_below,
};
pub(crate) use record::{MountRecord, MountRecords, THIN};

impl Store {
    pub(crate) fn attach_container(&self, request: &AttachRequest) -> Result<AttachOutcome> {
        let name = self.catalog().container(&request.name)?.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let was_attached = self.attachments().place_of(&name)?.is_some();
        let device = self.attach_device(&name, request.read_only)?;
        Ok(AttachOutcome { name, device: device.display().to_string(), was_attached })
    }

    fn attach_device(&self, name: &str, read_only: bool) -> Result<PathBuf> {
        let id = self.catalog().container(name)?.id;
        self.attachments().attach(name, read_only, || {
            let device: Arc<dyn BlockDevice> = Arc::new(self.pool().device(id)?);
            Ok(device)
        })
    }

    pub(crate) fn detach_container(&self, name: &str) -> Result<DetachOutcome> {
        let name = self.catalog().container(name)?.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let was_attached = self.attachments().detach(&name)?;
        Ok(DetachOutcome { name, was_attached })
    }

    /// Order: the record, then the device, then its file system, then what is mounted over it; undone
    /// the other way round if one of them fails.
    pub(crate) fn mount_container(&self, request: &MountRequest) -> Result<MountOutcome> {
        refuse_other_namespace(request)?;
        let name = self.catalog().container(&request.name)?.name.clone();
        let directory = existing_directory(&request.directory)?;
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let record = MountRecord {
            name: name.clone(),
            driver: THIN.to_owned(),
            directory: directory.clone(),
            read_only: request.read_only,
            mounts: ordered(&request.mounts)?,
        };
        let place = self.attachments().place_of(&name)?;
        if let Some(device) = self.mounted_already(&record, place.as_ref())? {
            return Ok(MountOutcome { name, device, directory, was_mounted: true });
        }
        refuse_unusable(&directory)?;
        let was_attached = place.is_some();
        let id = uid_text(self.catalog().container(&name)?);
        self.mount_records().remember(&id, &record)?;
        let mounted = self.attach_device(&name, false).and_then(|device| {
            self.mount_device(&device, &record)?;
            Ok(device)
        });
        match mounted {
            Ok(device) => {
                let device = device.display().to_string();
                Ok(MountOutcome { name, device, directory, was_mounted: false })
            }
            Err(error) => {
                if !was_attached {
                    drop(self.attachments().detach(&name));
                }
                drop(self.mount_records().forget(&id));
                drop(self.release_unused_volumes());
                Err(error)
            }
        }
    }

    fn mount_device(&self, device: &Path, record: &MountRecord) -> Result<()> {
        let options = Ext4Options {
            flags: MountFlags { read_only: record.read_only, ..MountFlags::default() },
            without_journal_replay: false,
            // what a container deletes, the pool has back
            discard: !record.read_only,
        };
        if !record.read_only {
            let catalog = self.catalog();
            self.grow_file_system(device, catalog.container(&record.name)?)?;
        }
        mount_ext4(device, &record.directory, &options)?;
        let filled = mount_inside(self, &record.directory, &record.mounts);
        if filled.is_err() {
            drop(unmount(&record.directory, Unmount::Normal));
        }
        filled
    }

    /// The device, if exactly this is mounted already; an error if something else is.
    fn mounted_already(
        &self,
        wanted: &MountRecord,
        place: Option<&Place>,
    ) -> Result<Option<String>> {
        let Some(place) = place else { return Ok(None) };
        let in_use = |what: String| {
            Err(Error::new(ErrorKind::InUse, format!("the container '{}' is {what}", wanted.name)))
        };
        let Some(mount) = &place.mount else {
            if place.deferred {
                return in_use(format!(
                    "being detached from {}, which somebody still holds; find them with 'fuser -vm {}'",
                    place.device.display(),
                    place.device.display()
                ));
            }
            if place.read_only && !wanted.read_only {
                return in_use("attached read-only; detach it first".to_owned());
            }
            return Ok(None);
        };
        let container = self.catalog();
        let record = self.mount_record(container.container(&wanted.name)?)?;
        let is_there = mount.mount_point == wanted.directory;
        let same = is_there
            && mount.is_read_only() == wanted.read_only
            && record.map(|record| record.mounts).unwrap_or_default() == wanted.mounts;
        if !same {
            return in_use(format!(
                "mounted on {} already{}; unmount it first with 'thinstore umount {}'",
                mount.mount_point.display(),
                if is_there { ", with other options" } else { "" },
                wanted.name
            ));
        }
        Ok(Some(place.device.display().to_string()))
    }

    pub(crate) fn unmount_container(&self, name: &str) -> Result<DetachOutcome> {
        let catalog = self.catalog();
        let container = catalog.container(name)?;
        let name = container.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let record = self.mount_record(container)?;
        let mounted = self.attachments().place_of(&name)?.and_then(|place| place.mount);
        if let Some(mount) = &mounted {
            self.attachments().hurry(&name, true);
            let above = record.as_ref().map(|record| record.mounts.as_slice()).unwrap_or_default();
            let unmounted = unmount_with_all_below(self, &mount.mount_point, above);
            self.attachments().hurry(&name, false);
            unmounted
                .map_err(|error| error.context(format!("the container '{name}' stays mounted")))?;
        }
        // a device that was only attached, with no mount of ours, stays
        let was_mounted = mounted.is_some() || record.is_some();
        if was_mounted {
            self.attachments().detach(&name)?;
            self.forget_mount(container)?;
            if let Err(error) = self.release_unused_volumes() {
                // the container is unmounted all the same
                tracing::warn!("{error}");
            }
        }
        Ok(DetachOutcome { name, was_attached: was_mounted })
    }

    pub(crate) fn mount_records(&self) -> MountRecords {
        MountRecords::new(self.layout().clone())
    }

    pub(crate) fn mount_record(&self, container: &LayerInfo) -> Result<Option<MountRecord>> {
        self.mount_records().read(&uid_text(container))
    }

    pub(crate) fn forget_mount(&self, container: &LayerInfo) -> Result<()> {
        self.mount_records().forget(&uid_text(container))
    }

    /// What is mounted over a container, as Docker lists it.
    pub(crate) fn mount_infos(&self, container: &LayerInfo) -> Result<Vec<MountInfo>> {
        let record = self.mount_record(container)?;
        let mounts = record.map(|record| record.mounts).unwrap_or_default();
        Ok(mount_infos(self, mounts))
    }
}

fn refuse_other_namespace(request: &MountRequest) -> Result<()> {
    match request.mount_namespace {
        Some(theirs) if theirs != mount_namespace() => Err(Error::new(
            ErrorKind::Unsupported,
            "the daemon lives in another mount namespace, where you would not see the mount; end it with 'thinstore serve --stop' and try again",
        )),
        _ => Ok(()),
    }
}
