//! The main job, from an empty folder to an empty store, as a person would do it: init, import,
//! snapshot, mount, change, commit, diff, remove. On the small image and on the real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use thinstore_tests::{TempStore, host, images, layout};

/// Imports an image and checks that the listings say so.
fn import(store: &TempStore, source: &Path, name: &str) -> usize {
    let layers = layout::layer_digests(source).len();
    store.ok(&["import", source.to_str().unwrap(), "--name", name]);
    assert!(store.names("images").contains(&format!("{name}:latest")));
    layers
}

/// A folder of the test to mount at, and the container mounted there.
fn mount(store: &TempStore, container: &str) -> String {
    let point = store.new_folder(&format!("at-{container}"));
    store.ok(&["mount", container, &point]);
    let mounted = host::mount_at(Path::new(&point)).expect("a mount at the mount point");
    assert_eq!(mounted.kind, "ext4");
    assert!(mounted.source.starts_with("/dev"), "mounted from {}", mounted.source.display());
    point
}

fn umount(store: &TempStore, container: &str, point: &str) {
    store.ok(&["umount", container]);
    assert_eq!(host::mount_at(Path::new(point)), None, "still mounted");
}

/// Adds a file and a folder, changes one file's content and another's mode, deletes a file and a
/// folder; what `diff` must say of it.
fn change(point: &str) -> Vec<String> {
    let root = Path::new(point);
    fs::create_dir(root.join("added")).unwrap();
    fs::write(root.join("added/file"), "new content\n").unwrap();
    fs::write(root.join("etc/motd"), "changed content\n").unwrap();
    fs::set_permissions(root.join("etc/passwd"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(root.join("etc/profile")).unwrap();
    fs::create_dir(root.join("etc/folder")).unwrap();
    let lines = [
        "A /added",
        "A /added/file",
        "A /etc/folder",
        "C /etc",
        "C /etc/motd",
        "C /etc/passwd",
        "D /etc/profile",
    ];
    lines.map(str::to_owned).to_vec()
}

fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn assert_changed(point: &str) {
    let root = Path::new(point);
    assert_eq!(fs::read_to_string(root.join("added/file")).unwrap(), "new content\n");
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "changed content\n");
    assert_eq!(fs::metadata(root.join("etc/passwd")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!root.join("etc/profile").exists());
}

fn whole_job(source: &Path) {
    let store = TempStore::new();
    let layers = import(&store, source, "base");
    assert_eq!(store.layer_count(), layers);
    // /etc/motd is what `change` changes; Debian's image has it elsewhere.
    store.ok(&["snapshot", "base", "prepared"]);
    let point = mount(&store, "prepared");
    fs::write(format!("{point}/etc/motd"), "as prepared\n").unwrap();
    umount(&store, "prepared", &point);
    store.ok(&["commit", "prepared", "image"]);
    store.ok(&["rm", "prepared"]);
    let before = store.contents();

    store.ok(&["snapshot", "image", "box"]);
    assert_eq!(store.names("ls"), ["box"]);
    assert_eq!(store.ok(&["diff", "box"]).stdout_text(), "", "a new container differs in nothing");
    let point = mount(&store, "box");
    let expected = change(&point);
    umount(&store, "box", &point);
    let point = mount(&store, "box");
    assert_changed(&point);
    umount(&store, "box", &point);
    store.assert_file_system_clean("box");

    assert_eq!(sorted_lines(&store.ok(&["diff", "box"]).stdout_text()), expected);
    assert_eq!(store.ok(&["cat", "box", "/added/file"]).stdout, b"new content\n");

    // Committed: the next container has the changes, one of the first image has not.
    store.ok(&["commit", "box", "changed"]);
    assert_eq!(store.layer_count(), before.layers + 1);
    store.ok(&["snapshot", "changed", "second"]);
    let point = mount(&store, "second");
    assert_changed(&point);
    umount(&store, "second", &point);
    store.ok(&["snapshot", "image", "third"]);
    let point = mount(&store, "third");
    assert!(!Path::new(&point).join("added").exists());
    assert_eq!(fs::read_to_string(format!("{point}/etc/motd")).unwrap(), "as prepared\n");
    umount(&store, "third", &point);
    store.assert_file_system_clean("second");
    store.assert_file_system_clean("third");

    store.ok(&["rm", "box", "second", "third"]);
    store.ok(&["rmi", "changed"]);
    assert_eq!(store.contents(), before, "not everything came back");
    store.ok(&["rmi", "image", "base"]);
    assert_eq!(store.names("images"), Vec::<String>::new());
    assert_eq!(store.layer_count(), 0);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn whole_job_on_busybox() {
    whole_job(&images::busybox());
}

#[test]
#[ignore = "needs root: mounts containers"]
fn whole_job_on_debian() {
    whole_job(&images::debian());
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_removed_container_gives_its_space_back_and_a_new_one_does_not_see_what_it_held() {
    let store = TempStore::new();
    import(&store, &images::busybox(), "image");
    let before = store.contents();
    store.ok(&["snapshot", "image", "box"]);
    let point = mount(&store, "box");
    let secret = vec![0xA5_u8; 48 << 20];
    fs::write(format!("{point}/secret"), &secret).unwrap();
    umount(&store, "box", &point);
    assert!(store.pool_used_bytes() >= before.pool_used_bytes + (48 << 20));
    store.ok(&["rm", "box"]);
    assert_eq!(store.contents(), before);

    store.ok(&["snapshot", "image", "box"]);
    let point = mount(&store, "box");
    assert!(!Path::new(&point).join("secret").exists());
    umount(&store, "box", &point);
    // Nor in the blocks that no file holds: the whole device is read.
    let device = store.attach("box");
    let found = finds_run_of(&device, 0xA5);
    store.ok(&["detach", "box"]);
    assert!(!found, "a new container's device shows bytes of a removed one");
    store.ok(&["rm", "box"]);
    assert_eq!(store.contents(), before);
    store.finish();
}

/// Does a device hold a whole block of one byte value?
fn finds_run_of(device: &Path, value: u8) -> bool {
    use std::io::Read;
    let mut file = File::open(device).unwrap();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut chunk).unwrap();
        if count == 0 {
            return false;
        }
        if chunk[..count].chunks(4096).any(|block| block.iter().all(|byte| *byte == value)) {
            return true;
        }
    }
}

#[test]
#[ignore = "needs root: mounts containers"]
fn deleting_files_in_a_mounted_container_frees_pool_space() {
    let store = TempStore::new();
    import(&store, &images::busybox(), "image");
    store.ok(&["snapshot", "image", "box"]);
    let point = mount(&store, "box");
    fs::write(format!("{point}/big"), vec![7_u8; 64 << 20]).unwrap();
    rustix::fs::sync();
    let full = store.pool_used_bytes();
    fs::remove_file(format!("{point}/big")).unwrap();
    // The file system gives blocks back once the removal is in its journal, and some of them later.
    rustix::fs::sync();
    thinstore_tests::run_tool("fstrim", &[point.as_str()]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut trimmed = store.pool_used_bytes();
    while trimmed + (60 << 20) > full && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(100));
        trimmed = store.pool_used_bytes();
    }
    assert!(
        trimmed + (60 << 20) <= full,
        "fstrim gave back {} bytes",
        full.saturating_sub(trimmed)
    );
    umount(&store, "box", &point);
    store.assert_file_system_clean("box");
    store.finish();
}

/// Appends numbered records to a file and syncs each, until told to stop; how many are safe.
struct Writer {
    stop: Arc<AtomicBool>,
    synced: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(path: String) -> Writer {
        let (stop, synced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&synced));
        let thread = std::thread::spawn(move || {
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            while !told.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                file.write_all(&number.to_le_bytes()).unwrap();
                file.sync_all().unwrap();
                count.store(number + 1, Ordering::Relaxed);
            }
        });
        Writer { stop, synced, thread }
    }

    fn synced(&self) -> u64 {
        self.synced.load(Ordering::Relaxed)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[test]
#[ignore = "needs root: mounts containers"]
fn commit_while_being_written_holds_everything_synced_before_it() {
    let store = TempStore::new();
    import(&store, &images::busybox(), "image");
    store.ok(&["snapshot", "image", "box"]);
    let point = mount(&store, "box");
    let writer = Writer::start(format!("{point}/records"));
    assert!(host::wait_until(Duration::from_secs(60), || writer.synced() > 20));
    let mut bounds = Vec::new();
    for round in 0..3 {
        let before = writer.synced();
        store.ok(&["commit", "box", &format!("live-{round}")]);
        bounds.push((before, writer.synced() + 1));
        // The writer goes on: the file system is thawed.
        let after = writer.synced();
        assert!(host::wait_until(Duration::from_secs(60), || writer.synced() > after + 5));
    }
    writer.stop();
    umount(&store, "box", &point);

    for (round, (least, most)) in bounds.iter().enumerate() {
        let name = format!("check-{round}");
        store.ok(&["snapshot", &format!("live-{round}"), &name]);
        store.assert_file_system_clean(&name);
        let point = mount(&store, &name);
        let bytes = fs::read(format!("{point}/records")).unwrap();
        let count = u64::try_from(bytes.len() / 8).unwrap();
        assert!(*least <= count && count <= *most, "{count} records, not {least} to {most}");
        for (number, record) in bytes.chunks_exact(8).enumerate() {
            assert_eq!(record, u64::try_from(number).unwrap().to_le_bytes());
        }
        umount(&store, &name, &point);
    }
    store.assert_file_system_clean("box");
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_container_of_a_container_sees_its_state_and_goes_its_own_way() {
    let store = TempStore::new();
    import(&store, &images::busybox(), "image");
    store.ok(&["snapshot", "image", "first"]);
    let point = mount(&store, "first");
    fs::write(format!("{point}/shared"), "one").unwrap();
    umount(&store, "first", &point);
    store.ok(&["snapshot", "first", "second"]);
    for (name, text) in [("first", "first's"), ("second", "second's")] {
        let point = mount(&store, name);
        assert_eq!(fs::read_to_string(format!("{point}/shared")).unwrap(), "one");
        fs::write(format!("{point}/shared"), text).unwrap();
        umount(&store, name, &point);
    }
    assert_eq!(store.ok(&["cat", "first", "/shared"]).stdout, b"first's");
    assert_eq!(store.ok(&["cat", "second", "/shared"]).stdout, b"second's");
    // The first goes; the second keeps what both stand on.
    store.ok(&["rm", "first"]);
    assert_eq!(store.ok(&["cat", "second", "/shared"]).stdout, b"second's");
    store.assert_file_system_clean("second");
    store.ok(&["rm", "second"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_read_only_mount_refuses_writes_and_changes_nothing() {
    let store = TempStore::new();
    import(&store, &images::busybox(), "image");
    store.ok(&["snapshot", "image", "box"]);
    let used = store.pool_used_bytes();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point, "--read-only"]);
    assert!(fs::write(format!("{point}/file"), "x").is_err());
    assert!(!fs::read(format!("{point}/etc/motd")).unwrap().is_empty());
    store.ok(&["umount", "box"]);
    assert_eq!(store.pool_used_bytes(), used);
    store.finish();
}

/// Without root: everything but the kernel's mount, through `cat`, `cp`, `diff` and `export`.
#[test]
fn the_job_without_root_on_busybox() {
    let store = TempStore::unprivileged();
    let source = images::copy_for_everyone(&images::busybox(), store.folder());
    let layers = import(&store, &source, "image");
    assert_eq!(store.layer_count(), layers);
    let before = store.contents();

    store.ok(&["snapshot", "image", "box"]);
    assert_eq!(store.ok(&["cat", "box", "/etc/motd"]).stdout, b"changed by the third layer\n");
    let incoming = store.path("incoming");
    fs::write(&incoming, "brought in\n").unwrap();
    fs::set_permissions(&incoming, fs::Permissions::from_mode(0o644)).unwrap();
    store.ok(&["cp", &incoming, "box:/etc/incoming"]);
    assert_eq!(store.ok(&["cat", "box", "/etc/incoming"]).stdout, b"brought in\n");
    let lines = sorted_lines(&store.ok(&["diff", "box"]).stdout_text());
    assert_eq!(lines, ["A /etc/incoming", "C /etc"]);
    let out = store.new_folder("out");
    store.ok(&["cp", "box:/etc/incoming", &format!("{out}/outgoing")]);
    assert_eq!(fs::read_to_string(format!("{out}/outgoing")).unwrap(), "brought in\n");

    store.ok(&["commit", "box", "changed"]);
    store.ok(&["snapshot", "changed", "second"]);
    assert_eq!(store.ok(&["cat", "second", "/etc/incoming"]).stdout, b"brought in\n");
    let tar = format!("{out}/second.tar");
    store.ok(&["export", "second", "-o", &tar]);
    let listed = thinstore_tests::run_tool("tar", &["-tf", tar.as_str()]).stdout_text();
    assert!(listed.lines().any(|line| line.trim_start_matches("./") == "etc/incoming"));

    store.ok(&["rm", "box", "second"]);
    store.ok(&["rmi", "changed"]);
    assert_eq!(store.contents(), before);
    store.finish();
}

#[test]
fn the_demonstration_runs_without_root() {
    let store = TempStore::without_init(thinstore_tests::Identity::Unprivileged);
    store.ok(&["demo"]);
}

#[test]
#[ignore = "needs root: the demonstration mounts its container"]
fn the_demonstration_runs_as_root_and_leaves_nothing_behind() {
    let store = TempStore::without_init(thinstore_tests::Identity::Current);
    store.ok(&["demo"]);
    let clean = host::wait_until(Duration::from_secs(10), || {
        host::mounts_below(store.folder()).is_empty()
            && host::loops_below(store.folder()).is_empty()
    });
    assert!(clean, "{:#?}", host::left_below(store.folder()));
}
