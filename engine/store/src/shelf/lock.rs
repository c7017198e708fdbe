//! Locks between processes, and between the threads of one: each is an open file of its own.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use thinstore_storage::{Error, Result};

/// A lock, held until this is dropped or the process ends.
///
/// Its file can say that something was begun, which a killed process does not take back.
pub(super) struct Lock {
    file: File,
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).mode(0o600).open(path);
    file.map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::io(format!("cannot lock {}", path.display()), error)
}

impl Lock {
    /// Waits until nobody else has it.
    pub(super) fn exclusive(path: &Path) -> Result<Lock> {
        let file = open(path)?;
        file.lock().map_err(failed(path))?;
        Ok(Lock { file })
    }

    /// Waits until nobody has it alone.
    pub(super) fn shared(path: &Path) -> Result<Lock> {
        let file = open(path)?;
        file.lock_shared().map_err(failed(path))?;
        Ok(Lock { file })
    }

    /// None if somebody else has it.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(path)(error)),
        }
    }

    /// Of a file that must be there: none if it is not.
    pub(super) fn of_existing(path: &Path) -> Result<Option<Lock>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(path)(error)),
        };
        file.lock().map_err(failed(path))?;
        Ok(Some(Lock { file }))
    }

    /// Has somebody begun what he did not end?
    pub(super) fn is_begun(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// Says so, durably; true if it was said before.
    pub(super) fn begin(&self) -> Result<bool> {
        let failed = |error| Error::io("cannot write to a lock's file", error);
        if self.file.metadata().map_err(failed)?.len() > 0 {
            return Ok(true);
        }
        let mut file = &self.file;
        file.write_all(b"!").and_then(|()| file.sync_data()).map_err(failed)?;
        Ok(false)
    }

    /// Takes it back; only who has the lock alone knows that it is over for all.
    pub(super) fn end(&self) -> Result<()> {
        self.file.set_len(0).map_err(|error| Error::io("cannot write to a lock's file", error))
    }
}
