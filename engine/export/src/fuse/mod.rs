//! One FUSE connection that shows devices as the files of one flat directory.
//!
//! [`table`] knows the devices, [`service`] what each request does, [`transport`] how requests come
//! and go. Only root reaches the files: the mount is without `allow_other`.
//!
//! # Another transport
//!
//! Only [`transport`] knows the protocol; what it needs of the rest is a [`service::DeviceService`],
//! whose methods take plain numbers and byte slices, and what the rest needs of it are the four methods
//! of [`transport::Connection`]. A transport over io_uring (`CONFIG_FUSE_IO_URING`, Linux 6.14) fits
//! there:
//!
//!  - It needs the module's parameter `enable_uring`, and `FUSE_OVER_IO_URING` in the answer to INIT,
//!    which still comes and goes over the descriptor, as do FORGET, INTERRUPT and all notifications. So
//!    it stands beside this transport and does not replace it; where the kernel refuses, this one serves.
//!  - There is a queue for every possible processor, and requests wait until each has an entry
//!    registered. An entry is two buffers, the headers (288 bytes) and the payload (the largest
//!    request), and is both a request slot and the place of the answer: a read fills the payload in
//!    place, a write is handed to the device from it. Payloads that begin on a page keep direct I/O below
//!    free of copies, which this transport cannot: fuser's buffer has the header in front of the data.
//!  - A thread for each queue waits in `io_uring_enter` for the next request and sends answers with the
//!    same call (COMMIT_AND_FETCH). A request whose device blocks must not hold the queue: until the
//!    pool itself can be driven by completions, entries are handed to threads as slow requests are here,
//!    and the answer is submitted by the queue's thread, woken by an eventfd in the ring.
//!  - The decoding of opcodes is its own (fuser's is private): the thirteen that `Transport` answers.

mod buffer;
mod lanes;
mod service;
mod table;
mod transport;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use parking_lot::Mutex;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};
use thinstore_trace::Recorder;

use self::service::DeviceService;
use self::table::ROOT_INODE;
use self::transport::Connection;
use crate::error::{io_error, node_error, system_error};
use crate::isolation::isolated;
use crate::mount_table::{DeviceNumber, mounted_at, mounts};

/// The type of the mount, as `/proc/self/mountinfo` shows it.
pub(crate) const FILE_SYSTEM_TYPE: &str = "fuse.thinstore";

/// How long [`DeviceServer::remove`] waits for the kernel to release a file that is closed already:
/// it sends the release on its own time.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the threads may take to end once the connection is unmounted.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to answer before it counts as alive but stuck.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A device as its server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedDevice {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) read_only: bool,
    /// The device goes when its last open is released.
    pub(crate) removing: bool,
}

/// The mounted directory of devices. Dropping it unmounts it, unless files are still open.
pub(crate) struct DeviceServer {
    directory: PathBuf,
    device_number: DeviceNumber,
    service: Arc<DeviceService>,
    // Taken when the server ends.
    connection: Mutex<Option<Connection>>,
}

