//! Full copies: each layer and each container is a folder of its own, `vfs/dir/ID`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thinstore_storage::Result;

use crate::directory;
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack};
use crate::name::DriverName;

pub(crate) struct Vfs {
    folder: PathBuf,
}

/// Copies take everything along.
fn everything(_attribute: &[u8]) -> bool {
    true
}

impl Vfs {
    pub(crate) fn open(root: &Path) -> Result<Vfs> {
        let folder = root.join("vfs/dir");
        directory::make_private(&folder)?;
        Ok(Vfs { folder })
    }

    fn layer(&self, id: &LayerId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    fn copy(&self, from: &Path, to: &LayerId) -> Result<()> {
        let to = self.layer(to);
        directory::make(&to, 0o755)?;
        directory::copy(from, &to, everything)
    }
}

impl LayerDriver for Vfs {
    fn name(&self) -> DriverName {
        DriverName::Vfs
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        match layer.below.first() {
            Some(parent) => self.copy(&self.layer(parent), &layer.id),
            None => {
                directory::make(&self.layer(&layer.id), 0o755)?;
                directory::settle_root(&self.layer(&layer.id))
            }
        }
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        directory::sync(&self.layer(&layer.id))
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        directory::remove(&self.layer(id))
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        directory::ids_in(&self.folder, "")
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        directory::show(&self.layer(&layer.id), place.directory, place.read_only)
    }

    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        self.mount(layer, Place { directory, read_only: true })
    }

    fn release(&self, _id: &LayerId) -> Result<()> {
        Ok(())
    }

    fn commit(&self, from: &Stack, _mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        self.copy(&self.layer(&from.id), to)?;
        Ok(Commit::default())
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        Ok(directory::folder_bytes(&self.layer(id)))
    }

    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        BTreeMap::from([("Dir".to_owned(), self.layer(&layer.id).display().to_string())])
    }
}
