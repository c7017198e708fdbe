//! Disk images in files: a fresh ext4 in one, and one as a mounted file system.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use thinstore_export::loop_device::HeldLoop;
use thinstore_export::{Ext4Options, MountFlags, loop_device, mount_ext4};
use thinstore_filesystem::template::{TemplateIdentity, make_ext4};
use thinstore_storage::{BlockDevice, Error, Result};

use crate::directory::failed;

/// The size of every image, which is that of a thin device if nothing else is said.
pub(crate) const SIZE_BYTES: u64 = 10 << 30;

/// A fresh one's: any will do, and the same always gives the same bytes.
const IDENTITY: TemplateIdentity =
    TemplateIdentity { uuid: *b"thinstore-images", hash_seed: *b"segami-erotsniht" };

/// A file as a device.
struct ImageFile {
    file: File,
}

fn io_error(what: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::io(format!("{what} the image failed"), error)
}

impl BlockDevice for ImageFile {
    fn size_bytes(&self) -> u64 {
        SIZE_BYTES
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset_bytes).map_err(io_error("reading"))
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset_bytes).map_err(io_error("writing"))
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.discard(offset_bytes, length_bytes)
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, offset_bytes, length_bytes)
            .map_err(|errno| io_error("punching a hole into")(errno.into()))
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(io_error("flushing"))
    }
}

/// Makes an image with an empty ext4, whole or not at all; one that is there stays.
pub(crate) fn make_fresh(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    // without a name it goes with the process, however that ends
    let file = tempfile::tempfile_in(folder).map_err(failed("make a file in", folder))?;
    file.set_len(SIZE_BYTES).map_err(failed("make", path))?;
    let copy = file.try_clone().map_err(failed("make", path))?;
    make_ext4(&ImageFile { file: copy }, &IDENTITY)?;
    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    match rustix::fs::linkat(CWD, path_of(&file), CWD, path, follow) {
        // somebody else's is the same
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(failed("make", path)(errno.into())),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

/// The path of an open file, which may have no other; for this process alone.
pub(crate) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Mounts the ext4 in a file. The loop device goes with the mount.
pub(crate) fn mount(image: &Path, directory: &Path, read_only: bool, mark: &str) -> Result<()> {
    // a journal that has to be replayed is, also for who only reads: the device takes writes
    mount_loop(&loop_device::attach_while_open(image, mark)?, directory, read_only)
}

/// Mounts the ext4 in a loop device, which goes with the mount.
pub(crate) fn mount_loop(device: &HeldLoop, directory: &Path, read_only: bool) -> Result<()> {
    mount_device(&device.path(), directory, read_only)
}

/// Mounts the ext4 in a device.
pub(crate) fn mount_device(device: &Path, directory: &Path, read_only: bool) -> Result<()> {
    let options = Ext4Options {
        flags: MountFlags { read_only, ..MountFlags::default() },
        without_journal_replay: false,
        discard: !read_only,
    };
    mount_ext4(device, directory, &options)
}
