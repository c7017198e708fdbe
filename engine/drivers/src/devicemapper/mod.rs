//! Thin devices of the kernel's dm-thin with an ext4 each, in a pool on the files `devicemapper/data` and
//! `devicemapper/metadata`, as Docker's driver of the name made them without a disk of their own. A layer is a snapshot of
//! the device of the one below; a device is active while it is mounted.

mod dmsetup;
mod ids;
mod pool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thinstore_storage::{ErrorKind, Result};

use self::ids::{FRESH, Ids, Owner, ThinId};
use self::pool::{LIST_PROGRAM, Pool};
use crate::directory;
use crate::disk_image;
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::lock::Lock;
use crate::name::DriverName;

pub(crate) fn obstacle() -> Option<String> {
    if !dmsetup::is_in_kernel() {
        let what = "the kernel has no device-mapper with thin provisioning (dm_thin_pool)";
        return Some(what.to_owned());
    }
    dmsetup::PROGRAM.obstacle().or_else(|| LIST_PROGRAM.obstacle())
}

pub(crate) struct Devicemapper {
    ids: Ids,
    pool: Pool,
}

impl Devicemapper {
    pub(crate) fn open(root: &Path) -> Result<Devicemapper> {
        let folder = root.join(DriverName::Devicemapper.as_str());
        directory::make_private(&folder)?;
        Ok(Devicemapper { ids: Ids::open(&folder)?, pool: Pool::open(&folder)? })
    }

    /// Removes the snapshots of looks that are over, also of looks whose process was killed.
    fn end_views(&self) -> Result<()> {
        for (id, thin) in self.ids.all(Owner::View)? {
            let Some(lock) = Lock::take_left(&self.ids.path(Owner::View, &id, thin))? else {
                continue;
            };
            match self.pool.deactivate(&id) {
                // it is being looked at
                Err(error) if error.kind() == ErrorKind::InUse => continue,
                ended => ended?,
            }
            self.pool.delete(thin)?;
            lock.remove()?;
        }
        Ok(())
    }

    fn snapshot(&self, of: ThinId, owner: Owner, id: &LayerId) -> Result<(ThinId, Lock)> {
        let (thin, lock) = self.ids.take(owner, id)?;
        match self.pool.snapshot(of, thin) {
            Ok(()) => Ok((thin, lock)),
            Err(error) => self.ids.give_back(owner, id, thin).and(Err(error)),
        }
    }
}

impl Drop for Devicemapper {
    fn drop(&mut self) {
        if let Err(error) = self.end_views() {
            tracing::warn!("{error}");
        }
    }
}

impl LayerDriver for Devicemapper {
    fn name(&self) -> DriverName {
        DriverName::Devicemapper
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        let below = match layer.below.first() {
            Some(parent) => self.ids.get(parent)?,
            None => {
                self.pool.make_fresh()?;
                FRESH
            }
        };
        self.snapshot(below, Owner::Layer, &layer.id).map(drop)
    }

    /// What was written was flushed when it was unmounted, and the pool has committed that.
    fn seal(&self, _layer: &Stack) -> Result<()> {
        Ok(())
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let Some(thin) = self.ids.find(id)? else { return Ok(()) };
        self.pool.deactivate(id)?;
        self.pool.delete(thin)?;
        self.ids.give_back(Owner::Layer, id, thin)
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        Ok(self.ids.all(Owner::Layer)?.into_iter().map(|(id, _)| id).collect())
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        let device = self.pool.activate(&layer.id, self.ids.get(&layer.id)?)?;
        disk_image::mount_device(&device, place.directory, place.read_only)
            .inspect_err(|_| drop(self.pool.deactivate(&layer.id)))
    }

    /// A snapshot is looked at: the layer may have a journal that is to be replayed, and nobody can make snapshots
    /// of a device that is active.
    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        self.end_views()?;
        self.pool.deactivate(&layer.id)?;
        let id = LayerId::random()?;
        let (thin, _lock) = self.snapshot(self.ids.get(&layer.id)?, Owner::View, &id)?;
        let device = self.pool.activate(&id, thin)?;
        disk_image::mount_device(&device, directory, true)
    }

    fn release(&self, id: &LayerId) -> Result<()> {
        self.end_views()?;
        self.pool.deactivate(id)
    }

    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        let of = self.ids.get(&from.id)?;
        if mounted.is_none() {
            self.release(&from.id)?;
            self.snapshot(of, Owner::Layer, to)?;
            return Ok(Commit::default());
        }
        let (thin, _lock) = self.ids.take(Owner::Layer, to)?;
        let held = self.pool.snapshot_mounted(&from.id, of, thin)?;
        Ok(Commit { frozen_us: u64::try_from(held.as_micros()).unwrap_or(u64::MAX) })
    }

    fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        match new.below.contains(&old.id) {
            true => Unchanged::ChangeTime,
            false => Unchanged::Unknown,
        }
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        self.pool.own_bytes(self.ids.get(id)?)
    }

    fn device(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        self.pool.device(id)
    }

    /// As Docker's driver of the name calls them.
    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        let thin = self.ids.find(&layer.id).ok().flatten();
        BTreeMap::from([
            ("DeviceId".to_owned(), thin.map(|thin| thin.0.to_string()).unwrap_or_default()),
            ("DeviceName".to_owned(), self.pool.device_name(&layer.id)),
            ("DeviceSize".to_owned(), disk_image::SIZE_BYTES.to_string()),
            ("PoolName".to_owned(), self.pool.name()),
        ])
    }
}
