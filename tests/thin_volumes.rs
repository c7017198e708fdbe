//! Volumes that are devices of the pool: limited in size, copied at no cost, and else volumes like any other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thinstore_tests::{Identity, TarWriter, TempStore, Tree, host};

fn store_with(containers: &[&str]) -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "512M", "--device-size", "32M"]);
    let tar = store.path("image.tar");
    TarWriter::new()
        .directory("data/")
        .file("data/file", b"of the image\n")
        .symlink("data/link", "file")
        .directory("data/inner/")
        .file("data/inner/deep", b"deep\n")
        .write_to(Path::new(&tar));
    store.ok(&["import", &tar, "--name", "image"]);
    for name in containers {
        store.ok(&["snapshot", "image", name]);
    }
    store
}

fn create(store: &TempStore, name: &str, size: &str) {
    store.ok(&["volume", "create", "--driver", "thin", "--size", size, name]);
}

/// Where a volume is mounted while it is used.
fn data(store: &TempStore, volume: &str) -> PathBuf {
    store.root().join("volumes").join(volume).join("_data")
}

fn is_mounted(store: &TempStore, volume: &str) -> bool {
    host::mount_at(&data(store, volume)).is_some()
}

fn mount(store: &TempStore, name: &str, options: &[&str]) -> PathBuf {
    let folder = PathBuf::from(store.path(&format!("on-{name}")));
    fs::create_dir_all(&folder).unwrap();
    let mut arguments = vec!["mount", name, folder.to_str().unwrap()];
    arguments.extend(options);
    store.ok(&arguments);
    folder
}

