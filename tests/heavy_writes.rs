//! Writes of all sizes at depth while copies are made of what is written: what is read is what was written, and a
//! copy stays as it was. On the block device itself, and on a file of the kernel's ext4 on it; fio verifies.
//!
//! `THINSTORE_HEAVY_LOOPS` is how often each of two jobs goes over its 64 MiB (default 8), `THINSTORE_FSX_OPERATIONS` how
//! many operations each run of fsx does (default 2000).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thinstore_tests::attack::fio::found_wrong_data;
use thinstore_tests::command::Running;
use thinstore_tests::{Identity, TarWriter, TempStore, host, run_tool, tree};

const LIMIT: Duration = Duration::from_secs(1200);

/// What the variable says, or the default.
fn setting(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn store() -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "64G", "--device-size", "256M"]);
    let source = store.path("base.tar");
    TarWriter::new().file("base", b"base").write_to(Path::new(&source));
    store.ok(&["import", &source, "--name", "base"]);
    store.ok(&["snapshot", "base", "box"]);
    store
}

/// Two jobs at a depth of 32 on two ranges of one file, reads and writes of 4 to 512 KiB; then all is read back.
fn start_fio(file: &str, engine: &str) -> Running {
    let loops = setting("THINSTORE_HEAVY_LOOPS", "8");
    let mut command = Command::new("fio");
    command.env("LC_ALL", "C").args([
        "--name=verify",
        &format!("--filename={file}"),
        &format!("--loops={loops}"),
        "--size=64M",
        "--numjobs=2",
        "--offset_increment=64M",
        "--rw=randrw",
        "--rwmixread=30",
        "--bsrange=4k-512k",
        "--iodepth=32",
        &format!("--ioengine={engine}"),
        "--direct=1",
        "--fsync=64",
        "--verify=crc32c",
        "--verify_backlog=256",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--do_verify=1",
        "--group_reporting",
        "--minimal",
    ]);
    Running::start(command)
}

fn end_fio(fio: Running) {
    let outcome = fio.wait(LIMIT);
    assert!(!found_wrong_data(&outcome), "fio read what it had not written\n{outcome}");
    outcome.assert_success();
}

/// A hash of what a container's device holds.
fn device_hash(store: &TempStore, container: &str) -> String {
    let device = store.attach(container);
    let mut file = File::open(device).unwrap();
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
    }
    drop(file);
    store.ok(&["detach", container]);
    tree::hexadecimal(&hash.finalize())
}

/// Makes copies of `box` while `fio` runs; the devices of the copies, as containers, with their hashes.
fn copy_while_written(store: &TempStore, fio: &mut Running) -> Vec<(String, String)> {
    let mut copies = Vec::new();
    for number in 0..4 {
        if fio.has_ended() {
            break;
        }
        let name = format!("copy-{number}");
        if number % 2 == 0 {
            store.ok(&["snapshot", "box", &name]);
        } else {
            let image = format!("image-{number}");
            store.ok(&["commit", "box", &image]);
            store.ok(&["snapshot", &image, &name]);
        }
        let hash = device_hash(store, &name);
        copies.push((name, hash));
    }
    copies
}

/// The copies are what they were, and their file systems, or none, sound.
fn assert_unchanged(store: &TempStore, copies: &[(String, String)], with_ext4: bool) {
    assert!(copies.len() > 1, "fio had ended before copies were made of what it wrote");
    for (name, hash) in copies {
        assert_eq!(&device_hash(store, name), hash, "the copy {name} changed while its origin did");
        if with_ext4 {
            store.assert_file_system_clean(name);
        }
    }
}

#[test]
#[ignore = "needs root: fio on a loop device"]
fn writes_of_all_sizes_at_depth_on_the_device_while_copies_are_made() {
    let store = store();
    let device = store.attach("box");
    let mut fio = start_fio(device.to_str().unwrap(), "libaio");
    std::thread::sleep(Duration::from_millis(300));
    let copies = copy_while_written(&store, &mut fio);
    end_fio(fio);
    assert_unchanged(&store, &copies, false);
    store.ok(&["detach", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: fio on a mounted container"]
fn writes_of_all_sizes_at_depth_on_a_mounted_container_while_copies_are_made() {
    let store = store();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let mut fio = start_fio(&format!("{point}/file"), "io_uring");
    std::thread::sleep(Duration::from_millis(300));
    let copies = copy_while_written(&store, &mut fio);
    end_fio(fio);
    assert_unchanged(&store, &copies, true);
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}

/// fsx's settings: what it does how often, and how long its operations are.
const FSX: [(&str, &str); 4] = [
    (
        "plain",
        "flen = 1048576\n[weights]\nclose_open = 1\ninvalidate = 1\nfsync = 1\nfdatasync = 1\n",
    ),
    (
        "holes",
        "flen = 4194304\n[opsize]\nmax = 262144\n[weights]\npunch_hole = 10\nposix_fallocate = 5\n\
         truncate = 5\nfsync = 2\nclose_open = 2\ninvalidate = 2\n",
    ),
    (
        "mapped",
        "flen = 2097152\nnomsyncafterwrite = true\n[weights]\nmapread = 20\nmapwrite = 20\nread = 5\n\
         write = 5\ntruncate = 5\npunch_hole = 5\nfdatasync = 2\ninvalidate = 2\n",
    ),
    (
        "blocks",
        "flen = 8388608\n[opsize]\nalign = 4096\nmax = 524288\n[weights]\ncopy_file_range = 5\nsendfile = 5\n\
         punch_hole = 5\nfsync = 2\ninvalidate = 5\n",
    ),
];

#[test]
#[ignore = "needs root: fsx on a mounted container"]
fn fsx_finds_nothing_on_a_mounted_container() {
    let operations = setting("THINSTORE_FSX_OPERATIONS", "2000");
    let store = store();
    let point = store.new_folder("at");
    let logs = store.new_folder("logs");
    store.ok(&["mount", "box", &point]);
    for (name, settings) in FSX {
        let configuration = store.path(&format!("{name}.toml"));
        std::fs::write(&configuration, settings).unwrap();
        for seed in ["1", "2"] {
            let file = format!("{point}/{name}-{seed}");
            let words =
                ["-q", "-f", &configuration, "-N", &operations, "-S", seed, "-P", &logs, &file];
            run_tool("fsx", &words);
        }
        // What it goes on with stands on a sealed layer.
        store.ok(&["commit", "box", name]);
    }
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    assert_eq!(host::loops_below(store.folder()), []);
    store.finish();
}
