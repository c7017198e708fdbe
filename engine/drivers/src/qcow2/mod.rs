//! qcow2 files with an ext4 each, `qcow2/files/`: a layer's has only what differs from the one below. The program
//! qemu-storage-daemon shows a file as a plain one (FUSE), a loop device stands on that, and the ext4 is mounted
//! from it.
//!
//! What is written to a container after a commit goes to a new file over the one that the commit has sealed,
//! whether the container is mounted then or not.

mod files;
mod monitor;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thinstore_storage::Result;

use self::files::Files;
use self::server::{SERVER_PROGRAM, Servers};
use crate::directory;
use crate::disk_image;
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::name::DriverName;
use crate::program::Program;

const IMAGE_PROGRAM: Program = Program { name: "qemu-img", package: "qemu-utils" };

pub(crate) fn obstacle() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse: the kernel has no FUSE (CONFIG_FUSE_FS)".to_owned());
    }
    IMAGE_PROGRAM.obstacle().or_else(|| SERVER_PROGRAM.obstacle())
}

pub(crate) struct Qcow2 {
    files: Files,
    servers: Servers,
}

impl Qcow2 {
    pub(crate) fn open(root: &Path) -> Result<Qcow2> {
        let base = root.join(DriverName::Qcow2.as_str());
        directory::make_private(&base)?;
        let driver = Qcow2 { files: Files::open(&base)?, servers: Servers::open(&base)? };
        driver.servers.finish_commits(|id| driver.files.file(id))?;
        Ok(driver)
    }
}

impl Drop for Qcow2 {
    /// A look is over when its mount is; what stood behind it goes then.
    fn drop(&mut self) {
        if let Err(error) = self.servers.end_views() {
            tracing::warn!("{error}");
        }
    }
}

impl LayerDriver for Qcow2 {
    fn name(&self) -> DriverName {
        DriverName::Qcow2
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        self.files.create(&layer.id, layer.below.first())
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        self.files.seal(&layer.id)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.files.remove(id)
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        self.files.layers()
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        let image = self.files.file(&layer.id)?;
        self.servers.mount(&layer.id, &image, place.directory, place.read_only)
    }

    /// A file over the layer's is looked at: the layer may have a journal that is to be replayed.
    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        self.servers.end_views()?;
        self.servers.view(&layer.id, |path| self.files.make_view(&layer.id, path), directory)
    }

    fn release(&self, id: &LayerId) -> Result<()> {
        self.servers.end_views()?;
        match self.servers.of(id)? {
            Some(server) => server.release(),
            None => Ok(()),
        }
    }

    /// The new layer's link is made first, to a file over the container's, and then changes places with the
    /// container's.
    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        let server = self.servers.of(&from.id)?;
        let _changing = self.files.changing()?;
        self.files.create(to, Some(&from.id))?;
        let (Some(server), Some(mounted)) = (server, mounted) else {
            self.files.seal(&from.id)?;
            self.files.exchange(&from.id, to)?;
            return Ok(Commit::default());
        };
        let exchange = || {
            self.files.exchange(&from.id, to)?;
            self.files.file(&from.id)
        };
        let frozen = server.commit(mounted, exchange, || self.files.exchange(&from.id, to))?;
        Ok(Commit { frozen_us: u64::try_from(frozen.as_micros()).unwrap_or(u64::MAX) })
    }

    fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        match new.below.contains(&old.id) {
            true => Unchanged::ChangeTime,
            false => Unchanged::Unknown,
        }
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        self.files.own_bytes(id)
    }

    fn device(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        self.servers.device(id)
    }

    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        let file = self.files.file(&layer.id).unwrap_or_default();
        BTreeMap::from([
            ("Image".to_owned(), file.display().to_string()),
            ("DeviceSize".to_owned(), disk_image::SIZE_BYTES.to_string()),
        ])
    }
}
