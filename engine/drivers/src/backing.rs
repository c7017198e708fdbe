//! The file system that a driver needs, where the store's own is of another kind: made in a sparse file
//! of the store, `ROOT/DRIVER.img`, and mounted on the driver's folder while somebody uses it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::MsFlags;
use thinstore_export::loop_device;
use thinstore_export::{DeviceNumber, Unmount, mounted_at, mounts_of, unmount};
use thinstore_storage::{Error, Result};

use crate::directory::{failed, make_private};
use crate::name::DriverName;
use crate::program::Program;

/// How large the file system in the file is. The file is sparse, and has what is removed discarded.
const SIZE_BYTES: u64 = 1 << 40;

/// How often, and after which pause, something that is about to end is waited for.
const ENDING_ATTEMPTS: u32 = 25;
const ENDING_PAUSE: Duration = Duration::from_millis(10);

/// How long the end of a mount that nobody sees any more may take.
const GOING_TIMEOUT: Duration = Duration::from_secs(10);

/// The mark of its loop device.
const MARK: &str = "thinstore-backing";

/// The kind of file system that a driver needs.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// As mount(8) calls it.
    pub(crate) name: &'static str,
    pub(crate) make: Program,
    /// Of the program that makes it, before the file's path.
    pub(crate) arguments: &'static [&'static str],
    /// Can the driver work in this folder?
    pub(crate) suits: fn(&Path) -> Result<bool>,
}

/// A folder on a file system of the kind that its driver needs.
pub(crate) struct Backing {
    folder: PathBuf,
    /// Of the file's users: whoever takes the mount away has it alone. None if there is no file.
    users: Option<File>,
}

impl Backing {
    /// Why there is none here; makes nothing.
    pub(crate) fn obstacle(root: &Path, kind: Kind) -> Result<Option<String>> {
        if root.exists() && (kind.suits)(root)? {
            return Ok(None);
        }
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !known.lines().any(|line| line.split_whitespace().last() == Some(kind.name)) {
            return Ok(Some(format!("the kernel has no {}", kind.name)));
        }
        Ok(kind.make.obstacle())
    }

    pub(crate) fn open(root: &Path, driver: DriverName, kind: Kind) -> Result<Backing> {
        let folder = root.join(driver.as_str());
        make_private(&folder)?;
        let image = root.join(format!("{driver}.img"));
        if !image.exists() && (kind.suits)(root)? {
            return Ok(Backing { folder, users: None });
        }
        let lock = root.join(format!("{driver}.lock"));
        let users = File::options().create(true).append(true).open(&lock);
        let users = users.map_err(failed("open", &lock))?;
        users.lock().map_err(failed("lock", &lock))?;
        let folder = folder.canonicalize().map_err(failed("find", &folder))?;
        if mounted_at(&folder)?.is_none() {
            make_image(&image, kind)?;
            mount_image(&image, &folder, kind)?;
        }
        users.lock_shared().map_err(failed("lock", &lock))?;
        Ok(Backing { folder, users: Some(users) })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Backing {
    /// Nobody else and no mount uses it: it is unmounted.
    fn drop(&mut self) {
        let Some(users) = &self.users else { return };
        match users.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
        }
        let Ok(metadata) = std::fs::metadata(&self.folder) else { return };
        let device = DeviceNumber::from_raw(metadata.dev());
        for _ in 0..ENDING_ATTEMPTS {
            let shown_elsewhere = match mounted_at(&self.folder) {
                // of a btrfs each subvolume has a device number of its own
                Ok(Some(entry)) => mounts_of(entry.device).map_or(true, |mounts| mounts.len() > 1),
                _ => true,
            };
            let use_of_loops = if shown_elsewhere { UseOfLoops::Used } else { self.use_of_loops() };
            match use_of_loops {
                UseOfLoops::Used => {
                    tracing::debug!("the file system {device} is in use");
                    return;
                }
                UseOfLoops::Ending => {}
                UseOfLoops::None => match unmount(&self.folder, Unmount::Normal) {
                    Ok(()) => return,
                    Err(error) => tracing::debug!("{error}"),
                },
            }
            std::thread::sleep(ENDING_PAUSE);
        }
    }
}

/// Loop devices that are bound to files in a backing.
enum UseOfLoops {
    None,
    /// They are not mounted any more: the kernel unbinds them a moment after.
    Ending,
    Used,
}

impl Backing {
    fn use_of_loops(&self) -> UseOfLoops {
        let Ok(bound) = loop_device::bound_loops() else { return UseOfLoops::Used };
        let mut inside =
            bound.iter().filter(|bound| bound.backing_file.starts_with(&self.folder)).peekable();
        if inside.peek().is_none() {
            return UseOfLoops::None;
        }
        let is_mounted = |bound: &loop_device::BoundLoop| {
            mounts_of(bound.device.device_number()).map_or(true, |mounts| !mounts.is_empty())
        };
        match inside.any(is_mounted) {
            true => UseOfLoops::Used,
            false => UseOfLoops::Ending,
        }
    }
}

/// Makes the file and the file system in it, whole or not at all.
fn make_image(image: &Path, kind: Kind) -> Result<()> {
    if image.exists() {
        return Ok(());
    }
    let folder = image.parent().unwrap_or(Path::new("/"));
    // of one name, so that what a killed process has left is found: the users' lock is held
    let unfinished = image.with_extension("new");
    let file = File::create(&unfinished).map_err(failed("make", &unfinished))?;
    let made = (|| {
        file.set_len(0).and_then(|()| file.set_len(SIZE_BYTES)).map_err(failed("make", image))?;
        let mut arguments: Vec<&std::ffi::OsStr> =
            kind.arguments.iter().map(AsRef::as_ref).collect();
        arguments.push(unfinished.as_os_str());
        kind.make.run(&arguments)?;
        file.sync_all().map_err(failed("write", image))?;
        std::fs::rename(&unfinished, image).map_err(failed("make", image))
    })();
    if let Err(error) = made {
        drop(std::fs::remove_file(&unfinished));
        return Err(error);
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

/// The loop device goes with the mount.
fn mount_image(image: &Path, folder: &Path, kind: Kind) -> Result<()> {
    let device = loop_device::attach_while_open(image, MARK)?;
    let none = None::<&str>;
    let mount = || {
        nix::mount::mount(
            Some(&device.path()),
            folder,
            Some(kind.name),
            MsFlags::MS_NOATIME,
            Some("discard"),
        )
    };
    let deadline = Instant::now() + GOING_TIMEOUT;
    let mut mounted = mount();
    // One that a killed process was just unmounting is still there for a moment: no file system is mounted
    // twice under one id.
    while matches!(mounted, Err(Errno::EINVAL | Errno::EBUSY | Errno::EEXIST))
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(20));
        mounted = mount();
    }
    let mounted =
        mounted.and_then(|()| nix::mount::mount(none, folder, none, MsFlags::MS_PRIVATE, none));
    mounted.map_err(|errno| {
        let what = format!("mounting the {} in {} failed", kind.name, image.display());
        Error::io(what, errno.into())
    })
}
