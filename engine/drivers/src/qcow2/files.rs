//! The files of the layers, and which layer has which.
//!
//! A layer is a link, `layers/ID`, to a file of `files/` whose header names the file that it stands on. A commit
//! gives the container's file to the new layer, and the container a file over it: two links change places, in
//! one step of the file system. So a file may be needed by a container after its layer was removed: it is *hidden*
//! then, and goes with whoever stands on it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::directory::{self, failed};
use crate::disk_image;
use crate::driver::LayerId;
use crate::lock::Lock;
use crate::program::Program;

const IMAGE_PROGRAM: Program = super::IMAGE_PROGRAM;
const ENDING: &str = ".qcow2";
/// What every layer on nothing stands on: an empty file system.
const FRESH: &str = "fresh.qcow2";

pub(super) struct Files {
    base: PathBuf,
}

impl Files {
    pub(super) fn open(base: &Path) -> Result<Files> {
        for folder in ["layers", "files"] {
            directory::make_private(&base.join(folder))?;
        }
        Ok(Files { base: base.to_owned() })
    }

    fn link(&self, id: &LayerId) -> PathBuf {
        self.base.join("layers").join(id.as_str())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.join("files").join(name)
    }

    /// Who changes which file belongs to whom, or removes files.
    pub(super) fn changing(&self) -> Result<Lock> {
        Lock::wait(&self.base.join("files.lock"))
    }

    pub(super) fn layers(&self) -> Result<Vec<LayerId>> {
        directory::ids_in(&self.base.join("layers"), "")
    }

