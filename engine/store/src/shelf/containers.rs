//! Containers: made, mounted, unmounted and removed.

use std::path::PathBuf;

use thinstore_drivers::{LayerId, Place, Stack};
use thinstore_export::{MountEntry, Unmount, mounts, unmount};
use thinstore_storage::{Error, ErrorKind, Result};

use super::Shelf;
use super::contents::Target;
use super::lock::Lock;
use super::records::{ContainerRecord, ImageRecord, LayerRecord, image_file_name};
use crate::mounts::{
    MountRecord, existing_directory, mount_inside, ordered, refuse_unusable, unmount_with_all_below,
};
use crate::names::{ContainerName, ImageName};
use crate::snapshot::container_exists;
use crate::time::now_unix_ns;
use crate::types::{ContainerSummary, DetachOutcome, MountOutcome, MountRequest, SnapshotRequest};

/// What a new container stands on.
struct Base {
    image: Option<String>,
    parent: Option<LayerId>,
}

/// A container nobody else mounts, commits or removes meanwhile.
pub(super) struct Held {
    pub(super) record: ContainerRecord,
    _lock: Lock,
}

/// How a container was held still.
pub(super) struct Sealed {
    /// It was mounted.
    pub(super) live: bool,
    pub(super) frozen_us: u64,
}

impl Shelf {
    /// The container of a name, or of an id or a unique prefix of it.
    pub(super) fn container(&self, name: &str) -> Result<ContainerRecord> {
        // a name that is no container's could be any path
        if ContainerName::parse(name).is_ok()
            && let Some(container) = self.records.read::<ContainerRecord>(name)?
        {
            return Ok(container);
        }
        Ok(self.contents()?.container(name)?.clone())
    }

    /// The same, locked.
    pub(super) fn hold(&self, name: &str) -> Result<Held> {
        loop {
            let container = self.container(name)?;
            let path = self.records.path::<ContainerRecord>(&container.name);
            let Some(lock) = Lock::of_existing(&path)? else { continue };
            // what was removed meanwhile, or removed and made again, was another one
            if self.records.read(&container.name)?.as_ref() == Some(&container) {
                return Ok(Held { record: container, _lock: lock });
            }
        }
    }

    /// What a container stands on, the nearest first.
    pub(super) fn chain(&self, parent: Option<&LayerId>) -> Result<Vec<LayerId>> {
        let mut chain = Vec::new();
        let mut next = parent.cloned();
        while let Some(id) = next {
            let layer = self.records.read::<LayerRecord>(id.as_str())?;
            next = layer.and_then(|layer| layer.parent);
            chain.push(id);
        }
        Ok(chain)
    }

    pub(super) fn stack_of(&self, container: &ContainerRecord) -> Result<Stack> {
        let below = self.chain(container.parent.as_ref())?;
        Ok(Stack { id: container.id.clone(), below })
    }

    pub(super) fn make_container(&self, request: &SnapshotRequest) -> Result<ContainerSummary> {
        let name = ContainerName::parse(&request.name)?;
        if request.size_bytes.is_some() {
            return self.unsupported("gives containers no size of their own");
        }
        if self.records.path::<ContainerRecord>(name.as_str()).exists() {
            return Err(container_exists(&name));
        }
        let standing = self.standing()?;
        let base = self.base_of(&request.source, &standing)?;
        let record = ContainerRecord {
            id: LayerId::random()?,
            name: name.as_str().to_owned(),
            image: base.image,
            parent: base.parent,
            created_unix_ns: now_unix_ns(),
        };
        let made = self.driver.create(&self.stack_of(&record)?).and_then(|()| {
            match self.records.publish(&record)? {
                true => Ok(()),
                false => Err(container_exists(&name)),
            }
        });
        if let Err(error) = made {
            self.abandon(&record.id);
            return Err(error);
        }
        self.summary(&record, None)
    }

