//! Who uses a volume: containers of any driver that are mounted with it, and such as were run with it and
//! can be started again.

use std::collections::HashSet;

use serde::Deserialize;
use thinstore_export::mounts;
use thinstore_storage::{Error, ErrorKind, Result};

use super::Volumes;
use crate::mounts::MountRecords;
use crate::names::VolumeName;
use crate::types::{MountKind, MountSpecification};

/// A container that uses a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Use {
    volume: String,
    id: String,
    pub(super) container: String,
    /// It can be run again.
    was_run: bool,
}

/// All uses of all volumes at one moment.
pub(super) struct Uses(Vec<Use>);

/// What matters here of the record of a container that was run.
#[derive(Deserialize)]
struct RunRecord {
    name: String,
    #[serde(default)]
    mounts: Vec<MountSpecification>,
}

impl Uses {
    pub(super) fn of<'a>(&'a self, volume: &'a VolumeName) -> impl Iterator<Item = &'a Use> {
        self.0.iter().filter(|one| one.volume == volume.as_str())
    }

    /// An error of kind `InUse` that says by whom, if it is.
    pub(super) fn refuse(&self, volume: &VolumeName) -> Result<()> {
        let names = |was_run: bool| -> Vec<String> {
            let users = self.of(volume).filter(|one| one.was_run == was_run);
            users.map(|one| format!("'{}'", one.container)).collect()
        };
        let (mounted, run) = (names(false), names(true));
        let what = if !run.is_empty() {
            let (noun, them) =
                if run.len() == 1 { ("container", "that") } else { ("containers", "those") };
            format!("used by the {noun} {}; remove {them} first", run.join(", "))
        } else if !mounted.is_empty() {
            format!("mounted in {}; unmount that first", mounted.join(", "))
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InUse, format!("the volume '{volume}' is {what}")))
    }
}

impl Volumes {
    /// Asked while the lock of all volumes is held, the answer stays true: whoever is going to use a volume
    /// is recorded and mounted before it asks for the volume.
    pub(super) fn uses(&self) -> Result<Uses> {
        let mut uses = Vec::new();
        let mut known = HashSet::new();
        let mut add = |id: &str, container: &str, mounts: Vec<MountSpecification>, was_run| {
            let volumes = mounts.into_iter().filter(|one| one.kind == MountKind::Volume);
            for volume in volumes.filter_map(|one| one.source) {
                if known.insert((volume.clone(), id.to_owned())) {
                    let container = container.to_owned();
                    uses.push(Use { volume, id: id.to_owned(), container, was_run });
                }
            }
        };
        for (id, record) in self.run_records()? {
            add(&id, &record.name, record.mounts, true);
        }
        let records = MountRecords::new(self.layout.clone()).all()?;
        let table = if records.is_empty() { Vec::new() } else { mounts()? };
        for (id, record) in records {
            if table.iter().any(|entry| entry.mount_point == record.directory) {
                add(&id, &record.name, record.mounts, false);
            }
        }
        uses.sort_by(|a, b| (&a.container, &a.id).cmp(&(&b.container, &b.id)));
        Ok(Uses(uses))
    }

    fn run_records(&self) -> Result<Vec<(String, RunRecord)>> {
        let folder = self.layout.containers();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Error::io(format!("cannot look into {}", folder.display()), error));
            }
        };
        let read = |entry: std::fs::DirEntry| {
            let id = entry.file_name().to_str()?.to_owned();
            let text = std::fs::read(self.layout.run_record(&id)).ok()?;
            Some((id, serde_json::from_slice(&text).ok()?))
        };
        Ok(entries.flatten().filter_map(read).collect())
    }
}
