//! Locks between processes, as files. One that nobody holds is what a killed process has left, or what is finished.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thinstore_storage::Result;

use crate::directory::failed;

/// A lock, held alone until this is dropped or the process ends. Its file stays.
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

fn open(path: &Path, create: bool) -> std::io::Result<File> {
    File::options().create(create).append(true).mode(0o600).open(path)
}

impl Lock {
    /// Waits until nobody else has it.
    pub(crate) fn wait(path: &Path) -> Result<Lock> {
        loop {
            let file = open(path, true).map_err(failed("open", path))?;
            file.lock().map_err(failed("lock", path))?;
            let lock = Lock { file, path: path.to_owned() };
            if lock.is_current()? {
                return Ok(lock);
            }
        }
    }

    /// None if there is none, or somebody has it.
    pub(crate) fn take_left(path: &Path) -> Result<Option<Lock>> {
        let file = match open(path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
        let lock = Lock { file, path: path.to_owned() };
        Ok(Some(lock).filter(|lock| lock.is_current().unwrap_or(false)))
    }

    /// Who had it before may have removed the file.
    fn is_current(&self) -> Result<bool> {
        let metadata = self.file.metadata().map_err(failed("look at", &self.path))?;
        Ok(metadata.nlink() > 0)
    }

    /// Gives it up for good.
    pub(crate) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(failed("remove", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_left_when_nobody_holds_it_and_gone_when_it_was_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one.lock");
        assert!(Lock::take_left(&path).expect("an answer").is_none());
        let held = Lock::wait(&path).expect("a lock");
        assert!(Lock::take_left(&path).expect("an answer").is_none());
        drop(held);
        let left = Lock::take_left(&path).expect("an answer").expect("a lock");
        left.remove().expect("removed");
        assert!(!path.exists());
    }
}
