//! The servers that show a qcow2 file as a plain one: a process of qemu-storage-daemon for each mount, with a
//! folder below the driver's, `served/KEY/`. The key is a container's id, or a layer's id with a random one for
//! a look. A loop device stands on what is shown, so whether a server is needed can be seen from outside:
//! as long as the loop device is bound.
//!
//! `served/KEY.lock` is held by whoever makes a server, ends it, or talks to it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use thinstore_export::loop_device::{self, BoundLoop, LoopDevice};
use thinstore_export::{Holder, Unmount, freeze, holders_of, mounted_at, thaw, unmount};
use thinstore_storage::{Error, ErrorKind, Result};

use super::monitor::Monitor;
use crate::directory::{self, failed};
use crate::disk_image;
use crate::driver::LayerId;
use crate::lock::Lock;
use crate::program::Program;

pub(super) const SERVER_PROGRAM: Program =
    Program { name: "qemu-storage-daemon", package: "qemu-system-common" };

/// The mark of the loop devices.
const MARK: &str = "thinstore-qcow2";
/// The server's name for what it shows, and the plain file.
pub(super) const EXPORT: &str = "export";
/// The monitor's.
pub(super) const SOCKET: &str = "monitor";
/// Says where the file system is mounted that a commit freezes.
const FROZEN: &str = "frozen";
/// The file of a look.
const VIEW: &str = "view.qcow2";

const LOCK_ENDING: &str = ".lock";
/// How long a server may take to write what it holds, and end.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the kernel may take for a loop device that nobody holds any more.
const LOOP_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Servers {
    base: PathBuf,
}

/// A server's folder, which nobody else touches meanwhile.
pub(super) struct Server {
    folder: PathBuf,
    lock: Lock,
}

/// How the monitor and the options of the program describe a file.
pub(super) fn block_device(image: &Path) -> Result<Value> {
    // names of nodes have up to 31 characters, and begin with a letter
    let stem = image.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let name: String = std::iter::once('n').chain(stem.chars().take(30)).collect();
    Ok(json!({
        "driver": "qcow2",
        "node-name": name,
        "discard": "unmap",
        "file": {"driver": "file", "filename": text(image)?, "discard": "unmap"},
    }))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        let what = format!("{} is not UTF-8, as {} wants it", path.display(), SERVER_PROGRAM.name);
        Error::new(ErrorKind::Usage, what)
    })
}

impl Servers {
    pub(super) fn open(base: &Path) -> Result<Servers> {
        let base = base.join("served");
        directory::make_private(&base)?;
        Ok(Servers { base: base.canonicalize().map_err(failed("find", &base))? })
    }

    fn folder(&self, key: &str) -> PathBuf {
        self.base.join(key)
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.base.join(format!("{key}{LOCK_ENDING}"))
    }

    /// The server of a container, if there is one; waits until nobody else has it in hand.
    pub(super) fn of(&self, id: &LayerId) -> Result<Option<Server>> {
        let folder = self.folder(id.as_str());
        if !folder.exists() {
            return Ok(None);
        }
        let lock = Lock::wait(&self.lock_path(id.as_str()))?;
        Ok(Some(Server { folder, lock }))
    }

    /// A folder for a new server.
    fn make(&self, key: &str) -> Result<Server> {
        let lock = Lock::wait(&self.lock_path(key))?;
        let folder = self.folder(key);
        directory::make(&folder, 0o700)?;
        Ok(Server { folder, lock })
    }

    /// Shows the ext4 in a container's file at a directory.
    pub(super) fn mount(
        &self,
        id: &LayerId,
        image: &Path,
        directory: &Path,
        read_only: bool,
    ) -> Result<()> {
        self.make(id.as_str())?.show(image, directory, read_only)
    }

    /// The same to be looked at: what the journal needs to be written goes to a file that `make` makes.
    pub(super) fn view(
        &self,
        id: &LayerId,
        make: impl FnOnce(&Path) -> Result<()>,
        directory: &Path,
    ) -> Result<()> {
        let server = self.make(&format!("{id}.{}", LayerId::random()?))?;
        let image = server.folder.join(VIEW);
        match make(&image) {
            Ok(()) => server.show(&image, directory, true),
            Err(error) => server.end().and(Err(error)),
        }
    }

