//! Volumes: folders of the store that outlive containers, `volumes/NAME/_data`.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thinstore_storage::{Error, Result};

use crate::layout::make_private_directory;
use crate::listing::count;
use crate::names::VolumeName;
use crate::store::Store;
use crate::types::{MountKind, VolumeUsage};

impl Store {
    /// The folder of a volume's data.
    pub(crate) fn volume_data(&self, name: &VolumeName) -> PathBuf {
        self.layout().volumes().join(name.as_str()).join("_data")
    }

    /// Makes a volume if it is not there; its data folder.
    pub(crate) fn require_volume(&self, name: &VolumeName) -> Result<PathBuf> {
        let data = self.volume_data(name);
        make_private_directory(&self.layout().volumes())?;
        if let Some(folder) = data.parent() {
            make_private_directory(folder)?;
        }
        match std::fs::create_dir(&data) {
            Ok(()) => Ok(data),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(data),
            Err(error) => Err(Error::io(format!("cannot make the volume '{name}'"), error)),
        }
    }

    /// All volumes and what they take on the host.
    pub(crate) fn volume_usages(&self) -> Result<Vec<VolumeUsage>> {
        let folder = self.layout().volumes();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Error::io(format!("cannot look into {}", folder.display()), error));
            }
        };
        let used = self.volumes_in_use()?;
        let mut usages = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(name) = VolumeName::parse(&name) else { continue };
            let size_bytes = folder_bytes(&self.volume_data(&name));
            usages.push(VolumeUsage {
                name: name.as_str().to_owned(),
                links: count(used.iter().filter(|volume| *volume == name.as_str()).count()),
                size_bytes,
                own_bytes: size_bytes,
                unique_bytes: size_bytes,
                shared_bytes: 0,
            });
        }
        usages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(usages)
    }

    /// The volumes that mounted containers use, one entry for each use.
    fn volumes_in_use(&self) -> Result<Vec<String>> {
        let catalog = self.catalog();
        let places = self.attachments().places()?;
        let mut used = Vec::new();
        for container in catalog.containers() {
            let mounted = places.get(&container.name).is_some_and(|place| place.mount.is_some());
            if mounted && let Some(record) = self.mount_record(container)? {
                let volumes = record.mounts.into_iter().filter(|one| one.kind == MountKind::Volume);
                used.extend(volumes.filter_map(|volume| volume.source));
            }
        }
        Ok(used)
    }
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
