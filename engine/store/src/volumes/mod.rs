//! Volumes: folders of the store that outlive containers, `volumes/NAME/_data`, each with a record of what
//! its maker said, `volumes/NAME/volume.json`.
//!
//! A volume is made whole under a name that no volume can have, and gets its own by a rename; it goes
//! the other way round. What a crash leaves of either has such a name, and is removed with the next one.

mod fill;
mod record;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thinstore_storage::{Error, ErrorKind, Result};

use self::record::VolumeRecord;
use crate::layout::{make_private_directory, sync_directory};
use crate::listing::count;
use crate::names::VolumeName;
use crate::store::Store;
use crate::time::rfc3339;
use crate::types::{
    MountKind, PrunedVolumes, VolumeCreateRequest, VolumePruneRequest, VolumeSummary, VolumeUsage,
};

/// What a volume that is being made or removed begins with: no volume's name does.
const UNFINISHED: &str = ".unfinished-";

impl Store {
    /// The folder of a volume's data.
    pub(crate) fn volume_data(&self, name: &VolumeName) -> PathBuf {
        self.layout().volumes().join(name.as_str()).join("_data")
    }

    fn volume_folder(&self, name: &VolumeName) -> PathBuf {
        self.layout().volumes().join(name.as_str())
    }

    /// Makes a volume if it is not there; its data folder.
    fn require_volume(
        &self,
        name: &VolumeName,
        labels: &BTreeMap<String, String>,
    ) -> Result<PathBuf> {
        let folder = self.volume_folder(name);
        let data = self.volume_data(name);
        if data.is_dir() {
            return Ok(data);
        }
        let failed = |error| Error::io(format!("cannot make the volume '{name}'"), error);
        let volumes = self.layout().volumes();
        make_private_directory(&volumes)?;
        self.remove_unfinished_volumes()?;
        let fresh = volumes.join(format!("{UNFINISHED}{name}"));
        make_private_directory(&fresh)?;
        std::fs::create_dir(fresh.join("_data")).map_err(failed)?;
        VolumeRecord::new(labels.clone()).write(&fresh)?;
        std::fs::rename(&fresh, &folder).map_err(failed)?;
        sync_directory(&volumes)?;
        Ok(data)
    }