fn volumes(store: &TempStore) -> BTreeMap<String, Value> {
    let rows = store.rows(&["volume", "ls"]).into_iter();
    rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row)).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn thin_volumes_are_made_described_copied_resized_and_removed_without_a_mount() {
    let store = TempStore::new();
    let empty = store.pool_used_bytes();
    create(&store, "db", "64M");
    store.ok(&["volume", "create", "--driver", "thin", "--size", "64M", "kept", "--label", "a=b"]);
    store.ok(&["volume", "create", "folder"]);
    let described = store.json(&["volume", "inspect", "kept"])[0].clone();
    assert_eq!((&described["Driver"], &described["Name"]), (&"thin".into(), &"kept".into()));
    assert_eq!(described["Labels"], serde_json::json!({"a": "b"}));
    assert_eq!(described["Options"], serde_json::json!({"size": (64 << 20).to_string()}));
    assert_eq!(number(&described["Status"]["SizeBytes"]), 64 << 20);
    assert_eq!(described["Mountpoint"], data(&store, "kept").to_str().unwrap());
    // by its name alone too, where no container or image has that
    for name in ["kept", "folder"] {
        let by_name = store.json(&["inspect", name]);
        assert_eq!(by_name, store.json(&["volume", "inspect", name]));
        assert_eq!(store.json(&["inspect", "--type", "volume", name]), by_name);
        store.refused(&[3], &["inspect", "--type", "image", name], &[name]);
    }
    assert_eq!(store.json(&["scrub", "kept"])["clean"], true);
    store.refused(&[3], &["scrub", "folder"], &["'folder'"]);
    let drivers: Vec<(String, String)> = volumes(&store)
        .into_iter()
        .map(|(name, row)| (name, row["driver"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [("db", "thin"), ("folder", "local"), ("kept", "thin")];
    assert_eq!(drivers, expected.map(|(name, driver)| (name.to_owned(), driver.to_owned())));

    // The same again is no error, another one is.
    create(&store, "db", "64M");
    let taken = ["volume", "create", "--driver", "thin", "--size", "32M", "db"];
    store.refused(&[4], &taken, &["'db'", "64 MiB"]);
    store.refused(&[4], &["volume", "create", "db"], &["'db'", "'thin'"]);
    store.refused(
        &[4],
        &["volume", "create", "--driver", "thin", "folder"],
        &["'folder'", "local"],
    );
    let labels = ["volume", "create", "--driver", "thin", "kept", "--label", "x"];
    store.refused(&[4], &labels, &["'kept'", "labels"]);
    store.refused(&[2], &["volume", "create", "--size", "64M", "x"], &["--driver thin"]);
    for (driver, word) in [("zoo", "there is no driver 'zoo'"), ("overlay2", "local or thin")] {
        let refused = store.run(&["volume", "create", "--driver", driver, "x"]);
        assert!(refused.assert_code(&[2]).stderr_text().contains(word));
    }
    let refused = store.run(&["--driver", "local", "ls"]);
    assert!(refused.assert_code(&[2]).stderr_text().contains("driver of volumes"));
    for size in ["1M", "8E", "0", "64M1"] {
        let bad = ["volume", "create", "--driver", "thin", "--size", size, "x"];
        store.run(&bad).assert_code(&[2]);
    }

    // Copies of both kinds.
    store.ok(&["volume", "snapshot", "db", "monday", "--label", "day=1"]);
    store.ok(&["volume", "clone", "db", "test"]);
    store.ok(&["volume", "clone", "monday", "again"]);
    store.ok(&["volume", "snapshot", "monday", "copy"]);
    let all = volumes(&store);
    for (name, copy_of, read_only) in [
        ("monday", "db", true),
        ("test", "db", false),
        ("again", "monday", false),
        ("copy", "monday", true),
    ] {
        let row = &all[name];
        assert_eq!((&row["copy_of"], &row["read_only"]), (&copy_of.into(), &read_only.into()));
    }
    assert_eq!(all["monday"]["labels"], serde_json::json!({"day": "1"}));
    store.refused(&[4], &["volume", "snapshot", "db", "test"], &["'test'"]);
    store.refused(&[4], &["volume", "clone", "db", "folder"], &["'folder'"]);
    store.refused(&[3], &["volume", "clone", "none", "x"], &["'none'"]);
    store.refused(&[1], &["volume", "snapshot", "folder", "x"], &["'folder'", "--driver thin"]);
    store.refused(&[2], &["volume", "clone", "db", "a/b"], &["volume name"]);

    // Larger, never smaller.
    store.ok(&["volume", "resize", "db", "--size", "128M"]);
    assert_eq!(number(&volumes(&store)["db"]["size_bytes"]), 128 << 20);
    store.refused(&[2], &["volume", "resize", "db", "--size", "64M"], &["'db'", "smaller"]);
    store.refused(&[2], &["volume", "resize", "monday", "--size", "128M"], &["snapshot"]);
    store.refused(&[1], &["volume", "resize", "folder", "--size", "128M"], &["'folder'"]);
    store.refused(&[3], &["volume", "resize", "none", "--size", "128M"], &["'none'"]);

    // They are told from containers and images.
    assert_eq!(store.names("ls"), Vec::<String>::new());
    let tree = store.rows(&["tree"]);
    let kinds: Vec<&str> = tree
        .iter()
        .filter(|row| row["name"] == "monday" || row["name"] == "db")
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["volume", "volume"]);
    assert!(store.ok(&["tree"]).stdout_text().contains("monday (volume)"));
    store.refused(&[3], &["rm", "db"], &["'db'"]);
    store.ok(&["check"]);

    // Everything comes back, in whatever order they go.
    let anonymous = store.ok(&["volume", "create", "--driver", "thin"]).stdout_text();
    store.ok(&["volume", "prune", "--force"]);
    assert!(!volumes(&store).contains_key(anonymous.trim()));
    store.ok(&["volume", "rm", "db", "monday"]);
    store.refused(&[3], &["volume", "rm", "db"], &["'db'"]);
    store.ok(&["volume", "create", "db"]);
    store.ok(&["volume", "prune", "--all", "--force"]);
    assert_eq!(volumes(&store).len(), 0);
    let left: Vec<_> = fs::read_dir(store.root().join("volumes")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the lock is left: {left:?}");
    // But for the empty file system of the store's own size, which the next image begins with.
    let template = store.rows(&["tree"]);
    assert_eq!(template.len(), 1, "{template:?}");
    let kept = number(&template[0]["own_bytes"]);
    assert!(store.pool_used_bytes() <= empty + kept + (64 << 10));
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_thin_volume_is_filled_shared_limited_and_outlives_its_containers() {
    let store = store_with(&["one", "two", "three"]);
    let plain = mount(&store, "one", &[]);
    std::os::unix::fs::chown(plain.join("data"), Some(1234), Some(4321)).unwrap();
    let expected = Tree::read(&plain.join("data"));
    store.ok(&["umount", "one"]);
    create(&store, "v", "32M");

    let one = mount(&store, "one", &["-v", "v:/data"]);
    Tree::read(&one.join("data")).assert_same(&expected);
    assert!(is_mounted(&store, "v"));
    let two = mount(&store, "two", &["-v", "v:/data"]);
    fs::write(two.join("data/by-two"), "two\n").unwrap();
    assert_eq!(fs::read_to_string(one.join("data/by-two")).unwrap(), "two\n");
    let three = mount(&store, "three", &["--mount", "type=volume,src=v,dst=/inner,readonly"]);
    assert_eq!(fs::read_to_string(three.join("inner/by-two")).unwrap(), "two\n");
    assert!(fs::write(three.join("inner/no"), "").is_err(), "written through a read-only mount");
    let row = volumes(&store)["v"].clone();
    assert_eq!(row["used_by"], serde_json::json!(["one", "three", "two"]));
    assert!(row["device"].as_str().unwrap().starts_with("/dev/"), "{row}");
    let info = store.json(&["inspect", "three"])[0]["Mounts"][0].clone();
    assert_eq!(info["Driver"], "thin");
    assert_eq!(
        (&info["RW"], &info["Source"]),
        (&false.into(), &data(&store, "v").to_str().unwrap().into())
    );
    store.refused(&[4], &["volume", "rm", "v"], &["'one'", "'two'", "'three'"]);
    store.ok(&["volume", "prune", "--all", "--force"]);
    assert!(volumes(&store).contains_key("v"), "a volume in use was pruned");

    // What does not fit is an error to its writer, and to nobody else.
    let mut file = fs::File::create(one.join("data/large")).unwrap();
    let error = loop {
        if let Err(error) = file.write_all(&[7; 1 << 20]) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(file.metadata().unwrap().len() < 32 << 20);
    fs::write(two.join("elsewhere"), vec![1; 1 << 20]).unwrap();
    drop(file);
    fs::remove_file(one.join("data/large")).unwrap();

    // It is mounted until the last one goes.
    for (name, stays) in [("one", true), ("three", true), ("two", false)] {
        store.ok(&["umount", name]);
        assert_eq!(is_mounted(&store, "v"), stays, "after {name}");
        store.ok(&["rm", name]);
    }
    assert_eq!(volumes(&store)["v"]["device"], Value::Null);
    store.ok(&["snapshot", "image", "later"]);
    let later = mount(&store, "later", &["-v", "v:/data"]);
    assert_eq!(fs::read_to_string(later.join("data/by-two")).unwrap(), "two\n");
    assert_eq!(fs::metadata(later.join("data")).unwrap().uid(), 1234);
    store.ok(&["umount", "later"]);
    store.ok(&["serve", "--stop"]);
    store.ok(&["volume", "rm", "v"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn snapshots_of_a_volume_that_is_written_are_what_it_was_and_clones_go_their_own_way() {
    let store = store_with(&["one", "two"]);
    create(&store, "v", "64M");
    let one = mount(&store, "one", &["-v", "v:/data"]);
    fs::write(one.join("data/state"), "first").unwrap();
    // not synced: what is in the kernel's memory belongs to what the volume has
    store.ok(&["volume", "snapshot", "v", "first"]);
    fs::write(one.join("data/state"), "second").unwrap();
    store.ok(&["volume", "clone", "v", "branch"]);
    fs::write(one.join("data/state"), "third").unwrap();

    let folder = store.new_folder("refused");
    let writing = ["mount", "two", &folder, "-v", "first:/a"];
    store.refused(&[1], &writing, &["'first'", "snapshot", ":ro", "volume clone"]);
    assert!(host::mount_at(Path::new(&folder)).is_none() && !is_mounted(&store, "first"));
    let two = mount(&store, "two", &["-v", "first:/a:ro", "-v", "branch:/b"]);
    assert_eq!(fs::read_to_string(two.join("a/state")).unwrap(), "first");
    assert_eq!(fs::read_to_string(two.join("b/state")).unwrap(), "second");
    assert_eq!(fs::read_to_string(one.join("data/state")).unwrap(), "third");
    fs::write(two.join("b/state"), "of the branch").unwrap();
    assert_eq!(fs::read_to_string(one.join("data/state")).unwrap(), "third");
    assert!(fs::write(data(&store, "first").join("no"), "").is_err());
    // The file system is frozen no more.
    fs::write(one.join("data/more"), "more").unwrap();
    store.ok(&["umount", "one"]);
    store.ok(&["umount", "two"]);

    // Copies outlive their source.
    store.ok(&["volume", "rm", "v"]);
    let two = mount(&store, "two", &["-v", "first:/a:ro", "-v", "branch:/b"]);
    assert_eq!(fs::read_to_string(two.join("a/state")).unwrap(), "first");
    assert_eq!(fs::read_to_string(two.join("b/state")).unwrap(), "of the branch");
    store.ok(&["umount", "two"]);
    store.ok(&["volume", "rm", "first", "branch"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn df_tells_exactly_what_volumes_take_and_share() {
    let store = store_with(&[]);
    let before = store.pool_used_bytes();
    store.ok(&["snapshot", "image", "one"]);
    create(&store, "v", "64M");
    let one = mount(&store, "one", &["-v", "v:/empty"]);
    fs::write(one.join("empty/large"), vec![5; 8 << 20]).unwrap();
    store.ok(&["umount", "one"]);
    store.ok(&["volume", "clone", "v", "copy"]);
    let usage = |store: &TempStore| -> BTreeMap<String, Value> {
        let report = store.json(&["df", "--wait"]);
        let rows = report["volumes"].as_array().unwrap().clone().into_iter();
        rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row)).collect()
    };
    let both = usage(&store);
    for name in ["v", "copy"] {
        let row = &both[name];
        assert_eq!(row["driver"], "thin");
        let (unique, shared) = (number(&row["unique_bytes"]), number(&row["shared_bytes"]));
        assert_eq!(number(&row["size_bytes"]), unique + shared);
        assert!(shared >= 8 << 20 && unique < 64 << 10, "{row}");
    }
    let one = mount(&store, "one", &["-v", "copy:/empty"]);
    fs::write(one.join("empty/more"), vec![6; 4 << 20]).unwrap();
    store.ok(&["umount", "one"]);
    let unique = number(&usage(&store)["copy"]["unique_bytes"]);
    assert!((4 << 20..5 << 20).contains(&unique), "{unique}");
    // What it says is what comes back, to the byte.
    let used = store.pool_used_bytes();
    store.ok(&["volume", "rm", "copy"]);
    assert_eq!(store.pool_used_bytes(), used - unique);
    assert!(store.ok(&["df", "-v"]).stdout_text().contains("thin"));
    store.ok(&["volume", "rm", "v"]);
    store.ok(&["rm", "one"]);
    assert_eq!(store.pool_used_bytes(), before, "something of the volumes is left");
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_volume_grows_also_while_it_is_mounted() {
    let store = store_with(&["one"]);
    create(&store, "v", "32M");
    let holds = |at: &Path| {
        let stat = rustix::fs::statvfs(at).unwrap();
        stat.f_blocks * stat.f_frsize
    };
    let one = mount(&store, "one", &["-v", "v:/data"]);
    let at = one.join("data");
    fs::write(at.join("kept"), "kept").unwrap();
    let small = holds(&at);
    let grown = store.json(&["volume", "resize", "v", "--size", "96M"]);
    assert_eq!(number(&grown["size_bytes"]), 96 << 20);
    // Growing a mounted ext4 takes a privilege that root of a container has not.
    match grown["grows_at_next_mount"].as_bool().unwrap() {
        true => assert_eq!(holds(&at), small),
        false => assert!(holds(&at) > small + (56 << 20)),
    }
    fs::write(at.join("written"), vec![1; 1 << 20]).unwrap();
    store.ok(&["umount", "one"]);
    let one = mount(&store, "one", &["-v", "v:/data"]);
    assert!(holds(&one.join("data")) > small + (56 << 20), "it did not grow");
    fs::write(one.join("data/large"), vec![2; 64 << 20]).unwrap();
    assert_eq!(fs::read_to_string(one.join("data/kept")).unwrap(), "kept");
    store.ok(&["umount", "one"]);
    store.ok(&["volume", "rm", "v"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn what_a_killed_daemon_leaves_of_volumes_is_put_right_and_nothing_synced_is_lost() {
    let store = store_with(&["one", "two"]);
    create(&store, "v", "64M");
    let one = mount(&store, "one", &["-v", "v:/data"]);
    mount(&store, "two", &["-v", "v:/data:ro"]);
    let mut file = fs::File::create(one.join("data/synced")).unwrap();
    file.write_all(b"kept").unwrap();
    file.sync_all().unwrap();
    drop(file);
    fs::File::open(one.join("data")).unwrap().sync_all().unwrap();
    host::kill(store.daemon_pid().unwrap());
    // The journal has what is not in its place; a snapshot has it there.
    store.ok(&["volume", "snapshot", "v", "found"]);
    assert!(!is_mounted(&store, "v"));
    for container in ["one", "two"] {
        let folder = store.path(&format!("on-{container}"));
        assert!(host::mounts_below(Path::new(&folder)).is_empty());
    }
    let one = mount(&store, "one", &["-v", "v:/data", "-v", "found:/found:ro"]);
    assert_eq!(fs::read_to_string(one.join("data/synced")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(one.join("found/synced")).unwrap(), "kept");
    store.ok(&["umount", "one"]);

    // A folder without a device is nobody's, and a device without a folder gets one.
    fs::remove_dir_all(store.root().join("volumes/found")).unwrap();
    store.ok(&["mount", "one", store.path("on-one").as_str(), "-v", "found:/found:ro"]);
    store.ok(&["umount", "one"]);
    let stale = store.root().join("volumes/stale");
    fs::create_dir_all(stale.join("_data")).unwrap();
    fs::write(stale.join("device"), "").unwrap();
    assert!(!volumes(&store).contains_key("stale"));
    let one = mount(&store, "one", &["-v", "stale:/data"]);
    assert_eq!(fs::read_to_string(one.join("data/file")).unwrap(), "of the image\n");
    assert_eq!(volumes(&store)["stale"]["driver"], "local");
    store.ok(&["umount", "one"]);
    store.ok(&["volume", "rm", "v", "found", "stale"]);
    store.finish();
}

/// Containers come and go, and copies are made, all at once: whoever has the volume mounted sees it, and in
/// the end nobody holds it.
#[test]
#[ignore = "needs root: mounts containers"]
fn a_volume_that_many_mount_unmount_and_copy_at_once_is_always_there() {
    const CONTAINERS: [&str; 3] = ["one", "two", "three"];
    let store = store_with(&CONTAINERS);
    create(&store, "v", "32M");
    std::thread::scope(|scope| {
        for name in CONTAINERS {
            let store = &store;
            scope.spawn(move || {
                for round in 0..12 {
                    let at = mount(store, name, &["-v", "v:/data"]);
                    assert!(at.join("data/file").exists(), "{name} sees an empty folder");
                    fs::write(at.join("data").join(name), round.to_string()).unwrap();
                    store.ok(&["umount", name]);
                }
            });
        }
        scope.spawn(|| {
            for round in 0..8 {
                let copy = format!("copy-{round}");
                let command = if round % 2 == 0 { "snapshot" } else { "clone" };
                store.ok(&["volume", command, "v", &copy]);
                store.ok(&["volume", "rm", &copy]);
            }
        });
    });
    assert!(!is_mounted(&store, "v"));
    assert_eq!(volumes(&store)["v"]["device"], Value::Null);
    let at = mount(&store, "one", &["-v", "v:/data"]);
    for name in CONTAINERS {
        assert_eq!(fs::read_to_string(at.join("data").join(name)).unwrap(), "11");
    }
    store.ok(&["umount", "one"]);
    store.ok(&["volume", "rm", "v"]);
    store.finish();
}
