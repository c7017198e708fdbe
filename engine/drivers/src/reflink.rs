//! Disk images with an ext4 each, `reflink/images/ID.img`: a layer is a clone of the one below, which shares
//! its blocks (FICLONE, ioctl_ficlonerange(2)).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use thinstore_export::loop_device;
use thinstore_storage::{Error, Result};

use crate::backing::{Backing, Kind};
use crate::directory::{self, failed};
use crate::disk_image;
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::name::DriverName;
use crate::program::Program;
use crate::still;

const KIND: Kind = Kind {
    name: "xfs",
    make: Program { name: "mkfs.xfs", package: "xfsprogs" },
    // the sector is that of the loop device
    arguments: &["-q", "-s", "size=4096", "-m", "reflink=1"],
    suits: can_clone,
};

const ENDING: &str = ".img";
/// The mark of the loop devices.
const MARK: &str = "thinstore-reflink";

/// Tries it: which file systems can, changes.
fn can_clone(folder: &Path) -> Result<bool> {
    let file = || tempfile::tempfile_in(folder).map_err(failed("make a file in", folder));
    let (from, to) = (file()?, file()?);
    std::os::unix::fs::FileExt::write_all_at(&from, &[1; 4096], 0)
        .map_err(failed("write to", folder))?;
    Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok())
}

pub(crate) fn obstacle(root: &Path) -> Result<Option<String>> {
    Backing::obstacle(root, KIND)
}

pub(crate) struct Reflink {
    backing: Backing,
    images: PathBuf,
}

impl Reflink {
    pub(crate) fn open(root: &Path) -> Result<Reflink> {
        let backing = Backing::open(root, DriverName::Reflink, KIND)?;
        let images = backing.folder().join("images");
        directory::make_private(&images)?;
        still::thaw_left(backing.folder())?;
        Ok(Reflink { backing, images })
    }

    fn image(&self, id: &LayerId) -> PathBuf {
        self.images.join(format!("{id}{ENDING}"))
    }

    /// An empty file system, made when it is first needed.
    fn fresh(&self) -> Result<PathBuf> {
        let path = self.backing.folder().join("fresh.img");
        disk_image::make_fresh(&path)?;
        Ok(path)
    }

    fn clone_image(&self, from: &Path, to: &Path) -> Result<()> {
        let target = File::options().read(true).write(true).create_new(true).open(to);
        clone_into(from, &target.map_err(failed("make", to))?)
    }
}

fn clone_into(from: &Path, target: &File) -> Result<()> {
    let source = File::open(from).map_err(failed("open", from))?;
    rustix::fs::ioctl_ficlone(target, &source)
        .map_err(|errno| Error::io(format!("cloning {} failed", from.display()), errno.into()))
}

impl LayerDriver for Reflink {
    fn name(&self) -> DriverName {
        DriverName::Reflink
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        let from = match layer.below.first() {
            Some(parent) => self.image(parent),
            None => self.fresh()?,
        };
        self.clone_image(&from, &self.image(&layer.id))
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        let path = self.image(&layer.id);
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed("sync", &path))?;
        directory::sync(&self.images)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        directory::remove_file(&self.image(id))
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        directory::ids_in(&self.images, ENDING)
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        disk_image::mount(&self.image(&layer.id), place.directory, place.read_only, MARK)
    }

    /// A clone is looked at: it may have a journal that is to be replayed.
    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        // without a name it goes when it is unmounted, or with the process
        let copy = tempfile::tempfile_in(&self.images).map_err(failed("copy to", &self.images))?;
        clone_into(&self.image(&layer.id), &copy)?;
        disk_image::mount(&disk_image::path_of(&copy), directory, true, MARK)
    }

    fn release(&self, _id: &LayerId) -> Result<()> {
        Ok(())
    }

    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        let clone = || self.clone_image(&self.image(&from.id), &self.image(to));
        let commit = still::while_still(self.backing.folder(), mounted, clone)?;
        self.seal(&Stack { id: to.clone(), below: Vec::new() })?;
        Ok(commit)
    }

    fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        match new.below.contains(&old.id) {
            true => Unchanged::ChangeTime,
            false => Unchanged::Unknown,
        }
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        directory::unshared_bytes_of(&self.image(id))
    }

    fn device(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let image = self.image(id);
        let bound = loop_device::bound_loops()?;
        Ok(bound
            .into_iter()
            .find(|bound| bound.backing_file == image)
            .map(|bound| bound.device.path()))
    }

    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("Image".to_owned(), self.image(&layer.id).display().to_string()),
            ("DeviceSize".to_owned(), disk_image::SIZE_BYTES.to_string()),
        ])
    }
}
