//! Loop devices: a file as a block device, by `/dev/loop-control` and `linux/loop.h`.
//!
//! A loop device is found again by the path of its file, which sysfs shows without asking the file
//! system below. Where that path has lost its mount (a lazy unmount), the mark tells: it stands in the
//! device's `lo_file_name`, which the kernel keeps for whoever made the device.

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::error::{io_error, node_error, system_error};
use crate::holders::{Holder, holders_of};
use crate::ioctl::{self, LoopInformation};
use crate::isolation::isolated;
use crate::mount_table::DeviceNumber;

/// The driver's major number.
const LOOP_MAJOR: u32 = 7;

/// Logical blocks of the devices: what the pool maps, and what direct I/O below wants.
const BLOCK_SIZE_BYTES: u32 = 4096;

/// How often another process may take the free device that the kernel named.
const ATTACH_ATTEMPTS: u32 = 64;

/// How long to wait for openers that come and go by themselves: udev and blkid look at every device.
const DETACH_TIMEOUT: Duration = Duration::from_secs(2);

/// A loop device, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoopDevice {
    number: u32,
}

/// A loop device that is bound to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundLoop {
    /// The device.
    pub device: LoopDevice,
    /// The path of its file as the kernel shows it.
    pub backing_file: PathBuf,
    /// The file has no name any more.
    pub deleted: bool,
    /// It goes when its last opener does.
    pub autoclear: bool,
    /// It reads and writes past the page cache.
    pub direct_io: bool,
}

/// What became of a loop device that was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoopDetach {
    /// It is unbound.
    Cleared,
    /// Somebody holds it. It goes by itself when they let go.
    Deferred(Vec<Holder>),
}

/// What to do with a loop device that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenHeld {
    /// Fail with [`ErrorKind::InUse`] and change nothing.
    Refuse,
    /// Have the kernel unbind it when the last holder lets go.
    Defer,
    /// The same, at once: what it stood on is gone, so nobody is waited for.
    Abandon,
}

impl LoopDevice {
    /// The device of a number.
    pub fn from_number(number: u32) -> LoopDevice {
        LoopDevice { number }
    }

    /// The device of a block device's number, if its driver is loop.
    pub fn from_device_number(device: DeviceNumber) -> Option<LoopDevice> {
        (device.major == LOOP_MAJOR).then_some(LoopDevice { number: device.minor })
    }

    /// N of `/dev/loopN`.
    pub fn number(self) -> u32 {
        self.number
    }

    /// The number of the block device.
    pub fn device_number(self) -> DeviceNumber {
        DeviceNumber { major: LOOP_MAJOR, minor: self.number }
    }

