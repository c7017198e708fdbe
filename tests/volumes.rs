//! Volumes: data that outlives containers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thinstore_tests::{Identity, TarWriter, TempStore, Tree, host};

/// A store with an image that has a folder of each kind of file, and containers of it.
fn store_with(containers: &[&str]) -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "512M", "--device-size", "32M"]);
    let tar = store.path("image.tar");
    TarWriter::new()
        .directory("data/")
        .file("data/file", b"of the image\n")
        .symlink("data/link", "file")
        .hard_link("data/again", "data/file")
        .directory("data/inner/")
        .file("data/inner/deep", b"deep\n")
        .write_to(Path::new(&tar));
    store.ok(&["import", &tar, "--name", "image"]);
    for name in containers {
        store.ok(&["snapshot", "image", name]);
    }
    store
}

fn data(store: &TempStore, volume: &str) -> PathBuf {
    store.root().join("volumes").join(volume).join("_data")
}

fn mount(store: &TempStore, name: &str, options: &[&str]) -> PathBuf {
    let folder = PathBuf::from(store.path(&format!("on-{name}")));
    fs::create_dir_all(&folder).unwrap();
    let mut arguments = vec!["mount", name, folder.to_str().unwrap()];
    arguments.extend(options);
    store.ok(&arguments);
    folder
}

