//! Where layers are mounted for the moment of an import or of a look: a folder below `ROOT/run/places`, with
//! a file beside it that its maker has locked. One that nobody has locked is left of a killed process.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use thinstore_drivers::{LayerDriver, LayerId};
use thinstore_export::{Unmount, mounted_at, unmount};
use thinstore_storage::{Error, Result};

use crate::layout::{Layout, make_private_directory};

const LOCK_ENDING: &str = ".lock";

/// A folder to mount something on, unmounted and removed when this is dropped.
pub(super) struct WorkPlace {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::io(format!("cannot use {}", path.display()), error)
}

impl WorkPlace {
    /// A place for a layer. The layer's id is a part of the name, so that what is behind the mount can be
    /// found by it.
    pub(super) fn make(
        layout: &Layout,
        driver: &dyn LayerDriver,
        id: &LayerId,
    ) -> Result<WorkPlace> {
        make_private_directory(&layout.run())?;
        let places = layout.places();
        make_private_directory(&places)?;
        let places = places.canonicalize().map_err(failed(&places))?;
        let name = format!("{}.{id}.{}", driver.name(), LayerId::random()?);
        let lock_path = places.join(format!("{name}{LOCK_ENDING}"));
        let lock = File::create_new(&lock_path).map_err(failed(&lock_path))?;
        lock.lock().map_err(failed(&lock_path))?;
        let path = places.join(&name);
        make_private_directory(&path)?;
        Ok(WorkPlace { path, lock_path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes down what is mounted.
    pub(super) fn unmount(&self) -> Result<()> {
        unmount_all(&self.path)
    }
}

impl Drop for WorkPlace {
    fn drop(&mut self) {
        if let Err(error) = take_away(&self.path, &self.lock_path) {
            tracing::warn!("{error}");
        }
    }
}

fn unmount_all(path: &Path) -> Result<()> {
    while mounted_at(path)?.is_some() {
        unmount(path, Unmount::Normal)?;
    }
    Ok(())
}

/// The lock last: as long as there is one, the place is found.
fn take_away(path: &Path, lock_path: &Path) -> Result<()> {
    unmount_all(path)?;
    for removed in [std::fs::remove_dir(path), std::fs::remove_file(lock_path)] {
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes down what killed processes have left of a driver's.
pub(super) fn clean_up(layout: &Layout, driver: &dyn LayerDriver) -> Result<()> {
    let Ok(places) = layout.places().canonicalize() else { return Ok(()) };
    let Ok(entries) = std::fs::read_dir(&places) else { return Ok(()) };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let name = file_name.to_str().and_then(|name| name.strip_suffix(LOCK_ENDING));
        let Some(name) = name else { continue };
        let mut parts = name.split('.');
        if parts.next() != Some(driver.name().as_str()) {
            continue;
        }
        let Some(Ok(id)) = parts.next().map(LayerId::parse) else { continue };
        // one that is gone by now had its owner
        let Ok(lock) = File::open(entry.path()) else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        let path = places.join(name);
        unmount_all(&path)?;
        driver.release(&id)?;
        take_away(&path, &entry.path())?;
    }
    Ok(())
}
