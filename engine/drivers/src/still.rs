//! File systems held still for the moment of a copy.
//!
//! A killed process leaves one frozen, and who unmounts a frozen one loses its device for good. So before it is
//! frozen a locked file says which, and whoever opens the driver next thaws what an unlocked one names.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use thinstore_export::{freeze, mounted_at, thaw};
use thinstore_storage::Result;

use crate::directory::{failed, remove_file};
use crate::driver::{Commit, LayerId};

const PREFIX: &str = "frozen.";

/// Does something while what is mounted at `mounted`, if anything is, stands still. The notes are files in the
/// folder `notes`.
pub(crate) fn while_still(
    notes: &Path,
    mounted: Option<&Path>,
    action: impl FnOnce() -> Result<()>,
) -> Result<Commit> {
    let Some(mounted) = mounted else {
        action()?;
        return Ok(Commit::default());
    };
    let path = notes.join(format!("{PREFIX}{}", LayerId::random()?));
    let mut note = File::create_new(&path).map_err(failed("make", &path))?;
    let frozen_us = note
        .lock()
        .and_then(|()| note.write_all(mounted.as_os_str().as_bytes()))
        .map_err(failed("write", &path))
        .and_then(|()| {
            let frozen = freeze(mounted)?;
            let started = Instant::now();
            let done = action();
            // whatever came of it
            frozen.thaw()?;
            done.map(|()| u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
        });
    remove_file(&path)?;
    Ok(Commit { frozen_us: frozen_us? })
}

/// Thaws what killed processes have left frozen.
pub(crate) fn thaw_left(notes: &Path) -> Result<()> {
    for entry in std::fs::read_dir(notes).map_err(failed("look into", notes))?.flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // one that is gone by now had its owner
        let Ok(note) = File::open(entry.path()) else { continue };
        match note.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        let text = std::fs::read(entry.path()).unwrap_or_default();
        let mounted = Path::new(OsStr::from_bytes(&text));
        if mounted.is_absolute() && mounted_at(mounted)?.is_some() {
            thaw(mounted)?;
        }
        remove_file(&entry.path())?;
    }
    Ok(())
}
