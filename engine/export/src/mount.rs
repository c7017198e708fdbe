//! Mounting and unmounting: ext4 from a device, tmpfs.
//!
//! Every mount made here is private: what is mounted or unmounted below it does not appear in other
//! namespaces. The mounting itself does propagate if the directory's own mount is shared, as systemd's
//! `/` is; [`make_private_mount_point`] gives a directory a mount of its own that stops it, and so
//! keeps devices from being held open by services that happened to start meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::bind::{BindOptions, mount_bind_here};
use crate::error::{io_error, system_error};
use crate::isolation::isolated;
use crate::mount_table::mounted_at;

/// How long a mount may be busy before it counts as used.
const BUSY_TIMEOUT: Duration = Duration::from_millis(300);

/// Flags that any mount can have, as mount(8) names them. All off is the kernel's default:
/// `rw,suid,dev,exec,relatime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags {
    /// `ro`
    pub read_only: bool,
    /// `nosuid`
    pub no_set_user_id: bool,
    /// `nodev`
    pub no_devices: bool,
    /// `noexec`
    pub no_execution: bool,
    /// `noatime`
    pub no_access_times: bool,
}

impl MountFlags {
    pub(crate) fn bits(self) -> MsFlags {
        [
            (self.read_only, MsFlags::MS_RDONLY),
            (self.no_set_user_id, MsFlags::MS_NOSUID),
            (self.no_devices, MsFlags::MS_NODEV),
            (self.no_execution, MsFlags::MS_NOEXEC),
            (self.no_access_times, MsFlags::MS_NOATIME),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(MsFlags::empty(), |bits, (_, flag)| bits | flag)
    }
}

/// How to mount ext4. The default is what `mount -t ext4` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ext4Options {
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Leave a journal that was not replayed as it is (`noload`); only read-only. A device that takes
    /// no writes and was not unmounted cleanly cannot be mounted otherwise.
    pub without_journal_replay: bool,
    /// Discard blocks as files are deleted (`discard`). Off by default, as everywhere: trimming now
    /// and then costs less. See [`crate::trim`].
    pub discard: bool,
}

/// How to mount a tmpfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// Flags of the mount.
    pub flags: MountFlags,
    /// The most it may hold; without it the kernel allows half of the memory.
    pub size_bytes: Option<u64>,
    /// Permissions of its root directory; without it 0o1777.
    pub mode: Option<u32>,
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Refused while anything in it is used.
    Normal,
    /// Takes it out of sight now, with all mounts below, and ends it when nobody uses it any more.
    Lazy,
}

pub(crate) fn mount(
    source: &Path,
    directory: &Path,
    file_system: Option<&str>,
    flags: MsFlags,
    data: &str,
    what: impl Fn() -> String,
) -> Result<()> {
    nix::mount::mount(Some(source), directory, file_system, flags, Some(data))
        .map_err(|errno| system_error(what(), errno))
}

pub(crate) fn set_propagation(directory: &Path, flags: MsFlags) -> Result<()> {
    nix::mount::mount(None::<&str>, directory, None::<&str>, flags, None::<&str>).map_err(|errno| {
        let what = format!("setting how the mount on {} propagates failed", directory.display());
        system_error(what, errno)
    })
}

/// Makes a fresh mount private; a mount that cannot be is taken away again.
fn finish(directory: &Path) -> Result<()> {
    set_propagation(directory, MsFlags::MS_PRIVATE).inspect_err(|_| {
        let _ = umount2(directory, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    })
}

/// Mounts the ext4 of a block device on a directory.
///
/// # Errors
/// [`ErrorKind::InUse`] when the device or the directory is busy, [`ErrorKind::Corrupt`] when the
/// device holds no ext4 that the kernel accepts, [`ErrorKind::ReadOnly`] when it would have to be
/// written to and cannot be, and those of mount(2).
pub fn mount_ext4(device: &Path, directory: &Path, options: &Ext4Options) -> Result<()> {
    isolated(|| mount_ext4_here(device, directory, options))
}

fn mount_ext4_here(device: &Path, directory: &Path, options: &Ext4Options) -> Result<()> {
    if options.without_journal_replay && !options.flags.read_only {
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "{} can be mounted without replaying its journal only read-only",
                device.display()
            ),
        ));
    }
    let mut data = Vec::new();
    if options.without_journal_replay {
        data.push("noload");
    }
    if options.discard {
        data.push("discard");
    }
    let flags = options.flags.bits();
    let what =
        || format!("mounting ext4 of {} on {} failed", device.display(), directory.display());
    match nix::mount::mount(
        Some(device),
        directory,
        Some("ext4"),
        flags,
        Some(data.join(",").as_str()),
    ) {
        Ok(()) => finish(directory),
        // What the kernel calls an invalid argument is an invalid superblock.
        Err(errno @ (Errno::EINVAL | Errno::EUCLEAN)) => {
            let reason =
                "the device holds no valid ext4, see the kernel's log; e2fsck -fn shows more";
            Err(Error::new(ErrorKind::Corrupt, format!("{}: {errno}; {reason}", what())))
        }
        Err(Errno::EROFS | Errno::EACCES) if options.flags.read_only => {
            let reason = "its journal must be replayed, and the device takes no writes; mount it \
                          without replaying";
            Err(Error::new(ErrorKind::ReadOnly, format!("{}: {reason}", what())))
        }
        Err(Errno::EROFS | Errno::EACCES) => {
            let reason = "the device takes no writes; mount it read-only";
            Err(Error::new(ErrorKind::ReadOnly, format!("{}: {reason}", what())))
        }
        Err(errno) => Err(system_error(what(), errno)),
    }
}