    /// `/dev/loopN`.
    pub fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.number))
    }

    fn system_path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/loop{}/loop/{name}", self.number))
    }

    /// What the device is bound to, if anything.
    ///
    /// # Errors
    /// When `/sys` cannot be read.
    pub fn bound(self) -> Result<Option<BoundLoop>> {
        let path = self.system_path("backing_file");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // The kernel answers ENXIO while a device is on its way out.
            Err(error)
                if error.kind() == IoErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ENXIO)
                    || error.raw_os_error() == Some(libc::ENODEV) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(io_error(format!("reading {} failed", path.display()), error));
            }
        };
        let flag = |name| std::fs::read(self.system_path(name)).is_ok_and(|text| text == b"1\n");
        let (backing_file, deleted) = backing_file(&bytes);
        Ok(Some(BoundLoop {
            device: self,
            backing_file,
            deleted,
            autoclear: flag("autoclear"),
            direct_io: flag("dio"),
        }))
    }

    fn open(self, options: &std::fs::OpenOptions) -> std::io::Result<File> {
        self.open_node(&self.path(), options)
    }

    /// Opens the device node, making it where the kernel has the device but `/dev` does not show it
    /// (a container's `/dev`).
    fn open_node(self, path: &Path, options: &std::fs::OpenOptions) -> std::io::Result<File> {
        match options.open(path) {
            Err(error) if error.kind() == IoErrorKind::NotFound => {}
            opened => return opened,
        }
        if !Path::new("/sys/block").join(format!("loop{}", self.number)).exists() {
            return Err(std::io::Error::from(IoErrorKind::NotFound));
        }
        let number = makedev(u64::from(LOOP_MAJOR), u64::from(self.number));
        match mknod(path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number) {
            Ok(()) | Err(Errno::EEXIST) => options.open(path),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The device, open, so that it stays bound for now whatever its configuration says.
    fn bind(self, file: &File, information: LoopInformation) -> std::result::Result<File, Errno> {
        // The kernel makes a device read-only that is opened so, whatever its configuration says.
        let device = self
            .open(File::options().read(true).write(true))
            .map_err(|error| error.raw_os_error().map_or(Errno::ENOENT, Errno::from_raw))?;
        ioctl::loop_configure(device.as_fd(), file.as_fd(), BLOCK_SIZE_BYTES, information)?;
        Ok(device)
    }

    /// Unbinds the device and waits until it is. A device that is not bound counts as cleared.
    ///
    /// The kernel never refuses to unbind: it does so when the last opener closes. So the device is
    /// claimed first, which no mount of any namespace lets happen; what is left then are openers
    /// without a claim, and those are given time.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] with who holds it, if that is to be refused.
    pub fn detach(self, when_held: WhenHeld) -> Result<LoopDetach> {
        isolated(|| self.detach_here(when_held))
    }

    fn detach_here(self, when_held: WhenHeld) -> Result<LoopDetach> {
        let Some(bound) = self.bound()? else {
            return Ok(LoopDetach::Cleared);
        };
        let deadline = Instant::now() + DETACH_TIMEOUT;
        let patience = if when_held == WhenHeld::Abandon { Duration::ZERO } else { DETACH_TIMEOUT };
        let claimed = self.open_claimed(Instant::now() + patience)?;
        let held = claimed.is_none();
        if held && when_held == WhenHeld::Refuse {
            let path = self.path();
            let holders = holders_of(self.device_number(), &path);
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} is in use{}", path.display(), describe(&holders)),
            ));
        }
        let failed = |error| io_error(format!("detaching {} failed", self.path().display()), error);
        let file = match claimed {
            Some(file) => file,
            None => self.open(File::options().read(true)).map_err(failed)?,
        };
        match ioctl::loop_clear(file.as_fd()) {
            Ok(()) | Err(Errno::ENXIO) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        drop(file);
        let deadline = if held { Instant::now() } else { deadline };
        if self.wait_until_unbound(&bound, deadline)? {
            return Ok(LoopDetach::Cleared);
        }
        Ok(LoopDetach::Deferred(holders_of(self.device_number(), &self.path())))
    }

    /// Has the kernel unbind the device when its last opener closes it.
    ///
    /// # Errors
    /// When the device cannot be opened.
    pub fn clear_on_last_close(self) -> Result<()> {
        let failed = |error| io_error(format!("releasing {} failed", self.path().display()), error);
        isolated(|| {
            let file = self.open(File::options().read(true)).map_err(failed)?;
            match ioctl::loop_clear(file.as_fd()) {
                Ok(()) | Err(Errno::ENXIO) => Ok(()),
                Err(errno) => Err(failed(errno.into())),
            }
        })
    }

    /// Whether a mount of any namespace, or another exclusive opener, holds the device.
    ///
    /// # Errors
    /// When the device cannot be opened for another reason.
    pub fn is_held(self) -> Result<bool> {
        isolated(|| Ok(self.open_claimed(Instant::now())?.is_none()))
    }

    /// Opens the device with a claim that excludes mounts; none if it is claimed until the deadline.
    fn open_claimed(self, deadline: Instant) -> Result<Option<File>> {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK);
        let mut attempts = 0;
        loop {
            match self.open(&options) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => {
                    let path = self.path();
                    return Err(io_error(format!("opening {} failed", path.display()), error));
                }
            }
            // A mount stays; a claim without one may be the end of an unmounting, or a passing look.
            if Instant::now() >= deadline || (attempts == 0 && self.is_mounted_anywhere()) {
                return Ok(None);
            }
            attempts += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_mounted_anywhere(self) -> bool {
        holders_of(self.device_number(), &self.path())
            .iter()
            .any(|holder| matches!(holder, Holder::Mount { .. }))
    }

    fn wait_until_unbound(self, before: &BoundLoop, deadline: Instant) -> Result<bool> {
        let mut pause = Duration::from_millis(1);
        loop {
            // Bound to another file means: it went, and somebody else took it.
            match self.bound()? {
                Some(now) if now.backing_file == before.backing_file => {}
                _ => return Ok(true),
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Makes the device take the present size of its file.
    ///
    /// # Errors
    /// When the device is not bound, or cannot be opened.
    pub fn refresh_size(self) -> Result<()> {
        let failed = |error| io_error(format!("resizing {} failed", self.path().display()), error);
        isolated(|| {
            let file = self.open(File::options().read(true)).map_err(failed)?;
            ioctl::loop_set_capacity(file.as_fd()).map_err(|errno| failed(errno.into()))
        })
    }

    /// The mark that whoever bound the device gave it. This asks the file system of the backing file,
    /// which may not answer; none if the device cannot be asked.
    fn mark(self) -> Option<Vec<u8>> {
        let file = self.open(File::options().read(true)).ok()?;
        let information = ioctl::loop_status(file.as_fd()).ok()?;
        Some(information.file_name.split(|byte| *byte == 0).next()?.to_vec())
    }
}

/// Who holds a device, as the end of a sentence.
pub(crate) fn describe(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return ", but by whom cannot be seen: a lazily unmounted file system, or a process of another \
                process namespace"
            .to_owned();
    }
    let shown: Vec<String> = holders.iter().map(Holder::to_string).collect();
    format!(": {}", shown.join("; "))
}

/// The path in the form that sysfs shows it, and whether its file was deleted.
fn backing_file(bytes: &[u8]) -> (PathBuf, bool) {
    use std::os::unix::ffi::OsStrExt;
    const DELETED: &[u8] = b" (deleted)";
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let (bytes, deleted) = match bytes.strip_suffix(DELETED) {
        Some(path) => (path, true),
        None => (bytes, false),
    };
    (PathBuf::from(std::ffi::OsStr::from_bytes(bytes)), deleted)
}

/// Binds a file to a free loop device: direct I/O, blocks of 4096 bytes, and no partitions.
///
/// `mark` stands in the device for [`bound_under`] to find; its first 63 bytes are kept.
///
/// # Errors
/// When the file cannot be opened, or the kernel has no free loop device or refuses the file.
pub fn attach(backing_file: &Path, read_only: bool, mark: &str) -> Result<LoopDevice> {
    let information = configuration(read_only, true, mark);
    isolated(|| Ok(attach_here(backing_file, information)?.device))
}

/// A loop device that is unbound as soon as nobody has it open: when this is dropped, or when what was mounted
/// from it meanwhile is unmounted. A process that is killed leaves none behind.
pub struct HeldLoop {
    device: LoopDevice,
    _open: File,
}

impl HeldLoop {
    /// `/dev/loopN`.
    pub fn path(&self) -> PathBuf {
        self.device.path()
    }
}

/// As [`attach`], of a file that takes writes, for as long as somebody has the device open.
///
/// # Errors
/// As those of [`attach`].
pub fn attach_while_open(backing_file: &Path, mark: &str) -> Result<HeldLoop> {
    attach_held(backing_file, configuration(false, true, mark))
}

/// The same without direct I/O. The kernel then has one write under way at a time: each is a call of write(2), and
/// those to one file follow each other. That is for files of servers which confuse writes that come together.
///
/// # Errors
/// As those of [`attach`].
pub fn attach_one_by_one(backing_file: &Path, mark: &str) -> Result<HeldLoop> {
    attach_held(backing_file, configuration(false, false, mark))
}

fn attach_held(backing_file: &Path, mut information: LoopInformation) -> Result<HeldLoop> {
    information.flags |= ioctl::LO_FLAGS_AUTOCLEAR;
    attach_here(backing_file, information)
}

fn attach_here(backing_file: &Path, information: LoopInformation) -> Result<HeldLoop> {
    let read_only = information.flags & ioctl::LO_FLAGS_READ_ONLY != 0;
    let mut options = File::options();
    let file =
        options.read(true).write(!read_only).open(backing_file).map_err(|error| {
            io_error(format!("opening {} failed", backing_file.display()), error)
        })?;
    let mut options = File::options();
    let control = options
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(|error| node_error("/dev/loop-control", error))?;
    for attempt in 0..ATTACH_ATTEMPTS {
        let number = ioctl::loop_get_free(control.as_fd()).map_err(|errno| {
            system_error("asking /dev/loop-control for a free loop device failed", errno)
        })?;
        let device = LoopDevice { number };
        match device.bind(&file, information) {
            Ok(open) => return Ok(HeldLoop { device, _open: open }),
            // Another process was faster, or has removed it: the next free one.
            Err(Errno::EBUSY | Errno::ENOENT | Errno::ENXIO) => {
                std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20))));
            }
            Err(errno) => {
                let (file, device) = (backing_file.display(), device.path());
                let what = format!("binding {file} to {} failed", device.display());
                return Err(system_error(what, errno));
            }
        }
    }
    Err(Error::new(
        ErrorKind::InUse,
        format!(
            "no free loop device could be had for {} in {ATTACH_ATTEMPTS} attempts; detach some, or \
             make more nodes in /dev",
            backing_file.display()
        ),
    ))
}

