//! What is remembered of a volume.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::layout::write_durably;
use crate::time::now_unix_ns;

const NAME: &str = "volume.json";
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    version: u32,
    pub(super) created_unix_ns: i64,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

impl VolumeRecord {
    pub(super) fn new(labels: BTreeMap<String, String>) -> VolumeRecord {
        VolumeRecord { version: VERSION, created_unix_ns: now_unix_ns(), labels }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot note what the volume is: {error}"))
        })?;
        write_durably(&folder.join(NAME), &text)
    }

    /// A folder that somebody made by hand is a volume too: as old as it is, without labels.
    pub(super) fn read(folder: &Path) -> Result<VolumeRecord> {
        let path = folder.join(NAME);
        let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                let what = format!("{} is damaged ({error}); remove it", path.display());
                Error::new(ErrorKind::Corrupt, what)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let metadata = std::fs::metadata(folder).map_err(failed)?;
                let created_unix_ns = metadata.ctime().saturating_mul(1_000_000_000);
                Ok(VolumeRecord { version: VERSION, created_unix_ns, labels: BTreeMap::new() })
            }
            Err(error) => Err(failed(error)),
        }
    }
}
