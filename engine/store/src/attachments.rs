//! The block devices of containers: who is attached where, and where it is mounted.
//!
//! What the kernel says is the truth here. The only state of our own is the handles of the devices that
//! are served, which have to live as long as the kernel can reach them, and a lock for each name, under
//! which everything happens that changes how far a container is in use.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_export::{Detached, DeviceNumber, Exporter, MountEntry, mounts};
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};
use thinstore_trace::Recorder;

use crate::apart::apart;
use crate::layout::{Layout, make_private_directory};

/// Where a container is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `/dev/loopN`.
    pub(crate) device: PathBuf,
    /// The device takes no writes.
    pub(crate) read_only: bool,
    /// Detached, but still held by somebody; goes when they let go.
    pub(crate) deferred: bool,
    /// Where its file system is mounted.
    pub(crate) mount: Option<MountEntry>,
}

/// The block devices that this process serves.
pub(crate) struct Attachments {
    layout: Layout,
    exporter: Mutex<Option<Arc<Exporter>>>,
    handles: Mutex<HashMap<String, Arc<dyn BlockDevice>>>,
    locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

/// The number of a device node.
pub(crate) fn device_number(device: &Path) -> Result<DeviceNumber> {
    let metadata = std::fs::metadata(device).map_err(|error| {
        Error::io(format!("cannot look at the device {}", device.display()), error)
    })?;
    Ok(DeviceNumber::from_raw(metadata.rdev()))
}

/// Can this kernel make block devices of ours? Root of a container has often neither FUSE nor loop devices.
pub(crate) fn kernel_can_export() -> bool {
    ["/dev/fuse", "/dev/loop-control"]
        .iter()
        .all(|node| std::fs::OpenOptions::new().read(true).write(true).open(node).is_ok())
}

impl Attachments {
    pub(crate) fn new(layout: Layout) -> Attachments {
        Attachments {
            layout,
            exporter: Mutex::new(None),
            handles: Mutex::default(),
            locks: Mutex::default(),
        }
    }

    /// The lock of a container's name.
    pub(crate) fn lock_of(&self, name: &str) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock();
        // those that nobody holds or waits for need not be kept
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }

    /// Cleans up what a process that was killed has left.
    pub(crate) fn recover(&self) -> Result<()> {
        let recovered = Exporter::recover(&self.layout.devices())?;
        for device in &recovered.devices {
            tracing::warn!(
                name = device.name,
                device = %device.loop_device.path().display(),
                "a device of a daemon that was killed has been taken away"
            );
        }
        Ok(())
    }

    fn running(&self) -> Option<Arc<Exporter>> {
        self.exporter.lock().clone()
    }

    /// Begins to serve. Not to be called on a thread that is [`crate::apart`].
    pub(crate) fn start(&self) -> Result<()> {
        self.started().map(drop)
    }

