//! Copies of volumes, and volumes that become larger.
//!
//! A snapshot is sealed: it never changes, and its data has checksums. A clone is a volume like any other.
//! Both have what their source has at one moment, also while containers write to it, and are made of a
//! transient device that gets its name when it is whole.

use thinstore_pool::{LayerId, LayerInfo, NewLayer};
use thinstore_storage::{Error, ErrorKind, Result};

use super::document::VolumeDocument;
use super::{device_key, exists};
use crate::detached_mount::DetachedMount;
use crate::kinds::VOLUME;
use crate::names::VolumeName;
use crate::operations::only_thin;
use crate::size::format_size;
use crate::store::{Store, check_device_size, is_root};
use crate::types::{VolumeCopyRequest, VolumeResizeOutcome, VolumeResizeRequest, VolumeSummary};
use crate::volumes::{DeviceFolder, no_volume};

impl Store {
    /// Does something with the device of a volume, whose lock is held meanwhile.
    fn with_volume<T>(
        &self,
        name: &str,
        action: impl FnOnce(&LayerInfo) -> Result<T>,
    ) -> Result<T> {
        let name = VolumeName::parse(name)?;
        let missing = || match self.folders().stands_under(&name) {
            DeviceFolder::Local => only_thin(name.as_str()),
            DeviceFolder::Device | DeviceFolder::Missing => no_volume(&name),
        };
        let catalog = self.catalog();
        let volume = catalog.volume(name.as_str()).ok_or_else(missing)?;
        let lock = self.attachments().lock_of(&device_key(volume));
        let _held = lock.lock();
        let catalog = self.catalog();
        let volume = catalog.volume(name.as_str()).ok_or_else(missing)?;
        let result = action(volume);
        // the last container may have gone meanwhile, and could not release it
        if let Err(error) = self.release_if_unused(volume) {
            tracing::warn!("{error}");
        }
        result
    }

    pub(crate) fn copy_one_volume(&self, request: &VolumeCopyRequest) -> Result<VolumeSummary> {
        let name = VolumeName::parse(&request.name)?;
        if self.catalog().volume(name.as_str()).is_some()
            || self.folders().stands_under(&name) == DeviceFolder::Local
        {
            return Err(exists(&name));
        }
        let device = self.with_volume(&request.source, |source| match request.writable {
            true => self.clone_of(source),
            false => self.sealed_copy_of(source),
        })?;
        let document = VolumeDocument::new(&request.labels, Some(&request.source));
        self.publish_volume(&name, device, &document)?;
        self.summary_of(&name)
    }

    fn clone_of(&self, source: &LayerInfo) -> Result<LayerId> {
        let place = self.place_of_volume(source)?;
        let copied =
            self.held_still_at(source, place, || self.pool().snapshot(source.id, transient()))?;
        Ok(copied.value)
    }

    fn sealed_copy_of(&self, source: &LayerInfo) -> Result<LayerId> {
        if source.sealed {
            let copy = self.pool().snapshot(source.id, transient())?;
            return match self.pool().seal(copy) {
                Ok(()) => Ok(copy),
                Err(error) => {
                    self.abandon(&[copy]);
                    Err(error)
                }
            };
        }
        if self.place_of_volume(source)?.is_none() {
            self.replay_journal(source)?;
        }
        let place = self.place_of_volume(source)?;
        let seal = || self.pool().seal_snapshot(source.id, transient());
        Ok(self.held_still_at(source, place, seal)?.value)
    }

    /// What a killed daemon has left in the journal must be in its place: a snapshot takes no writes, so
    /// nobody could do it later.
    fn replay_journal(&self, volume: &LayerInfo) -> Result<()> {
        if !self.needs_recovery(volume)? {
            return Ok(());
        }
        if !is_root() {
            return Err(Error::new(
                ErrorKind::Permission,
                format!(
                    "the volume '{}' was not unmounted cleanly, and putting that right needs root; 'thinstore volume clone' does without",
                    volume.name
                ),
            ));
        }
        self.attachments().start()?;
        self.attachments().apart(|| {
            let device = self.attach_volume(volume)?;
            // mounting replays the journal, unmounting leaves it empty
            let replayed = DetachedMount::of(&device, false, false).and_then(|mount| mount.sync());
            self.attachments().detach(&device_key(volume))?;
            replayed
        })
    }

    /// Order: the device, durably, then what the kernel knows of it, then the file system. Interrupted
    /// between them, the file system grows when it is mounted next.
    pub(crate) fn resize_one_volume(
        &self,
        request: &VolumeResizeRequest,
    ) -> Result<VolumeResizeOutcome> {
        check_device_size(request.size_bytes)?;
        self.with_volume(&request.name, |volume| {
            let refuse = |what: String| {
                Err(Error::new(ErrorKind::Usage, format!("the volume '{}' {what}", volume.name)))
            };
            if volume.sealed {
                return refuse("is a snapshot, which never changes; make a clone of it".to_owned());
            }
            if request.size_bytes < volume.size_bytes {
                return refuse(format!(
                    "has {} and cannot become smaller",
                    format_size(volume.size_bytes)
                ));
            }
            if request.size_bytes > thinstore_filesystem::template::SIZE_MAX_BYTES {
                return refuse("would be larger than its file system can become".to_owned());
            }
            self.pool().resize(volume.id, request.size_bytes)?;
            let key = device_key(volume);
            let is_mounted =
                self.attachments().place_of(&key)?.is_some_and(|place| place.mount.is_some());
            let grown = match self.attachments().resized(&key)? {
                Some(device) if is_mounted => {
                    self.grow_mounted_file_system(&device, &volume.name)?
                }
                _ => false,
            };
            Ok(VolumeResizeOutcome {
                name: volume.name.clone(),
                size_bytes: request.size_bytes,
                grows_at_next_mount: !grown,
            })
        })
    }
}

fn transient() -> NewLayer {
    NewLayer { namespace: VOLUME, transient: true, ..NewLayer::default() }
}
