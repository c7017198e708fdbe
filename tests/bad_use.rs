//! Bad use: each gets one clear sentence and the right exit code, and changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use thinstore_tests::pool_file::assert_unwritten_by;
use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore};

const WRONG_USE: i32 = 2;
const NO_SUCH_OBJECT: i32 = 3;
const IN_USE_OR_EXISTS: i32 = 4;
const CORRUPT: i32 = 6;

/// A small store with an image `image` of one layer and a container `box` of it.
fn small_store() -> TempStore {
    let store = TempStore::with_size(Identity::Unprivileged, "1G");
    import_small(&store, "image", b"content");
    store.ok(&["snapshot", "image", "box"]);
    store
}

fn import_small(store: &TempStore, name: &str, content: &[u8]) {
    let source = store.path(&format!("source-{name}"));
    let tar = TarWriter::new().directory("etc").file("etc/file", content).finish();
    Layout::write(Path::new(&source), &LayoutImage::new().layer(tar));
    store.ok(&["import", &source, "--name", name]);
}

/// Runs commands that must all be refused with `codes`, and proves that not a byte of the pool changed.
fn all_refused(store: &TempStore, codes: &[i32], commands: &[(&[&str], &[&str])]) {
    for (arguments, names) in commands {
        assert_unwritten_by(&store.pool(), &format!("'{}'", arguments.join(" ")), || {
            store.refused(codes, arguments, names);
        });
    }
}

#[test]
fn a_file_that_is_not_a_pool_is_refused_and_left_alone() {
    let store = TempStore::without_init(Identity::Unprivileged);
    for (what, bytes) in [
        ("nothing", vec![]),
        ("text", b"this is somebody's letter\n".repeat(10_000)),
        ("zeroes", vec![0; 8 << 20]),
    ] {
        fs::write(store.pool(), &bytes).unwrap();
        store.give_to_user(&store.pool());
        for arguments in [&["ls"][..], &["images"], &["check"], &["df"], &["snapshot", "a", "b"]] {
            let outcome = store.run(arguments).assert_code(&[1, CORRUPT]);
            outcome.assert_sentence(&[store.pool().to_str().unwrap()]);
        }
        // Nor does init write over it.
        store.run(&["init"]).assert_code(&[1, IN_USE_OR_EXISTS]).assert_sentence(&[]);
        assert_eq!(fs::read(store.pool()).unwrap(), bytes, "a pool of {what} was changed");
    }
}

#[test]
fn init_does_not_replace_a_store() {
    let store = small_store();
    all_refused(&store, &[IN_USE_OR_EXISTS], &[(&["init"], &[store.root().to_str().unwrap()])]);
    assert_eq!(store.names("ls"), ["box"]);
    store.finish();
}

#[test]
fn a_store_that_is_not_there_is_named_and_not_made() {
    let store = TempStore::without_init(Identity::Unprivileged);
    for arguments in [&["ls"][..], &["images"], &["check"], &["rm", "box"]] {
        store.refused(&[NO_SUCH_OBJECT], arguments, &[store.root().to_str().unwrap(), "init"]);
    }
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0, "something was made");
}

/// The checksum that closes a superblock (CRC-32, as in gzip), by the book.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// Changes a byte of both superblocks (docs/format.md: blocks 0 and 35) and makes their checksums
/// right again, as a newer program would have written them.
fn change_superblocks(pool: &Path, at: usize, value: u8) {
    let file = OpenOptions::new().read(true).write(true).open(pool).unwrap();
    for block in [0_u64, 35] {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, block * 4096).unwrap();
        if bytes.starts_with(b"thinpool") {
            bytes[at] = value;
            let crc = crc32(&bytes[..508]);
            bytes[508..512].copy_from_slice(&crc.to_le_bytes());
            file.write_all_at(&bytes, block * 4096).unwrap();
        }
    }
}