    /// Does something that may wait for a device that is served here.
    pub(crate) fn apart<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self.running() {
            Some(_) => apart(action),
            None => action(),
        }
    }

    fn started(&self) -> Result<Arc<Exporter>> {
        let mut exporter = self.exporter.lock();
        if let Some(exporter) = exporter.as_ref() {
            return Ok(exporter.clone());
        }
        make_private_directory(&self.layout.run())?;
        let started = Arc::new(Exporter::start(&self.layout.devices())?);
        *exporter = Some(started.clone());
        Ok(started)
    }

    /// Makes a block device of `open`'s device, or answers where it already is.
    pub(crate) fn attach(
        &self,
        name: &str,
        read_only: bool,
        open: impl FnOnce() -> Result<Arc<dyn BlockDevice>>,
    ) -> Result<PathBuf> {
        let exporter = self.running().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("nothing serves the device '{name}' here"))
        })?;
        self.drop_released(&exporter)?;
        let known = self.handles.lock().get(name).cloned();
        let device = match known {
            Some(device) => device,
            None => open()?,
        };
        let path = exporter.attach(name, device.clone(), read_only)?;
        self.handles.lock().insert(name.to_owned(), device);
        Ok(path)
    }

    /// Takes a block device away; true if there was one. What somebody else still holds goes when they
    /// let go.
    pub(crate) fn detach(&self, name: &str) -> Result<bool> {
        let Some(exporter) = self.running() else { return Ok(false) };
        match exporter.detach(name)? {
            Detached::NotAttached => {
                self.handles.lock().remove(name);
                Ok(false)
            }
            Detached::Done => {
                self.handles.lock().remove(name);
                Ok(true)
            }
            Detached::Deferred(holders) => {
                let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
                tracing::warn!(name, "detached when they let go: {}", holders.join(", "));
                Ok(true)
            }
        }
    }

    /// Lets a recorder take notes of what an attached container's device is asked; its size in bytes.
    pub(crate) fn trace(&self, name: &str, recorder: Recorder) -> Result<u64> {
        let not_attached = || {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "the container '{}' is not attached: there is nothing to trace until it is mounted",
                    name.escape_debug()
                ),
            )
        };
        let exporter = self.running().ok_or_else(not_attached)?;
        let device = self.handles.lock().get(name).cloned().ok_or_else(not_attached)?;
        exporter.trace(name, recorder).map_err(|error| match error.kind() {
            ErrorKind::NotFound => not_attached(),
            _ => error,
        })?;
        Ok(device.size_bytes())
    }

    /// Ends a trace; false if there is none.
    pub(crate) fn end_trace(&self, name: &str) -> bool {
        self.running().is_some_and(|exporter| exporter.end_trace(name))
    }

    /// While a container is being unmounted, its writes do not wait for room in the pool.
    pub(crate) fn hurry(&self, name: &str, hurried: bool) {
        let device = self.handles.lock().get(name).cloned();
        if let Some(device) = device {
            device.hurry(hurried);
        }
    }

    /// Lets go of the devices that the kernel cannot reach any more.
    fn drop_released(&self, exporter: &Exporter) -> Result<()> {
        let served: Vec<String> = exporter.list()?.into_iter().map(|device| device.name).collect();
        self.handles.lock().retain(|name, _| served.contains(name));
        Ok(())
    }

    /// Does the kernel reach any device?
    pub(crate) fn any(&self) -> bool {
        let Some(exporter) = self.running() else { return false };
        if let Err(error) = self.drop_released(&exporter) {
            tracing::warn!("{error}");
        }
        !self.handles.lock().is_empty()
    }

    /// Lets the kernel see that an attached device has grown; its path, none if it is not attached.
    pub(crate) fn resized(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(exporter) = self.running() else { return Ok(None) };
        match exporter.resize(name) {
            Ok(path) => Ok(Some(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where each attached container is.
    pub(crate) fn places(&self) -> Result<HashMap<String, Place>> {
        let mut places = HashMap::new();
        let Some(exporter) = self.running() else { return Ok(places) };
        self.drop_released(&exporter)?;
        let exported = exporter.list()?;
        if exported.is_empty() {
            return Ok(places);
        }
        let table = mounts()?;
        for device in exported {
            let number = device_number(&device.path)?;
            let mut whole =
                table.iter().filter(|entry| entry.device == number && entry.root == Path::new("/"));
            let place = Place {
                device: device.path,
                read_only: device.read_only,
                deferred: device.deferred,
                mount: whole.next().cloned(),
            };
            places.insert(device.name, place);
        }
        Ok(places)
    }

    /// Where a container is; none if it is not attached.
    pub(crate) fn place_of(&self, name: &str) -> Result<Option<Place>> {
        Ok(self.places()?.remove(name))
    }

    /// Detaches everything and stops serving; what is mounted stays, and is an error.
    pub(crate) fn shutdown(&self) -> Result<()> {
        let mut running = self.exporter.lock();
        if let Some(exporter) = running.as_ref() {
            apart(|| {
                for device in exporter.list()? {
                    // what is mounted or held is told of by the shutdown
                    drop(exporter.detach(&device.name));
                }
                Ok(())
            })?;
            exporter.shutdown()?;
        }
        *running = None;
        self.handles.lock().clear();
        Ok(())
    }
}
