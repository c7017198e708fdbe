//! The folder of a volume that is a device of the pool: where it is mounted, `volumes/NAME/_data`, and a
//! mark, by which those who have no pool tell it from one that is a folder. What volumes there are is in the
//! pool alone: a folder that is missing is made again, and one without a device means nothing.

use std::path::PathBuf;

use thinstore_storage::{Error, ErrorKind, Result};

use super::{Volumes, remove_all};
use crate::layout::{make_private_directory, sync_directory};
use crate::names::VolumeName;

/// Whose presence says that the volume is a device.
const MARK: &str = "device";

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceFolder {
    /// Nothing.
    Missing,
    /// The folder of a device, which may be there or not.
    Device,
    /// A volume that is a folder.
    Local,
}

impl Volumes {
    pub(super) fn is_device(&self, name: &VolumeName) -> bool {
        self.folder(name).join(MARK).is_file()
    }

    pub(crate) fn stands_under(&self, name: &VolumeName) -> DeviceFolder {
        match self.folder(name).exists() {
            false => DeviceFolder::Missing,
            true if self.is_device(name) => DeviceFolder::Device,
            true => DeviceFolder::Local,
        }
    }

    /// Where a device is mounted; made if it is not there. The caller holds the lock.
    pub(crate) fn require_device_folder(&self, name: &VolumeName) -> Result<PathBuf> {
        let data = self.data_of(name.as_str());
        match self.stands_under(name) {
            DeviceFolder::Device if data.is_dir() => return Ok(data),
            DeviceFolder::Device => remove_all(&self.folder(name)).map_err(failed(name))?,
            DeviceFolder::Local => {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!(
                        "{} is not where the device of the volume '{name}' is mounted; move it away",
                        self.folder(name).display()
                    ),
                ));
            }
            DeviceFolder::Missing => {}
        }
        let fresh = self.unfinished().map_err(failed(name))?;
        make_private_directory(&fresh.join("_data"))?;
        std::fs::File::create(fresh.join(MARK))
            .and_then(|mark| mark.sync_all())
            .map_err(failed(name))?;
        std::fs::rename(&fresh, self.folder(name)).map_err(failed(name))?;
        sync_directory(&self.layout.volumes())?;
        Ok(data)
    }

    /// Removes the folder of a device that is gone, and is not mounted there. The caller holds the lock.
    pub(crate) fn remove_device_folder(&self, name: &VolumeName) -> Result<()> {
        if self.stands_under(name) != DeviceFolder::Device {
            return Ok(());
        }
        let folder = self.folder(name);
        // only an empty one goes: nothing is deleted through a mount that nobody knew of
        match std::fs::remove_dir(folder.join("_data")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(name)(error));
            }
            _ => {}
        }
        remove_all(&folder).map_err(failed(name))?;
        sync_directory(&self.layout.volumes())
    }
}

fn failed(name: &VolumeName) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(format!("cannot use the folder of the volume '{name}'"), error)
}

/// The error of those who have no pool.
pub(super) fn out_of_reach(name: &VolumeName) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the volume '{name}' is a device of the pool, which only containers of the driver 'thin' reach; choose another"
        ),
    )
}