#[test]
fn a_pool_of_a_newer_version_or_with_an_unknown_feature_is_refused_and_left_alone() {
    // docs/format.md: version at 8, incompatible features at 16, read-only-compatible ones at 24.
    for (at, value, word) in [(8, 77, "version"), (16, 4, "feature"), (24, 4, "feature")] {
        let store = small_store();
        change_superblocks(&store.pool(), at, value);
        let pool = store.pool();
        let pool = pool.to_str().unwrap();
        let names = [pool, word];
        all_refused(
            &store,
            &[1],
            &[(&["ls"], &names), (&["rm", "box"], &names), (&["check"], &names)],
        );
    }
}

#[test]
fn a_cut_off_pool_is_refused_and_left_alone() {
    for size_bytes in [4096, 1 << 20, (1 << 30) - 4096] {
        let store = small_store();
        File::options().write(true).open(store.pool()).unwrap().set_len(size_bytes).unwrap();
        let pool = store.pool();
        let names = [pool.to_str().unwrap()];
        let commands: [(&[&str], &[&str]); 2] = [(&["ls"], &names), (&["check"], &names)];
        all_refused(&store, &[1, CORRUPT], &commands);
    }
}

#[test]
fn a_damaged_superblock_pair_is_corruption() {
    let store = small_store();
    let file = OpenOptions::new().write(true).open(store.pool()).unwrap();
    for block in [0_u64, 35] {
        file.write_all_at(&[0xFF; 64], block * 4096 + 512).unwrap();
    }
    let pool = store.pool();
    let names = [pool.to_str().unwrap()];
    all_refused(&store, &[CORRUPT], &[(&["ls"], &names), (&["check"], &names)]);
}

#[test]
fn a_second_owner_is_told_that_the_pool_is_in_use() {
    let store = small_store();
    let holder = File::open(store.pool()).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let pool = store.pool();
    let names = [pool.to_str().unwrap()];
    all_refused(&store, &[IN_USE_OR_EXISTS], &[(&["ls"], &names), (&["rm", "box"], &names)]);
    drop(holder);
    assert_eq!(store.names("ls"), ["box"]);
    store.finish();
}

#[test]
fn bad_names_are_wrong_use() {
    let store = small_store();
    let long = "n".repeat(256);
    let names = ["a/b", "/a", "../a", "", ".", "..", "-", "new\nline", "sp ace", "tab\t", &long];
    let refused = |codes: &[i32], arguments: &[&str]| {
        assert_unwritten_by(&store.pool(), &format!("{arguments:?}"), || {
            store.run(arguments).assert_code(codes).assert_sentence(&[]);
        });
    };
    for name in names {
        refused(&[WRONG_USE], &["snapshot", "image", "--", name]);
    }
    assert_eq!(store.names("ls"), ["box"]);
    // What is called so cannot be there either.
    for name in ["a/b", "..", "", &long] {
        refused(&[WRONG_USE, NO_SUCH_OBJECT], &["rm", "--", name]);
    }
    for name in ["", "..", "UPPER/../x", "a:b:c", "a b", "/", &long] {
        refused(&[WRONG_USE], &["commit", "box", "--", name]);
    }
    store.finish();
}

#[test]
fn names_that_exist_are_refused() {
    let store = small_store();
    import_small(&store, "other", b"something else");
    let source = store.path("source-other");
    let before = store.contents();
    all_refused(
        &store,
        &[IN_USE_OR_EXISTS],
        &[
            (&["snapshot", "image", "box"], &["box"]),
            (&["snapshot", "other", "box"], &["box"]),
            (&["commit", "box", "other"], &["other"]),
            (&["import", &source, "--name", "image"], &["image"]),
        ],
    );
    assert_eq!(store.contents(), before);
    store.finish();
}

