//! Drivers beside the thin one: the same image is the same tree on each, and a container lives the same life.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::Path;

use thinstore_tests::command::run_tool;
use thinstore_tests::drivers::chosen_drivers;
use thinstore_tests::layout::rich_image;
use thinstore_tests::{Identity, Layout, TempStore, Tree};

/// Runs a command of a driver.
#[track_caller]
fn ok(store: &TempStore, driver: &str, arguments: &[&str]) -> String {
    let mut words = vec!["--driver", driver];
    words.extend(arguments);
    store.ok(&words).stdout_text()
}

#[track_caller]
fn tree_of(store: &TempStore, driver: &str, container: &str) -> Tree {
    let point = store.new_folder(&format!("look-{driver}-{container}"));
    ok(store, driver, &["mount", container, &point, "--read-only"]);
    let tree = Tree::read(Path::new(&point)).with_shown_names();
    ok(store, driver, &["umount", container]);
    tree
}

#[test]
#[ignore = "needs root: mounts what every driver has; needs the programs of all drivers"]
fn an_image_is_the_same_tree_on_every_driver_and_a_container_lives_the_same_life() {
    let store = TempStore::with_size(Identity::Current, "4G");
    let source = store.path("source");
    Layout::write(Path::new(&source), &rich_image());
    let life = |driver: &str| {
        ok(&store, driver, &["import", &source, "--name", "image"]);
        ok(&store, driver, &["snapshot", "image", "web"]);
        let fresh = tree_of(&store, driver, "web");
        let point = store.new_folder(&format!("at-{driver}"));
        ok(&store, driver, &["mount", "web", &point]);
        let folder = Path::new(&point);
        fs::write(folder.join("etc/added"), "added").unwrap();
        fs::remove_file(folder.join("etc/kept")).unwrap();
        fs::remove_dir_all(folder.join("etc/emptied")).unwrap();
        fs::write(folder.join("bin/ping"), "changed").unwrap();
        let changes = ok(&store, driver, &["diff", "web"]);
        ok(&store, driver, &["commit", "web", "changed"]);
        let refused = store.run(&["--driver", driver, "rm", "web"]).assert_code(&[4]);
        assert!(refused.stderr_text().contains("umount"), "{}", refused.stderr_text());
        ok(&store, driver, &["umount", "web"]);
        ok(&store, driver, &["rm", "web"]);
        ok(&store, driver, &["snapshot", "changed", "again"]);
        let changed = tree_of(&store, driver, "again");
        assert_eq!(ok(&store, driver, &["diff", "again"]), "");
        ok(&store, driver, &["rm", "again"]);
        ok(&store, driver, &["rmi", "changed", "image"]);
        assert_eq!(ok(&store, driver, &["images"]).lines().count(), 1);
        assert_eq!(ok(&store, driver, &["layers"]).lines().count(), 1);
        ok(&store, driver, &["check"]);
        (fresh, changes, changed)
    };
    let (fresh, changes, changed) = life("thin");
    for path in ["C /bin/ping", "A /etc/added", "D /etc/kept", "D /etc/emptied"] {
        assert!(changes.lines().any(|line| line == path), "{path} is not in {changes}");
    }
    for driver in chosen_drivers() {
        let (same, same_changes, same_changed) = life(&driver);
        assert_eq!(fresh.differences(&same), Vec::<String>::new(), "{driver}");
        assert_eq!(changes, same_changes, "{driver}");
        // what was written in two containers was written at two times
        let times = |line: &String| {
            let is_copied_folder = driver == "fuse-overlayfs" && line.contains("Directory");
            !line.contains("etc") && !line.contains("bin/ping") && !is_copied_folder
        };
        let different: Vec<String> =
            changed.differences(&same_changed).into_iter().filter(times).collect();
        assert_eq!(different, Vec::<String>::new(), "{driver}");
    }
    store.finish();
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
        ok(&store, &driver, &["import", &source, "--name", "image"]);
        ok(&store, &driver, &["snapshot", "image", "web"]);
        let point = store.new_folder(&format!("at-{driver}"));
        ok(&store, &driver, &["mount", "web", &point]);
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