/// Mounts an empty tmpfs on a directory.
///
/// # Errors
/// Those of mount(2).
pub fn mount_tmpfs(directory: &Path, options: &TmpfsOptions) -> Result<()> {
    isolated(|| mount_tmpfs_here(directory, options))
}

fn mount_tmpfs_here(directory: &Path, options: &TmpfsOptions) -> Result<()> {
    let mut data = Vec::new();
    if let Some(size_bytes) = options.size_bytes {
        if size_bytes == 0 {
            // To the kernel this means: without any limit.
            return Err(Error::new(
                ErrorKind::Usage,
                format!("the tmpfs on {} cannot have a size of 0", directory.display()),
            ));
        }
        data.push(format!("size={size_bytes}"));
    }
    if let Some(mode) = options.mode {
        data.push(format!("mode={mode:o}"));
    }
    let what = || format!("mounting a tmpfs on {} failed", directory.display());
    let (source, flags) = (Path::new("tmpfs"), options.flags.bits());
    mount(source, directory, Some("tmpfs"), flags, &data.join(","), what)?;
    finish(directory)
}

/// Unmounts what is mounted on a directory: the top mount, if several lie on each other.
///
/// # Errors
/// [`ErrorKind::InUse`] when something in it is used, [`ErrorKind::NotFound`] when nothing is mounted
/// there.
pub fn unmount(directory: &Path, how: Unmount) -> Result<()> {
    isolated(|| unmount_here(directory, how))
}

pub(crate) fn unmount_here(directory: &Path, how: Unmount) -> Result<()> {
    let flags = match how {
        Unmount::Normal => MntFlags::UMOUNT_NOFOLLOW,
        Unmount::Lazy => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
    };
    // A process that this one is just starting holds copies of its open files until it has started.
    let deadline = Instant::now() + BUSY_TIMEOUT;
    let mut result = umount2(directory, flags);
    while result == Err(Errno::EBUSY) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
        result = umount2(directory, flags);
    }
    result.map_err(|errno| match errno {
        Errno::EINVAL => Error::new(
            ErrorKind::NotFound,
            format!("nothing is mounted on {}", directory.display()),
        ),
        Errno::EBUSY => Error::new(
            ErrorKind::InUse,
            format!(
                "{} is in use: something is mounted below it, or a process works in it (fuser -vm {} \
                 shows which)",
                directory.display(),
                directory.display()
            ),
        ),
        _ => system_error(format!("unmounting {} failed", directory.display()), errno),
    })
}

/// Gives a directory a private mount of its own (a bind mount of itself), unless it has one already.
/// What is mounted below it then stays in this namespace.
///
/// # Errors
/// Those of mount(2).
pub fn make_private_mount_point(directory: &Path) -> Result<()> {
    isolated(|| make_private_mount_point_here(directory))
}

fn make_private_mount_point_here(directory: &Path) -> Result<()> {
    let directory = directory.canonicalize().map_err(|error| {
        io_error(format!("finding the directory {} failed", directory.display()), error)
    })?;
    match mounted_at(&directory)? {
        Some(entry) if entry.propagation.is_empty() => Ok(()),
        Some(_) => set_propagation(&directory, MsFlags::MS_PRIVATE),
        None => mount_bind_here(&directory, &directory, &BindOptions::default()),
    }
}
