//! Opening and creating a [`FileStorage`]: what is refused, and in which words.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use parking_lot::{Mutex, RwLock};

use super::{FileKind, FileStorage, block_device_size_bytes, holder};
use crate::aligned::{AlignedBuffer, DIRECT_ALIGNMENT_BYTES};
use crate::{Error, ErrorKind, Result};

/// How long a block device's lock is waited for: udev holds a shared one while it looks at a device
/// (<https://systemd.io/BLOCK_DEVICE_LOCKING/>), which must not look like an owner.
const BLOCK_DEVICE_LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// How to open or create a [`FileStorage`]. Unless told otherwise: for reading and writing, with
/// direct I/O where the host has it.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    read_only: bool,
    direct: bool,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { read_only: false, direct: true }
    }
}

impl FileOptions {
    /// For reading and writing, with direct I/O where the host has it.
    pub fn new() -> FileOptions {
        FileOptions::default()
    }

    /// Whether to open for reading only, sharing the file with other readers.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> FileOptions {
        self.read_only = read_only;
        self
    }

    /// Whether transfers are to pass by the page cache. Where the host refuses that, they do not:
    /// [`FileStorage::is_direct`] tells.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> FileOptions {
        self.direct = direct;
        self
    }

    /// Opens an existing regular file or block device; symbolic links are followed. Changes nothing
    /// on it.
    ///
    /// Of a block device the whole blocks of 4096 bytes can be used. A regular file whose size is no
    /// multiple of 4096 is opened, without direct I/O, at its exact size.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Permission`, `InUse` (another owner, whom the message names, or a mounted block
    /// device), `ReadOnly` (a read-only file system), `Usage` (a folder, a FIFO, a socket, a
    /// character device), else `Io`.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<FileStorage> {
        let path = path.as_ref();
        // Looked at before it is opened: opening a FIFO waits, and opening a device can do things.
        let metadata = fs::metadata(path).map_err(|error| self.open_error(path, error))?;
        let kind = file_kind(path, &metadata)?;
        let file = self.open_file(path, kind).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => busy_error(path, &metadata),
            _ => self.open_error(path, error),
        })?;
        // Looked at again: what was opened counts, not what stood under that name a moment ago.
        let metadata = file.metadata().map_err(|error| self.open_error(path, error))?;
        if file_kind(path, &metadata)? != kind {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("cannot open {}: it was replaced meanwhile; try again", path.display()),
            ));
        }
        self.lock(path, &file, kind)?;
        self.finish(path, file, kind)
    }

    /// Creates a sparse regular file of `size_bytes`, readable and writable by its owner alone, and
    /// makes it durable along with its name.
    ///
    /// # Errors
    ///
    /// `Exists` if there is anything of that name, `NotFound` if its folder is missing, `Usage` for a
    /// size of 0, no multiple of 4096, or more than the file system can hold, and for a read-only
    /// creation; else as in [`FileOptions::open`]. A file that could not be completed is removed.
    pub fn create_new(&self, path: impl AsRef<Path>, size_bytes: u64) -> Result<FileStorage> {
        let path = path.as_ref();
        let usage = |what: String| {
            Error::new(ErrorKind::Usage, format!("cannot create {}: {what}", path.display()))
        };
        if self.read_only {
            return Err(usage("a new file must be writable".to_owned()));
        }
        if size_bytes == 0 || !size_bytes.is_multiple_of(4096) {
            return Err(usage(format!(
                "the size must be a multiple of 4096 bytes and not 0, and {size_bytes} is not"
            )));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| create_error(path, error))?;
        let completed = self
            .lock(path, &file, FileKind::Regular)
            .and_then(|()| complete_new_file(path, &file, size_bytes))
            .and_then(|()| self.finish(path, file, FileKind::Regular));
        completed.inspect_err(|error| {
            // Somebody who has opened and locked the new file already may be writing to it.
            if error.kind() != ErrorKind::InUse {
                // The first error is the one to tell.
                let _ = fs::remove_file(path);
            }
        })
    }

    fn open_file(&self, path: &Path, kind: FileKind) -> io::Result<File> {
        let flags = match kind {
            // Should a FIFO have taken the file's place, opening it must not wait. The flag is
            // cleared when direct I/O is set or not set.
            FileKind::Regular => OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
            // Without O_CREAT this asks the kernel for the device itself: refused while it is
            // mounted or has another such owner, whichever node it was opened by. See open(2).
            FileKind::BlockDevice if !self.read_only => OFlag::O_EXCL,
            FileKind::BlockDevice => OFlag::empty(),
        };
        OpenOptions::new().read(true).write(!self.read_only).custom_flags(flags.bits()).open(path)
    }

    fn open_error(&self, path: &Path, error: io::Error) -> Error {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::new(
                ErrorKind::NotFound,
                format!("cannot open {path}: there is no such file"),
            ),
            io::ErrorKind::PermissionDenied => {
                let purpose = if self.read_only { "reading" } else { "reading and writing" };
                Error::new(
                    ErrorKind::Permission,
                    format!("cannot open {path} for {purpose}: ask its owner or root for access"),
                )
            }
            io::ErrorKind::ReadOnlyFilesystem => Error::new(
                ErrorKind::ReadOnly,
                format!("cannot open {path} for writing: it lies on a read-only file system"),
            ),
            _ => Error::io(format!("cannot open {path}"), error),
        }
    }

    /// Locks the file by flock(2), which is what the standard library's file locks are on Linux.
    fn lock(&self, path: &Path, file: &File, kind: FileKind) -> Result<()> {
        let patience = match kind {
            FileKind::Regular => Duration::ZERO,
            FileKind::BlockDevice => BLOCK_DEVICE_LOCK_TIMEOUT,
        };
        let started = Instant::now();
        loop {
            let result = if self.read_only { file.try_lock_shared() } else { file.try_lock() };
            match result {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => {
                    std::thread::sleep(LOCK_RETRY_INTERVAL);
                }
                Err(TryLockError::WouldBlock) => {
                    let metadata = file.metadata().map_err(|error| self.open_error(path, error))?;
                    return Err(busy_error(path, &metadata));
                }
                Err(TryLockError::Error(error)) => {
                    let message = format!(
                        "cannot lock {}: its file system has no working flock; use another one",
                        path.display()
                    );
                    return Err(Error::io(message, error));
                }
            }
        }
    }

    fn finish(&self, path: &Path, file: File, kind: FileKind) -> Result<FileStorage> {
        let failed = |error| Error::io(format!("cannot open {}", path.display()), error);
        let size_bytes = match kind {
            FileKind::Regular => file.metadata().map_err(failed)?.size(),
            FileKind::BlockDevice => block_device_size_bytes(&file).map_err(failed)?,
        };
        let wanted = self.direct && size_bytes.is_multiple_of(4096);
        let direct =
            set_direct(&file, wanted, size_bytes).map_err(io::Error::from).map_err(failed)?;
        Ok(FileStorage {
            file,
            path: path.to_owned(),
            kind,
            read_only: self.read_only,
            direct,
            size_bytes: AtomicU64::new(size_bytes),
            partial_writes: RwLock::new(()),
            growing: Mutex::new(()),
        })
    }
}

