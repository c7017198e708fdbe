//! Volumes: folders of the store that outlive containers, `volumes/NAME/_data`, each with a record of what
//! its maker said, `volumes/NAME/volume.json`. Containers of all drivers share them; there need be no pool.
//!
//! A volume is made whole under a name that no volume can have, and gets its own by a rename; it goes
//! the other way round. What a crash leaves of either has such a name, and is removed with the next one.

mod device;
mod fill;
mod lock;
mod record;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thinstore_storage::{Error, ErrorKind, Result};

pub(crate) use self::device::DeviceFolder;
use self::device::out_of_reach;
use self::fill::Filling;
use self::lock::Locked;
use self::record::VolumeRecord;
pub(crate) use self::users::Uses;
use crate::layout::{Layout, make_private_directory, sync_directory};
use crate::listing::count;
use crate::mounts::THIN;
use crate::names::VolumeName;
use crate::time::rfc3339;
use crate::types::{
    MountSpecification, PrunedVolumes, VolumeCreateRequest, VolumePruneRequest, VolumeSummary,
    VolumeUsage,
};

/// What a volume that is being made or removed begins with: no volume's name does.
const UNFINISHED: &str = ".unfinished-";

/// The driver of volumes that are folders of the host.
pub(crate) const LOCAL: &str = "local";

/// Who has volumes for those that mount them.
pub(crate) trait VolumeProvider {
    /// The data folder of a volume that is going to be mounted over `target`, a folder of a mounted
    /// container. A volume that is not there is made; one that is empty gets a copy of what is in the folder,
    /// and its owner and mode, unless that is not wanted. Others who want the same volume wait for that.
    ///
    /// The container's mount must be recorded, or the volume might be removed before it is mounted.
    fn prepare(
        &self,
        name: &VolumeName,
        target: &Path,
        specification: &MountSpecification,
    ) -> Result<PathBuf>;

    /// Where a volume's data is, and its driver, as it is told of a mount.
    fn described(&self, name: &str) -> (PathBuf, String);
}

/// The volumes of a store that need no pool: folders. Several processes may have them open at once.
pub(crate) struct Volumes {
    layout: Layout,
}

impl Volumes {
    pub(crate) fn new(layout: Layout) -> Volumes {
        Volumes { layout }
    }

    /// Where the data of a volume of this name is, if it is there.
    pub(crate) fn data_of(&self, name: &str) -> PathBuf {
        self.layout.volumes().join(name).join("_data")
    }

    fn folder(&self, name: &VolumeName) -> PathBuf {
        self.layout.volumes().join(name.as_str())
    }

    fn data(&self, name: &VolumeName) -> PathBuf {
        self.data_of(name.as_str())
    }

    /// The right to make and remove volumes.
    pub(crate) fn lock(&self) -> Result<Locked> {
        let volumes = self.layout.volumes();
        make_private_directory(&volumes)?;
        Locked::folder(&volumes)
    }

    /// Makes a volume if it is not there; its data folder. The caller holds the lock.
    fn require(&self, name: &VolumeName, labels: &BTreeMap<String, String>) -> Result<PathBuf> {
        let data = self.data(name);
        if data.is_dir() {
            return if self.is_device(name) { Err(out_of_reach(name)) } else { Ok(data) };
        }
        let failed = |error| Error::io(format!("cannot make the volume '{name}'"), error);
        self.remove_unfinished()?;
        let fresh = self.unfinished().map_err(failed)?;
        std::fs::create_dir(fresh.join("_data")).map_err(failed)?;
        VolumeRecord::new(labels.clone()).write(&fresh)?;
        std::fs::rename(&fresh, self.folder(name)).map_err(failed)?;
        sync_directory(&self.layout.volumes())?;
        Ok(data)
    }

    /// A new folder of a name that no volume has, for its owner alone.
    fn unfinished(&self) -> std::io::Result<PathBuf> {
        let mut builder = tempfile::Builder::new();
        Ok(builder.prefix(UNFINISHED).tempdir_in(self.layout.volumes())?.keep())
    }

    fn remove_unfinished(&self) -> Result<()> {
        let volumes = self.layout.volumes();
        let failed = |error| Error::io(format!("cannot clean {}", volumes.display()), error);
        for entry in std::fs::read_dir(&volumes).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove_all(&entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<VolumeName>> {
        let folder = self.layout.volumes();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Error::io(format!("cannot look into {}", folder.display()), error));
            }
        };
        let name = |entry: std::fs::DirEntry| {
            let name = VolumeName::parse(&entry.file_name().to_string_lossy()).ok()?;
            self.is_here(&name).then_some(name)
        };
        let mut names: Vec<VolumeName> = entries.flatten().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// Is there a volume of this name that is a folder?
    fn is_here(&self, name: &VolumeName) -> bool {
        self.data(name).is_dir() && !self.is_device(name)
    }

