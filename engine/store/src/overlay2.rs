//! An export as Docker's overlay2 folders. The pool's owner writes an archive of the layers; whoever asked
//! for it makes the folders of them, with the rights and in the mount namespace that are his.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use thinstore_archive::{ImageSource, SourceOptions, write_data_root};
use thinstore_storage::{Error, ErrorKind, Result};

/// What the temporary folder beside the target is called.
const TEMPORARY_PREFIX: &str = ".thinstore-export-";

/// A folder that gets its name when it is complete.
pub struct Overlay2Export {
    target: PathBuf,
    /// Beside the target, on the same file system; gone when this is dropped.
    temporary: TempDir,
}

impl Overlay2Export {
    /// Checks the target, which must not be there or be an empty folder.
    ///
    /// # Errors
    /// `Permission` without root, `Exists` if something is there, and what the host says.
    pub fn prepare(target: &Path) -> Result<Overlay2Export> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::new(
                ErrorKind::Permission,
                "overlay2 folders have devices and trusted attributes in them, which only root can make; \
                 without root, 'thinstore export --oci' writes the same layers",
            ));
        }
        let failed = |error| Error::io(format!("cannot write {}", target.display()), error);
        let target = match std::fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => target.canonicalize().map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => target.to_owned(),
            Ok(false) => {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("'{}' is not empty; name a folder that is not there", target.display()),
                ));
            }
            Err(error) => return Err(failed(error)),
        };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let temporary =
            tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(parent).map_err(failed)?;
        Ok(Overlay2Export { target, temporary })
    }

    fn archive_path(&self) -> PathBuf {
        self.temporary.path().join("layers.tar")
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("cannot write {}", self.target.display()), error)
    }

    /// The file that the export in the format of layers is to be written to.
    ///
    /// # Errors
    /// As the host says.
    pub fn archive(&self) -> Result<File> {
        File::create_new(self.archive_path()).map_err(|error| self.failed(error))
    }

    /// Makes the folders of the archive, and gives them their name.
    ///
    /// # Errors
    /// `Unsupported` for what no overlay can say; `Full`, `Permission` and `Io` as the host says. There is
    /// nothing then.
    pub fn finish(self) -> Result<()> {
        let options = SourceOptions::new(self.temporary.path());
        let image = ImageSource::open(&self.archive_path(), &options)?.image(None, &options)?;
        let made = self.temporary.path().join("root");
        std::fs::create_dir(&made).map_err(|error| self.failed(error))?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o710);
        std::fs::set_permissions(&made, permissions).map_err(|error| self.failed(error))?;
        write_data_root(&image, &made)?;
        std::fs::rename(&made, &self.target).map_err(|error| self.failed(error))?;
        let parent = self.temporary.path().parent().unwrap_or(Path::new("/"));
        let parent = File::open(parent).map_err(|error| self.failed(error))?;
        parent.sync_all().map_err(|error| self.failed(error))
    }
}
