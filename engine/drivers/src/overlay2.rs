//! The kernel's overlay over folders in Docker's layout, `overlay2/`.
//!
//! A container is mounted on its own `merged` folder, as Docker does, and shown from there where it is wanted:
//! what is mounted over paths of it (volumes, tmpfs) is not seen in `merged`.

use std::collections::BTreeMap;
use std::path::Path;

use thinstore_export::{Unmount, mounted_at, unmount};
use thinstore_storage::Result;

use crate::directory;
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::name::DriverName;
use crate::overlay::folders::Folders;
use crate::overlay::kernel;

pub(crate) struct Overlay2 {
    folders: Folders,
}

pub(crate) use kernel::obstacle;

impl Overlay2 {
    pub(crate) fn open(root: &Path) -> Result<Overlay2> {
        Ok(Overlay2 { folders: Folders::open(root.join("overlay2"))? })
    }

    fn mount_merged(&self, id: &LayerId, merged: &Path) -> Result<()> {
        match self.folders.with_changes(id)? {
            Some((lower, upper)) => self.folders.overlay(&lower, Some(upper)).mount(merged),
            None => directory::show(&self.folders.diff(id), merged, false),
        }
    }
}

impl LayerDriver for Overlay2 {
    fn name(&self) -> DriverName {
        DriverName::Overlay2
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        self.folders.create(layer)
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        self.folders.seal(&layer.id)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.release(id)?;
        self.folders.remove(id)
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        directory::ids_in(self.folders.base(), "")
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        let merged = self.folders.merged(&layer.id);
        self.release(&layer.id)?;
        directory::make(&merged, 0o700)?;
        let shown = self
            .mount_merged(&layer.id, &merged)
            .and_then(|()| directory::show(&merged, place.directory, place.read_only));
        if shown.is_err() {
            drop(self.release(&layer.id));
        }
        shown
    }

    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        let folders = self.folders.to_look_at(&layer.id)?;
        match folders.as_slice() {
            // an overlay is of two at least
            [_] => directory::show(&self.folders.diff(&layer.id), directory, true),
            folders => self.folders.overlay(folders, None).mount(directory),
        }
    }

    fn release(&self, id: &LayerId) -> Result<()> {
        let merged = self.folders.merged(id);
        let Ok(merged) = merged.canonicalize() else { return Ok(()) };
        while mounted_at(&merged)?.is_some() {
            unmount(&merged, Unmount::Normal)?;
        }
        match std::fs::remove_dir(&merged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(directory::failed("remove", &merged)(error))
            }
            _ => Ok(()),
        }
    }

    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        if let Some(mounted) = mounted {
            // what is written to files that are open is in the upper folder's file system already; what is
            // mapped into memory gets there now
            directory::sync(mounted)?;
        }
        self.folders.copy(from, to)?;
        Ok(Commit::default())
    }

    fn parts_hard_links(&self) -> bool {
        true
    }

    fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        self.folders.unchanged(old, new)
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        Ok(directory::folder_bytes(&self.folders.diff(id)))
    }

    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        self.folders.facts(layer)
    }
}
