//! Devices and mounts, through a daemon that is started by itself. All of it needs root, FUSE and loop
//! devices.
#![allow(missing_docs)]
// a test that cannot go on ends here
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, require_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A store with the image `base` and its container `c`, and an empty folder `m`.
fn place() -> Place {
    require_root();
    let place = Place::with_image();
    place.run(["snapshot", "base", "c"]).good();
    fs::create_dir(place.path("m")).expect("made");
    place
}

fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("a table");
    let path = path.to_str().expect("UTF-8");
    table.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

fn loop_devices(place: &Place) -> Vec<String> {
    let prefix = place.root().join("run/devices").display().to_string();
    let list = Command::new("losetup").args(["-a", "-O", "NAME,BACK-FILE", "-n"]).output();
    let list = String::from_utf8(list.expect("losetup runs").stdout).expect("UTF-8");
    list.lines().filter(|line| line.contains(&prefix)).map(str::to_owned).collect()
}

fn kill_daemon(place: &Place) {
    let pid = place.daemon_pid().expect("a daemon");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    wait_for("the daemon to die", || !Path::new(&format!("/proc/{pid}")).exists());
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn check_ext4(place: &Place, name: &str) {
    let device = place.json(["attach", name])["device"].as_str().expect("a device").to_owned();
    let output = Command::new("e2fsck").args(["-fn", &device]).output().expect("e2fsck runs");
    place.run(["detach", name]).good();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn what_is_written_is_there_after_unmounting_and_mounting() {
    let place = place();
    let file = place.path("m/etc/new");
    place.run(["mount", "c", "m"]).good();
    assert_eq!(fs::read_to_string(place.path("m/etc/motd")).expect("read"), "welcome\n");
    fs::write(&file, "written").expect("written");
    let listed = place.json(["ls"]);
    assert_eq!(
        (&listed[0]["state"], &listed[0]["mount_point"]),
        (&"mounted".into(), &place.path("m").to_str().into())
    );
    place.run(["umount", "c"]).good();
    assert!(!file.exists() && !is_mounted(&place.path("m")));
    assert_eq!(place.run(["cat", "c", "/etc/new"]).good().text(), "written");
    place.run(["mount", "c", "m"]).good();
    assert_eq!(fs::read_to_string(&file).expect("read"), "written");
    place.run(["umount", "c"]).good();
    check_ext4(&place, "c");
    place.assert_clean();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn doing_it_twice_is_as_good_as_once() {
    let place = place();
    place.run(["umount", "c"]).good();
    place.run(["detach", "c"]).good();
    let first = place.json(["attach", "c"]);
    let second = place.json(["attach", "c"]);
    assert_eq!(first["device"], second["device"]);
    assert_eq!((&first["was_attached"], &second["was_attached"]), (&false.into(), &true.into()));
    assert_eq!(place.json(["ls"])[0]["state"], "attached");
    place.run(["mount", "c", "m"]).good();
    assert_eq!(place.json(["mount", "c", "m"])["was_mounted"], true);
    fs::create_dir(place.path("other")).expect("made");
    place.run(["mount", "c", "other"]).fails(4, "mounted on");
    place.run(["mount", "c", "m", "--read-only"]).fails(4, "other options");
    place.run(["umount", "c"]).good();
    place.run(["umount", "c"]).good();
    place.run(["detach", "c"]).good();
    assert!(loop_devices(&place).is_empty());
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn what_is_in_use_is_not_removed() {
    let place = place();
    place.run(["attach", "c"]).good();
    place.run(["rm", "c"]).fails(4, "detach");
    place.run(["mount", "c", "m"]).good();
    place.run(["rm", "c"]).fails(4, "umount");
    place.run(["detach", "c"]).fails(4, "mounted");
    place.run(["serve", "--stop"]).fails(4, "umount");
    assert!(place.path("m/etc/motd").exists());
    place.run(["umount", "c"]).good();
    place.run(["rm", "c"]).good();
    place.run(["serve", "--stop"]).good();
    assert!(place.daemon_pid().is_none());
    place.run(["serve", "--stop"]).good();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_mount_point_must_be_an_empty_folder() {
    let place = place();
    place.run(["mount", "c", "nowhere"]).fails(3, "not there");
    place.write("m/file", b"x");
    place.run(["mount", "c", "m"]).fails(2, "not empty");
    place.run(["mount", "c", "m/file"]).fails(2, "not a folder");
    assert_eq!(place.json(["ls"])[0]["state"], "created");
    assert!(loop_devices(&place).is_empty());
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn volumes_binds_and_tmpfs_lie_over_the_container() {
    let place = place();
    fs::create_dir(place.path("host")).expect("made");
    place.write("host/file", b"of the host");
    let run = place.run([
        "mount",
        "c",
        "m",
        "-v",
        "data:/srv/volume",
        "-v",
        "./host:/srv/volume/inner:ro",
        "--tmpfs",
        "/tmp/memory:size=1M,mode=700",
        "--mount",
        "type=bind,src=host/file,dst=/etc/motd",
    ]);
    run.good();
    fs::write(place.path("m/srv/volume/kept"), "kept").expect("written");
    assert_eq!(
        fs::read_to_string(place.path("m/srv/volume/inner/file")).expect("read"),
        "of the host"
    );
    assert!(fs::write(place.path("m/srv/volume/inner/no"), "x").is_err());
    assert_eq!(fs::read_to_string(place.path("m/etc/motd")).expect("read"), "of the host");
    let mounts = place.json(["inspect", "c"])[0]["Mounts"].clone();
    let mounts = mounts.as_array().expect("a list");
    assert_eq!(mounts.len(), 4);
    let volume = mounts.iter().find(|mount| mount["Type"] == "volume").expect("a volume");
    assert_eq!((&volume["Name"], &volume["Destination"]), (&"data".into(), &"/srv/volume".into()));
    assert_eq!((&volume["Driver"], &volume["RW"]), (&"local".into(), &true.into()));
    let usage = place.json(["df"]);
    assert_eq!(
        (&usage["volumes"][0]["name"], &usage["volumes"][0]["links"]),
        (&"data".into(), &1.into())
    );
    // what lies over it is not the container's
    assert_eq!(place.run(["cat", "c", "/etc/motd"]).good().text(), "welcome\n");
    place.run(["umount", "c"]).good();
    assert!(!is_mounted(&place.path("m")));
    let kept = place.root().join("volumes/data/_data/kept");
    assert_eq!(fs::read_to_string(kept).expect("kept"), "kept");
    place.run(["cat", "c", "/srv/volume/kept"]).fails(3, "");
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_link_in_an_image_leads_no_mount_out_of_the_container() {
    let place = place();
    fs::create_dir(place.path("outside")).expect("made");
    symlink(place.path("outside"), place.path("escape")).expect("linked");
    symlink("../../../../../..", place.path("up")).expect("linked");
    place.run(["cp", "escape", "c:/escape"]).good();
    place.run(["cp", "up", "c:/up"]).good();
    place.run(["mount", "c", "m", "--tmpfs", "/escape/x", "--tmpfs", "/up/y"]).good();
    assert_eq!(fs::read_dir(place.path("outside")).expect("there").count(), 0);
    assert!(is_mounted(&place.path("m/y")));
    assert!(!Path::new("/y").exists());
    place.run(["umount", "c"]).good();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_mount_that_fails_half_way_leaves_nothing() {
    let place = place();
    let bad = "type=bind,src=no-such-folder,dst=/z";
    place.run(["mount", "c", "m", "-v", "data:/a", "--mount", bad]).fails(3, "no-such-folder");
    assert!(!is_mounted(&place.path("m")));
    assert_eq!(place.json(["ls"])[0]["state"], "created");
    place.run(["mount", "c", "m", "--tmpfs", "/a", "-v", "x:/a"]).fails(2, "two mounts");
    place.run(["mount", "c", "m"]).good();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_read_only_mount_is_not_written() {
    let place = place();
    place.run(["mount", "c", "m", "--read-only"]).good();
    assert!(fs::write(place.path("m/etc/new"), "x").is_err());
    assert_eq!(place.json(["ls"])[0]["read_only"], true);
    place.write("file", b"x");
    place.run(["cp", "file", "c:/etc/new"]).fails(1, "read-only");
    place.run(["mount", "c", "m", "--read-only", "-v", "v:/no/such"]).fails(4, "");
    place.run(["umount", "c"]).good();
    assert_eq!(place.json(["diff", "c"]), serde_json::json!([]));
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn what_is_busy_stays_mounted_with_all_that_lies_over_it() {
    let place = place();
    place.run(["mount", "c", "m", "--tmpfs", "/srv/t", "-v", "data:/srv/v"]).good();
    let held = fs::File::open(place.path("m/etc/motd")).expect("open");
    place.run(["umount", "c"]).fails(4, "in use");
    assert!(is_mounted(&place.path("m")) && is_mounted(&place.path("m/srv/t")));
    assert!(is_mounted(&place.path("m/srv/v")));
    drop(held);
    place.run(["umount", "c"]).good();
    assert!(!is_mounted(&place.path("m")));
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_mount_that_somebody_else_ended_is_cleaned_up() {
    let place = place();
    place.run(["mount", "c", "m"]).good();
    assert!(Command::new("umount").arg(place.path("m")).status().expect("umount runs").success());
    assert_eq!(place.json(["ls"])[0]["state"], "attached");
    place.run(["umount", "c"]).good();
    assert_eq!(place.json(["ls"])[0]["state"], "created");
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_mounted_container_is_read_and_written_through_its_mount() {
    let place = place();
    place.run(["mount", "c", "m"]).good();
    // not synced: only the kernel has it
    fs::write(place.path("m/etc/new"), "fresh").expect("written");
    assert_eq!(place.run(["cat", "c", "/etc/new"]).good().text(), "fresh");
    place.write("file", b"copied");
    place.run(["cp", "file", "c:/etc/copied"]).good();
    assert_eq!(fs::read_to_string(place.path("m/etc/copied")).expect("read"), "copied");
    fs::write(place.path("m/etc/newer"), "x").expect("written");
    assert_eq!(
        place.run(["diff", "c"]).good().text(),
        "C /etc\nA /etc/copied\nA /etc/new\nA /etc/newer\n"
    );
    let exported = place.run(["export", "c"]).good().stdout;
    assert!(exported.windows(9).any(|window| window == b"etc/newer"));
    place.run(["snapshot", "c", "d"]).good();
    assert_eq!(place.run(["cat", "d", "/etc/newer"]).good().text(), "x");
    let tree = place.json(["tree"]);
    assert!(tree.as_array().expect("a list").iter().all(|entry| entry["kind"] != "transient"));
    place.run(["umount", "c"]).good();
    place.assert_clean();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_commit_while_it_is_written_is_a_whole_file_system() {
    let place = place();
    place.run(["mount", "c", "m"]).good();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let folder = place.path("m/srv");
        let stop = &stop;
        scope.spawn(move || {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(folder.join(format!("f{}", number % 50)), vec![7; 10_000])
                    .expect("written");
                number += 1;
            }
        });
        for number in 0..5 {
            let outcome = place.json(["commit", "c", &format!("live:{number}")]);
            assert_eq!(outcome["live"], true);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for number in 0..5 {
        let container = format!("l{number}");
        place.run(["snapshot", &format!("live:{number}"), &container]).good();
        check_ext4(&place, &container);
    }
    assert_eq!(fs::read_dir(place.root().join("run/frozen")).expect("there").count(), 0);
    place.run(["umount", "c"]).good();
    check_ext4(&place, "c");
    place.assert_clean();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn after_a_daemon_was_killed_the_next_command_cleans_up() {
    let place = place();
    place.run(["mount", "c", "m", "--tmpfs", "/srv/t"]).good();
    fs::write(place.path("m/etc/synced"), "safe").expect("written");
    fs::File::open(place.path("m/etc/synced")).and_then(|file| file.sync_all()).expect("synced");
    kill_daemon(&place);
    place.run(["snapshot", "base", "d"]).good();
    assert!(!is_mounted(&place.path("m")) && !is_mounted(&place.path("m/srv/t")));
    assert!(loop_devices(&place).is_empty());
    assert_eq!(place.json(["ls"])[0]["state"], "created");
    assert_eq!(place.run(["cat", "c", "/etc/synced"]).good().text(), "safe");
    place.run(["mount", "c", "m"]).good();
    assert_eq!(fs::read_to_string(place.path("m/etc/synced")).expect("read"), "safe");
    place.run(["umount", "c"]).good();
    check_ext4(&place, "c");
    place.assert_clean();
}

#[test]
#[ignore = "needs root: freezes a file system"]
fn what_a_killed_daemon_left_frozen_does_not_stay_so() {
    let place = place();
    let mounted = place.json(["mount", "c", "m"]);
    let id = place.json(["inspect", "c"])[0]["Id"].as_str().expect("an id").to_owned();
    let note = serde_json::json!({"directory": mounted["directory"], "device": mounted["device"]});
    fs::create_dir_all(place.root().join("run/frozen")).expect("made");
    fs::write(place.root().join("run/frozen").join(id), note.to_string()).expect("written");
    assert!(
        Command::new("fsfreeze").arg("-f").arg(place.path("m")).status().expect("runs").success()
    );
    kill_daemon(&place);
    place.run(["rm", "c"]).good();
    assert!(!is_mounted(&place.path("m")));
    assert_eq!(fs::read_dir(place.root().join("run/frozen")).expect("there").count(), 0);
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn the_daemon_ends_when_nothing_needs_it_and_a_service_does_not() {
    let place = place();
    place.run(["attach", "c"]).good();
    let pid = place.daemon_pid().expect("a daemon");
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(place.daemon_pid(), Some(pid), "it serves a device");
    place.run(["detach", "c"]).good();
    wait_for("the daemon to end", || place.daemon_pid().is_none());
    assert!(!place.root().join("daemon.sock").exists());
    let mut service = place.command().arg("serve").stderr(Stdio::null()).spawn().expect("started");
    wait_for("the service", || place.daemon_pid().is_some());
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(place.run(["images", "-q"]).good().text(), "base:latest\n");
    kill(Pid::from_raw(i32::try_from(service.id()).expect("a pid")), Signal::SIGTERM)
        .expect("sent");
    assert!(service.wait().expect("ended").success());
    assert!(place.daemon_pid().is_none());
}

fn http(place: &Place, request: &str) -> String {
    let mut stream = UnixStream::connect(place.root().join("daemon.sock")).expect("connected");
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
#[ignore = "needs root: attaches devices"]
fn the_daemon_speaks_http() {
    let place = place();
    place.run(["attach", "c"]).good();
    let version = http(&place, "GET /version");
    assert!(
        version.starts_with("HTTP/1.1 200") && version.contains("\"api_version\":1"),
        "{version}"
    );
    let metrics = http(&place, "GET /metrics");
    assert!(metrics.contains("thinstore_containers_attached 1\n"), "{metrics}");
    let missing = http(&place, "GET /v1/cat?name=c&path=/no");
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("\"not_found\""), "{missing}");
    assert!(http(&place, "GET /v1/inspect").starts_with("HTTP/1.1 400"));
    assert!(http(&place, "GET /nothing").starts_with("HTTP/1.1 404"));
    let file = http(&place, "GET /v1/cat?name=c&path=/etc/motd");
    assert!(file.contains("welcome\n"), "{file}");
    use std::os::unix::fs::PermissionsExt;
    let socket = fs::metadata(place.root().join("daemon.sock")).expect("there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
#[ignore = "needs root: imports through a mounted file system"]
fn both_ways_of_importing_give_the_same_tree() {
    require_root();
    let (kernel, user) = (Place::with_store(), Place::with_store());
    let tree = kernel.make_tree();
    let tree = tree.to_str().expect("UTF-8");
    let first = kernel.json(["import", tree, "--name", "base"]);
    let second = user.json(["import", "--user-space", tree, "--name", "base"]);
    assert_eq!((&first["method"], &second["method"]), (&"kernel".into(), &"user".into()));
    assert_eq!(first["id"], second["id"]);
    let exported = |place: &Place| place.run(["export", "base"]).good().stdout;
    assert!(exported(&kernel) == exported(&user), "the exported trees differ");
    assert!(loop_devices(&kernel).is_empty());
    kernel.assert_clean();
    user.assert_clean();
}

/// Feeds half an archive to an import, interrupts it, and looks at what is left.
fn interrupt_import(place: &Place) {
    let before = place.state();
    let archive = place.run(["export", "base"]).good().stdout;
    let mut child = place
        .command()
        .args(["import", "-", "--name", "half"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&archive[..archive.len() / 2]).expect("written");
    std::thread::sleep(Duration::from_millis(500));
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("sent");
    let output = child.wait_with_output().expect("ended");
    drop(input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    wait_for("the import to be undone", || place.state() == before);
    place.run(["inspect", "half"]).fails(3, "half");
}

#[test]
fn an_interrupted_import_leaves_the_store_as_it_was() {
    let place = Place::with_image();
    interrupt_import(&place);
    place.assert_clean();
}

#[test]
#[ignore = "needs root: attaches a device so that a daemon runs"]
fn an_import_through_the_daemon_can_be_interrupted_too() {
    let place = place();
    place.run(["attach", "c"]).good();
    interrupt_import(&place);
    let archive: PathBuf = place.path("base.tar");
    place.run(["export", "base", "-o", archive.to_str().expect("UTF-8")]).good();
    let outcome = place.json(["import", "base.tar", "--name", "again"]);
    assert_eq!(outcome["layers"], 1);
    place.run(["detach", "c"]).good();
    place.assert_clean();
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_larger_container_has_a_larger_file_system() {
    let place = place();
    place.run(["snapshot", "base", "large", "--size", "512M"]).good();
    place.run(["mount", "large", "m"]).good();
    let df = Command::new("df").args(["-B1", "--output=size"]).arg(place.path("m")).output();
    let size = String::from_utf8(df.expect("df runs").stdout).expect("UTF-8");
    let size: u64 = size.lines().nth(1).expect("a line").trim().parse().expect("a number");
    assert!(size > 400 << 20, "{size}");
    place.run(["umount", "large"]).good();
    check_ext4(&place, "large");
}