    fn base_of(&self, source: &str, standing: &Lock) -> Result<Base> {
        // most are made of images, by their names: nothing else has to be read
        let is_container = ContainerName::parse(source).is_ok()
            && self.records.path::<ContainerRecord>(source).exists();
        if !is_container && let Ok(name) = ImageName::parse(source) {
            let file_name = image_file_name(&name.to_string());
            if let Some(image) = self.records.read::<ImageRecord>(&file_name)? {
                return Ok(Base { image: Some(image.name), parent: image.top });
            }
        }
        let contents = self.contents()?;
        Ok(match contents.resolve(source, None)? {
            Target::Image(image) => {
                Base { image: Some(image.name.clone()), parent: image.top.clone() }
            }
            Target::Layer(layer) => Base { image: None, parent: Some(layer.id.clone()) },
            Target::Container(container) => {
                let held = self.hold(&container.name)?;
                let image = held.record.image.clone();
                let layer = self.seal_copy(&held, "")?.0;
                // nothing needs it until the container has its record
                standing.begin()?;
                self.records.publish(&layer)?;
                Base { image, parent: Some(layer.id) }
            }
        })
    }

    /// Makes a sealed layer of what a container has now, and says how; it has no record yet. `name` begins the
    /// layer's name, if it is to have one.
    pub(super) fn seal_copy(&self, held: &Held, name: &str) -> Result<(LayerRecord, Sealed)> {
        let from = self.stack_of(&held.record)?;
        let id = LayerId::random()?;
        let mounted = self.mount_of(&held.record)?.map(|(record, _)| record.directory);
        let made = self.driver.commit(&from, mounted.as_deref(), &id).and_then(|commit| {
            let sealed = Sealed { live: mounted.is_some(), frozen_us: commit.frozen_us };
            let record = LayerRecord {
                name: if name.is_empty() { String::new() } else { format!("{name}:{id}") },
                diff_id: None,
                parent: held.record.parent.clone(),
                own_bytes: self.driver.own_bytes(&id)?,
                created_unix_ns: now_unix_ns(),
                id: id.clone(),
            };
            Ok((record, sealed))
        });
        if made.is_err() {
            self.abandon(&id);
        }
        made
    }

    /// Removes a layer after a failure. One that cannot be removed now goes when the shelf is opened next.
    pub(super) fn abandon(&self, id: &LayerId) {
        if let Err(error) = self.driver.remove(id) {
            tracing::warn!("a layer that is not needed stays until the next command: {error}");
        }
    }

    /// Where a container is mounted; none if it is not.
    pub(super) fn mount_of(
        &self,
        container: &ContainerRecord,
    ) -> Result<Option<(MountRecord, MountEntry)>> {
        let Some(record) = self.mount_records().read(container.id.as_str())? else {
            return Ok(None);
        };
        let entry = mounts()?.into_iter().rev().find(|entry| entry.mount_point == record.directory);
        Ok(entry.map(|entry| (record, entry)))
    }

