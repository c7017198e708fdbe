//! The pool: a thin-pool of the kernel's on two loop devices. It is active while somebody uses it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use thinstore_export::loop_device;
use thinstore_storage::{Error, ErrorKind, Result};

use super::dmsetup::{Device, devices, load, setup};
use super::ids::{FRESH, ThinId};
use crate::directory::{self, failed};
use crate::disk_image;
use crate::driver::LayerId;
use crate::lock::Lock;
use crate::program::Program;

pub(super) const LIST_PROGRAM: Program =
    Program { name: "thin_ls", package: "thin-provisioning-tools" };

/// As Docker's loop-lvm had it: sparse files of these sizes.
const DATA_BYTES: u64 = 100 << 30;
const METADATA_BYTES: u64 = 2 << 30;
const SECTOR_BYTES: u64 = 512;
const BLOCK_BYTES: u64 = 64 << 10;
/// When so many blocks are left, whoever listens is told; nobody does.
const LOW_WATER_BLOCKS: u64 = 1024;

/// The mark of the loop devices.
const MARK: &str = "thinstore-devicemapper";

pub(super) struct Pool {
    folder: PathBuf,
    /// All devices of this pool are called by it: `PREFIX-pool`, `PREFIX-ID`.
    prefix: String,
    /// Whoever brings the pool up or takes it down has it alone.
    users: File,
}

impl Pool {
    pub(super) fn open(folder: &Path) -> Result<Pool> {
        load()?;
        let lock = folder.join("pool.lock");
        let users = File::options().create(true).append(true).open(&lock);
        let users = users.map_err(failed("open", &lock))?;
        let folder = folder.canonicalize().map_err(failed("find", folder))?;
        let mut pool = Pool { folder, prefix: String::new(), users };
        loop {
            pool.users.lock_shared().map_err(failed("lock", &lock))?;
            if let Some(prefix) = directory::own_name(&pool.folder)? {
                pool.prefix = prefix;
                if pool.find(&pool.name())?.is_some_and(|device| device.has_table) {
                    break;
                }
            }
            // from having it together to having it alone somebody else may come between
            pool.users.unlock().map_err(failed("lock", &lock))?;
            pool.users.lock().map_err(failed("lock", &lock))?;
            pool.prefix = directory::make_own_name(&pool.folder)?;
            pool.bring_up()?;
        }
        pool.finish_commit()?;
        Ok(pool)
    }

