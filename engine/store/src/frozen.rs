//! Holding a mounted container still while its blocks are sealed.
//!
//! A file system that stays frozen blocks everyone who writes to it. So it is noted durably before it
//! is frozen, and whoever opens the store after a crash thaws what the notes name.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use thinstore_export::{freeze, mounted_at, thaw};
use thinstore_pool::LayerInfo;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::attachments::Place;
use crate::catalog::uid_text;
use crate::layout::{make_private_directory, remove_durably, write_durably};
use crate::store::Store;

/// A note of what is frozen.
#[derive(Debug, Serialize, Deserialize)]
struct FrozenNote {
    directory: PathBuf,
    device: PathBuf,
}

/// What was done while a container was held still.
pub(crate) struct Held<T> {
    pub(crate) value: T,
    /// Was it mounted?
    pub(crate) live: bool,
    /// How long it was frozen.
    pub(crate) frozen_us: u64,
}

impl Store {
    /// Does something while nothing is written to the container: its file system is frozen if it is
    /// mounted for writing. The caller holds the container's lock.
    pub(crate) fn held_still<T>(
        &self,
        container: &LayerInfo,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<Held<T>> {
        let place = self.attachments().place_of(&container.name)?;
        self.held_still_at(container, place, action)
    }

    /// The same of any device that is in this place.
    pub(crate) fn held_still_at<T>(
        &self,
        device: &LayerInfo,
        place: Option<Place>,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<Held<T>> {
        let Some((place, mount)) =
            place.and_then(|place| place.mount.clone().map(|mount| (place, mount)))
        else {
            return Ok(Held { value: action()?, live: false, frozen_us: 0 });
        };
        if mount.is_read_only() {
            return Ok(Held { value: action()?, live: true, frozen_us: 0 });
        }
        make_private_directory(&self.layout().run())?;
        make_private_directory(&self.layout().frozen())?;
        let note_path = self.layout().frozen().join(uid_text(device));
        let note = FrozenNote { directory: mount.mount_point.clone(), device: place.device };
        let text = serde_json::to_vec(&note).map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot note what is frozen: {error}"))
        })?;
        write_durably(&note_path, &text)?;
        // what is dirty is written before, so that it need not be while everyone waits
        sync(&mount.mount_point)?;
        let started = Instant::now();
        let result = freeze(&mount.mount_point).and_then(|frozen| {
            let value = action();
            // thawed before the action's error is looked at
            let thawed = frozen.thaw();
            value.and_then(|value| thawed.map(|()| value))
        });
        let frozen_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        remove_durably(&note_path)?;
        Ok(Held { value: result?, live: true, frozen_us })
    }

    /// Thaws what the notes of a process that was killed name.
    pub(crate) fn thaw_what_was_frozen(&self) -> Result<()> {
        let folder = self.layout().frozen();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(Error::io(format!("cannot look into {}", folder.display()), error));
            }
        };
        for entry in entries.flatten() {
            let note = std::fs::read(entry.path()).ok();
            let note: Option<FrozenNote> = note.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(note) = note
                // something else may be mounted there by now
                && mounted_at(&note.directory)?.is_some_and(|entry| entry.source == note.device)
                && let Err(error) = thaw(&note.directory)
            {
                // its device is dead; unmounting, which comes next, ends it all the same
                tracing::warn!("{error}");
            }
            remove_durably(&entry.path())?;
        }
        Ok(())
    }
}

fn sync(directory: &Path) -> Result<()> {
    std::fs::File::open(directory)
        .and_then(|root| rustix::fs::syncfs(&root).map_err(Into::into))
        .map_err(|error| Error::io(format!("cannot sync {}", directory.display()), error))
}
