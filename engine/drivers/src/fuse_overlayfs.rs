//! The folders of overlay2, shown by the program fuse-overlayfs.
//!
//! Run as root, it marks deletions and opaque folders as the kernel's overlay does.

use std::collections::BTreeMap;
use std::path::Path;

use thinstore_storage::{Error, Result};

use crate::directory;
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::name::DriverName;
use crate::overlay::folders::Folders;
use crate::overlay::kernel;
use crate::program::Program;

const PROGRAM: Program = Program { name: "fuse-overlayfs", package: "fuse-overlayfs" };

pub(crate) struct FuseOverlayfs {
    folders: Folders,
}

pub(crate) fn obstacle() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse: the kernel has no FUSE (CONFIG_FUSE_FS)".to_owned());
    }
    PROGRAM.obstacle()
}

impl FuseOverlayfs {
    pub(crate) fn open(root: &Path) -> Result<FuseOverlayfs> {
        Ok(FuseOverlayfs { folders: Folders::open(root.join("fuse-overlayfs"))? })
    }

    /// Starts a server, which goes on in the background until its mount is gone.
    fn start(&self, options: &str, directory: &Path) -> Result<()> {
        let failed = |error| Error::io(format!("cannot run {}", PROGRAM.name), error);
        let output = PROGRAM
            .command()?
            .current_dir(self.folders.base())
            .args(["-o", options])
            .arg(directory)
            .output()
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(failed(std::io::Error::other(said)))
    }
}

impl LayerDriver for FuseOverlayfs {
    fn name(&self) -> DriverName {
        DriverName::FuseOverlayfs
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        self.folders.create(layer)
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        self.folders.seal(&layer.id)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.folders.remove(id)
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        directory::ids_in(self.folders.base(), "")
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        match self.folders.with_changes(&layer.id)? {
            Some((lower, upper)) => {
                let read_only = if place.read_only { ",ro" } else { "" };
                let (lower, changes, work) = (lower.join(":"), upper.changes, upper.work);
                let options =
                    format!("lowerdir={lower},upperdir={changes},workdir={work}{read_only}");
                self.start(&options, place.directory)
            }
            None => {
                directory::show(&self.folders.diff(&layer.id), place.directory, place.read_only)
            }
        }
    }

    /// Where there is the kernel's overlay, that one fills the folders: the program takes no names of more than
    /// 251 bytes.
    fn fill(&self, layer: &Stack, directory: &Path) -> Result<()> {
        match (kernel::obstacle(), self.folders.with_changes(&layer.id)?) {
            (None, Some((lower, upper))) => {
                self.folders.overlay(&lower, Some(upper)).mount(directory)
            }
            _ => self.mount(layer, Place { directory, read_only: false }),
        }
    }

    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        let folders = self.folders.to_look_at(&layer.id)?;
        self.start(&format!("lowerdir={}", folders.join(":")), directory)
    }

    fn release(&self, _id: &LayerId) -> Result<()> {
        Ok(())
    }

    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        if let Some(mounted) = mounted {
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
        let mut facts = self.folders.facts(layer);
        // it is mounted where it is wanted, and nowhere else
        facts.remove("MergedDir");
        facts
    }
}