/// Turns direct I/O on or off, and all other status flags off, and tells which it is now.
fn set_direct(file: &File, wanted: bool, size_bytes: u64) -> nix::Result<bool> {
    if wanted {
        match fcntl(file, FcntlArg::F_SETFL(OFlag::O_DIRECT)) {
            Ok(_) if transfers_directly(file, size_bytes) => return Ok(true),
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    fcntl(file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(false)
}

/// Whether the host takes direct transfers of 4096 bytes: some accept the flag and refuse the
/// transfer, and some devices have larger logical blocks.
fn transfers_directly(file: &File, size_bytes: u64) -> bool {
    let mut block = AlignedBuffer::new(DIRECT_ALIGNMENT_BYTES);
    // An odd block, where there is one: the first is aligned for every block size.
    let offset_bytes = if size_bytes > 4096 { 4096 } else { 0 };
    match file.read_at(&mut block, offset_bytes) {
        Ok(_) => true,
        // Any other error is no matter of alignment, and is told by the transfer that meets it.
        Err(error) => error.kind() != io::ErrorKind::InvalidInput,
    }
}

fn file_kind(path: &Path, metadata: &Metadata) -> Result<FileKind> {
    let file_type = metadata.file_type();
    let what = if file_type.is_file() {
        return Ok(FileKind::Regular);
    } else if file_type.is_block_device() {
        return Ok(FileKind::BlockDevice);
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a character device"
    };
    Err(Error::new(
        ErrorKind::Usage,
        format!(
            "cannot open {}: it is {what}; name a regular file or a block device",
            path.display()
        ),
    ))
}

fn busy_error(path: &Path, metadata: &Metadata) -> Error {
    let path = path.display();
    if metadata.file_type().is_block_device()
        && let Some(mount_point) = holder::mount_point(metadata)
    {
        return Error::new(
            ErrorKind::InUse,
            format!("{path} is in use: it is mounted at {mount_point}; unmount it first"),
        );
    }
    let holder = holder::describe_lock_holder(metadata);
    Error::new(
        ErrorKind::InUse,
        format!("{path} is in use: it is held by {holder}; wait until that ends, or end it"),
    )
}

fn create_error(path: &Path, error: io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::new(
            ErrorKind::Exists,
            format!("cannot create {path}: it exists; choose another name or remove it"),
        ),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::new(
            ErrorKind::NotFound,
            format!("cannot create {path}: its folder is not there; make it first"),
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::Permission,
            format!("cannot create {path}: ask the folder's owner or root for access"),
        ),
        io::ErrorKind::ReadOnlyFilesystem => Error::new(
            ErrorKind::ReadOnly,
            format!("cannot create {path}: the folder lies on a read-only file system"),
        ),
        _ => Error::io(format!("cannot create {path}"), error),
    }
}

/// Gives a new file its size, then makes file and name durable, in this order: a name that survives
/// a loss of power shows a file of full size.
fn complete_new_file(path: &Path, file: &File, size_bytes: u64) -> Result<()> {
    file.set_len(size_bytes).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput => Error::new(
            ErrorKind::Usage,
            format!(
                "cannot create {}: its file system has no files of {size_bytes} bytes; choose a \
                 smaller size",
                path.display()
            ),
        ),
        _ => create_error(path, error),
    })?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    file.sync_all()
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| create_error(path, error))
}