impl DeviceServer {
    /// Mounts a new connection on a directory, which must exist and carry no mount of this type.
    pub(crate) fn mount(directory: &Path) -> Result<DeviceServer> {
        let directory = directory.canonicalize().map_err(|error| {
            io_error(format!("finding the directory {} failed", directory.display()), error)
        })?;
        if mounted_at(&directory)?.is_some_and(|entry| entry.file_system_type == FILE_SYSTEM_TYPE) {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} is served already; stop the other daemon first", directory.display()),
            ));
        }
        let device = mount_connection(&directory)?;
        let service = Arc::new(DeviceService::default());
        let connection = Connection::start(Arc::clone(&service), device).map_err(|error| {
            // Nothing can be open yet, so nothing is left behind.
            let _ = umount2(&directory, MntFlags::MNT_DETACH);
            io_error(format!("starting to serve {} failed", directory.display()), error)
        })?;
        let device_number = mounted_at(&directory)?.map_or_else(
            || Err(Error::new(ErrorKind::Io, format!("{} vanished", directory.display()))),
            |entry| Ok(entry.device),
        )?;
        let connection = Mutex::new(Some(connection));
        Ok(DeviceServer { directory, device_number, service, connection })
    }

    /// The mounted directory, absolute and without links.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number of the mounted file system, as `stat` shows it for every file in it.
    pub(crate) fn device_number(&self) -> DeviceNumber {
        self.device_number
    }

    /// Shows a device as a file.
    pub(crate) fn add(
        &self,
        name: &str,
        device: Arc<dyn BlockDevice>,
        read_only: bool,
    ) -> Result<PathBuf> {
        self.service.table().add(name, device, read_only)?;
        Ok(self.directory.join(name))
    }

    /// Takes a device away. One that is open is refused with [`ErrorKind::InUse`], after a moment in
    /// which the kernel may yet send the releases of files that are closed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        let mut pause = Duration::from_millis(1);
        loop {
            match self.service.table().remove(name) {
                Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        self.forget_name(name);
        Ok(())
    }

    /// Takes a device away as soon as its last open is released. True if that is now.
    pub(crate) fn remove_when_released(&self, name: &str) -> Result<bool> {
        let gone = self.service.table().remove_when_released(name)?;
        self.forget_name(name);
        Ok(gone)
    }

    /// Makes the kernel see the size that a device has now.
    pub(crate) fn refresh(&self, name: &str) -> Result<()> {
        let entry = self.service.table().find(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no device \"{name}\" is being served"))
        })?;
        let failed = |error| {
            io_error(format!("telling the kernel the size of device \"{name}\" failed"), error)
        };
        if let Some(connection) = &*self.connection.lock() {
            connection.forget_attributes(entry.inode).map_err(failed)?;
        }
        // Fetches the attributes anew: older kernels size a loop device by what they have cached.
        isolated(|| std::fs::metadata(self.directory.join(name)).map(drop).map_err(failed))
    }

    /// Traces the requests of a device.
    pub(crate) fn trace(&self, name: &str, recorder: Recorder) -> Result<()> {
        let entry = self.service.table().find(name).ok_or_else(|| table::no_such_device(name))?;
        entry.trace(recorder)
    }

    /// Ends the trace of a device; false if there is none.
    pub(crate) fn end_trace(&self, name: &str) -> bool {
        self.service.table().find(name).is_some_and(|entry| entry.end_trace())
    }

    /// The device of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<dyn BlockDevice>> {
        self.service.table().find(name).map(|entry| Arc::clone(&entry.device))
    }

    /// All devices by name.
    pub(crate) fn list(&self) -> Vec<ServedDevice> {
        let entries = self.service.table().list();
        entries
            .iter()
            .map(|entry| ServedDevice {
                name: entry.name.clone(),
                size_bytes: entry.device.size_bytes(),
                read_only: entry.read_only,
                removing: entry.is_removing(),
            })
            .collect()
    }

    /// Unmounts and waits for the threads. Refused with [`ErrorKind::InUse`] while a file is open.
    pub(crate) fn unmount(&self) -> Result<()> {
        let mut connection = self.connection.lock();
        if connection.is_none() {
            return Ok(());
        }
        isolated(|| unmount_exactly(&self.directory, self.device_number))?;
        let Some(connection) = connection.take() else {
            return Ok(());
        };
        let ended = connection.join(END_TIMEOUT).map_err(|error| {
            io_error(format!("serving {} ended badly", self.directory.display()), error)
        })?;
        if !ended {
            tracing::warn!(
                "{} is unmounted, but a copy of the mount in another namespace keeps it alive",
                self.directory.display()
            );
        }
        Ok(())
    }

    fn forget_name(&self, name: &str) {
        if let Some(connection) = &*self.connection.lock()
            && let Err(error) = connection.forget_name(ROOT_INODE, name)
        {
            // The name can still be found for a while, but opening it is refused.
            tracing::warn!(name, "the kernel did not take back a name: {error}");
        }
    }
}

impl Drop for DeviceServer {
    fn drop(&mut self) {
        // What is in use stays mounted, where the next start finds it and cleans it up; unmounted
        // lazily, its loop devices could be told by their mark only.
        if let Err(error) = self.unmount() {
            tracing::warn!("{error}; it is served until this process ends");
        }
    }
}