    /// The file of a layer, by its name; none if there is no such layer.
    fn name_of(&self, id: &LayerId) -> Result<Option<String>> {
        let link = self.link(id);
        match std::fs::read_link(&link) {
            Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &link)(error)),
        }
    }

    fn known_name_of(&self, id: &LayerId) -> Result<String> {
        self.name_of(id)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no layer {id} in {}", self.base.display()),
            )
        })
    }

    /// Where a layer's file is.
    pub(super) fn file(&self, id: &LayerId) -> Result<PathBuf> {
        Ok(self.path(&self.known_name_of(id)?))
    }

    fn add_link(&self, id: &LayerId) -> Result<String> {
        let name = format!("{id}{ENDING}");
        let link = self.link(id);
        std::os::unix::fs::symlink(Path::new("../files").join(&name), &link)
            .map_err(failed("make", &link))?;
        Ok(name)
    }

    /// Makes a layer with a file over that of another, or over an empty file system. The link is first: what a
    /// killed process has left is found by it.
    pub(super) fn create(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let below = match parent {
            Some(parent) => self.known_name_of(parent)?,
            None => self.fresh()?,
        };
        let name = self.add_link(id)?;
        make_over(&below, &self.path(&name))
    }

    /// The empty file system: made as a plain image, and converted once.
    fn fresh(&self) -> Result<String> {
        let path = self.path(FRESH);
        if path.exists() {
            return Ok(FRESH.to_owned());
        }
        let _changing = self.changing()?;
        let plain = self.base.join("fresh.img");
        disk_image::make_fresh(&plain)?;
        let converted = self.base.join("fresh.new");
        let words = ["convert", "-q", "-f", "raw", "-O", "qcow2"].map(Path::new);
        IMAGE_PROGRAM.run(&[&words[..], &[&plain, &converted]].concat())?;
        sync_file(&converted)?;
        std::fs::rename(&converted, &path).map_err(failed("make", &path))?;
        std::fs::remove_file(&plain).map_err(failed("remove", &plain))?;
        directory::sync(&self.base)?;
        Ok(FRESH.to_owned())
    }

    pub(super) fn seal(&self, id: &LayerId) -> Result<()> {
        sync_file(&self.file(id)?)?;
        directory::sync(&self.base)
    }

    /// Makes a file at `path`, in a folder two below the driver's, over that of a layer.
    pub(super) fn make_view(&self, id: &LayerId, path: &Path) -> Result<()> {
        make_over(&format!("../../files/{}", self.known_name_of(id)?), path)
    }

    /// Gives `to` the file that `from` has, and `from` the one that `to` has: at once, and durably.
    pub(super) fn exchange(&self, from: &LayerId, to: &LayerId) -> Result<()> {
        let (from, to) = (self.link(from), self.link(to));
        renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)
            .map_err(|errno| failed("exchange", &to)(errno.into()))?;
        let folder = self.base.join("layers");
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &folder))
    }

    /// Which file stands on which.
    fn below(&self) -> Result<BTreeMap<String, String>> {
        let folder = self.base.join("files");
        let mut below = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(failed("look into", &folder))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            below.extend(backing_of(&entry.path())?.map(|backing| (name, backing)));
        }
        Ok(below)
    }

    fn links(&self) -> Result<BTreeMap<LayerId, String>> {
        let mut links = BTreeMap::new();
        for id in self.layers()? {
            // one that goes meanwhile is not there
            links.extend(self.name_of(&id)?.map(|name| (id, name)));
        }
        Ok(links)
    }

    /// A layer's file, and the hidden ones below it that only it stands on; none if another needs it too.
    fn own(&self, id: &LayerId, below: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let mut links = self.links()?;
        let mut next = links.remove(id);
        let linked: BTreeSet<&String> = links.values().collect();
        let mut own = Vec::new();
        while let Some(name) = next.filter(|name| name != FRESH && !linked.contains(name)) {
            let is_own = |above: &String| own.contains(above);
            if below.iter().any(|(above, on)| *on == name && !is_own(above)) {
                break;
            }
            next = below.get(&name).cloned();
            own.push(name);
        }
        Ok(own)
    }

    /// The deepest file goes first and the link last, so that what a killed process has left is found.
    pub(super) fn remove(&self, id: &LayerId) -> Result<()> {
        let _changing = self.changing()?;
        if self.name_of(id)?.is_none() {
            return Ok(());
        }
        for name in self.own(id, &self.below()?)?.iter().rev() {
            remove_file(&self.path(name))?;
        }
        remove_file(&self.link(id))
    }

    pub(super) fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        let below = self.below()?;
        let mut own = self.own(id, &below)?;
        if own.is_empty() {
            // a container or a layer stands on it: what it has itself
            own.extend(self.name_of(id)?);
        }
        let bytes = own.iter().map(|name| {
            // st_blocks counts 512 bytes: stat(2)
            std::fs::metadata(self.path(name)).map_or(0, |file| file.blocks().saturating_mul(512))
        });
        Ok(bytes.sum())
    }
}

/// Makes a file over another, which is named as seen from the file's folder. It is not opened: a server may
/// have it.
fn make_over(below: &str, path: &Path) -> Result<()> {
    let size = disk_image::SIZE_BYTES.to_string();
    let words = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-u", "-b"].map(Path::new);
    let files = [Path::new(below), path, Path::new(&size)];
    IMAGE_PROGRAM.run(&[&words[..], &files].concat()).map(drop)
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
}

/// The name of the file that a file stands on, from its header (QEMU's docs/interop/qcow2: magic, version, then
/// where the name is and how long); none if it stands on nothing, or is half made.
fn backing_of(path: &Path) -> Result<Option<String>> {
    let Ok(file) = File::open(path) else { return Ok(None) };
    let mut header = [0; 20];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"QFI\xfb") {
        return Ok(None);
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let (_, places) = header.split_at(8);
    let (offset, length) = places.split_at(8);
    let (offset, length) = (number(offset), number(length));
    if offset == 0 || length > 1023 {
        return Ok(None);
    }
    let mut name = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut name, offset).map_err(failed("read", path))?;
    let name = String::from_utf8_lossy(&name).into_owned();
    Ok(Path::new(&name).file_name().map(|name| name.to_string_lossy().into_owned()))
}
