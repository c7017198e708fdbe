//! Datasets of a zpool in the file `zfs/pool`: a layer is a clone of the snapshot `sealed` of the one below. By the programs
//! zpool and zfs, which are those of OpenZFS or of zfs-fuse.
//!
//! A dataset is mounted at `zfs/mounts/ID`, and shown from there where it is wanted. A commit is a clone of a snapshot
//! of the container, which then stands below both; whoever is removed first leaves it to the other (`zfs promote`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thinstore_export::{Unmount, mounted_at, mounts_of, unmount};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::directory::{self, failed};
use crate::driver::{Commit, LayerDriver, LayerId, Place, Stack, Unchanged};
use crate::lock::Lock;
use crate::name::DriverName;
use crate::program::Program;

const POOL_PROGRAM: Program = Program { name: "zpool", package: "zfsutils-linux, or zfs-fuse" };
const PROGRAM: Program = Program { name: "zfs", package: "zfsutils-linux, or zfs-fuse" };

/// How large the pool's file is. It is sparse.
const SIZE_BYTES: u64 = 1 << 40;
/// How long the end of a mount may take.
const UNMOUNTING_TIMEOUT: Duration = Duration::from_secs(5);
/// The file that says that the pool was made to its end.
const MADE: &str = "made";
/// The snapshot of a layer that others stand on.
const SEALED: &str = "sealed";
/// What a dataset's name has in front of a random one, if it is of a look.
const VIEW: &str = "view-";

pub(crate) fn obstacle() -> Option<String> {
    POOL_PROGRAM.obstacle().or_else(|| PROGRAM.obstacle()).or_else(|| {
        let error = POOL_PROGRAM.run(&["list"]).err()?;
        Some(format!("neither has the kernel ZFS (/dev/zfs), nor does zfs-fuse run: {error}"))
    })
}

pub(crate) struct Zfs {
    folder: PathBuf,
    /// Of the pool's users: whoever takes it down has it alone.
    users: File,
    /// The names of pools are the whole host's: each store's has its own.
    pool: String,
}

/// `InUse` if that is what the program says.
fn run_program<A: AsRef<OsStr>>(program: Program, arguments: &[A]) -> Result<String> {
    program.run(arguments).map_err(|error| {
        let text = error.to_string();
        match text.contains("busy") {
            true => Error::new(ErrorKind::InUse, text),
            false => error,
        }
    })
}

fn run(arguments: &[&str]) -> Result<String> {
    run_program(PROGRAM, arguments)
}

/// The same of what was unmounted: zfs-fuse hears of that a moment later, and calls it busy until then.
fn run_when_free(program: Program, arguments: &[&str]) -> Result<String> {
    let deadline = Instant::now() + UNMOUNTING_TIMEOUT;
    loop {
        match run_program(program, arguments) {
            Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            ended => return ended,
        }
    }
}

impl Zfs {
    pub(crate) fn open(root: &Path) -> Result<Zfs> {
        let folder = root.join(DriverName::Zfs.as_str());
        directory::make_private(&folder.join("mounts"))?;
        directory::make_private(&folder.join("views"))?;
        let folder = folder.canonicalize().map_err(failed("find", &folder))?;
        let lock = folder.join("pool.lock");
        let users = File::options().create(true).append(true).open(&lock);
        let users = users.map_err(failed("open", &lock))?;
        let mut driver = Zfs { folder, users, pool: String::new() };
        loop {
            driver.users.lock_shared().map_err(failed("lock", &lock))?;
            if let Some(name) = directory::own_name(&driver.folder)? {
                driver.pool = name;
                if driver.is_up()? {
                    return Ok(driver);
                }
            }
            // from having it together to having it alone somebody else may come between
            driver.users.unlock().map_err(failed("lock", &lock))?;
            driver.users.lock().map_err(failed("lock", &lock))?;
            driver.pool = directory::make_own_name(&driver.folder)?;
            if !driver.is_up()? {
                driver.bring_up()?;
            }
        }
    }

