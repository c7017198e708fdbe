//! Devices of a store as block devices of the kernel: one FUSE connection, and a loop device on each
//! of its files.
//!
//! Order of attaching: file, then loop device. Order of detaching: prove the loop device unopened,
//! unbind it, wait for the kernel to release the file, then take the file away. A device whose loop
//! device cannot be unbound stays served until its last holder lets go, and then leaves by itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};
use thinstore_trace::Recorder;

use crate::fuse::DeviceServer;
use crate::holders::Holder;
use crate::loop_device::{self, LoopDetach, LoopDevice, WhenHeld};
use crate::mount_table::{DeviceNumber, mounts_of};
use crate::recover::{self, Recovered};

/// A device that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// The block device: `/dev/loopN`.
    pub path: PathBuf,
    /// Its size now.
    pub size_bytes: u64,
    /// It takes no writes.
    pub read_only: bool,
    /// It was detached while somebody held it, and goes when they let go.
    pub deferred: bool,
}

/// What [`Exporter::detach`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detached {
    /// It was not attached.
    NotAttached,
    /// It is detached, and nothing reaches the device any more.
    Done,
    /// Somebody holds it, in another mount namespace or with an open file; it goes when they let go.
    /// Until then the device is served and must not be removed.
    Deferred(Vec<Holder>),
}

#[derive(Clone, Copy)]
struct Attachment {
    loop_device: LoopDevice,
    read_only: bool,
    deferred: bool,
}

/// One name's state; its lock is held through an attach or a detach, so that the two of one name
/// exclude each other while those of other names go on.
type Slot = Arc<Mutex<Option<Attachment>>>;

/// The exported devices of a store. Dropping it does what [`Exporter::shutdown`] does, and what is in
/// use is served until the process ends.
pub struct Exporter {
    server: DeviceServer,
    slots: Mutex<HashMap<String, Slot>>,
    mark: String,
    recovered: Recovered,
}

impl Exporter {
    /// Begins to serve devices in `directory`, which is made if it is not there, after cleaning up what
    /// a dead process left: see [`Exporter::recover`] and [`Exporter::recovered`].
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when a living process serves it, [`ErrorKind::Permission`] without root,
    /// [`ErrorKind::Unsupported`] without FUSE.
    pub fn start(directory: &Path) -> Result<Exporter> {
        let recovered = recover::recover(directory)?;
        recover::make_directory(directory)?;
        let server = DeviceServer::mount(directory)?;
        let mark = recover::mark_of(server.directory());
        Ok(Exporter { server, slots: Mutex::default(), mark, recovered })
    }

    /// Cleans up after a process that died while it served `directory`: lazily unmounts what was
    /// mounted from its loop devices and the dead connection, and unbinds those loop devices. Nothing
    /// else is touched. Also to be called where nothing is to be served afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the process is alive.
    pub fn recover(directory: &Path) -> Result<Recovered> {
        recover::recover(directory)
    }

    /// Fails all I/O of the devices that another process serves in `directory`, as if it had died; false
    /// if none does. For one that was killed but cannot end, or that hangs: then [`Exporter::recover`]
    /// says that it does not answer. What had not been flushed is lost, so make sure of the first.
    ///
    /// # Errors
    /// When the kernel's control file system cannot be reached.
    pub fn abort(directory: &Path) -> Result<bool> {
        recover::abort(directory)
    }

    /// What a dead process had left when this one started.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The directory where each device is a file.
    pub fn directory(&self) -> &Path {
        self.server.directory()
    }

    pub(crate) fn device_number(&self) -> DeviceNumber {
        self.server.device_number()
    }

    fn slot(&self, name: &str) -> Slot {
        Arc::clone(self.slots.lock().entry(name.to_owned()).or_default())
    }

