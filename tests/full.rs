//! Full pools, full host disks and full containers: who is told, and that everybody else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thinstore_tests::{Identity, TarWriter, TempStore, host, run_tool};

const MIB: u64 = 1 << 20;
/// Nothing takes so long, on whatever machine: what a test waits for does not come.
const HANG_TIMEOUT: Duration = Duration::from_secs(300);

/// A store in a pool of `size` with an image `image`.
fn store_of(identity: Identity, size: &str, device_size: &str) -> TempStore {
    let store = TempStore::without_init(identity);
    store.ok(&["init", "--size", size, "--device-size", device_size]);
    import_small(&store);
    store
}

fn import_small(store: &TempStore) {
    let tar = PathBuf::from(store.path("image.tar"));
    TarWriter::new().directory("etc").file("etc/file", b"content\n").write_to(&tar);
    store.give_to_user(&tar);
    store.ok(&["import", tar.to_str().unwrap(), "--name", "image"]);
}

/// Mounts a new container; where.
fn mounted(store: &TempStore, name: &str) -> PathBuf {
    store.ok(&["snapshot", "image", name]);
    let point = store.new_folder(name);
    store.ok(&["mount", name, &point]);
    PathBuf::from(point)
}

/// Bytes that are like no others of the test.
fn content(seed: u64, length: u64) -> Vec<u8> {
    let word = |index: u64| (index ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
    (0..length / 8).flat_map(word).collect()
}

/// Writes a file and waits until it is durable.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes files of 4 MiB until one fails; how many are durable.
fn fill(folder: &Path) -> (u64, std::io::Error) {
    for number in 0..1000 {
        if let Err(error) =
            write_file(&folder.join(format!("f{number}")), &content(number, 4 * MIB))
        {
            return (number, error);
        }
    }
    panic!("nothing is full");
}

fn is_no_space(error: &std::io::Error) -> bool {
    // An error of write-back comes as EIO; a file system that has given up answers EROFS.
    matches!(error.raw_os_error(), Some(28 | 5 | 30))
}

fn assert_files(folder: &Path, count: u64) {
    for number in 0..count {
        let found = fs::read(folder.join(format!("f{number}"))).unwrap();
        assert!(found == content(number, 4 * MIB), "file {number} is not what was written");
    }
}

/// Has the kernel write all that a file system still has to write, its journal too.
fn leave_nothing_to_write(folder: &Path) {
    for step in ["--freeze", "--unfreeze"] {
        run_tool("fsfreeze", &[step, folder.to_str().unwrap()]).assert_success();
    }
}

/// Writes to a container once there is room. An ext4 that changed something while there was none, if only a
/// time, may have been refused blocks for its journal, and wants to be mounted again.
fn write_again(store: &TempStore, name: &str, folder: &Path) {
    let more = || write_file(&folder.join("more"), &content(97, 16 * MIB));
    match more() {
        Ok(()) => {}
        Err(error) => {
            // the first to hear of it is told of an I/O error
            assert!(matches!(error.raw_os_error(), Some(5 | 30)), "{error}");
            store.ok(&["umount", name]);
            store.ok(&["mount", name, folder.to_str().unwrap()]);
            more().unwrap();
        }
    }
}

fn allocated_bytes(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn service(store: &TempStore, arguments: &[&str]) -> thinstore_tests::command::Running {
    let service = store.start(arguments);
    assert!(host::wait_until(Duration::from_secs(30), || store.daemon_pid().is_some()));
    service
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_full_pool_tells_the_writer_and_everybody_else_goes_on() {
    let store = store_of(Identity::Current, "160M", "512M");
    let (greedy, modest) = (mounted(&store, "greedy"), mounted(&store, "modest"));
    let kept = modest.join("kept");
    write_file(&kept, &content(99, MIB)).unwrap();
    leave_nothing_to_write(&modest);
    let (durable, error) = fill(&greedy);
    assert!(is_no_space(&error), "{error}");
    assert!(durable >= 20, "{durable} files of 4 MiB in a pool of 160 MiB");
    assert!(fs::read(&kept).unwrap() == content(99, MIB));
    // Whoever asks is told, in words, in figures, and by the exit code.
    let report = store.json(&["df"]);
    assert!(report["pool_full_percent"].as_u64().unwrap() >= 95, "{report}");
    assert_eq!(report["pool_full_warning_percent"], 95);
    let warned = store.ok(&["df"]).stderr_text();
    assert!(warned.contains("warning") && warned.contains("thinstore grow"), "{warned}");
    let images = store.names("images");
    let large = PathBuf::from(store.path("large.tar"));
    TarWriter::new().file("large", &content(7, 48 * MIB)).write_to(&large);
    // Where the kernel writes the files it knows of an I/O error alone.
    store.refused(&[1, 5], &["import", large.to_str().unwrap(), "--name", "large"], &[]);
    assert_eq!(store.names("images"), images);
    store.ok(&["check"]);
    // It grows while all are mounted.
    store.refused(&[4], &["init", "--size", "1G"], &["already"]);
    store.refused(&[2], &["grow", "--size", "100M"], &["can grow"]);
    store.ok(&["grow", "--size", "1G"]);
    assert_eq!(store.json(&["df"])["pool_size_bytes"], 1_u64 << 30);
    write_again(&store, "modest", &modest);
    // What its journal has is replayed; that it is clean then is looked at in the end.
    store.ok(&["umount", "greedy"]);
    store.ok(&["mount", "greedy", greedy.to_str().unwrap()]);
    assert_files(&greedy, durable);
    write_file(&greedy.join("again"), &content(96, 32 * MIB)).unwrap();
    assert!(fs::read(&kept).unwrap() == content(99, MIB));
    store.ok(&["import", large.to_str().unwrap(), "--name", "large"]);
    for name in ["greedy", "modest"] {
        store.ok(&["umount", name]);
        store.assert_file_system_clean(name);
    }
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn with_on_full_wait_a_container_waits_for_room_and_loses_nothing() {
    let store = store_of(Identity::Current, "160M", "512M");
    let daemon = service(&store, &["serve", "--on-full", "wait:3600"]);
    store.ok(&["snapshot", "image", "victim"]);
    let device = store.attach("victim");
    write_file_at(&device, &content(1, 64 * MIB));
    store.ok(&["detach", "victim"]);
    let (waiting, other) = (mounted(&store, "waiting"), mounted(&store, "other"));
    write_file(&other.join("kept"), &content(99, MIB)).unwrap();
    let writer = {
        let folder = waiting.clone();
        std::thread::spawn(move || {
            (0..24).try_for_each(|number| {
                write_file(&folder.join(format!("f{number}")), &content(number, 4 * MIB))
            })
        })
    };
    // However long that takes: it ends when the pool is full, or when all is written.
    let full_percent = || store.json(&["df"])["pool_full_percent"].as_u64().unwrap();
    host::wait_until(HANG_TIMEOUT, || writer.is_finished() || full_percent() >= 99);
    assert!(!writer.is_finished(), "there was room for everything: the test is of no use");
    let report = store.json(&["df"]);
    assert!(full_percent() >= 99, "the pool does not become full: {report}");
    // It waits; everybody else's reads, and commands, do not.
    run_tool(
        "dd",
        &[&format!("if={}", other.join("kept").display()), "of=/dev/null", "iflag=direct", "bs=1M"],
    )
    .assert_success();
    store.ok(&["snapshot", "image", "third"]);
    store.ok(&["check"]);
    assert!(!writer.is_finished(), "there was room for everything: the test is of no use");
    store.ok(&["rm", "victim"]);
    writer.join().unwrap().unwrap();
    assert_files(&waiting, 24);
    for name in ["waiting", "other"] {
        store.ok(&["umount", name]);
        store.assert_file_system_clean(name);
    }
    store.ok(&["serve", "--stop"]);
    daemon.wait(Duration::from_secs(30)).assert_success();
    store.finish();
}

fn write_file_at(device: &Path, bytes: &[u8]) {
    let mut file = File::options().write(true).open(device).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_to_do_when_full_is_checked() {
    let store = TempStore::with_size(Identity::Current, "64M");
    for bad in ["wait", "wait:0", "wait:x", "never"] {
        store.run(&["serve", "--on-full", bad]).assert_code(&[2]);
    }
    let mut command = store.command(&["serve"]);
    command.env("THINSTORE_ON_FULL", "never");
    thinstore_tests::command::run_within(command, Duration::from_secs(30)).assert_code(&[2]);
    let help = store.ok(&["serve", "--help"]).stdout_text();
    assert!(help.contains("THINSTORE_ON_FULL") && help.contains("wait:SECONDS"), "{help}");
    store.finish();
}

#[test]
#[ignore = "needs root: mounts containers"]
fn a_container_that_is_full_is_full_alone() {
    let store = store_of(Identity::Current, "1G", "48M");
    let (small, other) = (mounted(&store, "small"), mounted(&store, "other"));
    store.ok(&["snapshot", "image", "large", "--size", "128M"]);
    let large = PathBuf::from(store.new_folder("large"));
    store.ok(&["mount", "large", large.to_str().unwrap()]);
    let (durable, error) = fill(&small);
    assert_eq!(error.raw_os_error(), Some(28), "{error}");
    assert!((4..12).contains(&durable), "{durable} files of 4 MiB in 48 MiB");
    write_file(&other.join("file"), &content(1, 8 * MIB)).unwrap();
    write_file(&large.join("file"), &content(2, 64 * MIB)).unwrap();
    assert_files(&small, durable);
    assert!(store.json(&["df"])["pool_full_warning_percent"].is_null());
    for name in ["small", "other", "large"] {
        store.ok(&["umount", name]);
        store.assert_file_system_clean(name);
    }
    // Past the end of the device there is nothing to write to.
    let device = store.attach("small");
    let file = File::options().write(true).open(&device).unwrap();
    let past = std::os::unix::fs::FileExt::write_at(&file, &[1; 4096], 48 * MIB);
    assert_eq!(past.unwrap_err().raw_os_error(), Some(28));
    drop(file);
    store.ok(&["detach", "small"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts a container"]
fn the_host_gets_back_what_is_removed_and_what_is_trimmed() {
    let store = store_of(Identity::Current, "1G", "512M");
    store.ok(&["df", "--wait"]);
    let before = allocated_bytes(&store.pool());
    let point = mounted(&store, "web");
    write_file(&point.join("file"), &content(1, 64 * MIB)).unwrap();
    assert!(allocated_bytes(&store.pool()) > before + 60 * MIB);
    fs::remove_file(point.join("file")).unwrap();
    run_tool("sync", &["-f", point.to_str().unwrap()]).assert_success();
    run_tool("fstrim", &[point.to_str().unwrap()]).assert_success();
    store.ok(&["df", "--wait"]);
    // Blocks of pages stay the file's: those of the map, a leaf for each MiB, as often as checkpoints
    // wrote them anew. All that takes less than one MiB.
    let trimmed = allocated_bytes(&store.pool());
    assert!(trimmed < before + 4 * MIB, "{trimmed} after {before}");
    write_file(&point.join("file"), &content(2, 64 * MIB)).unwrap();
    store.ok(&["umount", "web"]);
    store.ok(&["rm", "web"]);
    store.ok(&["df", "--wait"]);
    let removed = allocated_bytes(&store.pool());
    assert!(removed < before + 4 * MIB, "{removed} after {before}");
    store.finish();
}

/// A small file system of the host's, unmounted when the test ends.
struct SmallHost(PathBuf);

impl SmallHost {
    fn mount(store: &TempStore, arguments: &[&str]) -> SmallHost {
        let point = store.root();
        let mut words = arguments.to_vec();
        words.push(point.to_str().unwrap());
        run_tool("mount", &words).assert_success();
        SmallHost(point)
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A pool of 1 GiB on a host of 96 MiB: it runs out, is told of, and goes on when `enlarge` was called.
fn live_on_a_small_host(store: TempStore, host_folder: SmallHost, enlarge: impl FnOnce()) {
    store.ok(&["init", "--size", "1G", "--device-size", "512M"]);
    import_small(&store);
    let (greedy, modest) = (mounted(&store, "greedy"), mounted(&store, "modest"));
    let kept = modest.join("kept");
    write_file(&kept, &content(99, MIB)).unwrap();
    leave_nothing_to_write(&modest);
    let daemon = store.daemon_pid();
    let (durable, error) = fill(&greedy);
    assert!(is_no_space(&error), "{error}");
    assert!(durable >= 8, "{durable}");
    let file = File::options().write(true).open(&kept).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &content(98, MIB), 0).unwrap();
    // its time is not what it is about: that would want a block of the journal
    file.sync_data().unwrap();
    drop(file);
    let large = PathBuf::from(store.path("large.tar"));
    TarWriter::new().file("large", &content(7, 48 * MIB)).write_to(&large);
    let images = store.names("images");
    // Where the kernel writes the files it knows of an I/O error alone.
    store.refused(&[1, 5], &["import", large.to_str().unwrap(), "--name", "large"], &[]);
    assert_eq!(store.names("images"), images);
    store.ok(&["check"]);
    enlarge();
    // The same daemon goes on.
    write_again(&store, "modest", &modest);
    // What its journal has is replayed; that it is clean then is looked at in the end.
    store.ok(&["umount", "greedy"]);
    store.ok(&["mount", "greedy", greedy.to_str().unwrap()]);
    assert_files(&greedy, durable);
    assert!(fs::read(&kept).unwrap() == content(98, MIB));
    assert!(daemon.is_some() && store.daemon_pid() == daemon);
    for name in ["greedy", "modest"] {
        store.ok(&["umount", name]);
        store.assert_file_system_clean(name);
    }
    store.ok(&["rm", "greedy", "modest"]);
    store.ok(&["check"]);
    store.ok(&["serve", "--stop"]);
    drop(host_folder);
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_pool_on_a_tmpfs_that_is_full_goes_on_when_that_is_enlarged() {
    let store = TempStore::without_init(Identity::Current);
    let small = SmallHost::mount(&store, &["-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs"]);
    let root = store.root();
    live_on_a_small_host(store, small, || {
        let root = root.to_str().unwrap();
        run_tool("mount", &["-o", "remount,size=600m", root]).assert_success();
    });
}

#[test]
#[ignore = "needs root: mounts file systems"]
fn a_pool_on_an_ext4_that_is_full_goes_on_when_something_is_deleted_there() {
    let store = TempStore::without_init(Identity::Current);
    let disk = store.path("disk");
    File::create(&disk).unwrap().set_len(600 * MIB).unwrap();
    run_tool("mkfs.ext4", &["-q", "-m", "0", &disk]).assert_success();
    let small = SmallHost::mount(&store, &["-o", "loop", &disk]);
    fs::remove_dir(store.root().join("lost+found")).unwrap();
    // Something else takes most of the disk.
    let other = store.root().join("lost+found");
    fs::create_dir(&other).unwrap();
    run_tool("fallocate", &["-l", "430M", other.join("other").to_str().unwrap()]).assert_success();
    let other = other.join("other");
    live_on_a_small_host(store, small, || fs::remove_file(&other).unwrap());
}
