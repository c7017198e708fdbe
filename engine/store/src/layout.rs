//! Where the parts of a store lie below its root.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use thinstore_drivers::DriverName;
use thinstore_storage::{Error, Result};

/// The paths of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Layout {
        Layout { root: root.into() }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pool: a file, or a link to a block device.
    pub fn pool(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// The volumes; each is `NAME/_data` in here.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// What is remembered of the images and containers of a driver other than the thin one.
    pub fn shelf(&self, driver: DriverName) -> PathBuf {
        self.root.join("shelves").join(driver.as_str())
    }

    /// Where layers are mounted for a moment.
    pub fn places(&self) -> PathBuf {
        self.run().join("places")
    }

    /// What is remembered of containers that were run; each is a folder named by its id.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// How to run a container that was run, and what was mounted over it.
    pub fn run_record(&self, id: &str) -> PathBuf {
        self.containers().join(id).join("run.json")
    }

    /// What the daemon says of itself: `{"pid", "started", "socket", "version"}`.
    pub fn daemon_json(&self) -> PathBuf {
        self.root.join("daemon.json")
    }

    /// What a daemon that was started by itself has to say.
    pub fn daemon_log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    /// The daemon's socket.
    pub fn daemon_socket(&self) -> PathBuf {
        self.root.join("daemon.sock")
    }

    /// State that means nothing after a restart of the machine.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Where the devices appear as files.
    pub fn devices(&self) -> PathBuf {
        self.run().join("devices")
    }

    /// One file for each mounted container, named by its id.
    pub fn mounts(&self) -> PathBuf {
        self.run().join("mounts")
    }

    /// One file for each container whose file system is frozen now, named by its id.
    pub fn frozen(&self) -> PathBuf {
        self.run().join("frozen")
    }

    /// Is there a pool here?
    pub fn has_pool(&self) -> bool {
        self.pool().exists()
    }

    /// The socket's path as `bind` and `connect` take it: an address holds 107 bytes, the store's path
    /// may be longer, so it is named through an open descriptor of the root.
    pub fn socket_address(&self) -> Result<(OwnedFd, PathBuf)> {
        let root = std::fs::File::open(&self.root).map_err(|error| {
            Error::io(format!("cannot open the store {}", self.root.display()), error)
        })?;
        let root = OwnedFd::from(root);
        let path = PathBuf::from(format!("/proc/thread-self/fd/{}/daemon.sock", root.as_raw_fd()));
        Ok((root, path))
    }
}

/// Makes a folder that only its owner can enter, if it is not there.
pub(crate) fn make_private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Error::io(format!("cannot make the folder {}", path.display()), error)),
    }
}

/// Writes a small file so that after a crash there is the old content or the new, never a part: a
/// temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    std::io::Write::write_all(&mut file, content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(folder)
}

/// Makes a folder's entries durable.
pub(crate) fn sync_directory(folder: &Path) -> Result<()> {
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io(format!("cannot sync the folder {}", folder.display()), error))
}

/// Removes a file durably; nothing there is no error.
pub(crate) fn remove_durably(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot remove {}", path.display()), error)),
    }
}