    /// Makes a device a block device and answers with its path, `/dev/loopN`. Attaching what is
    /// attached the same way already answers with where it is.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the name is attached with another device or mode, or is still held
    /// after a detach; [`ErrorKind::Usage`] for a name that no file can have.
    pub fn attach(
        &self,
        name: &str,
        device: Arc<dyn BlockDevice>,
        read_only: bool,
    ) -> Result<PathBuf> {
        let slot = self.slot(name);
        let mut slot = slot.lock();
        self.settle(name, &mut slot)?;
        if let Some(attachment) = *slot {
            return self.attached_again(name, &device, read_only, attachment);
        }
        let file = self.server.add(name, device, read_only)?;
        match loop_device::attach(&file, read_only, &self.mark) {
            Ok(loop_device) => {
                *slot = Some(Attachment { loop_device, read_only, deferred: false });
                Ok(loop_device.path())
            }
            Err(error) => {
                if let Err(also) = self.server.remove(name) {
                    tracing::error!("{also}");
                }
                Err(error)
            }
        }
    }

    fn attached_again(
        &self,
        name: &str,
        device: &Arc<dyn BlockDevice>,
        read_only: bool,
        attachment: Attachment,
    ) -> Result<PathBuf> {
        let path = attachment.loop_device.path();
        let in_use = |how: &str| {
            Err(Error::new(
                ErrorKind::InUse,
                format!("the device \"{name}\" is attached at {} {how}", path.display()),
            ))
        };
        if attachment.deferred {
            return in_use("until those who hold it let go; find them with fuser -vm");
        }
        if !self.server.find(name).is_some_and(|served| Arc::ptr_eq(&served, device)) {
            return in_use("already, but is another device; detach it first");
        }
        match (attachment.read_only, read_only) {
            (true, false) => in_use("read-only; detach it first"),
            (false, true) => in_use("for writing; detach it first"),
            _ => Ok(path),
        }
    }

    /// Brings a slot up to what the kernel says: a loop device that somebody else unbound (losetup -d),
    /// or that has gone after a deferred detach, is not attached.
    fn settle(&self, name: &str, slot: &mut Option<Attachment>) -> Result<()> {
        let Some(attachment) = *slot else {
            return Ok(());
        };
        if self.is_bound(name, attachment.loop_device)? {
            return Ok(());
        }
        match self.server.remove(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => {
                *slot = None;
                Ok(())
            }
        }
    }

    fn is_bound(&self, name: &str, loop_device: LoopDevice) -> Result<bool> {
        let file = self.server.directory().join(name);
        Ok(loop_device.bound()?.is_some_and(|bound| bound.backing_file == file))
    }

    /// Takes a block device away. Detaching what is not attached does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when it is mounted in this mount namespace, with the mount points; nothing
    /// has changed then.
    pub fn detach(&self, name: &str) -> Result<Detached> {
        let slot = self.slots.lock().get(name).cloned();
        let Some(slot) = slot else {
            return Ok(Detached::NotAttached);
        };
        let detached = self.detach_slot(name, &mut slot.lock())?;
        let mut slots = self.slots.lock();
        // Two references: the map's and this one; a third is of somebody about to attach.
        if Arc::strong_count(&slot) == 2 && slot.lock().is_none() {
            slots.remove(name);
        }
        Ok(detached)
    }