/// Makes a connection and mounts it; requests begin to queue at once.
fn mount_connection(directory: &Path) -> Result<OwnedFd> {
    let fuse = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|error| node_error("/dev/fuse", error))?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    nix::mount::mount(
        Some("thinstore"),
        directory,
        Some(FILE_SYSTEM_TYPE),
        flags,
        Some(options.as_str()),
    )
    .map_err(|errno| {
        system_error(
            format!("mounting FUSE on {} failed (root is needed)", directory.display()),
            errno,
        )
    })?;
    // Copies in other namespaces would keep devices open that are detached here.
    let private =
        nix::mount::mount(None::<&str>, directory, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>);
    if let Err(errno) = private {
        tracing::warn!("{} stays shared: {errno}", directory.display());
    }
    Ok(OwnedFd::from(fuse))
}

/// Unmounts what is mounted on a directory if it is the file system of `device`, and nothing else.
fn unmount_exactly(directory: &Path, device: DeviceNumber) -> Result<()> {
    match mounted_at(directory)? {
        Some(entry) if entry.device == device => {}
        // Somebody unmounted it, or mounted over it; neither is ours to undo.
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("something else is mounted over {}; unmount it first", directory.display()),
            ));
        }
        None => return Ok(()),
    }
    umount2(directory, MntFlags::UMOUNT_NOFOLLOW)
        .map_err(|errno| system_error(format!("unmounting {} failed", directory.display()), errno))
}

/// Whether a connection answers.
enum Pulse {
    Alive,
    Dead,
    Stuck,
}

/// Asks a mounted connection for something that the kernel never answers by itself.
fn probe(directory: &Path) -> Pulse {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let asked = directory.to_owned();
    let thread = std::thread::Builder::new().name("export-probe".to_owned()).spawn(move || {
        let _ = sender.send(nix::sys::statfs::statfs(&asked).map(drop));
    });
    if thread.is_err() {
        return Pulse::Stuck;
    }
    match receiver.recv_timeout(PROBE_TIMEOUT) {
        Ok(Err(Errno::ENOTCONN | Errno::ECONNABORTED)) => Pulse::Dead,
        Ok(_) => Pulse::Alive,
        Err(_) => Pulse::Stuck,
    }
}

/// Refuses a directory that a living daemon serves. True if a dead one left its mount there.
pub(crate) fn check_dead(directory: &Path) -> Result<bool> {
    match mounted_at(directory)? {
        Some(entry) if entry.file_system_type == FILE_SYSTEM_TYPE => {}
        _ => return Ok(false),
    }
    let refuse = |what| {
        Err(Error::new(
            ErrorKind::InUse,
            format!("{} is served by a process that {what}", directory.display()),
        ))
    };
    match probe(directory) {
        Pulse::Dead => Ok(true),
        Pulse::Alive => refuse("is alive; stop it first"),
        Pulse::Stuck => refuse("does not answer; stop it, or have its connection aborted"),
    }
}

/// Makes the kernel fail all requests of the connection mounted on a directory, now and from now on.
/// False if there is none.
pub(crate) fn abort_connection(directory: &Path) -> Result<bool> {
    let device = match mounted_at(directory)? {
        Some(entry) if entry.file_system_type == FILE_SYSTEM_TYPE => entry.device,
        _ => return Ok(false),
    };
    let failed = |error| {
        io_error(format!("aborting the connection on {} failed", directory.display()), error)
    };
    // The control file system numbers connections by the minor number of their devices.
    let control = Path::new("/sys/fs/fuse/connections");
    let file = control.join(device.minor.to_string()).join("abort");
    if file.exists() {
        std::fs::write(file, b"1").map_err(failed)?;
        return Ok(true);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("fusectl"), control, Some("fusectl"), flags, None::<&str>)
        .map_err(|errno| failed(errno.into()))?;
    let written = std::fs::write(file, b"1").map_err(failed);
    let _ = umount2(control, MntFlags::MNT_DETACH);
    written.map(|()| true)
}

/// Lazily unmounts the dead connections on a directory, and nothing else. The answer is how many.
pub(crate) fn unmount_dead(directory: &Path) -> Result<usize> {
    let limit = mounts()?.iter().filter(|entry| entry.mount_point == directory).count();
    let mut count = 0;
    while count < limit && check_dead(directory)? {
        umount2(directory, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| {
            system_error(
                format!("unmounting the dead connection on {} failed", directory.display()),
                errno,
            )
        })?;
        count += 1;
    }
    Ok(count)
}