#[test]
fn objects_that_are_not_there_are_named() {
    let store = small_store();
    let folder = store.new_folder("out");
    let there = format!("{folder}/file");
    all_refused(
        &store,
        &[NO_SUCH_OBJECT],
        &[
            (&["snapshot", "absent", "new"], &["absent"]),
            (&["rm", "absent"], &["absent"]),
            (&["rmi", "absent"], &["absent"]),
            (&["commit", "absent", "new"], &["absent"]),
            (&["inspect", "absent"], &["absent"]),
            (&["diff", "absent"], &["absent"]),
            (&["cat", "absent", "/etc/file"], &["absent"]),
            (&["cat", "box", "/etc/absent"], &["/etc/absent"]),
            (&["cp", "absent:/etc/file", &there], &["absent"]),
            (&["cp", "box:/etc/absent", &there], &["/etc/absent"]),
            (&["export", "absent", "-o", &there], &["absent"]),
            (&["umount", "absent"], &["absent"]),
            (&["detach", "absent"], &["absent"]),
        ],
    );
    assert!(!Path::new(&there).exists(), "a command that failed left its output");
    store.finish();
}

#[test]
fn images_that_something_stands_on_are_not_removed() {
    let store = small_store();
    all_refused(&store, &[IN_USE_OR_EXISTS], &[(&["rmi", "image"], &["image", "box"])]);
    store.ok(&["rm", "box"]);
    store.ok(&["rmi", "image"]);
    store.finish();
}

#[test]
fn sizes_of_zero_and_beyond_the_limit_are_wrong_use() {
    let store = small_store();
    let commands: [(&[&str], &[&str]); 7] = [
        (&["snapshot", "image", "new", "--size", "0"], &["0"]),
        (&["snapshot", "image", "new", "--size", "2048T"], &["2048T"]),
        (&["snapshot", "image", "new", "--size", "99999999999999999999T"], &[]),
        (&["snapshot", "image", "new", "--size", "10Q"], &["10Q"]),
        (&["snapshot", "image", "new", "--size", "-1"], &[]),
        (&["snapshot", "image", "new", "--size", "1.5G"], &[]),
        (&["snapshot", "image", "new", "--size", ""], &[]),
    ];
    for (arguments, _) in commands {
        assert_unwritten_by(&store.pool(), &format!("'{}'", arguments.join(" ")), || {
            // Some of these the command line itself refuses, in its own words of several lines.
            let outcome = store.run(arguments).assert_code(&[WRONG_USE]);
            assert!(!outcome.stderr.is_empty(), "{outcome}");
        });
    }
    assert_eq!(store.names("ls"), ["box"]);
    store.finish();

    for size in ["0", "1", "4K", "9999999T"] {
        for option in ["--size", "--device-size", "--allocation-run"] {
            let store = TempStore::without_init(Identity::Unprivileged);
            if (option, size) == ("--allocation-run", "4K") {
                continue;
            }
            let outcome = store.run(&["init", option, size]).assert_code(&[WRONG_USE]);
            assert!(!outcome.stderr.is_empty(), "{outcome}");
            assert!(!store.pool().exists(), "init {option} {size} made a pool");
        }
    }
}

#[test]
fn what_needs_root_says_so_without_root() {
    let store = small_store();
    let point = store.new_folder("at");
    let commands: [(&[&str], &[&str]); 2] =
        [(&["mount", "box", &point], &["root"]), (&["attach", "box"], &["root"])];
    all_refused(&store, &[1], &commands);
    assert_eq!(store.names("ls"), ["box"]);
    store.finish();
}

