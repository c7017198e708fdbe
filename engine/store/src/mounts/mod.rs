//! Containers as directories: attach, mount, unmount, and what is mounted over them.

mod growing;
mod inside;
mod specification;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thinstore_export::{Ext4Options, MountFlags, Unmount, mount_ext4, mounts, unmount};
use thinstore_pool::LayerInfo;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::attachments::Place;
use crate::catalog::uid_text;
use crate::daemon::mount_namespace;
use crate::layout::{make_private_directory, remove_durably, write_durably};
use crate::store::Store;
use crate::types::{
    AttachOutcome, AttachRequest, DetachOutcome, MountInfo, MountKind, MountOutcome, MountRequest,
    MountSpecification,
};

/// What the kernel does not remember of a mount: which volumes and folders of the host were asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) mounts: Vec<MountSpecification>,
}

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
        self.remember_mount(&record)?;
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
                drop(self.forget_mount(self.catalog().container(&name)?));
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
            self.grow_file_system(device, &record.name)?;
        }
        mount_ext4(device, &record.directory, &options)?;
        let filled = self.mount_inside(&record.directory, &record.mounts);
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
            let unmounted = self.unmount_directory(&mount.mount_point, record.as_ref());
            self.attachments().hurry(&name, false);
            unmounted
                .map_err(|error| error.context(format!("the container '{name}' stays mounted")))?;
        }
        // a device that was only attached, with no mount of ours, stays
        let was_mounted = mounted.is_some() || record.is_some();
        if was_mounted {
            self.attachments().detach(&name)?;
            self.forget_mount(container)?;
        }
        Ok(DetachOutcome { name, was_attached: was_mounted })
    }

    /// Unmounts a directory and all below it, the latest first. If something is in use, what was below
    /// is mounted again.
    fn unmount_directory(&self, directory: &Path, record: Option<&MountRecord>) -> Result<()> {
        let below: Vec<PathBuf> = mounts()?
            .into_iter()
            .rev()
            .map(|entry| entry.mount_point)
            .filter(|point| point != directory && point.starts_with(directory))
            .collect();
        let result = below
            .iter()
            .map(PathBuf::as_path)
            .chain([directory])
            .try_for_each(|point| unmount(point, Unmount::Normal));
        if result.is_err()
            && let Some(record) = record
        {
            let missing: Vec<MountSpecification> = record
                .mounts
                .iter()
                .filter(|one| {
                    let point = inside::shown_at(directory, &one.destination);
                    !mounts()
                        .is_ok_and(|table| table.iter().any(|entry| entry.mount_point == point))
                })
                .cloned()
                .collect();
            if let Err(error) = self.mount_inside(directory, &missing) {
                tracing::error!("{error}");
            }
        }
        result
    }

    fn mount_record_path(&self, container: &LayerInfo) -> PathBuf {
        self.layout().mounts().join(format!("{}.json", uid_text(container)))
    }

    fn remember_mount(&self, record: &MountRecord) -> Result<()> {
        make_private_directory(&self.layout().run())?;
        make_private_directory(&self.layout().mounts())?;
        let text = serde_json::to_vec(record).map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot note what is mounted: {error}"))
        })?;
        let catalog = self.catalog();
        write_durably(&self.mount_record_path(catalog.container(&record.name)?), &text)
    }

    /// What was asked for at a container's mount; none if it is not mounted by us.
    pub(crate) fn mount_record(&self, container: &LayerInfo) -> Result<Option<MountRecord>> {
        let path = self.mount_record_path(container);
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
        }
    }

    pub(crate) fn forget_mount(&self, container: &LayerInfo) -> Result<()> {
        remove_durably(&self.mount_record_path(container))
    }

    /// After a crash nothing is mounted any more; binds and tmpfs that lay over a dead file system went
    /// with it.
    pub(crate) fn forget_stale_mounts(&self) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(self.layout().mounts()) else { return Ok(()) };
        for entry in entries.flatten() {
            remove_durably(&entry.path())?;
        }
        Ok(())
    }

    /// What is mounted over a container, as Docker lists it.
    pub(crate) fn mount_infos(&self, container: &LayerInfo) -> Result<Vec<MountInfo>> {
        let record = self.mount_record(container)?;
        let infos = record.map(|record| record.mounts).unwrap_or_default().into_iter();
        Ok(infos.map(|one| self.mount_info(one)).collect())
    }

    fn mount_info(&self, specification: MountSpecification) -> MountInfo {
        let source = specification.source.unwrap_or_default();
        let mut info = MountInfo {
            kind: specification.kind.name().to_owned(),
            destination: specification.destination.display().to_string(),
            mode: if specification.read_only { "ro" } else { "" }.to_owned(),
            writable: !specification.read_only,
            ..MountInfo::default()
        };
        match specification.kind {
            MountKind::Volume => {
                let data = self.layout().volumes().join(&source).join("_data");
                info.source = data.display().to_string();
                info.name = source;
                info.driver = "local".to_owned();
            }
            MountKind::Bind => {
                info.source = source;
                info.propagation = "rprivate".to_owned();
            }
            MountKind::Tmpfs => {}
        }
        info
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

/// The directory without links in its path.
fn existing_directory(directory: &Path) -> Result<PathBuf> {
    let found = directory.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("the mount point {} is not there; make it first", directory.display()),
        ),
        _ => Error::io(format!("cannot look at the mount point {}", directory.display()), error),
    })?;
    if !found.is_dir() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the mount point {} is not a folder; choose one", directory.display()),
        ));
    }
    Ok(found)
}

/// A mount point must be empty, so that nothing is hidden by accident.
fn refuse_unusable(directory: &Path) -> Result<()> {
    let mut entries = std::fs::read_dir(directory).map_err(|error| {
        Error::io(format!("cannot look into the mount point {}", directory.display()), error)
    })?;
    if entries.next().is_some() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the mount point {} is not empty; choose an empty folder", directory.display()),
        ));
    }
    Ok(())
}

/// Outer destinations before inner ones, and none twice.
fn ordered(mounts: &[MountSpecification]) -> Result<Vec<MountSpecification>> {
    let mut ordered = mounts.to_vec();
    ordered.sort_by(|a, b| a.destination.cmp(&b.destination));
    for pair in ordered.windows(2) {
        if let [first, second] = pair
            && first.destination == second.destination
        {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("two mounts are wanted at {}; leave one out", first.destination.display()),
            ));
        }
    }
    Ok(ordered)
}
