//! What the tests of this crate share: a scratch directory with an exporter in it, which goes away with
//! everything that hangs on it, also when a test fails.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thinstore_export::{Detached, Exporter, Unmount, mounts, unmount};
use thinstore_storage::{BlockDevice, MemoryDevice};

pub const MEBIBYTE: u64 = 1 << 20;

/// A scratch directory: `devices` is served, `mount` and its like are mount points.
pub struct Scratch {
    directory: TempDir,
    exporter: Option<Exporter>,
}

impl Scratch {
    pub fn new() -> Scratch {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: FUSE and loop devices");
        let directory = TempDir::with_prefix("thinstore-export-").unwrap();
        Scratch { directory, exporter: None }
    }

    pub fn start() -> Scratch {
        let mut scratch = Scratch::new();
        scratch.exporter = Some(Exporter::start(&scratch.devices()).unwrap());
        scratch
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn devices(&self) -> PathBuf {
        self.path().join("devices")
    }

    /// A new empty directory.
    pub fn place(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn exporter(&self) -> &Exporter {
        self.exporter.as_ref().expect("the exporter is running")
    }

    pub fn end(&mut self) {
        self.exporter = None;
    }

    /// Every mount below the scratch directory, deepest last.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let mut points: Vec<PathBuf> = mounts()
            .unwrap()
            .into_iter()
            .map(|entry| entry.mount_point)
            .filter(|point| point.starts_with(self.path()))
            .collect();
        points.sort();
        points
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // File systems first, then the devices below them, then a dead connection.
        let devices = self.devices();
        for point in self.mounts().into_iter().rev().filter(|point| *point != devices) {
            let _ = unmount(&point, Unmount::Lazy);
        }
        if let Some(exporter) = &self.exporter {
            let deadline = Instant::now() + Duration::from_secs(5);
            while exporter.shutdown().is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.exporter = None;
        let _ = Exporter::recover(&devices);
    }
}

pub fn memory(size_bytes: u64) -> Arc<dyn BlockDevice> {
    Arc::new(MemoryDevice::new(size_bytes))
}

/// Runs a program that must succeed; the answer is what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("this test needs the program {program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?} ended with {}:\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes an ext4 as the store does.
pub fn make_ext4(device: &Path) {
    run("mke2fs", &["-q", "-t", "ext4", "-E", "nodiscard,lazy_itable_init=0", text(device)]);
}

pub fn check_ext4(device: &Path) {
    run("e2fsck", &["-fn", text(device)]);
}

/// A number in a file of sysfs.
pub fn system_number(device: &Path, attribute: &str) -> u64 {
    let name = device.file_name().unwrap().to_str().unwrap();
    let path = format!("/sys/block/{name}/{attribute}");
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Waits for what comes by itself, and fails the test if it does not.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Detaches what nobody uses. A test that makes a mount namespace copies the mounts of all tests that
/// run beside it, and holds their devices for a moment.
pub fn detach(exporter: &Exporter, name: &str) {
    match exporter.detach(name).unwrap() {
        Detached::Done => {}
        Detached::NotAttached => panic!("{name} is not attached"),
        Detached::Deferred(_) => wait_until("the device is let go", || {
            exporter.list().unwrap().iter().all(|exported| exported.name != name)
        }),
    }
}

/// Ends an exporter whose devices nobody uses, as [`detach`] does.
pub fn shut_down(exporter: &Exporter) {
    wait_until("all devices are let go", || exporter.shutdown().is_ok());
}