    /// Order: the record, then the driver's mount, then what is mounted over it; undone the other way round
    /// if one of them fails.
    pub(super) fn mount_container(&self, request: &MountRequest) -> Result<MountOutcome> {
        let held = self.hold(&request.name)?;
        let container = &held.record;
        self.take_down_dead(container)?;
        let directory = existing_directory(&request.directory)?;
        let id = container.id.as_str();
        let wanted = MountRecord {
            name: container.name.clone(),
            driver: self.driver_name().to_string(),
            directory: directory.clone(),
            read_only: request.read_only,
            mounts: ordered(&request.mounts)?,
        };
        let outcome = |was_mounted| -> Result<MountOutcome> {
            Ok(MountOutcome {
                name: container.name.clone(),
                device: self.device_text(&container.id)?.unwrap_or_default(),
                directory: directory.clone(),
                was_mounted,
            })
        };
        if let Some((there, _)) = self.mount_of(container)? {
            if there == wanted {
                return outcome(true);
            }
            let same_place = there.directory == wanted.directory;
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the container '{}' is mounted on {} already{}; unmount it first with 'thinstore umount {}'",
                    container.name,
                    there.directory.display(),
                    if same_place { ", with other options" } else { "" },
                    container.name
                ),
            ));
        }
        refuse_unusable(&directory)?;
        self.driver.release(&container.id)?;
        self.mount_records().remember(id, &wanted)?;
        let place = Place { directory: &directory, read_only: wanted.read_only };
        let stack = self.stack_of(container)?;
        let mounted = self.driver.mount(&stack, place).and_then(|()| {
            let filled = mount_inside(&self.volumes, &directory, &wanted.mounts);
            if filled.is_err() {
                drop(unmount(&directory, Unmount::Normal));
            }
            filled
        });
        if let Err(error) = mounted {
            drop(self.driver.release(&container.id));
            drop(self.mount_records().forget(id));
            return Err(error);
        }
        outcome(false)
    }

    /// Unmounts what is mounted by a process that is gone (FUSE): nothing can be done with it any more.
    fn take_down_dead(&self, container: &ContainerRecord) -> Result<()> {
        let Some((record, _)) = self.mount_of(container)? else { return Ok(()) };
        let looked_at = std::fs::symlink_metadata(&record.directory);
        let dead = rustix::io::Errno::NOTCONN.raw_os_error();
        match looked_at.is_err_and(|error| error.raw_os_error() == Some(dead)) {
            true => unmount_with_all_below(&self.volumes, &record.directory, &record.mounts),
            false => Ok(()),
        }
    }

    pub(super) fn device_text(&self, id: &LayerId) -> Result<Option<String>> {
        let device: Option<PathBuf> = self.driver.device(id)?;
        Ok(device.map(|device| device.display().to_string()))
    }

    pub(super) fn unmount_container(&self, name: &str) -> Result<DetachOutcome> {
        let held = self.hold(name)?;
        let container = &held.record;
        let Some(record) = self.mount_records().read(container.id.as_str())? else {
            return Ok(DetachOutcome { name: container.name.clone(), was_attached: false });
        };
        let stays = |error: Error| {
            error.context(format!("the container '{}' stays mounted", container.name))
        };
        if self.mount_of(container)?.is_some() {
            unmount_with_all_below(&self.volumes, &record.directory, &record.mounts)
                .map_err(stays)?;
        }
        self.driver.release(&container.id).map_err(stays)?;
        self.mount_records().forget(container.id.as_str())?;
        Ok(DetachOutcome { name: container.name.clone(), was_attached: true })
    }

    /// Order: the name goes first, durably; what is left then is removed, now or after a crash.
    pub(super) fn remove_one_container(&self, name: &str) -> Result<()> {
        let held = self.hold(name)?;
        let container = &held.record;
        if let Some((mount, _)) = self.mount_of(container)? {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the container '{0}' is mounted on {1}; unmount it first with 'thinstore umount {0}'",
                    container.name,
                    mount.directory.display()
                ),
            ));
        }
        self.driver.release(&container.id)?;
        // its image stays as long as it is there
        let leaves_layers = !self.stands_on_its_image(container)?;
        if leaves_layers {
            self.publishing()?.begin()?;
        }
        self.records.forget(container)?;
        self.driver.remove(&container.id)?;
        self.mount_records().forget(container.id.as_str())?;
        match leaves_layers {
            true => self.remove_unneeded_layers().map(drop),
            false => Ok(()),
        }
    }

    /// Does an image still need all that the container stood on?
    fn stands_on_its_image(&self, container: &ContainerRecord) -> Result<bool> {
        let Some(name) = &container.image else { return Ok(false) };
        let image = self.records.read::<ImageRecord>(&image_file_name(name))?;
        Ok(image.is_some_and(|image| image.top == container.parent))
    }

    /// Removes the layers that nothing stands on; their names, the top ones first.
    pub(super) fn remove_unneeded_layers(&self) -> Result<Vec<String>> {
        let publishing = self.publishing()?;
        self.remove_unneeded(&publishing)
    }

    /// The same, by who has the right to.
    pub(super) fn remove_unneeded(&self, publishing: &Lock) -> Result<Vec<String>> {
        let contents = self.contents()?;
        let mut names = Vec::new();
        for layer in contents.unneeded() {
            self.records.forget(layer)?;
            self.driver.remove(&layer.id)?;
            names.extend(Some(layer.name.clone()).filter(|name| !name.is_empty()));
        }
        publishing.end()?;
        Ok(names)
    }
}