    /// Makes the pool, or brings up the one that is there.
    fn bring_up(&self) -> Result<()> {
        let (image, made) = (self.folder.join("pool"), self.folder.join(MADE));
        let mounts = self.folder.join("mounts");
        if made.exists() {
            let words = ["import", "-o", "cachefile=none", "-d"].map(Path::new);
            POOL_PROGRAM.run(&[&words[..], &[&self.folder, Path::new(&self.pool)]].concat())?;
            let mountpoint = format!("mountpoint={}", text(&mounts)?);
            return run(&["set", &mountpoint, &self.pool]).map(drop);
        }
        // what a killed process has left of it was never used
        drop(POOL_PROGRAM.run(&["destroy", "-f", &self.pool]));
        let file = File::create(&image).map_err(failed("make", &image))?;
        file.set_len(SIZE_BYTES).map_err(failed("make", &image))?;
        let mountpoint = format!("mountpoint={}", text(&mounts)?);
        let words = ["create", "-f", "-o", "cachefile=none", "-O", &mountpoint];
        let more = ["-O", "canmount=off", "-O", "atime=off", &self.pool, text(&image)?];
        POOL_PROGRAM.run(&[&words[..], &more].concat())?;
        for property in ["xattr=sa", "acltype=posixacl"] {
            // zfs-fuse does not know them: it keeps the attributes of ACLs, and nothing comes of them
            if let Err(error) = run(&["set", property, &self.pool]) {
                tracing::debug!("{error}");
            }
        }
        File::create(&made).map_err(failed("make", &made))?;
        directory::sync(&self.folder)
    }

    fn dataset(&self, name: &str) -> String {
        format!("{}/{name}", self.pool)
    }

    fn snapshot_of(&self, id: &LayerId, name: &str) -> String {
        format!("{}/{id}@{name}", self.pool)
    }

    fn is_there(&self, name: &str) -> Result<bool> {
        match run(&["list", "-H", "-o", "name", name]) {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("does not exist") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Is the pool made to its end, and does the kernel or the server have it?
    fn is_up(&self) -> Result<bool> {
        Ok(self.folder.join(MADE).exists() && self.is_there(&self.pool)?)
    }

    /// Where a dataset is mounted while it is.
    fn place(&self, name: &str) -> PathBuf {
        self.folder.join("mounts").join(name)
    }

    fn make_snapshot(&self, id: &LayerId, name: &str) -> Result<String> {
        let snapshot = self.snapshot_of(id, name);
        run(&["snapshot", &snapshot])?;
        Ok(snapshot)
    }

    fn clone_snapshot(&self, snapshot: &str, name: &str) -> Result<()> {
        run(&["clone", "-o", "canmount=noauto", snapshot, &self.dataset(name)]).map(drop)
    }

    /// Mounts a dataset and shows it at a directory.
    fn show(&self, name: &str, directory: &Path, read_only: bool) -> Result<()> {
        let place = self.place(name);
        directory::make_private(&place)?;
        if mounted_at(&place)?.is_none() {
            run_when_free(PROGRAM, &["mount", &self.dataset(name)])?;
        }
        directory::show(&place, directory, read_only)
    }

    /// Is the file system shown at another place than its own?
    fn is_shown(&self, name: &str) -> Result<bool> {
        match mounted_at(&self.place(name))? {
            Some(entry) => Ok(mounts_of(entry.device)?.len() > 1),
            None => Ok(false),
        }
    }

    /// `InUse` while it is shown.
    fn unmount(&self, name: &str) -> Result<()> {
        let place = self.place(name);
        if self.is_shown(name)? {
            let what = format!("{} is in use: it is mounted at another place too", place.display());
            return Err(Error::new(ErrorKind::InUse, what));
        }
        if mounted_at(&place)?.is_some() {
            // the server of zfs-fuse may have gone, and its mounts stay
            if run(&["unmount", &self.dataset(name)]).is_err() {
                unmount(&place, Unmount::Normal)?;
            }
        }
        match std::fs::remove_dir(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &place)(error))
            }
            _ => Ok(()),
        }
    }

    /// Destroys a dataset. The snapshots that others were cloned from go over to them.
    fn destroy(&self, name: &str) -> Result<()> {
        let dataset = self.dataset(name);
        let _destroying = Lock::wait(&self.folder.join("destroy.lock"))?;
        if !self.is_there(&dataset)? {
            return Ok(());
        }
        self.unmount(name)?;
        let from_it = format!("{dataset}@");
        loop {
            let listed = run(&["list", "-H", "-r", "-o", "name,origin", &self.pool])?;
            let heir = listed.lines().find_map(|line| {
                let (heir, origin) = line.split_once('\t')?;
                origin.starts_with(&from_it).then(|| heir.to_owned())
            });
            match heir {
                Some(heir) => run(&["promote", &heir])?,
                None => {
                    return run_when_free(PROGRAM, &["destroy", "-r", &dataset]).map(drop);
                }
            };
        }
    }

    fn view_lock(&self, name: &str) -> PathBuf {
        self.folder.join("views").join(name)
    }

    /// Removes the clones of looks that are over, and what they were cloned from.
    fn end_views(&self) -> Result<()> {
        let views = self.folder.join("views");
        for entry in std::fs::read_dir(&views).map_err(failed("look into", &views))?.flatten() {
            let file_name = entry.file_name();
            let Some((id, view)) = file_name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Some(lock) = Lock::take_left(&entry.path())? else { continue };
            if self.is_shown(view)? {
                continue;
            }
            self.destroy(view)?;
            let snapshot = format!("{}@{view}", self.dataset(id));
            if self.is_there(&snapshot)? {
                run_when_free(PROGRAM, &["destroy", &snapshot])?;
            }
            lock.remove()?;
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("{} is not UTF-8, as zfs wants it", path.display()))
    })
}

