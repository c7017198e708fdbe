//! What lies over a container that is no volume: folders of the host, with mounts that come later, and file
//! systems in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use thinstore_tests::{Identity, TarWriter, TempStore, host, images, run_tool};

fn store_with_container() -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "512M", "--device-size", "32M"]);
    let tar = store.path("image.tar");
    TarWriter::new().directory("data/").file("data/file", b"x").write_to(Path::new(&tar));
    store.ok(&["import", &tar, "--name", "image"]);
    store.ok(&["snapshot", "image", "box"]);
    store
}

/// A tmpfs of the host; unmounted in the end, also of a test that fails.
struct HostMount(PathBuf);

impl HostMount {
    fn new(place: &Path) -> HostMount {
        fs::create_dir_all(place).unwrap();
        run_tool("mount", &["-t", "tmpfs", "-o", "size=1M", "none", place.to_str().unwrap()]);
        HostMount(place.to_owned())
    }

    /// One whose mounts propagate.
    fn shared(place: &Path) -> HostMount {
        let mount = HostMount::new(place);
        run_tool("mount", &["--make-shared", place.to_str().unwrap()]);
        mount
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-R").arg(&self.0).status();
    }
}

fn mount(store: &TempStore, options: &[&str]) -> PathBuf {
    let folder = PathBuf::from(store.path("mounted"));
    fs::create_dir_all(&folder).unwrap();
    let mut arguments = vec!["mount", "box", folder.to_str().unwrap()];
    arguments.extend(options);
    store.ok(&arguments);
    folder
}