    /// What the kernel calls it.
    pub(super) fn name(&self) -> String {
        format!("{}-pool", self.prefix)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the files if they are not there; the kernel makes a pool of metadata that is all zero.
    fn bring_up(&self) -> Result<()> {
        match self.find(&self.name())? {
            Some(device) if device.has_table => return Ok(()),
            Some(_) => remove_device(&self.name())?,
            None => {}
        }
        let mut loops = Vec::new();
        for (name, size_bytes) in [("metadata", METADATA_BYTES), ("data", DATA_BYTES)] {
            let path = self.file(name);
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(failed("make", &path))?;
            file.set_len(size_bytes).map_err(failed("make", &path))?;
            loops.push(loop_device::attach_while_open(&path, MARK)?);
        }
        directory::sync(&self.folder)?;
        let paths: Vec<String> = loops.iter().map(|one| one.path().display().to_string()).collect();
        let table = format!(
            "0 {} thin-pool {} {} {LOW_WATER_BLOCKS} 1 error_if_no_space",
            DATA_BYTES / SECTOR_BYTES,
            paths.join(" "),
            BLOCK_BYTES / SECTOR_BYTES,
        );
        setup(&["create", &self.name(), "--table", &table]).map(drop)
    }

    fn find(&self, name: &str) -> Result<Option<Device>> {
        Ok(devices(name)?.into_iter().find(|device| device.name == name))
    }

    pub(super) fn device_name(&self, id: &LayerId) -> String {
        format!("{}-{id}", self.prefix)
    }

    /// Where a layer's device is, if it is active.
    pub(super) fn device(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let name = self.device_name(id);
        Ok(self.find(&name)?.map(|_| Device::node(&name)))
    }

    /// What a killed process has left under the name goes first: it may be half made.
    fn activate_as(&self, name: &str, thin: ThinId) -> Result<PathBuf> {
        self.deactivate_as(name)?;
        let pool = self.find(&self.name())?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no device {}", self.name()))
        })?;
        let sectors = disk_image::SIZE_BYTES / SECTOR_BYTES;
        let table = format!("0 {sectors} thin {} {}", pool.number, thin.0);
        setup(&["create", name, "--table", &table])?;
        Ok(Device::node(name))
    }

    pub(super) fn activate(&self, id: &LayerId, thin: ThinId) -> Result<PathBuf> {
        self.activate_as(&self.device_name(id), thin)
    }

    fn deactivate_as(&self, name: &str) -> Result<()> {
        match self.find(name)? {
            Some(device) if device.is_mounted()? => Err(Error::new(
                ErrorKind::InUse,
                format!("{} is mounted; unmount it first", Device::node(name).display()),
            )),
            Some(_) => remove_device(name),
            None => Ok(()),
        }
    }

    /// `InUse` while it is mounted.
    pub(super) fn deactivate(&self, id: &LayerId) -> Result<()> {
        self.deactivate_as(&self.device_name(id))
    }

    fn message(&self, text: &str) -> Result<String> {
        setup(&["message", &self.name(), "0", text])
    }

    /// Makes a device with what another has, which is not active. It is durable when this returns: the pool
    /// commits after each message.
    pub(super) fn snapshot(&self, of: ThinId, thin: ThinId) -> Result<()> {
        self.message(&format!("create_snap {} {}", thin.0, of.0)).map(drop)
    }

    /// The same of one that is mounted, which is held still meanwhile (that freezes the file system): for how long.
    pub(super) fn snapshot_mounted(
        &self,
        of: &LayerId,
        of_thin: ThinId,
        thin: ThinId,
    ) -> Result<std::time::Duration> {
        let name = self.device_name(of);
        let _committing = Lock::wait(&self.file("commit.lock"))?;
        let note = self.file("suspended");
        std::fs::write(&note, &name).map_err(failed("write", &note))?;
        let started = std::time::Instant::now();
        setup(&["suspend", &name])?;
        let made = self.snapshot(of_thin, thin);
        let resumed = setup(&["resume", &name]);
        let elapsed = started.elapsed();
        made.and(resumed)?;
        std::fs::remove_file(&note).map_err(failed("remove", &note))?;
        Ok(elapsed)
    }

    /// A killed process may have left a device suspended.
    fn finish_commit(&self) -> Result<()> {
        let note = self.file("suspended");
        if !note.exists() {
            return Ok(());
        }
        let _committing = Lock::wait(&self.file("commit.lock"))?;
        let Ok(name) = std::fs::read_to_string(&note) else { return Ok(()) };
        if self.find(&name)?.is_some() {
            setup(&["resume", &name])?;
        }
        std::fs::remove_file(&note).map_err(failed("remove", &note))
    }

    /// One that is not there is no error.
    pub(super) fn delete(&self, thin: ThinId) -> Result<()> {
        match self.message(&format!("delete {}", thin.0)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn fresh_name(&self) -> String {
        format!("{}-fresh", self.prefix)
    }

    /// The empty file system: made whole, or made again.
    pub(super) fn make_fresh(&self) -> Result<()> {
        let made = self.file("fresh");
        if made.exists() {
            return Ok(());
        }
        let _making = Lock::wait(&self.file("fresh.lock"))?;
        if made.exists() {
            return Ok(());
        }
        let image = self.file("fresh.img");
        disk_image::make_fresh(&image)?;
        self.deactivate_as(&self.fresh_name())?;
        self.delete(FRESH)?;
        self.message(&format!("create_thin {}", FRESH.0))?;
        let device = self.activate_as(&self.fresh_name(), FRESH)?;
        copy_data(&image, &device)?;
        self.deactivate_as(&self.fresh_name())?;
        std::fs::remove_file(&image).map_err(failed("remove", &image))?;
        File::create(&made).map_err(failed("make", &made))?;
        directory::sync(&self.folder)
    }

    /// How much only this device has, by a pass over a snapshot of the pool's metadata.
    pub(super) fn own_bytes(&self, thin: ThinId) -> Result<u64> {
        let _alone = Lock::wait(&self.file("list.lock"))?;
        if self.message("reserve_metadata_snap").is_err() {
            // left of a process that was killed
            self.message("release_metadata_snap")?;
            self.message("reserve_metadata_snap")?;
        }
        let listed = self.metadata_device().and_then(|device| {
            let columns = ["--metadata-snap", "--no-headers", "--format", "DEV,EXCLUSIVE_BLOCKS"];
            LIST_PROGRAM.run(&[&columns[..], &[&device]].concat())
        });
        self.message("release_metadata_snap")?;
        let listed = listed?;
        let mut rows = listed.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u64>().ok()?))
        });
        let blocks = rows.find(|(number, _)| *number == thin.0).map_or(0, |(_, blocks)| blocks);
        Ok(blocks.saturating_mul(BLOCK_BYTES))
    }

    /// Unless a device of it is active.
    fn take_down(&self) -> Result<()> {
        self.deactivate_as(&self.fresh_name())?;
        let name = self.name();
        let active = devices(&format!("{}-", self.prefix))?;
        match active.iter().all(|device| device.name == name) {
            true => self.deactivate_as(&name),
            false => Ok(()),
        }
    }

    fn metadata_device(&self) -> Result<String> {
        let path = self.file("metadata");
        let bound =
            loop_device::bound_loops()?.into_iter().find(|bound| bound.backing_file == path);
        let bound = bound.ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("no loop device is bound to {}", path.display()))
        })?;
        Ok(bound.device.path().display().to_string())
    }
}

impl Drop for Pool {
    /// Nobody else uses it, and no device of it is active: it is taken down.
    fn drop(&mut self) {
        match self.users.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
        }
        if let Err(error) = self.take_down() {
            tracing::debug!("{error}");
        }
    }
}

/// One that was unmounted just now may be looked at by others for a moment.
fn remove_device(name: &str) -> Result<()> {
    setup(&["remove", "--retry", name]).map(drop)
}

/// Copies what a sparse file has to a device that is all zero.
fn copy_data(image: &Path, device: &Path) -> Result<()> {
    let source = File::open(image).map_err(failed("open", image))?;
    let target = File::options().write(true).open(device).map_err(failed("open", device))?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    let failed_to_read = |errno: Errno| failed("read", image)(errno.into());
    loop {
        offset = match seek(&source, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // there is none behind it
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(failed_to_read(errno)),
        };
        let end = seek(&source, SeekFrom::Hole(offset)).map_err(failed_to_read)?;
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let (part, _) = buffer.split_at_mut(length);
            source.read_exact_at(part, offset).map_err(failed("read", image))?;
            target.write_all_at(part, offset).map_err(failed("write", device))?;
            offset = offset.saturating_add(u64::try_from(length).unwrap_or(0));
        }
    }
    target.sync_all().map_err(failed("write", device))
}
