//! The first use of a volume: what the container has where it is mounted becomes its content, as with
//! Docker.

use std::path::{Path, PathBuf};

use thinstore_archive::{HostTree, copy_tree};
use thinstore_filesystem::DirectoryTree;
use thinstore_storage::{Error, Result};

use super::Volumes;
use super::lock::Locked;
use crate::layout::{make_private_directory, sync_directory};
use crate::names::VolumeName;

/// Where the content is gathered, beside the data that it becomes by a rename.
const FILLING: &str = "_filling";

impl Volumes {
    /// The data folder of a volume that is going to be mounted over `target`, a folder of a mounted
    /// container. A volume that is not there is made; one that is empty gets a copy of what is in the folder,
    /// and its owner and mode, unless that is not wanted. Others who want the same volume wait for that.
    ///
    /// The container's mount must be recorded, or the volume might be removed before it is mounted.
    pub(crate) fn prepare(&self, name: &VolumeName, target: &Path, copy: bool) -> Result<PathBuf> {
        let held = self.lock()?;
        let data = self.require(name, &Default::default())?;
        drop(held);
        let _held = Locked::folder(&self.folder(name))?;
        if copy && is_empty(&data)? && !is_empty(target)? {
            self.fill(name, &data, target)?;
        }
        Ok(data)
    }

    /// A crash leaves the empty volume and a part of a copy, which the next fill removes.
    fn fill(&self, name: &VolumeName, data: &Path, target: &Path) -> Result<()> {
        let folder = self.folder(name);
        let filling = folder.join(FILLING);
        let failed = |error| Error::io(format!("cannot fill the volume '{name}'"), error);
        match std::fs::remove_dir_all(&filling) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        make_private_directory(&filling)?;
        let copied = HostTree::open(target)
            .and_then(|source| copy_tree(&source, &mut DirectoryTree::open(&filling)?))
            // a folder takes the place of an empty one
            .and_then(|()| std::fs::rename(&filling, data).map_err(failed))
            .and_then(|()| sync_directory(&folder));
        if copied.is_err() {
            drop(std::fs::remove_dir_all(&filling));
        }
        copied.map_err(|error| error.context(format!("filling the volume '{name}'")))
    }
}

/// A file system of its own has a `lost+found`, which is nobody's content.
fn is_empty(folder: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Error::io(format!("cannot look into {}", folder.display()), error))?;
    Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found"))
}