#[test]
#[ignore = "needs root: mounts containers"]
fn mounts_of_the_host_arrive_in_a_container_as_its_propagation_says() {
    let store = store_with_container();
    let host_folder = HostMount::shared(Path::new(&store.path("host")));
    let before = HostMount::new(&host_folder.0.join("before"));
    let source = host_folder.0.to_str().unwrap().to_owned();
    for (word, arrives, leaves) in [
        ("rprivate", false, false),
        ("private", false, false),
        ("rslave", true, false),
        ("slave", true, false),
        ("rshared", true, true),
        ("shared", true, true),
    ] {
        for short in [true, false] {
            let bind = match short {
                true => format!("{source}:/data:{word}"),
                false => format!("type=bind,src={source},dst=/data,bind-propagation={word}"),
            };
            let at = mount(&store, &[if short { "-v" } else { "--mount" }, &bind]).join("data");
            let info = store.json(&["inspect", "box"])[0]["Mounts"][0].clone();
            assert_eq!((&info["Propagation"], &info["RW"]), (&word.into(), &true.into()));
            assert!(host::mount_at(&at.join("before")).is_some(), "{word}: not recursive");
            let later = HostMount::new(&host_folder.0.join("later"));
            fs::write(later.0.join("news"), "new").unwrap();
            assert_eq!(at.join("later/news").exists(), arrives, "{word}");
            fs::create_dir_all(host_folder.0.join("inside")).unwrap();
            let inside = HostMount::new(&at.join("inside"));
            let left = host::mount_at(&host_folder.0.join("inside")).is_some();
            assert_eq!(left, leaves, "{word}");
            std::mem::forget(inside);
            // What is taken down is the container's; what the host has stays.
            store.ok(&["umount", "box"]);
            for kept in [&later, &before, &host_folder] {
                assert!(host::mount_at(&kept.0).is_some(), "{word}: {} is gone", kept.0.display());
            }
            if leaves {
                drop(HostMount(host_folder.0.join("inside")));
            }
        }
    }
    drop((before, host_folder));
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn what_cannot_propagate_is_told_and_leaves_the_container_unmounted() {
    let store = store_with_container();
    let private = HostMount::new(Path::new(&store.path("private")));
    run_tool("mount", &["--make-private", private.0.to_str().unwrap()]);
    let folder = store.new_folder("mounted");
    for word in ["rslave", "shared"] {
        let bind = format!("{}:/data:{word}", private.0.display());
        let arguments = ["mount", "box", &folder, "-v", &bind, "--tmpfs", "/a"];
        store.refused(&[1], &arguments, &["/data", "make-rshared", private.0.to_str().unwrap()]);
        assert!(host::mount_at(Path::new(&folder)).is_none());
    }
    store.refused(&[2], &["mount", "box", &folder, "-v", "v:/data:rslave"], &["rslave", "volumes"]);
    store.refused(&[2], &["mount", "box", &folder, "-v", "/tmp:/data:nocopy"], &["nocopy"]);
    drop(private);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_bind_mount_can_leave_out_what_lies_below_its_source() {
    let store = store_with_container();
    let outer = HostMount::new(Path::new(&store.path("host")));
    let inner = HostMount::new(&outer.0.join("inner"));
    fs::write(inner.0.join("hidden"), "").unwrap();
    let bind = format!("type=bind,src={},dst=/data,bind-nonrecursive,readonly", outer.0.display());
    let at = mount(&store, &["--mount", &bind]);
    assert!(at.join("data/inner").exists() && !at.join("data/inner/hidden").exists());
    assert!(fs::write(at.join("data/no"), "").is_err());
    store.ok(&["umount", "box"]);
    drop((inner, outer));
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_bind_mount_that_is_busy_still_propagates_after_a_refused_unmount() {
    let store = store_with_container();
    let shared = HostMount::shared(Path::new(&store.path("host")));
    let at = mount(&store, &["-v", &format!("{}:/data:rslave", shared.0.display())]);
    fs::write(shared.0.join("open"), "x").unwrap();
    let open = fs::File::open(at.join("data/open")).unwrap();
    store.refused(&[4], &["umount", "box"], &["'box'", "stays mounted"]);
    let later = HostMount::new(&shared.0.join("later"));
    assert!(host::mount_at(&at.join("data/later")).is_some(), "it propagates no more");
    drop(open);
    store.ok(&["umount", "box"]);
    assert!(host::mount_at(&later.0).is_some());
    drop((later, shared));
    store.finish();
}

#[test]
#[ignore = "needs root: runs containers"]
fn mounts_of_the_host_arrive_in_a_running_container() {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "1G", "--device-size", "64M"]);
    store.ok(&["import", images::busybox().to_str().unwrap(), "--name", "image"]);
    let shared = HostMount::shared(Path::new(&store.path("host")));
    for (word, arrives) in [("rprivate", false), ("rslave", true), ("rshared", true)] {
        let bind = format!("{}:/srv:{word}", shared.0.display());
        let loop_line = "trap exit TERM; while :; do sleep 0.1; done";
        store.ok(&["run", "image", "--name", word, "-d", "-v", &bind, "--", "sh", "-c", loop_line]);
        let later = HostMount::new(&shared.0.join("later"));
        fs::write(later.0.join("news"), "new").unwrap();
        let listed = store.ok(&["exec", word, "--", "ls", "/srv/later"]).stdout_text();
        assert_eq!(listed.trim(), if arrives { "news" } else { "" }, "{word}");
        // Nothing that the runtime mounts in the container is seen outside of it.
        let root = store.ok(&["inspect", "-f", "{{ .GraphDriver.Data.MergedDir }}", word]);
        let root = PathBuf::from(root.stdout_text().trim());
        assert!(host::mount_at(&root.join("proc")).is_none(), "{word}: the host has its /proc");
        store.ok(&["rm", "--force", word]);
        assert!(host::mount_at(&later.0).is_some(), "{word}: the host's mount is gone");
    }
    drop(shared);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_full_tmpfs_is_an_error_to_its_writer_and_to_nobody_else() {
    let store = store_with_container();
    let tmpfs = "type=tmpfs,dst=/small,tmpfs-size=1M,tmpfs-mode=0750";
    let at = mount(&store, &["--mount", tmpfs, "--tmpfs", "/other:size=1M", "-v", "v:/data"]);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(at.join("small")).unwrap());
    assert_eq!(mode & 0o7777, 0o750);
    let mut file = fs::File::create(at.join("small/file")).unwrap();
    let mut written = 0;
    let error = loop {
        match file.write(&[7; 4096]) {
            Ok(bytes) => written += bytes,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert!(written > 0 && written <= 1 << 20, "{written}");
    for other in ["other", "data", ""] {
        fs::write(at.join(other).join("fine"), vec![1; 64 << 10]).unwrap();
    }
    // What was freed can be written again.
    fs::remove_file(at.join("small/file")).unwrap();
    drop(file);
    fs::write(at.join("small/again"), vec![1; 512 << 10]).unwrap();
    store.ok(&["umount", "box"]);
    assert_eq!(store.ok(&["cat", "box", "/fine"]).stdout_text().len(), 64 << 10);
    store.refused(&[3], &["cat", "box", "/small/again"], &["/small/again"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn what_a_killed_daemon_leaves_is_taken_down_without_the_host_s_own_mounts() {
    let store = store_with_container();
    let shared = HostMount::shared(Path::new(&store.path("host")));
    let before = HostMount::new(&shared.0.join("before"));
    let at = mount(&store, &["-v", &format!("{}:/data:rshared", shared.0.display())]);
    host::kill(store.daemon_pid().unwrap());
    store.ok(&["check"]);
    assert!(host::mount_at(&at).is_some(), "who only looks takes nothing down");
    store.ok(&["volume", "create", "v"]);
    assert!(host::mounts_below(&at).is_empty(), "{:?}", host::mounts_below(&at));
    assert!(host::mount_at(&before.0).is_some(), "the host's mount is gone");
    drop((before, shared));
    store.finish();
}