#[test]
fn volumes_are_made_described_and_removed() {
    let store = TempStore::new();
    assert_eq!(store.ok(&["volume", "create", "web"]).stdout_text(), "web\n");
    store.ok(&["volume", "create", "db", "--label", "tier=back", "--label", "kept"]);
    let anonymous = store.ok(&["volume", "create"]).stdout_text();
    assert_eq!(anonymous.trim().len(), 64);
    // Again is no error, unless it would be another one.
    store.ok(&["volume", "create", "db"]);
    store.refused(&[4], &["volume", "create", "db", "--label", "tier=front"], &["'db'", "labels"]);
    store.refused(&[2], &["volume", "create", "../db"], &["volume name"]);

    let described = store.json(&["volume", "inspect", "db"]);
    assert_eq!(described[0]["Name"], "db");
    assert_eq!(described[0]["Driver"], "local");
    assert_eq!(described[0]["Scope"], "local");
    assert_eq!(described[0]["Labels"], serde_json::json!({"tier": "back", "kept": ""}));
    assert_eq!(described[0]["Mountpoint"], data(&store, "db").to_str().unwrap());
    let point = store.ok(&["volume", "inspect", "-f", "{{ .Mountpoint }}", "web"]).stdout_text();
    assert_eq!(Path::new(point.trim()), data(&store, "web"));
    store.refused(&[3], &["volume", "inspect", "none"], &["'none'"]);
    store.refused(&[3], &["volume", "rm", "none"], &["'none'"]);

    let names = |store: &TempStore| store.ok(&["volume", "ls", "-q"]).stdout_text();
    assert_eq!(names(&store).lines().count(), 3);
    store.refused(&[2], &["volume", "prune"], &["--force"]);
    store.ok(&["volume", "prune", "--force"]);
    assert_eq!(names(&store), "db\nweb\n", "only the anonymous one goes");
    store.ok(&["volume", "rm", "web"]);
    assert_eq!(names(&store), "db\n");
    // What a crash has left of making or removing is nobody's volume, and goes.
    let left = store.root().join("volumes/.unfinished-old");
    fs::create_dir_all(left.join("_data")).unwrap();
    assert_eq!(names(&store), "db\n");
    store.ok(&["volume", "prune", "--all", "--force"]);
    assert_eq!(names(&store), "");
    assert!(!left.exists() && !data(&store, "db").exists());
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_volume_is_filled_once_from_what_the_container_has_there() {
    let store = store_with(&["one", "two", "three"]);
    let own = mount(&store, "one", &[]);
    fs::set_permissions(own.join("data"), fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(own.join("data"), Some(1234), Some(4321)).unwrap();
    std::os::unix::fs::chown(own.join("data/inner"), Some(7), Some(8)).unwrap();
    let expected = Tree::read(&own.join("data"));
    store.ok(&["umount", "one"]);

    let shown = mount(&store, "one", &["-v", "kept:/data"]);
    Tree::read(&shown.join("data")).assert_same(&expected);
    let metadata = fs::metadata(data(&store, "kept")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o2750, 1234, 4321));
    fs::write(shown.join("data/file"), "changed\n").unwrap();
    fs::remove_file(shown.join("data/link")).unwrap();

    // It is what it is now, for all who mount it, at once.
    let other = mount(&store, "two", &["-v", "kept:/data"]);
    assert_eq!(fs::read_to_string(other.join("data/again")).unwrap(), "changed\n");
    assert!(!other.join("data/link").exists());
    fs::write(other.join("data/by-two"), "two\n").unwrap();
    assert_eq!(fs::read_to_string(shown.join("data/by-two")).unwrap(), "two\n");
    let users = store.json(&["volume", "inspect", "kept"])[0]["UsedBy"].clone();
    assert_eq!(users, serde_json::json!(["one", "two"]));
    store.refused(&[4], &["volume", "rm", "kept"], &["'one'", "'two'"]);
    store.ok(&["volume", "prune", "--all", "--force"]);
    assert!(data(&store, "kept").join("by-two").exists(), "a volume in use was pruned");

    // Where that is not wanted, nothing is copied.
    let bare = mount(&store, "three", &["-v", "bare:/data:nocopy", "-v", "kept:/inner:ro"]);
    assert_eq!(fs::read_dir(bare.join("data")).unwrap().count(), 0);
    assert!(fs::write(bare.join("inner/no"), "").is_err(), "written through a read-only mount");

    for name in ["one", "two", "three"] {
        store.ok(&["umount", name]);
        // The container has what it had, and the volume outlives it.
        assert_eq!(store.ok(&["cat", name, "/data/file"]).stdout_text(), "of the image\n");
        store.ok(&["rm", name]);
    }
    assert_eq!(fs::read_to_string(data(&store, "kept").join("by-two")).unwrap(), "two\n");
    store.ok(&["volume", "rm", "kept"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_fill_that_was_killed_is_made_again() {
    let store = store_with(&["one"]);
    store.ok(&["volume", "create", "v"]);
    let half = store.root().join("volumes/v/.thinstore-gathering");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("file"), "half").unwrap();
    let shown = mount(&store, "one", &["-v", "v:/data"]);
    assert_eq!(fs::read_to_string(shown.join("data/file")).unwrap(), "of the image\n");
    assert!(!half.exists());
    host::kill(store.daemon_pid().unwrap());
    store.ok(&["volume", "rm", "v"]);
    store.finish();
}

/// A folder that somebody has mounted already, empty, is filled in place: it stays the same folder.
#[test]
#[ignore = "needs root: mounts containers"]
fn a_volume_that_is_mounted_already_is_filled_where_it_is() {
    let store = store_with(&["first", "second"]);
    for driver in ["local", "thin"] {
        store.ok(&["volume", "create", "--driver", driver, driver]);
        let first = mount(&store, "first", &["-v", &format!("{driver}:/mine")]);
        fs::write(first.join("mine/own"), "").unwrap();
        fs::remove_file(first.join("mine/own")).unwrap();
        let second = mount(&store, "second", &["-v", &format!("{driver}:/data")]);
        assert_eq!(fs::read_to_string(second.join("data/file")).unwrap(), "of the image\n");
        assert_eq!(fs::read_to_string(first.join("mine/file")).unwrap(), "of the image\n");
        fs::write(first.join("mine/by-first"), "seen").unwrap();
        assert_eq!(fs::read_to_string(second.join("data/by-first")).unwrap(), "seen");
        store.ok(&["umount", "first"]);
        store.ok(&["umount", "second"]);
    }
    store.finish();
}
