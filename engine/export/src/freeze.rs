//! Freezing and trimming a mounted file system.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::errno::Errno;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::error::{io_error, system_error};
use crate::ioctl;
use crate::isolation::{isolated, leave_open_files};

/// A frozen file system: what was dirty has been written, and writes wait. Dropping it thaws.
///
/// Freezing writes to the device below, so it must never be done by a thread that serves that device.
/// A process that dies leaves the file system frozen: note it durably first, and [`thaw`] when starting.
#[must_use = "the file system is thawed when this is dropped"]
pub struct Frozen {
    // The thread that froze holds the file system open, which keeps it from being unmounted, and thaws
    // when the sender goes. It has a descriptor table of its own: see `isolated`.
    thread: Option<(SyncSender<()>, JoinHandle<Result<bool>>)>,
}

fn open(path: &Path) -> Result<File> {
    File::open(path)
        .map_err(|error| io_error(format!("opening the mount {} failed", path.display()), error))
}

/// Freezes the file system that a directory lies on.
///
/// # Errors
/// [`thinstore_storage::ErrorKind::InUse`] when it is frozen already, and those of the file system.
pub fn freeze(path: &Path) -> Result<Frozen> {
    let (frozen, answer) = sync_channel(1);
    let (release, released) = sync_channel(1);
    let path = path.to_owned();
    let thread = std::thread::Builder::new()
        .name("freeze".to_owned())
        .spawn(move || hold_frozen(&path, &frozen, &released))
        .map_err(|error| io_error("starting a thread failed", error))?;
    match answer.recv() {
        Ok(()) => Ok(Frozen { thread: Some((release, thread)) }),
        Err(_) => Err(join(thread).err().unwrap_or_else(died)),
    }
}

fn died() -> Error {
    Error::new(ErrorKind::Io, "the thread that freezes a file system has ended")
}

fn join(thread: JoinHandle<Result<bool>>) -> Result<bool> {
    thread.join().unwrap_or_else(|_| Err(died()))
}

fn hold_frozen(path: &Path, frozen: &SyncSender<()>, released: &Receiver<()>) -> Result<bool> {
    leave_open_files();
    let directory = open(path)?;
    ioctl::freeze(directory.as_fd())
        .map_err(|errno| system_error(format!("freezing {} failed", path.display()), errno))?;
    // Whoever asked may be gone already; the wait ends at once then.
    let _ = frozen.send(());
    let _ = released.recv();
    thaw_open(&directory, path)
}

impl Frozen {
    /// Lets writes go on.
    ///
    /// # Errors
    /// When the kernel refuses; it is not tried again on drop.
    pub fn thaw(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        match self.thread.take() {
            Some((release, thread)) => {
                drop(release);
                join(thread).map(drop)
            }
            None => Ok(()),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!("{error}");
        }
    }
}

fn thaw_open(directory: &File, path: &Path) -> Result<bool> {
    match ioctl::thaw(directory.as_fd()) {
        Ok(()) => Ok(true),
        // Somebody else has thawed it (fsfreeze -u).
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(system_error(format!("thawing {} failed", path.display()), errno)),
    }
}

/// Thaws the file system that a directory lies on. True if it was frozen.
///
/// # Errors
/// When the directory cannot be opened, or the kernel refuses.
pub fn thaw(path: &Path) -> Result<bool> {
    isolated(|| thaw_open(&open(path)?, path))
}

/// Discards what the file system of a directory does not use (as fstrim does). The answer is how many
/// bytes were discarded.
///
/// # Errors
/// When the file system or its device cannot discard.
pub fn trim(path: &Path) -> Result<u64> {
    isolated(|| {
        ioctl::trim(open(path)?.as_fd())
            .map_err(|errno| system_error(format!("trimming {} failed", path.display()), errno))
    })
}
