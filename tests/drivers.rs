//! How drivers are chosen, and what is said of one that cannot do something. What they do is tried in
//! `tests/conformance.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::path::Path;

use thinstore_tests::command::run_tool;
use thinstore_tests::drivers::chosen_drivers;
use thinstore_tests::layout::rich_image;
use thinstore_tests::{Identity, Layout, TempStore};

/// Runs a command of a driver.
#[track_caller]
fn ok(store: &TempStore, driver: &str, arguments: &[&str]) -> String {
    let mut words = vec!["--driver", driver];
    words.extend(arguments);
    store.ok(&words).stdout_text()
}

/// An image of a folder, and a container of it that is mounted: where.
fn mount_web(store: &TempStore, driver: &str, source: &str) -> String {
    ok(store, driver, &["import", source, "--name", "image"]);
    ok(store, driver, &["snapshot", "image", "web"]);
    let point = store.new_folder(&format!("at-{driver}"));
    ok(store, driver, &["mount", "web", &point]);
    point
}

#[test]
#[ignore = "needs root: opens drivers"]
fn what_a_driver_cannot_do_is_said_with_the_one_that_can() {
    let store = TempStore::with_size(Identity::Current, "64M");
    for (driver, names) in
        [("nonsense", &["nonsense", "overlay2", "btrfs"][..]), ("aufs", &["aufs", "overlay2"])]
    {
        let said = store.run(&["--driver", driver, "ls"]).assert_code(&[2]).stderr_text();
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
    }
    for arguments in [&["attach", "x"][..], &["scrub"], &["diff", "a", "--blocks"]] {
        let mut words = vec!["--driver", "vfs"];
        words.extend(arguments);
        store.refused(&[1], &words, &["vfs", "thin"]);
    }
    let listed = store.rows(&["drivers"]);
    let thin = listed.iter().find(|row| row["name"] == "thin").unwrap();
    assert_eq!(thin["works"], true);
    for row in &listed {
        assert!(
            row["works"] == true || row["obstacle"].as_str().is_some_and(|why| !why.is_empty())
        );
        assert!(row["name"] == "aufs" || !row["limits"].as_str().unwrap().is_empty());
    }
    store.finish();
}

#[test]
#[ignore = "needs root: mounts what every driver has; needs fio and the programs of all drivers"]
fn what_is_written_at_many_places_at_once_is_read_back_on_every_driver() {
    let store = TempStore::with_size(Identity::Current, "256M");
    let source = store.path("source");
    Layout::write(Path::new(&source), &rich_image());
    for driver in chosen_drivers() {
        let point = mount_web(&store, &driver, &source);
        let folder = format!("--directory={point}");
        let words = [
            "--name=written",
            &folder,
            "--size=64M",
            "--numjobs=2",
            "--rw=randwrite",
            "--bsrange=4k-512k",
            "--blockalign=4k",
            "--verify_state_save=0",
            "--ioengine=libaio",
            "--iodepth=32",
            "--verify=crc32c",
            "--do_verify=1",
        ];
        run_tool("fio", &words).assert_success();
        ok(&store, &driver, &["umount", "web"]);
        ok(&store, &driver, &["rm", "web"]);
        ok(&store, &driver, &["rmi", "image"]);
    }
    store.finish();
}

/// Every container that starts, of whatever program, has copies of all mounts until it has thrown them away.
#[test]
#[ignore = "needs root: mounts what every driver has; needs unshare"]
fn a_copy_of_a_mount_in_another_namespace_that_goes_soon_is_waited_for() {
    let store = TempStore::with_size(Identity::Current, "256M");
    let source = store.path("source");
    Layout::write(Path::new(&source), &rich_image());
    for driver in chosen_drivers() {
        mount_web(&store, &driver, &source);
        let mut other = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", "echo ready; sleep 0.5"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("this test needs the program unshare");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(other.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        ok(&store, &driver, &["umount", "web"]);
        assert!(other.wait().unwrap().success());
        ok(&store, &driver, &["rm", "web"]);
        ok(&store, &driver, &["rmi", "image"]);
    }
    store.finish();
}
