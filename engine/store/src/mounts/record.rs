//! What the kernel does not remember of a mount: whose it is, and which volumes and folders of the host
//! were asked for. One file for each mounted container, named by its id, whatever its driver.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::layout::{Layout, make_private_directory, remove_durably, write_durably};
use crate::types::MountSpecification;

/// The driver whose containers are devices of the pool.
pub(crate) const THIN: &str = "thin";

fn thin() -> String {
    THIN.to_owned()
}

/// A container's mount, from before it is made until after it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) name: String,
    /// Whose container it is.
    #[serde(default = "thin")]
    pub(crate) driver: String,
    pub(crate) directory: PathBuf,
    pub(crate) read_only: bool,
    /// In the order in which they are mounted.
    pub(crate) mounts: Vec<MountSpecification>,
}

/// The records of a store.
#[derive(Clone, Debug)]
pub(crate) struct MountRecords {
    layout: Layout,
}

const SUFFIX: &str = ".json";

impl MountRecords {
    pub(crate) fn new(layout: Layout) -> MountRecords {
        MountRecords { layout }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.layout.mounts().join(format!("{id}{SUFFIX}"))
    }

    /// Durable when it returns.
    pub(crate) fn remember(&self, id: &str, record: &MountRecord) -> Result<()> {
        make_private_directory(&self.layout.run())?;
        make_private_directory(&self.layout.mounts())?;
        let text = serde_json::to_vec(record).map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot note what is mounted: {error}"))
        })?;
        write_durably(&self.path(id), &text)
    }

    /// The record of a container; none if it is not mounted by us.
    pub(crate) fn read(&self, id: &str) -> Result<Option<MountRecord>> {
        read(&self.path(id))
    }

    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        remove_durably(&self.path(id))
    }

    /// All records, each with its container's id. Whether something is mounted says only the kernel.
    pub(crate) fn all(&self) -> Result<Vec<(String, MountRecord)>> {
        let folder = self.layout.mounts();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Error::io(format!("cannot look into {}", folder.display()), error));
            }
        };
        let mut records = Vec::new();
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(id) = file.to_str().and_then(|file| file.strip_suffix(SUFFIX)) else {
                continue;
            };
            if let Some(record) = read(&entry.path())? {
                records.push((id.to_owned(), record));
            }
        }
        records.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        Ok(records)
    }

    /// Forgets the records of a driver of which nothing is mounted any more.
    pub(crate) fn forget_all_of(&self, driver: &str) -> Result<()> {
        for (id, record) in self.all()? {
            if record.driver == driver {
                self.forget(&id)?;
            }
        }
        Ok(())
    }
}

/// What is no record says nothing.
fn read(path: &Path) -> Result<Option<MountRecord>> {
    match std::fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_by_id_and_driver_and_older_ones_are_thin() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = MountRecords::new(Layout::new(folder.path()));
        assert_eq!(records.all().expect("none"), []);
        assert_eq!(records.read("1").expect("none"), None);
        let record = |name: &str, driver: &str| MountRecord {
            name: name.to_owned(),
            driver: driver.to_owned(),
            directory: PathBuf::from("/mnt/x"),
            read_only: true,
            mounts: Vec::new(),
        };
        records.remember("1", &record("web", "overlay2")).expect("noted");
        records.remember("1", &record("web", "vfs")).expect("noted again");
        assert_eq!(records.read("1").expect("read"), Some(record("web", "vfs")));
        let old = br#"{"name": "old", "directory": "/mnt/y", "read_only": false, "mounts": []}"#;
        let layout = Layout::new(folder.path());
        std::fs::write(layout.mounts().join("2.json"), old).expect("written");
        std::fs::write(layout.mounts().join("3.json"), b"{").expect("written");
        let names = |records: &MountRecords| -> Vec<String> {
            let all = records.all().expect("all").into_iter();
            all.map(|(id, record)| format!("{id} {} {}", record.name, record.driver)).collect()
        };
        assert_eq!(names(&records), ["2 old thin", "1 web vfs"]);
        records.forget_all_of(THIN).expect("forgotten");
        assert_eq!(names(&records), ["1 web vfs"]);
        records.forget("1").expect("forgotten");
        records.forget("1").expect("nothing to forget");
        assert_eq!(names(&records), Vec::<String>::new());
    }
}