    /// The loop device below a mounted container.
    pub(super) fn device(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let bound = bound_to(&self.folder(id.as_str()).join(EXPORT))?;
        Ok(bound.map(|bound| bound.device.path()))
    }

    fn locks(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.base).map_err(failed("look into", &self.base))?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some_and(|ending| ending == "lock")).collect())
    }

    /// Ends the servers of looks that are over, also of looks whose process was killed.
    pub(super) fn end_views(&self) -> Result<()> {
        for path in self.locks()? {
            let folder = path.with_extension("");
            let is_view = folder.extension().is_some();
            let Some(lock) = is_view.then(|| Lock::take_left(&path)).transpose()?.flatten() else {
                continue;
            };
            let server = Server { folder, lock };
            if !server.is_used()? {
                server.end()?;
            }
        }
        Ok(())
    }

    /// Finishes what commits have begun whose process was killed: the file system must not stay frozen, and
    /// what is written goes to the file that the container has now.
    pub(super) fn finish_commits(
        &self,
        file_of: impl Fn(&LayerId) -> Result<PathBuf>,
    ) -> Result<()> {
        for path in self.locks()? {
            let folder = path.with_extension("");
            if !folder.join(FROZEN).exists() {
                continue;
            }
            let Some(lock) = Lock::take_left(&path)? else { continue };
            let id = folder.file_name().map(|name| LayerId::parse(&name.to_string_lossy()));
            let server = Server { folder, lock };
            let Ok(mounted) = std::fs::read_to_string(server.folder.join(FROZEN)) else { continue };
            if let Some(Ok(id)) = id
                && server.is_used()?
            {
                server.write_to(&file_of(&id)?)?;
                thaw(Path::new(&mounted))?;
            }
            server.not_frozen()?;
        }
        Ok(())
    }
}

impl Server {
    fn export(&self) -> PathBuf {
        self.folder.join(EXPORT)
    }

    /// The loop device that stands on it.
    fn bound(&self) -> Result<Option<LoopDevice>> {
        bound_to(&self.export()).map(|bound| bound.map(|bound| bound.device))
    }

    fn show(self, image: &Path, directory: &Path, read_only: bool) -> Result<()> {
        let shown = self.start(image).and_then(|()| {
            // the server confuses writes that come together
            let device = loop_device::attach_one_by_one(&self.export(), MARK)?;
            disk_image::mount_loop(&device, directory, read_only)
        });
        match shown {
            Ok(()) => Ok(()),
            Err(error) => {
                if let Err(error) = self.end() {
                    tracing::warn!("{error}");
                }
                Err(error)
            }
        }
    }