/// How every loop device is configured: the mark stands in place of a file name.
fn configuration(read_only: bool, direct_io: bool, mark: &str) -> LoopInformation {
    let mut information = LoopInformation::zeroed();
    if direct_io {
        information.flags |= ioctl::LO_FLAGS_DIRECT_IO;
    }
    if read_only {
        information.flags |= ioctl::LO_FLAGS_READ_ONLY;
    }
    // The last byte stays zero.
    let room = information.file_name.iter_mut().take(ioctl::LOOP_NAME_BYTES - 1);
    for (target, byte) in room.zip(mark.bytes()) {
        *target = byte;
    }
    information
}

/// All bound loop devices.
///
/// # Errors
/// When `/sys` cannot be read.
pub fn bound_loops() -> Result<Vec<BoundLoop>> {
    let directory = Path::new("/sys/block");
    let failed = |error| io_error("reading /sys/block failed; is /sys mounted?", error);
    let mut bound = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        bound.extend(LoopDevice { number }.bound()?);
    }
    bound.sort_by_key(|found| found.device);
    Ok(bound)
}

/// The bound loop devices whose file lies directly in a directory, or did until the directory was
/// unmounted from under it: those are told by their mark.
///
/// # Errors
/// When `/sys` cannot be read.
pub fn bound_under(directory: &Path, mark: &str) -> Result<Vec<BoundLoop>> {
    let mut found = bound_loops()?;
    found.retain(|bound| {
        if bound.backing_file.parent() == Some(directory) {
            return true;
        }
        // A file of a flat directory that is mounted nowhere is shown right below the root.
        bound.backing_file.parent() == Some(Path::new("/"))
            && bound.device.mark().is_some_and(|found| found == mark.as_bytes())
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backing_file_is_read_as_the_kernel_writes_it() {
        let path = |text: &[u8]| backing_file(text);
        assert_eq!(path(b"/a/b c\n"), (PathBuf::from("/a/b c"), false));
        assert_eq!(path(b"/a/b (deleted)\n"), (PathBuf::from("/a/b"), true));
        assert_eq!(path(b"/a/b\n\n"), (PathBuf::from("/a/b\n"), false));
        assert_eq!(path(b""), (PathBuf::from(""), false));
    }

    #[test]
    #[ignore = "needs root: loop devices"]
    fn a_node_that_is_missing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loop");
        let mut options = File::options();
        options.read(true);
        let absent = LoopDevice::from_number(1 << 19).open_node(&path, &options);
        assert_eq!(absent.unwrap_err().kind(), IoErrorKind::NotFound);
        let control = File::open("/dev/loop-control").unwrap();
        let free = LoopDevice::from_number(ioctl::loop_get_free(control.as_fd()).unwrap());
        drop(free.open_node(&path, &options).unwrap());
        let number = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(&path).unwrap());
        assert_eq!(DeviceNumber::from_raw(number), free.device_number());
    }

    #[test]
    fn loop_devices_are_told_by_their_major_number() {
        let number = |major| DeviceNumber { major, minor: 5 };
        assert_eq!(LoopDevice::from_device_number(number(8)), None);
        let device = LoopDevice::from_device_number(number(7)).unwrap();
        assert_eq!(device.path(), Path::new("/dev/loop5"));
    }
}
