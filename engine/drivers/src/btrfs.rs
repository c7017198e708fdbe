//! Subvolumes of a btrfs, `btrfs/subvolumes/ID`: a layer is a snapshot of the one below.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use thinstore_storage::{Error, Result};

use crate::backing::{Backing, Kind};
use crate::directory::{self, failed};
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::ioctl;
use crate::name::DriverName;
use crate::program::Program;

/// statfs(2)
const BTRFS_MAGIC: i64 = 0x9123_683E;

const KIND: Kind = Kind {
    name: "btrfs",
    make: Program { name: "mkfs.btrfs", package: "btrfs-progs" },
    arguments: &["-q"],
    suits: is_btrfs,
};

fn is_btrfs(folder: &Path) -> Result<bool> {
    let found =
        rustix::fs::statfs(folder).map_err(|errno| failed("look at", folder)(errno.into()))?;
    Ok(found.f_type == BTRFS_MAGIC)
}

pub(crate) fn obstacle(root: &Path) -> Result<Option<String>> {
    Backing::obstacle(root, KIND)
}

pub(crate) struct Btrfs {
    backing: Backing,
    subvolumes: PathBuf,
}

impl Btrfs {
    pub(crate) fn open(root: &Path) -> Result<Btrfs> {
        let backing = Backing::open(root, DriverName::Btrfs, KIND)?;
        let subvolumes = backing.folder().join("subvolumes");
        directory::make_private(&subvolumes)?;
        Ok(Btrfs { backing, subvolumes })
    }

    fn subvolume(&self, id: &LayerId) -> PathBuf {
        self.subvolumes.join(id.as_str())
    }

    fn folder(&self) -> Result<File> {
        open(&self.subvolumes)
    }

    fn snapshot(&self, from: &LayerId, to: &LayerId, flags: u64) -> Result<()> {
        let source = open(&self.subvolume(from))?;
        ioctl::snapshot_subvolume(&source, &self.folder()?, to.as_str(), flags).map_err(|errno| {
            Error::io(format!("making a snapshot of the subvolume {from} failed"), errno.into())
        })
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(failed("open", path))
}

impl LayerDriver for Btrfs {
    fn name(&self) -> DriverName {
        DriverName::Btrfs
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        if let Some(parent) = layer.below.first() {
            return self.snapshot(parent, &layer.id, 0);
        }
        ioctl::create_subvolume(&self.folder()?, layer.id.as_str()).map_err(|errno| {
            Error::io(format!("making the subvolume {} failed", layer.id), errno.into())
        })?;
        directory::settle_root(&self.subvolume(&layer.id))
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        let path = self.subvolume(&layer.id);
        ioctl::set_subvolume_flags(&open(&path)?, ioctl::READ_ONLY)
            .map_err(|errno| failed("seal", &path)(errno.into()))?;
        directory::sync(&path)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        if !self.subvolume(id).exists() {
            return Ok(());
        }
        ioctl::destroy_subvolume(&self.folder()?, id.as_str())
            .map_err(|errno| Error::io(format!("removing the subvolume {id} failed"), errno.into()))
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        directory::ids_in(&self.subvolumes, "")
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        directory::show(&self.subvolume(&layer.id), place.directory, place.read_only)
    }

    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        self.mount(layer, Place { directory, read_only: true })
    }

    fn release(&self, _id: &LayerId) -> Result<()> {
        Ok(())
    }

    fn commit(&self, from: &Stack, _mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        // It has all that was written before. What is written while it is made may be in it or not, file by
        // file: data is flushed first, and a frozen btrfs makes no snapshots.
        self.snapshot(&from.id, to, ioctl::READ_ONLY)?;
        directory::sync(self.backing.folder())?;
        Ok(Commit::default())
    }

    fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        match new.below.contains(&old.id) {
            true => Unchanged::ChangeTime,
            false => Unchanged::Unknown,
        }
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        directory::unshared_bytes(&self.subvolume(id))
    }

    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        BTreeMap::from([("Subvolume".to_owned(), self.subvolume(&layer.id).display().to_string())])
    }
}