    /// Starts the process, which goes on in the background once it shows the file.
    fn start(&self, image: &Path) -> Result<()> {
        let export = self.export();
        std::fs::write(&export, b"").map_err(failed("make", &export))?;
        let device = block_device(image)?;
        let node = device.get("node-name").cloned().unwrap_or_default();
        let shown = json!({
            "type": "fuse", "id": EXPORT, "node-name": node, "mountpoint": text(&export)?,
            "writable": true, "allow-other": "off",
        });
        let output = SERVER_PROGRAM
            .command()?
            .current_dir(&self.folder)
            .args(["--daemonize", "--pidfile", "pid"])
            .args(["--chardev", &format!("socket,id=monitor,path={SOCKET},server=on,wait=off")])
            .args(["--monitor", "chardev=monitor"])
            .args(["--blockdev", &device.to_string(), "--export", &shown.to_string()])
            .output();
        let name = SERVER_PROGRAM.name;
        let output = output.map_err(|error| Error::io(format!("cannot run {name}"), error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(Error::new(ErrorKind::Io, format!("{name} failed ({}): {said}", output.status)))
    }

    /// Its process: one whose command line names what it shows. The program writes its id down when it is ready,
    /// but a killed process may have left it before that.
    fn process(&self) -> Option<Pid> {
        let written = std::fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
        let is_ours = |pid: &i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let export = self.export();
            let export = export.as_os_str().as_encoded_bytes();
            command.windows(export.len().max(1)).any(|part| part == export)
                && command
                    .split(|byte| *byte == b'/' || *byte == 0)
                    .any(|word| word == SERVER_PROGRAM.name.as_bytes())
        };
        if let Some(pid) = written.trim().parse().ok().filter(is_ours) {
            return Pid::from_raw(pid);
        }
        let entries = std::fs::read_dir("/proc").ok()?.flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(is_ours).and_then(Pid::from_raw)
    }

    /// Is what it shows still looked at, by a loop device that somebody holds?
    fn is_used(&self) -> Result<bool> {
        let deadline = Instant::now() + LOOP_TIMEOUT;
        loop {
            match self.bound()? {
                None => return Ok(false),
                Some(device) if device.is_held()? => return Ok(true),
                Some(device) if Instant::now() >= deadline => {
                    // bound by a process that was killed before it mounted
                    device.clear_on_last_close()?;
                    return Ok(false);
                }
                // it goes with the mount, but not at once
                Some(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Ends what nobody uses.
    pub(super) fn release(self) -> Result<()> {
        let deadline = Instant::now() + LOOP_TIMEOUT;
        while self.is_used()? {
            let Some(device) = self.bound()? else { continue };
            let holders = holders_of(device.device_number(), &device.path());
            // A container of anybody that just starts has a copy of every mount for a moment.
            let may_pass = !holders
                .iter()
                .any(|holder| matches!(holder, Holder::Mount { own_namespace: true, .. }));
            if may_pass && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} is in use: {}", device.path().display(), holders.join("; ")),
            ));
        }
        self.end()
    }

    fn end(self) -> Result<()> {
        while let Some(pid) = self.process() {
            // not by a signal: it inherits which of them its maker has blocked
            let told = Monitor::open(&self.folder).and_then(Monitor::quit);
            end_process(pid, told.is_ok())?;
        }
        let export = self.export();
        // it has unmounted what it showed, unless it was killed
        while mounted_at(&export)?.is_some() {
            unmount(&export, Unmount::Lazy)?;
        }
        directory::remove(&self.folder)?;
        self.lock.remove()
    }

    /// From now on the container's writes go to this file.
    fn write_to(&self, image: &Path) -> Result<()> {
        Monitor::open(&self.folder)?.write_to(image)
    }

    /// Freezes the file system, has `exchange` note which file the container writes to from now on, and has that
    /// done. For how long it was frozen.
    pub(super) fn commit(
        &self,
        mounted: &Path,
        exchange: impl FnOnce() -> Result<PathBuf>,
        undo: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let note = self.folder.join(FROZEN);
        std::fs::write(&note, text(mounted)?).map_err(failed("write", &note))?;
        let mut monitor = Monitor::open(&self.folder)?;
        let frozen = freeze(mounted)?;
        let started = Instant::now();
        let moved = exchange().and_then(|image| {
            monitor.write_to(&image).inspect_err(|_| {
                if let Err(error) = undo() {
                    tracing::warn!("{error}");
                }
            })
        });
        let thawed = frozen.thaw();
        let elapsed = started.elapsed();
        moved.and(thawed)?;
        self.not_frozen()?;
        Ok(elapsed)
    }

    fn not_frozen(&self) -> Result<()> {
        let note = self.folder.join(FROZEN);
        std::fs::remove_file(&note).map_err(failed("remove", &note))
    }
}

fn bound_to(file: &Path) -> Result<Option<BoundLoop>> {
    Ok(loop_device::bound_loops()?.into_iter().find(|bound| bound.backing_file == file))
}

/// Waits for a process to end that was told to, and ends it if it does not.
fn end_process(pid: Pid, told: bool) -> Result<()> {
    let failed = |errno: rustix::io::Errno| {
        Error::io(format!("cannot end {} ({pid:?})", SERVER_PROGRAM.name), errno.into())
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    let has_ended = || {
        let timeout = Timespec::try_from(END_TIMEOUT).ok();
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        Ok(poll(&mut ended, timeout.as_ref()).map_err(failed)? > 0)
    };
    if told && has_ended()? {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(failed(errno)),
    }
    match has_ended()? {
        true => Ok(()),
        false => {
            let name = SERVER_PROGRAM.name;
            Err(Error::new(ErrorKind::InUse, format!("{name} does not end ({pid:?})")))
        }
    }
}