    fn detach_slot(&self, name: &str, slot: &mut Option<Attachment>) -> Result<Detached> {
        self.settle(name, slot)?;
        let Some(attachment) = slot else {
            return Ok(Detached::NotAttached);
        };
        let loop_device = attachment.loop_device;
        self.check_not_mounted(name, loop_device)?;
        match loop_device.detach(WhenHeld::Defer)? {
            LoopDetach::Cleared => {
                self.server.remove(name).or_else(|error| match error.kind() {
                    ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
                *slot = None;
                Ok(Detached::Done)
            }
            LoopDetach::Deferred(holders) => {
                if self.server.remove_when_released(name)? {
                    *slot = None;
                    return Ok(Detached::Done);
                }
                attachment.deferred = true;
                Ok(Detached::Deferred(holders))
            }
        }
    }

    fn check_not_mounted(&self, name: &str, loop_device: LoopDevice) -> Result<()> {
        let mounts = mounts_of(loop_device.device_number())?;
        if mounts.is_empty() {
            return Ok(());
        }
        let points: Vec<String> =
            mounts.iter().map(|entry| entry.mount_point.display().to_string()).collect();
        Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the device \"{name}\" ({}) is mounted on {}; unmount it first",
                loop_device.path().display(),
                points.join(", ")
            ),
        ))
    }

    /// Makes the kernel see that a device has grown, and answers with the device's path.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not attached.
    pub fn resize(&self, name: &str) -> Result<PathBuf> {
        let slot = self.slots.lock().get(name).cloned();
        let attachment = slot.and_then(|slot| *slot.lock()).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the device \"{name}\" is not attached"))
        })?;
        self.server.refresh(name)?;
        attachment.loop_device.refresh_size()?;
        Ok(attachment.loop_device.path())
    }

    /// The block device of a name, if it is attached and not on its way out.
    ///
    /// # Errors
    /// When `/sys` cannot be read.
    pub fn path_of(&self, name: &str) -> Result<Option<PathBuf>> {
        let slot = self.slots.lock().get(name).cloned();
        match slot.and_then(|slot| *slot.lock()) {
            Some(attachment)
                if !attachment.deferred && self.is_bound(name, attachment.loop_device)? =>
            {
                Ok(Some(attachment.loop_device.path()))
            }
            _ => Ok(None),
        }
    }

    /// All attached devices, by name, those with a deferred detach among them until they have gone.
    ///
    /// # Errors
    /// When `/sys` cannot be read.
    pub fn list(&self) -> Result<Vec<Exported>> {
        let mut exported = Vec::new();
        for served in self.server.list() {
            let slot = self.slots.lock().get(&served.name).cloned();
            let Some(attachment) = slot.and_then(|slot| *slot.lock()) else {
                continue;
            };
            if self.is_bound(&served.name, attachment.loop_device)? {
                exported.push(Exported {
                    name: served.name,
                    path: attachment.loop_device.path(),
                    size_bytes: served.size_bytes,
                    read_only: served.read_only,
                    deferred: attachment.deferred,
                });
            }
        }
        Ok(exported)
    }

    /// Lets a recorder take notes of what the device of a name is asked, until [`Exporter::end_trace`] or the end of
    /// the device; then the recorder is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not attached, [`ErrorKind::InUse`] when it is being traced.
    pub fn trace(&self, name: &str, recorder: Recorder) -> Result<()> {
        self.server.trace(name, recorder)
    }

    /// Ends a trace; false if there is none.
    pub fn end_trace(&self, name: &str) -> bool {
        self.server.end_trace(name)
    }

    /// The loop devices that are attached.
    pub(crate) fn loop_devices(&self) -> Vec<LoopDevice> {
        let slots: Vec<Slot> = self.slots.lock().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.lock().map(|found| found.loop_device)).collect()
    }

    /// Detaches everything and ends the serving. What is mounted, or held elsewhere, stays as it is and
    /// is served on; the rest is detached all the same.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] that names what could not be detached.
    pub fn shutdown(&self) -> Result<()> {
        let mut names: Vec<String> = self.slots.lock().keys().cloned().collect();
        names.sort();
        let mut kept = Vec::new();
        for name in names {
            match self.detach(&name) {
                Ok(Detached::Deferred(holders)) => {
                    let holders = loop_device::describe(&holders);
                    kept.push(format!("the device \"{name}\" is in use{holders}"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::InUse => kept.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if !kept.is_empty() {
            return Err(Error::new(ErrorKind::InUse, kept.join("; ")));
        }
        self.server.unmount()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown() {
            tracing::warn!("{error}");
        }
    }
}
