//! A storage that is a regular file or a block device.

mod copy;
mod holder;
mod open;
#[cfg(test)]
mod tests;
mod transfer;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::fdatasync;
use parking_lot::{Mutex, RwLock};

use crate::Storage;
use crate::range::{check_within, length_bytes};

pub use holder::lock_holder_of;
pub use open::FileOptions;

/// What a [`FileStorage`] lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Regular,
    BlockDevice,
}

/// A regular file or a block device, owned by whoever has it open.
///
/// Opened by [`FileOptions`]. While it is open for writing, an exclusive `flock` keeps every other
/// opener out, readers included; opened read-only it shares the file with other readers. The lock
/// lies on the open file description that does the I/O, so it cannot be gone while a write of this
/// owner is still on its way. It is released when this is dropped, even if a child process has
/// inherited the description.
///
/// With direct I/O ([`FileStorage::is_direct`]) transfers pass by the page cache. Any offset, length
/// and memory is accepted; the fast way is offset and length at multiples of 4096 in memory at a
/// multiple of 4096 (see [`crate::AlignedBuffer`]). Memory that is not aligned costs a copy; an offset
/// or a length that is not makes a write read the blocks at its ends first and keeps all other writes
/// out for that long.
#[derive(Debug)]
pub struct FileStorage {
    /// Locked as long as this lives.
    file: File,
    path: PathBuf,
    kind: FileKind,
    read_only: bool,
    direct: bool,
    size_bytes: AtomicU64,
    /// Held shared by direct writes of whole blocks, exclusively by those that must read first: a
    /// block that is read, changed and written back would undo a write that came between.
    partial_writes: RwLock<()>,
    /// Held while the size changes: two at once could end with the smaller one.
    growing: Mutex<()>,
}

/// Repeats a call that a signal interrupted.
fn uninterrupted(mut call: impl FnMut() -> nix::Result<()>) -> nix::Result<()> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

impl FileStorage {
    /// The path that this was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether transfers pass by the page cache. False if that was not asked for, if the file system
    /// refuses it, and for a regular file whose size is no multiple of 4096.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether this was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether this is a block device.
    pub fn is_block_device(&self) -> bool {
        self.kind == FileKind::BlockDevice
    }

    /// What the host has set aside for this file, in bytes: less than the size of a sparse file. A
    /// block device is as large as it is.
    pub fn allocated_bytes(&self) -> io::Result<u64> {
        match self.kind {
            // st_blocks counts 512 bytes whatever the file system's block size: stat(2).
            FileKind::Regular => Ok(self.file.metadata()?.blocks().saturating_mul(512)),
            FileKind::BlockDevice => Ok(self.size_bytes()),
        }
    }

    fn check(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        check_within(|| self.name(), offset_bytes, length_bytes, self.size_bytes())
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!("{} was opened for reading only", self.path.display()),
            ));
        }
        Ok(())
    }

    /// fallocate(2) on a range within the file; nothing where the host does not know that mode.
    fn allocate(&self, mode: FallocateFlags, offset_bytes: u64, length: u64) -> io::Result<()> {
        self.check_writable()?;
        self.check(offset_bytes, length)?;
        if length == 0 {
            return Ok(());
        }
        let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = i64::try_from(offset_bytes).map_err(out_of_range)?;
        let length = i64::try_from(length).map_err(out_of_range)?;
        match uninterrupted(|| fallocate(&self.file, mode, offset, length)) {
            // ENOSYS comes from FUSE servers, ENODEV from block devices before Linux 4.9.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// How many bytes of a block device can be used: whole blocks of 4096.
fn block_device_size_bytes(file: &File) -> io::Result<u64> {
    // The end of a block device is what BLKGETSIZE64 tells. The position that this moves is used by
    // nobody: all transfers name their offset.
    let mut file = file;
    let size_bytes = file.seek(SeekFrom::End(0))?;
    Ok(size_bytes - size_bytes % 4096)
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked while this was open
        // and has not yet come to its exec. Nothing can be done about an error, nor need be: a lock
        // that cannot be released ends with the description.
        let _ = self.file.unlock();
    }
}

impl Storage for FileStorage {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(offset_bytes, length_bytes(buffer))?;
        if self.direct {
            transfer::read_direct(&self.file, offset_bytes, buffer)
        } else {
            transfer::read_buffered(&self.file, offset_bytes, buffer)
        }
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.check(offset_bytes, length_bytes(data))?;
        if !self.direct {
            return transfer::write_buffered(&self.file, offset_bytes, data);
        }
        if transfer::is_whole_blocks(offset_bytes, length_bytes(data)) {
            let _shared = self.partial_writes.read();
            transfer::write_direct(&self.file, offset_bytes, data)
        } else {
            let _alone = self.partial_writes.write();
            transfer::write_direct(&self.file, offset_bytes, data)
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(uninterrupted(|| fdatasync(&self.file))?)
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        // The same on a block device: there it becomes a write-zeroes that may unmap, and is refused
        // with EOPNOTSUPP if the device cannot do that by itself. BLKDISCARD promises no zeroes.
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.allocate(mode, offset_bytes, length_bytes)
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::FALLOC_FL_KEEP_SIZE, offset_bytes, length_bytes)
    }

    /// Durable on return. On a direct file the size must be a multiple of 4096.
    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let _one_at_a_time = self.growing.lock();
        if size_bytes <= self.size_bytes() {
            return Ok(());
        }
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        let new_size_bytes = match self.kind {
            FileKind::Regular => {
                if self.direct && !size_bytes.is_multiple_of(4096) {
                    return Err(invalid(format!("{size_bytes} bytes are no multiple of 4096")));
                }
                self.file.set_len(size_bytes)?;
                self.file.sync_all()?;
                size_bytes
            }
            FileKind::BlockDevice => {
                let device_bytes = block_device_size_bytes(&self.file)?;
                if device_bytes < size_bytes {
                    return Err(invalid(format!(
                        "the block device {} has {device_bytes} bytes, not {size_bytes}: enlarge \
                         the device first",
                        self.name()
                    )));
                }
                device_bytes
            }
        };
        self.size_bytes.store(new_size_bytes, Ordering::Release);
        Ok(())
    }

    /// Drops clean pages only: what is written and not yet synced stays.
    fn drop_cache(&self) -> io::Result<()> {
        // A length of 0 means up to the end: posix_fadvise(2).
        Ok(posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