#[test]
fn an_error_in_the_json_form_has_a_code_and_a_message() {
    let store = small_store();
    for (arguments, code, exit_code) in [
        (&["rm", "absent"][..], "not_found", NO_SUCH_OBJECT),
        (&["snapshot", "image", "box"], "exists", IN_USE_OR_EXISTS),
        (&["snapshot", "image", "a/b"], "usage", WRONG_USE),
    ] {
        let mut words = vec!["--format", "json"];
        words.extend(arguments);
        let outcome = store.run(&words).assert_code(&[exit_code]);
        assert!(outcome.stdout.is_empty(), "{outcome}");
        let value: serde_json::Value = serde_json::from_slice(&outcome.stderr)
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{outcome}"));
        assert_eq!(value["error"]["code"], code, "{outcome}");
        assert!(value["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
    store.finish();
}

#[test]
fn a_full_pool_says_so_and_can_still_remove() {
    let store = TempStore::with_size(Identity::Unprivileged, "64M");
    import_small(&store, "image", b"content");
    let before = store.contents();
    let source = store.path("source-big");
    let big = vec![0x5A; 100 << 20];
    let tar = TarWriter::new().file("big", &big).finish();
    Layout::write(Path::new(&source), &LayoutImage::new().layer(tar));
    store.refused(&[5], &["import", &source, "--name", "big"], &[]);
    assert_eq!(store.contents(), before);
    store.ok(&["check"]);
    // Containers until it is full; then everything can be removed.
    let brought = store.path("brought");
    fs::write(&brought, vec![0x5A; 8 << 20]).unwrap();
    let mut made = Vec::new();
    for number in 0..20 {
        let name = format!("box-{number}");
        if store.run(&["snapshot", "image", &name]).assert_code(&[0, 5]).code() == 5 {
            break;
        }
        made.push(name.clone());
        if store.run(&["cp", &brought, &format!("{name}:/file")]).assert_code(&[0, 5]).code() == 5 {
            break;
        }
    }
    assert!(made.len() < 20, "64 MiB held 160 MiB");
    let mut arguments = vec!["rm"];
    arguments.extend(made.iter().map(String::as_str));
    store.ok(&arguments);
    assert_eq!(store.contents(), before);
    store.finish();
}

// --- with the kernel -----------------------------------------------------------------------------

/// A store of root's with `box` of `image`.
fn small_store_of_root() -> TempStore {
    let store = TempStore::with_size(Identity::Current, "1G");
    import_small(&store, "image", b"content");
    store.ok(&["snapshot", "image", "box"]);
    store
}

#[test]
#[ignore = "needs root: mounts a container"]
fn what_is_mounted_is_not_removed() {
    let store = small_store_of_root();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    fs::write(format!("{point}/kept"), "kept").unwrap();
    store.refused(&[IN_USE_OR_EXISTS], &["rm", "box"], &["box"]);
    store.refused(&[IN_USE_OR_EXISTS], &["rmi", "image"], &["image"]);
    let other = store.new_folder("other");
    store.refused(&[IN_USE_OR_EXISTS], &["mount", "box", &other], &["box"]);
    store.refused(&[IN_USE_OR_EXISTS], &["init"], &[]);
    assert_eq!(fs::read_to_string(format!("{point}/kept")).unwrap(), "kept");
    store.ok(&["umount", "box"]);
    store.ok(&["attach", "box"]);
    store.refused(&[IN_USE_OR_EXISTS], &["rm", "box"], &["box"]);
    store.ok(&["detach", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: tries to mount"]
fn a_mount_point_that_is_not_empty_or_not_there_is_refused() {
    let store = small_store_of_root();
    let full = store.new_folder("full");
    fs::write(format!("{full}/file"), "mine").unwrap();
    let absent = store.path("absent");
    let file = store.path("a-file");
    fs::write(&file, "x").unwrap();
    for (code, point) in [(WRONG_USE, &full), (NO_SUCH_OBJECT, &absent), (WRONG_USE, &file)] {
        store.refused(&[code], &["mount", "box", point], &[point]);
        assert_eq!(thinstore_tests::host::mounts_below(Path::new(point)), []);
    }
    assert!(!Path::new(&absent).exists(), "the mount point was made");
    assert_eq!(fs::read_to_string(format!("{full}/file")).unwrap(), "mine");
    assert_eq!(thinstore_tests::host::loops_below(store.folder()), []);
    store.ok(&["rm", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: the daemon holds the pool"]
fn a_second_daemon_is_told_that_there_is_one() {
    let store = small_store_of_root();
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    let daemon = store.daemon_pid().expect("a daemon");
    store.refused(&[IN_USE_OR_EXISTS], &["serve"], &[]);
    assert_eq!(store.daemon_pid(), Some(daemon));
    store.ok(&["umount", "box"]);
    store.finish();
}
