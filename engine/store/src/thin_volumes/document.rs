//! What is remembered of a volume that is a device, in its document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thinstore_pool::LayerInfo;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::store::Store;

const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeDocument {
    version: u32,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// The name that the volume had which this one is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) copy_of: Option<String>,
}

impl VolumeDocument {
    pub(super) fn new(labels: &BTreeMap<String, String>, copy_of: Option<&str>) -> VolumeDocument {
        let copy_of = copy_of.map(str::to_owned);
        VolumeDocument { version: VERSION, labels: labels.clone(), copy_of }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot note what the volume is: {error}"))
        })
    }

    /// The volume is as good without it: one that was lost to damage, or is another version's, says nothing.
    pub(super) fn of(store: &Store, volume: &LayerInfo) -> Result<VolumeDocument> {
        match store.pool().document(volume.id) {
            Ok(bytes) => {
                let bytes = bytes.unwrap_or_default();
                Ok(serde_json::from_slice(&bytes).unwrap_or_default())
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(VolumeDocument::default()),
            Err(error) => Err(error),
        }
    }
}
