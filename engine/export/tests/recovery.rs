//! What is left when the process that serves is killed, and that the next start cleans it up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{MEBIBYTE, Scratch, make_ext4, memory, shut_down, wait_until};
use thinstore_export::loop_device::bound_loops;
use thinstore_export::{Exporter, Ext4Options, Unmount, mount_ext4, mounted_at, unmount};
use thinstore_storage::ErrorKind;

/// The example `serve`, in a process of its own.
struct Server {
    process: Child,
    device: PathBuf,
}

impl Server {
    fn start(directory: &Path) -> Server {
        Server::start_with(directory, "memory", &(64 * MEBIBYTE).to_string())
    }

    fn start_with(directory: &Path, kind: &str, what: &str) -> Server {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().unwrap().parent().unwrap().join("examples/serve");
        assert!(
            program.exists(),
            "{} is missing: build it with cargo build -p thinstore-export --examples",
            program.display()
        );
        let mut process = Command::new(program)
            .arg(directory)
            .args(["one", kind, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = Server { process, device: PathBuf::from(line.trim()) };
        assert!(server.device.starts_with("/dev"), "{line}");
        server
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_bound_below(scratch: &Scratch) -> bool {
    bound_loops().unwrap().iter().any(|bound| bound.backing_file.starts_with(scratch.path()))
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn after_a_kill_no_loop_device_and_no_mount_is_left() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch.devices());
    make_ext4(&server.device);
    let place = scratch.place("mount");
    mount_ext4(&server.device, &place, &Ext4Options::default()).unwrap();
    std::fs::write(place.join("file"), b"x").unwrap();

    let error = Exporter::recover(&scratch.devices()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    server.kill();

    let recovered = Exporter::recover(&scratch.devices()).unwrap();
    assert_eq!(recovered.connections, 1);
    assert_eq!(recovered.devices.len(), 1);
    assert_eq!(recovered.devices[0].name, "one");
    assert_eq!(recovered.devices[0].loop_device.path(), server.device);
    assert_eq!(recovered.devices[0].mount_points, [place]);
    wait_until("the device is unbound", || !is_bound_below(&scratch));
    assert!(scratch.mounts().is_empty());
    assert!(Exporter::recover(&scratch.devices()).unwrap().is_empty());

    let exporter = Exporter::start(&scratch.devices()).unwrap();
    assert!(exporter.recovered().is_empty());
    exporter.attach("one", memory(MEBIBYTE), false).unwrap();
    shut_down(&exporter);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_kill_in_the_middle_of_writing_is_recovered_by_the_next_start() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch.devices());
    make_ext4(&server.device);
    let place = scratch.place("mount");
    mount_ext4(&server.device, &place, &Ext4Options::default()).unwrap();
    // Through one open file: its name means another place once the file system is unmounted.
    let file = std::fs::File::create(place.join("file")).unwrap();
    let writer = std::thread::spawn(move || {
        let write = || file.write_all_at(&[3; 65536], 0).and_then(|()| file.sync_all());
        while write().is_ok() {}
    });
    std::thread::sleep(Duration::from_millis(500));
    server.kill();
    let exporter = Exporter::start(&scratch.devices()).unwrap();
    assert_eq!(exporter.recovered().devices.len(), 1);
    writer.join().unwrap();
    assert!(mounted_at(&place).unwrap().is_none());
    wait_until("the device is unbound", || !is_bound_below(&scratch));
    shut_down(&exporter);
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn loop_devices_are_found_by_their_mark_after_the_mount_has_gone() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch.devices());
    server.kill();
    unmount(&scratch.devices(), Unmount::Lazy).unwrap();
    let recovered = Exporter::recover(&scratch.devices()).unwrap();
    assert_eq!(recovered.connections, 0);
    assert_eq!(recovered.devices.len(), 1, "{recovered:?}");
    assert_eq!(recovered.devices[0].loop_device.path(), server.device);
    // A test beside this one may have taken the device by now.
    wait_until("the device is unbound", || {
        let left = bound_loops().unwrap();
        left.iter().all(|bound| {
            bound.device.path() != server.device || bound.backing_file != Path::new("/one")
        })
    });
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn recovery_leaves_other_stores_alone() {
    let (alive, dead) = (Scratch::start(), Scratch::new());
    let path = alive.exporter().attach("one", memory(64 * MEBIBYTE), false).unwrap();
    make_ext4(&path);
    let place = alive.place("mount");
    mount_ext4(&path, &place, &Ext4Options::default()).unwrap();
    let mut server = Server::start(&dead.devices());
    server.kill();
    Exporter::recover(&dead.devices()).unwrap();
    std::fs::write(place.join("file"), b"still here").unwrap();
    unmount(&place, Unmount::Normal).unwrap();
    shut_down(alive.exporter());
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_process_that_waits_for_its_own_device_can_be_killed() {
    let scratch = Scratch::new();
    let place = scratch.place("mount");
    let mut server = Server::start_with(&scratch.devices(), "stuck", place.to_str().unwrap());
    // Into the middle of the mounting, which waits for a read that is never answered.
    std::thread::sleep(Duration::from_millis(500));
    server.process.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.process.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            Exporter::abort(&scratch.devices()).unwrap();
            panic!("the process cannot end: its own thread keeps the connection open");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let recovered = Exporter::recover(&scratch.devices()).unwrap();
    assert_eq!((recovered.connections, recovered.devices.len()), (1, 1));
    wait_until("the device is unbound", || !is_bound_below(&scratch));
    assert!(scratch.mounts().is_empty());
}

/// A signal is sent in a moment, and each thread takes note when it comes to that.
fn is_stopped(process_id: &str) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process_id}/task")).unwrap();
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

#[test]
#[ignore = "needs root: FUSE and loop devices"]
fn a_process_that_does_not_answer_is_left_alone_until_it_is_aborted() {
    let scratch = Scratch::new();
    assert!(!Exporter::abort(&scratch.devices()).unwrap());
    let mut server = Server::start(&scratch.devices());
    let process_id = server.process.id().to_string();
    support::run("kill", &["-STOP", &process_id]);
    wait_until("all of its threads to stop", || is_stopped(&process_id));
    let error = Exporter::recover(&scratch.devices()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(is_bound_below(&scratch));
    assert!(Exporter::abort(&scratch.devices()).unwrap());
    let recovered = Exporter::recover(&scratch.devices()).unwrap();
    assert_eq!((recovered.connections, recovered.devices.len()), (1, 1));
    wait_until("the device is unbound", || !is_bound_below(&scratch));
    server.kill();
}
