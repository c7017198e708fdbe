//! The daemon: it comes by itself, goes by itself, and what it leaves when it is killed is put right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use thinstore_tests::{Identity, TempStore, host, images};

/// How long the daemon may stay once nothing needs it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A store of root's with a container `box` of the busybox image.
fn store_with_box() -> TempStore {
    let store = TempStore::with_size(Identity::Current, "4G");
    store.ok(&["import", images::busybox().to_str().unwrap(), "--name", "image"]);
    store.ok(&["snapshot", "image", "box"]);
    store
}

#[test]
#[ignore = "needs root: mounts a container"]
fn the_daemon_starts_by_itself_and_ends_when_nothing_needs_it() {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let pid = store.daemon_pid().expect("a daemon that serves the mount");
    // It stays as long as the mount does, and other commands speak to it.
    assert_eq!(store.names("ls"), ["box"]);
    assert_eq!(store.rows(&["ls"])[0]["state"], "mounted");
    assert_eq!(store.rows(&["ls"])[0]["mount_point"], point.as_str());
    assert_eq!(store.daemon_pid(), Some(pid));
    store.ok(&["umount", "box"]);
    assert!(host::wait_until(IDLE_LIMIT, || !host::is_alive(pid)), "the daemon stays for nothing");
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    assert_eq!(store.names("ls"), ["box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts a container"]
fn the_command_that_starts_the_daemon_does_not_leave_its_output_open() {
    let store = store_with_box();
    let point = store.new_folder("at");
    // A shell's `$(thinstore mount ...)` waits until nobody holds the pipe.
    let mut command = store.command(&["mount", "box", &point]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let reader = std::thread::spawn(move || child.wait_with_output().unwrap());
    let done = host::wait_until(Duration::from_secs(60), || reader.is_finished());
    let daemon = store.daemon_pid().expect("a daemon");
    if !done {
        host::kill(daemon);
    }
    let output = reader.join().unwrap();
    assert!(done, "the daemon holds the output of the command that started it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nor does it keep the folder that it was started in.
    let folder = fs::read_link(format!("/proc/{daemon}/cwd")).unwrap();
    assert!(folder == Path::new("/") || folder.starts_with(store.root()), "{}", folder.display());
    store.ok(&["umount", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: the daemon serves a FUSE file system"]
fn a_service_stays_until_it_is_stopped() {
    let store = store_with_box();
    let mut service = store.start(&["serve"]);
    assert!(host::wait_until(Duration::from_secs(30), || store.daemon_pid().is_some()));
    let pid = store.daemon_pid().unwrap();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    store.ok(&["umount", "box"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(host::is_alive(pid), "a service ended by itself");
    assert_eq!(store.daemon_pid(), Some(pid));
    store.ok(&["serve", "--stop"]);
    assert!(
        host::wait_until(Duration::from_secs(30), || !host::is_alive(pid) || service.has_ended())
    );
    drop(service);
    assert_eq!(store.daemon_pid(), None);
    // Stopping what is not there is no error: a script may say it twice.
    store.ok(&["serve", "--stop"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts a container"]
fn stopping_does_not_pull_a_mount_from_under_its_users() {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let file = fs::File::create(format!("{point}/open")).unwrap();
    let outcome = store.run(&["serve", "--stop"]);
    // Refused, with the container's name; or, if it stops, then not before the mount is gone.
    if outcome.status.success() {
        assert_eq!(host::mount_at(Path::new(&point)), None);
    } else {
        outcome.assert_code(&[4]).assert_sentence(&["box"]);
        fs::write(format!("{point}/still"), "works").unwrap();
    }
    drop(file);
    store.ok(&["umount", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: kills the daemon under a mount"]
fn after_a_killed_daemon_everything_works_again_and_nothing_is_left() {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    fs::write(format!("{point}/synced"), "synced").unwrap();
    let file = fs::File::open(format!("{point}/synced")).unwrap();
    file.sync_all().unwrap();
    drop(file);
    host::kill(store.daemon_pid().expect("a daemon"));

    // The mount is dead; unmounting says so by working, and so does mounting again.
    store.ok(&["umount", "box"]);
    assert_eq!(host::mount_at(Path::new(&point)), None);
    store.ok(&["check"]);
    store.ok(&["mount", "box", &point]);
    assert_eq!(fs::read_to_string(format!("{point}/synced")).unwrap(), "synced");
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}

#[test]
#[ignore = "needs root: kills the daemon under a mount"]
fn mounting_again_after_a_killed_daemon_needs_no_unmount_first() {
    let store = store_with_box();
    let point = store.new_folder("at");
    for round in 0..3 {
        store.ok(&["mount", "box", &point]);
        let file = fs::File::create(format!("{point}/round-{round}")).unwrap();
        file.sync_all().unwrap();
        drop(file);
        host::kill(store.daemon_pid().expect("a daemon"));
    }
    store.ok(&["mount", "box", &point]);
    for round in 0..3 {
        assert!(Path::new(&format!("{point}/round-{round}")).exists(), "round {round}");
    }
    assert_eq!(host::loops_below(store.folder()).len(), 1);
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}

#[test]
#[ignore = "needs root: kills the daemon under mounts"]
fn dead_file_systems_that_are_still_held_hold_up_no_command() {
    const COUNT: usize = 8;
    let store = store_with_box();
    let names: Vec<String> = (0..COUNT).map(|number| format!("held-{number}")).collect();
    let mut held = Vec::new();
    for name in &names {
        let point = store.new_folder(name);
        store.ok(&["snapshot", "image", name]);
        store.ok(&["mount", name, &point]);
        held.push(fs::File::create(format!("{point}/open")).unwrap());
    }
    host::kill(store.daemon_pid().expect("a daemon"));
    let start = Instant::now();
    for name in &names {
        store.ok(&["mount", name, &store.path(name)]);
    }
    // Two seconds were waited for each, by each of the first commands.
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert_eq!(host::loops_below(store.folder()).len(), COUNT);
    drop(held);
    for name in &names {
        store.ok(&["umount", name]);
    }
    store.finish();
}

/// A daemon killed while a file system is frozen, as it leaves it between freezing and thawing: with its note,
/// or frozen by somebody else.
fn kill_while_frozen(with_note: bool) {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let device = host::mount_at(Path::new(&point)).unwrap().source;
    fs::write(format!("{point}/synced"), "synced").unwrap();
    thinstore_tests::run_tool("fsfreeze", &["-f", &point]);
    if with_note {
        let notes = store.root().join("run/frozen");
        fs::create_dir_all(&notes).unwrap();
        let note = serde_json::json!({ "directory": point, "device": device });
        fs::write(notes.join("0123456789abcdef"), note.to_string()).unwrap();
    }
    // It waits until the file system is thawed, or dead.
    let waiting = std::thread::spawn({
        let path = format!("{point}/waiting");
        move || fs::write(path, "waiting").is_ok()
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!waiting.is_finished(), "the file system is not frozen");
    host::kill(store.daemon_pid().expect("a daemon"));

    store.ok(&["mount", "box", &point]);
    let ended = host::wait_until(Duration::from_secs(20), || waiting.is_finished());
    assert!(ended, "a writer waits for ever in a frozen file system");
    waiting.join().unwrap();
    assert_eq!(fs::read_to_string(format!("{point}/synced")).unwrap(), "synced");
    fs::write(format!("{point}/again"), "again").unwrap();
    let only_one = || host::loops_below(store.folder()).len() == 1;
    assert!(host::wait_until(Duration::from_secs(10), only_one), "a loop device is left");
    let notes = fs::read_dir(store.root().join("run/frozen")).map_or(0, Iterator::count);
    assert_eq!(notes, 0);
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}

#[test]
#[ignore = "needs root: kills the daemon under a frozen file system"]
fn a_file_system_that_a_killed_daemon_left_frozen_is_thawed() {
    kill_while_frozen(true);
}

#[test]
#[ignore = "needs root: kills the daemon under a frozen file system"]
fn a_file_system_that_somebody_else_froze_is_thawed_when_its_daemon_was_killed() {
    kill_while_frozen(false);
}

#[test]
#[ignore = "needs root: kills the daemon under a mount"]
fn a_terminated_daemon_leaves_a_clean_pool() {
    let store = store_with_box();
    let mut service = store.start(&["serve"]);
    assert!(host::wait_until(Duration::from_secs(30), || store.daemon_pid().is_some()));
    service.signal(Signal::TERM);
    assert!(host::wait_until(Duration::from_secs(30), || service.has_ended()));
    drop(service);
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    store.finish();
}

#[test]
#[ignore = "needs root: makes loop devices and mounts"]
fn attach_detach_mount_and_umount_can_be_said_twice() {
    let store = store_with_box();
    let device = store.attach("box");
    assert_eq!(store.attach("box"), device);
    assert_eq!(host::loops_below(store.folder()).len(), 1);
    assert_eq!(store.rows(&["ls"])[0]["device"], device.to_str().unwrap());
    store.ok(&["detach", "box"]);
    store.ok(&["detach", "box"]);
    assert_eq!(host::loops_below(store.folder()), []);

    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    store.ok(&["mount", "box", &point]);
    assert_eq!(host::mounts_below(Path::new(&point)).len(), 1, "mounted twice, one on the other");
    store.ok(&["umount", "box"]);
    store.ok(&["umount", "box"]);
    assert_eq!(host::mounts_below(Path::new(&point)), []);
    assert_eq!(host::loops_below(store.folder()), []);
    store.finish();
}

#[test]
#[ignore = "needs root: makes loop devices"]
fn a_device_has_blocks_of_4096_bytes_and_direct_input_and_output() {
    let store = store_with_box();
    let device = store.attach("box");
    let name = device.file_name().unwrap().to_str().unwrap().to_owned();
    let setting = |file: &str| {
        fs::read_to_string(format!("/sys/block/{name}/{file}")).unwrap().trim().to_owned()
    };
    assert_eq!(setting("queue/logical_block_size"), "4096");
    assert_eq!(setting("loop/dio"), "1");
    assert_eq!(setting("size"), ((10_u64 << 30) / 512).to_string());
    store.ok(&["detach", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_mount_taken_away_by_hand_is_noticed() {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    thinstore_tests::run_tool("umount", &[point.as_str()]);
    assert_ne!(store.rows(&["ls"])[0]["state"], "mounted");
    store.ok(&["mount", "box", &point]);
    store.ok(&["umount", "box"]);
    store.ok(&["rm", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_busy_mount_is_not_taken_away() {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let holder = fs::File::create(format!("{point}/open")).unwrap();
    store.refused(&[4], &["umount", "box"], &["box"]);
    fs::write(format!("{point}/still"), "works").unwrap();
    drop(holder);
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn commands_at_the_same_time_all_come_to_their_end() {
    let store = store_with_box();
    let start = Instant::now();
    // The daemon is not there yet: they race to start it.
    let running: Vec<_> = (0..8)
        .map(|number| {
            let name = format!("racer-{number}");
            let snapshot = store.start(&["snapshot", "image", &name]);
            (name, snapshot)
        })
        .collect();
    let mut names = Vec::new();
    for (name, snapshot) in running {
        snapshot.wait(Duration::from_secs(120)).assert_success();
        names.push(name);
    }
    let points: Vec<String> =
        names.iter().map(|name| store.new_folder(&format!("at-{name}"))).collect();
    let mounting: Vec<_> = names
        .iter()
        .zip(&points)
        .map(|(name, point)| store.start(&["mount", name, point]))
        .collect();
    for mount in mounting {
        mount.wait(Duration::from_secs(120)).assert_success();
    }
    for point in &points {
        fs::write(format!("{point}/file"), point).unwrap();
    }
    let unmounting: Vec<_> = names.iter().map(|name| store.start(&["umount", name])).collect();
    for umount in unmounting {
        umount.wait(Duration::from_secs(120)).assert_success();
    }
    for (name, point) in names.iter().zip(&points) {
        assert_eq!(store.ok(&["cat", name, "/file"]).stdout, point.as_bytes());
    }
    let mut words = vec!["rm"];
    words.extend(names.iter().map(String::as_str));
    store.ok(&words);
    assert!(start.elapsed() < Duration::from_secs(240));
    store.finish();
}

#[test]
#[ignore = "needs root: mounts a container; fio with verification"]
fn concurrent_writes_through_a_mounted_container_read_back_right() {
    let store = store_with_box();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let folder = format!("--directory={point}");
    thinstore_tests::run_tool(
        "fio",
        &[
            "--name=verify",
            folder.as_str(),
            "--rw=randrw",
            "--bsrange=4k-512k",
            "--size=64M",
            "--numjobs=4",
            "--iodepth=32",
            "--ioengine=libaio",
            "--direct=1",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--verify_fatal=1",
            "--do_verify=1",
            "--group_reporting",
            "--minimal",
        ],
    );
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}