    fn existing(&self, name: &str) -> Result<VolumeName> {
        let name = VolumeName::parse(name)?;
        match self.is_here(&name) {
            true => Ok(name),
            false => Err(no_volume(&name)),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<VolumeSummary>> {
        let uses = self.uses()?;
        let mut volumes = Vec::new();
        for name in self.names()? {
            match self.summary(&name, &uses) {
                // removed meanwhile
                Err(_) if !self.is_here(&name) => {}
                volume => volumes.push(volume?),
            }
        }
        Ok(volumes)
    }

    fn summary(&self, name: &VolumeName, uses: &Uses) -> Result<VolumeSummary> {
        let record = VolumeRecord::read(&self.folder(name))?;
        Ok(VolumeSummary {
            name: name.as_str().to_owned(),
            driver: LOCAL.to_owned(),
            mount_point: self.data(name).display().to_string(),
            created: rfc3339(record.created_unix_ns),
            created_unix_ns: record.created_unix_ns,
            anonymous: is_anonymous(name),
            labels: record.labels,
            used_by: uses.names_of(name),
            ..VolumeSummary::default()
        })
    }

    pub(crate) fn create(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        let name = match &request.name {
            Some(name) => VolumeName::parse(name)?,
            None => VolumeName::anonymous()?,
        };
        let _held = self.lock()?;
        if self.is_here(&name) {
            let there = VolumeRecord::read(&self.folder(&name))?;
            if !request.labels.is_empty() && there.labels != request.labels {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!(
                        "there is a volume '{name}' already, with other labels; choose another name"
                    ),
                ));
            }
        }
        self.require(&name, &request.labels)?;
        self.summary(&name, &self.uses()?)
    }

    /// Removes a volume that nobody uses.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let name = self.existing(name)?;
        let held = self.lock()?;
        self.existing(name.as_str())?;
        self.uses()?.refuse(&name)?;
        let leaving = self.take_away(&name)?;
        drop(held);
        discard(&name, &leaving)
    }

    /// Removes those that nobody uses.
    pub(crate) fn prune(&self, request: VolumePruneRequest) -> Result<PrunedVolumes> {
        let mut pruned = PrunedVolumes::default();
        if self.names()?.is_empty() {
            return Ok(pruned);
        }
        let held = self.lock()?;
        self.remove_unfinished()?;
        let uses = self.uses()?;
        let mut leaving = Vec::new();
        for name in self.names()? {
            if uses.of(&name).next().is_some() || !(request.all || is_anonymous(&name)) {
                continue;
            }
            let folder = self.take_away(&name)?;
            pruned.volumes.push(name.as_str().to_owned());
            leaving.push((name, folder));
        }
        drop(held);
        for (name, folder) in leaving {
            let bytes = folder_bytes(&folder.join("_data"));
            discard(&name, &folder)?;
            pruned.reclaimed_bytes = pruned.reclaimed_bytes.saturating_add(bytes);
        }
        Ok(pruned)
    }

    /// A volume is gone when it has lost its name; the rest is cleaning up, for which nobody has to wait. The
    /// caller holds the lock.
    fn take_away(&self, name: &VolumeName) -> Result<PathBuf> {
        let failed = |error| Error::io(format!("cannot remove the volume '{name}'"), error);
        // a folder takes the place of an empty one
        let leaving = self.unfinished().map_err(failed)?;
        std::fs::rename(self.folder(name), &leaving).map_err(failed)?;
        sync_directory(&self.layout.volumes())?;
        Ok(leaving)
    }

    /// All volumes and what they take on the host.
    pub(crate) fn usages(&self) -> Result<Vec<VolumeUsage>> {
        let uses = self.uses()?;
        let mut usages = Vec::new();
        for name in self.names()? {
            let size_bytes = folder_bytes(&self.data(&name));
            usages.push(VolumeUsage {
                name: name.as_str().to_owned(),
                driver: LOCAL.to_owned(),
                links: count(uses.of(&name).count()),
                size_bytes,
                own_bytes: size_bytes,
                unique_bytes: size_bytes,
                shared_bytes: 0,
            });
        }
        Ok(usages)
    }
}

impl VolumeProvider for Volumes {
    fn prepare(
        &self,
        name: &VolumeName,
        target: &Path,
        specification: &MountSpecification,
    ) -> Result<PathBuf> {
        let held = self.lock()?;
        let data = self.require(name, &BTreeMap::default())?;
        drop(held);
        let folder = self.folder(name);
        let _held = Locked::folder(&folder)?;
        Filling { data: &data, beside: &folder }
            .fill_from(target, !specification.no_copy)
            .map_err(|error| error.context(format!("filling the volume '{name}'")))?;
        Ok(data)
    }

    fn described(&self, name: &str) -> (PathBuf, String) {
        let is_device = VolumeName::parse(name).is_ok_and(|name| self.is_device(&name));
        (self.data_of(name), if is_device { THIN } else { LOCAL }.to_owned())
    }
}

/// As a volume that is a folder is filled, for one that is mounted at `data`.
pub(crate) fn fill_within(data: &Path, target: &Path, wanted: bool) -> Result<()> {
    Filling { data, beside: data }.fill_from(target, wanted)
}

pub(crate) fn no_volume(name: &VolumeName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no volume '{name}'; 'thinstore volume ls' shows those there are"),
    )
}

fn discard(name: &VolumeName, leaving: &Path) -> Result<()> {
    remove_all(leaving).map_err(|error| {
        Error::io(format!("cannot remove what the volume '{name}' has left"), error)
    })
}

/// Removes a folder that others may be removing too.
fn remove_all(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.exists() => Ok(()),
        other => other,
    }
}

/// Was it made without a name?
pub(crate) fn is_anonymous(name: &VolumeName) -> bool {
    let name = name.as_str();
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a folder and everything in it takes, hard links once; what cannot be read counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let mut waiting = vec![folder.to_owned()];
    let mut linked = HashSet::new();
    let mut bytes: u64 = 0;
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            if metadata.nlink() < 2
                || metadata.is_dir()
                || linked.insert((metadata.dev(), metadata.ino()))
            {
                bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
    }
    bytes
}