impl Drop for Zfs {
    /// Nobody else uses the pool, and nothing of it is mounted: it is taken down.
    fn drop(&mut self) {
        if let Err(error) = self.end_views() {
            tracing::warn!("{error}");
        }
        match self.users.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
        }
        // refused while a dataset is shown somewhere; those that are not are unmounted by it
        let mounts = std::fs::read_dir(self.folder.join("mounts"));
        if mounts.is_ok_and(|mut mounts| mounts.next().is_some()) {
            return;
        }
        if let Err(error) = run_when_free(POOL_PROGRAM, &["export", &self.pool]) {
            tracing::debug!("{error}");
        }
    }
}

impl LayerDriver for Zfs {
    fn name(&self) -> DriverName {
        DriverName::Zfs
    }

    fn create(&self, layer: &Stack) -> Result<()> {
        let name = layer.id.as_str();
        if let Some(parent) = layer.below.first() {
            return self.clone_snapshot(&self.snapshot_of(parent, SEALED), name);
        }
        run(&["create", "-o", "canmount=noauto", &self.dataset(name)])?;
        let place = self.place(name);
        directory::make_private(&place)?;
        run_when_free(PROGRAM, &["mount", &self.dataset(name)])?;
        directory::settle_root(&place)?;
        self.unmount(name)
    }

    fn seal(&self, layer: &Stack) -> Result<()> {
        self.make_snapshot(&layer.id, SEALED).map(drop)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.end_views()?;
        self.destroy(id.as_str())
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        let listed = run(&["list", "-H", "-r", "-o", "name", &self.pool])?;
        let names = listed.lines().filter_map(|name| name.rsplit('/').next());
        Ok(names.filter_map(|name| LayerId::parse(name).ok()).collect())
    }

    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()> {
        self.show(layer.id.as_str(), place.directory, place.read_only)
    }

    /// A clone is looked at: the layer itself may be mounted once only.
    fn view(&self, layer: &Stack, directory: &Path) -> Result<()> {
        self.end_views()?;
        let view = format!("{VIEW}{}", LayerId::random()?);
        let _lock = Lock::wait(&self.view_lock(&format!("{}.{view}", layer.id)))?;
        let snapshot = self.make_snapshot(&layer.id, &view)?;
        self.clone_snapshot(&snapshot, &view)?;
        self.show(&view, directory, true)
    }

    fn release(&self, id: &LayerId) -> Result<()> {
        self.end_views()?;
        self.unmount(id.as_str())
    }

    /// A snapshot is of one moment, with all that was written before it.
    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit> {
        if let Some(mounted) = mounted {
            directory::sync(mounted)?;
        }
        let snapshot = self.make_snapshot(&from.id, to.as_str())?;
        self.clone_snapshot(&snapshot, to.as_str())?;
        self.make_snapshot(to, SEALED)?;
        Ok(Commit::default())
    }

    fn unchanged(&self, old: &Stack, new: &Stack) -> Unchanged {
        match new.below.contains(&old.id) {
            true => Unchanged::ChangeTime,
            false => Unchanged::Unknown,
        }
    }

    fn own_bytes(&self, id: &LayerId) -> Result<u64> {
        let used = run(&["get", "-H", "-p", "-o", "value", "used", &self.dataset(id.as_str())])?;
        used.trim().parse().map_err(|_| {
            Error::new(ErrorKind::Corrupt, format!("zfs says that {id} uses '{}'", used.trim()))
        })
    }

    /// As Docker's driver of the name calls them.
    fn facts(&self, layer: &Stack) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("Dataset".to_owned(), self.dataset(layer.id.as_str())),
            ("Mountpoint".to_owned(), self.place(layer.id.as_str()).display().to_string()),
        ])
    }
}