    fn remove_unfinished_volumes(&self) -> Result<()> {
        let volumes = self.layout().volumes();
        let failed = |error| Error::io(format!("cannot clean {}", volumes.display()), error);
        for entry in std::fs::read_dir(&volumes).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn volume_names(&self) -> Result<Vec<VolumeName>> {
        let folder = self.layout().volumes();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Error::io(format!("cannot look into {}", folder.display()), error));
            }
        };
        let name = |entry: std::fs::DirEntry| {
            let name = VolumeName::parse(&entry.file_name().to_string_lossy()).ok()?;
            self.volume_data(&name).is_dir().then_some(name)
        };
        let mut names: Vec<VolumeName> = entries.flatten().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    fn existing_volume(&self, name: &str) -> Result<VolumeName> {
        let name = VolumeName::parse(name)?;
        if self.volume_data(&name).is_dir() {
            return Ok(name);
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no volume '{name}'; 'thinstore volume ls' shows those there are"),
        ))
    }

    pub(crate) fn list_volumes(&self) -> Result<Vec<VolumeSummary>> {
        let used = self.volumes_in_use()?;
        self.volume_names()?.iter().map(|name| self.volume_summary(name, &used)).collect()
    }

    fn volume_summary(
        &self,
        name: &VolumeName,
        used: &[(String, String)],
    ) -> Result<VolumeSummary> {
        let record = VolumeRecord::read(&self.volume_folder(name))?;
        let users = used.iter().filter(|(volume, _)| volume == name.as_str());
        Ok(VolumeSummary {
            name: name.as_str().to_owned(),
            driver: "local".to_owned(),
            mount_point: self.volume_data(name).display().to_string(),
            created: rfc3339(record.created_unix_ns),
            created_unix_ns: record.created_unix_ns,
            anonymous: is_anonymous(name),
            labels: record.labels,
            used_by: users.map(|(_, container)| container.clone()).collect(),
        })
    }

    pub(crate) fn make_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        let name = match &request.name {
            Some(name) => VolumeName::parse(name)?,
            None => VolumeName::anonymous()?,
        };
        let _held = self.volumes_lock().lock();
        if self.volume_data(&name).is_dir() {
            let there = VolumeRecord::read(&self.volume_folder(&name))?;
            if !request.labels.is_empty() && there.labels != request.labels {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!(
                        "there is a volume '{name}' already, with other labels; choose another name"
                    ),
                ));
            }
        }
        self.require_volume(&name, &request.labels)?;
        self.volume_summary(&name, &self.volumes_in_use()?)
    }

    pub(crate) fn remove_one_volume(&self, name: &str) -> Result<()> {
        let _held = self.volumes_lock().lock();
        let name = self.existing_volume(name)?;
        let used = self.volumes_in_use()?;
        let users: Vec<String> = used
            .into_iter()
            .filter(|(volume, _)| volume == name.as_str())
            .map(|(_, container)| format!("'{container}'"))
            .collect();
        if !users.is_empty() {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the volume '{name}' is mounted in {}; unmount that first",
                    users.join(", ")
                ),
            ));
        }
        self.drop_volume(&name)
    }

    /// It is gone when it has lost its name; the rest is cleaning up.
    fn drop_volume(&self, name: &VolumeName) -> Result<()> {
        let failed = |error| Error::io(format!("cannot remove the volume '{name}'"), error);
        let volumes = self.layout().volumes();
        self.remove_unfinished_volumes()?;
        let leaving = volumes.join(format!("{UNFINISHED}{name}"));
        std::fs::rename(self.volume_folder(name), &leaving).map_err(failed)?;
        sync_directory(&volumes)?;
        std::fs::remove_dir_all(&leaving).map_err(failed)
    }

    pub(crate) fn remove_unused_volumes(
        &self,
        request: VolumePruneRequest,
    ) -> Result<PrunedVolumes> {
        let _held = self.volumes_lock().lock();
        let used = self.volumes_in_use()?;
        let mut pruned = PrunedVolumes::default();
        for name in self.volume_names()? {
            let is_used = used.iter().any(|(volume, _)| volume == name.as_str());
            if is_used || !(request.all || is_anonymous(&name)) {
                continue;
            }
            let bytes = folder_bytes(&self.volume_data(&name));
            self.drop_volume(&name)?;
            pruned.reclaimed_bytes = pruned.reclaimed_bytes.saturating_add(bytes);
            pruned.volumes.push(name.as_str().to_owned());
        }
        Ok(pruned)
    }

    /// All volumes and what they take on the host.
    pub(crate) fn volume_usages(&self) -> Result<Vec<VolumeUsage>> {
        let used = self.volumes_in_use()?;
        let mut usages = Vec::new();
        for name in self.volume_names()? {
            let size_bytes = folder_bytes(&self.volume_data(&name));
            usages.push(VolumeUsage {
                name: name.as_str().to_owned(),
                links: count(used.iter().filter(|(volume, _)| volume == name.as_str()).count()),
                size_bytes,
                own_bytes: size_bytes,
                unique_bytes: size_bytes,
                shared_bytes: 0,
            });
        }
        Ok(usages)
    }

    /// The volumes that mounted containers use and these containers, one entry for each use.
    fn volumes_in_use(&self) -> Result<Vec<(String, String)>> {
        let catalog = self.catalog();
        let places = self.attachments().places()?;
        let mut used = Vec::new();
        for container in catalog.containers() {
            let mounted = places.get(&container.name).is_some_and(|place| place.mount.is_some());
            if mounted && let Some(record) = self.mount_record(container)? {
                let volumes = record.mounts.into_iter().filter(|one| one.kind == MountKind::Volume);
                let sources = volumes.filter_map(|volume| volume.source);
                used.extend(sources.map(|volume| (volume, container.name.clone())));
            }
        }
        Ok(used)
    }
}

/// Was it made without a name?
fn is_anonymous(name: &VolumeName) -> bool {
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
