//! A volume's device is mounted for the first container that uses it, and unmounted after the last.
//!
//! Whether one uses it is not counted: the containers' records and the kernel's table of mounts say so. A
//! container is recorded and mounted before it asks for its volumes, so whoever finds a volume unused, while
//! holding the volume's lock, may unmount it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinstore_export::{Ext4Options, MountFlags, Unmount, mount_ext4, mounted_at, unmount};
use thinstore_pool::LayerInfo;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::device_key;
use crate::mounts::{THIN, refuse_unusable};
use crate::names::VolumeName;
use crate::store::Store;
use crate::types::MountSpecification;
use crate::volumes::{VolumeProvider, fill_within};

impl VolumeProvider for Store {
    fn prepare(
        &self,
        name: &VolumeName,
        target: &Path,
        specification: &MountSpecification,
    ) -> Result<PathBuf> {
        match self.prepare_thin(name, target, specification)? {
            Some(data) => Ok(data),
            None => {
                self.forget_device_folder(name)?;
                self.folders().prepare(name, target, specification)
            }
        }
    }

    fn described(&self, name: &str) -> (PathBuf, String) {
        match self.catalog().volume(name) {
            Some(_) => (self.folders().data_of(name), THIN.to_owned()),
            None => self.folders().described(name),
        }
    }
}

impl Store {
    /// None if the volume is no device.
    fn prepare_thin(
        &self,
        name: &VolumeName,
        target: &Path,
        specification: &MountSpecification,
    ) -> Result<Option<PathBuf>> {
        let catalog = self.catalog();
        let Some(volume) = catalog.volume(name.as_str()) else { return Ok(None) };
        let lock = self.attachments().lock_of(&device_key(volume));
        let _held = lock.lock();
        let catalog = self.catalog();
        let Some(volume) = catalog.volume(name.as_str()) else { return Ok(None) };
        if volume.sealed && !specification.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "the volume '{name}' is a snapshot, which never changes; mount it with ':ro', or make a copy to write to with 'thinstore volume clone'"
                ),
            ));
        }
        let names = self.folders().lock()?;
        let data = self.folders().require_device_folder(name)?;
        drop(names);
        self.mount_volume(volume, &data)?;
        if !volume.sealed {
            fill_within(&data, target, !specification.no_copy)
                .map_err(|error| error.context(format!("filling the volume '{name}'")))?;
        }
        Ok(Some(data))
    }

    pub(super) fn attach_volume(&self, volume: &LayerInfo) -> Result<PathBuf> {
        self.attachments().attach(&device_key(volume), volume.sealed, || {
            let device: Arc<dyn BlockDevice> = Arc::new(self.pool().device(volume.id)?);
            Ok(device)
        })
    }

    fn mount_volume(&self, volume: &LayerInfo, data: &Path) -> Result<()> {
        let key = device_key(volume);
        let place = self.attachments().place_of(&key)?;
        let there = mounted_at(data)?;
        if let (Some(place), Some(there)) = (&place, &there)
            && there.source == place.device
        {
            return Ok(());
        }
        if let Some(there) = there {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "{} is mounted on {}; unmount that first",
                    there.source.display(),
                    data.display()
                ),
            ));
        }
        refuse_unusable(data)?;
        let device = self.attach_volume(volume)?;
        let mounted = self.mount_volume_device(volume, &device, data);
        if mounted.is_err() && place.is_none() {
            drop(self.attachments().detach(&key));
        }
        mounted.map_err(|error| error.context(format!("mounting the volume '{}'", volume.name)))
    }

    fn mount_volume_device(&self, volume: &LayerInfo, device: &Path, data: &Path) -> Result<()> {
        if !volume.sealed {
            self.grow_file_system(device, volume)?;
        }
        let options = Ext4Options {
            flags: MountFlags { read_only: volume.sealed, ..MountFlags::default() },
            without_journal_replay: false,
            discard: !volume.sealed,
        };
        mount_ext4(device, data, &options)
    }

    /// Unmounts and detaches the volumes that no container has mounted any more.
    pub(crate) fn release_unused_volumes(&self) -> Result<()> {
        let places = self.attachments().places()?;
        if places.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        for volume in self.catalog().volumes() {
            let key = device_key(volume);
            if !places.contains_key(&key) {
                continue;
            }
            let lock = self.attachments().lock_of(&key);
            // whoever has it now releases it himself
            if let Some(_held) = lock.try_lock() {
                result = result.and(self.release_if_unused(volume));
            }
        }
        result
    }

    /// The caller holds the volume's lock.
    pub(super) fn release_if_unused(&self, volume: &LayerInfo) -> Result<()> {
        let name = VolumeName::parse(&volume.name)?;
        match self.folders().uses()?.is_mounted(&name) {
            true => Ok(()),
            false => self.release(volume),
        }
    }

    /// The caller holds the volume's lock, and knows that nobody uses it.
    pub(super) fn release(&self, volume: &LayerInfo) -> Result<()> {
        let key = device_key(volume);
        let Some(place) = self.attachments().place_of(&key)? else { return Ok(()) };
        let data = self.folders().data_of(&volume.name);
        if mounted_at(&data)?.is_some_and(|there| there.source == place.device) {
            self.attachments().hurry(&key, true);
            let unmounted = unmount(&data, Unmount::Normal);
            self.attachments().hurry(&key, false);
            unmounted.map_err(|error| {
                error.context(format!("the volume '{}' stays mounted", volume.name))
            })?;
        }
        self.attachments().detach(&key).map(drop)
    }
}
