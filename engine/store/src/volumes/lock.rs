//! Who may change volumes: locks on files, because other drivers' containers are mounted by the commands
//! themselves, each a process of its own.
//!
//! Order: the lock of all volumes, then that of one; the first is not held while the second is waited for.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use thinstore_storage::{Error, Result};

/// In the folder of all volumes, and in that of each: no volume's name begins with a dot, and a volume's
/// content is a folder deeper.
const NAME: &str = ".lock";

/// The lock of a folder, held until this is dropped, or the process ends.
pub(crate) struct Locked {
    _file: File,
}

impl Locked {
    /// Waits for it.
    pub(super) fn folder(folder: &Path) -> Result<Locked> {
        let path = folder.join(NAME);
        let failed = |error| Error::io(format!("cannot lock {}", path.display()), error);
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Locked { _file: file })
    }
}
