//! Files that get their names when they are complete.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use thinstore_storage::Error;

/// A file that is being written: until [`FreshFile::keep`] only a temporary one beside where it will be.
pub struct FreshFile {
    temporary: NamedTempFile,
    path: PathBuf,
}

impl FreshFile {
    pub fn beside(path: &Path) -> Result<FreshFile, Error> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let permissions: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let temporary = tempfile::Builder::new()
            .prefix(".thinstore-new-")
            .permissions(permissions)
            .tempfile_in(folder)
            .map_err(|error| cannot_write(path, error))?;
        Ok(FreshFile { temporary, path: path.to_owned() })
    }

    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Makes it durable and gives it its name.
    pub fn keep(self) -> Result<(), Error> {
        let FreshFile { temporary, path } = self;
        temporary.as_file().sync_all().map_err(|error| cannot_write(&path, error))?;
        temporary.persist(&path).map_err(|error| cannot_write(&path, error.error))?;
        Ok(())
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), error)
}
