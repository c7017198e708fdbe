//! Who uses a volume: containers of any driver that are mounted with it, and such as were run with it and
//! can be started again.

use std::collections::BTreeMap;

use serde::Deserialize;
use thinstore_export::mounts;
use thinstore_storage::{Error, ErrorKind, Result};

use super::Volumes;
use crate::mounts::MountRecords;
use crate::names::VolumeName;
use crate::types::{MountKind, MountSpecification};

/// A container that uses a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Use {
    volume: String,
    id: String,
    container: String,
    /// It can be run again.
    was_run: bool,
    is_mounted: bool,
}

/// All uses of all volumes at one moment.
pub(crate) struct Uses(Vec<Use>);

/// What matters here of the record of a container that was run.
#[derive(Deserialize)]
struct RunRecord {
    name: String,
    #[serde(default)]
    mounts: Vec<MountSpecification>,
}

impl Uses {
    /// Those who use a volume.
    pub(crate) fn names_of(&self, volume: &VolumeName) -> Vec<String> {
        self.of(volume).map(|one| one.container.clone()).collect()
    }

    /// Is it mounted in any container?
    pub(crate) fn is_mounted(&self, volume: &VolumeName) -> bool {
        self.of(volume).any(|one| one.is_mounted)
    }

    pub(crate) fn of<'a>(&'a self, volume: &'a VolumeName) -> impl Iterator<Item = &'a Use> {
        self.0.iter().filter(|one| one.volume == volume.as_str())
    }

    /// An error of kind `InUse` that says by whom, if it is.
    pub(crate) fn refuse(&self, volume: &VolumeName) -> Result<()> {
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
    pub(crate) fn uses(&self) -> Result<Uses> {
        let mut uses: BTreeMap<(String, String), Use> = BTreeMap::new();
        let mut add =
            |id: &str, container: &str, mounts: Vec<MountSpecification>, was_run: bool| {
                let volumes = mounts.into_iter().filter(|one| one.kind == MountKind::Volume);
                for volume in volumes.filter_map(|one| one.source) {
                    let (id, container) = (id.to_owned(), container.to_owned());
                    let one = uses.entry((volume.clone(), id.clone())).or_insert(Use {
                        volume,
                        id,
                        container,
                        was_run: false,
                        is_mounted: false,
                    });
                    one.was_run |= was_run;
                    one.is_mounted |= !was_run;
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
        let mut uses: Vec<Use> = uses.into_values().collect();
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
