//! A store whose pool is damaged: found, told, and repaired as far as it goes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use thinstore_tests::pool_file::content_hash;
use thinstore_tests::{Identity, TarWriter, TempStore};

const BLOCK_BYTES: usize = 4096;
/// Superblocks, and where group 0 has room for anything after the ring (docs/format.md).
const SUPERBLOCKS: [usize; 2] = [0, 35];

/// Two images of a layer each, and containers of them, each with a file of its own.
fn filled_store() -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "512M", "--device-size", "32M"]);
    for image in ["red", "blue"] {
        let tar = store.path(&format!("{image}.tar"));
        let content = image.repeat(100_000);
        TarWriter::new().file("colour", content.as_bytes()).write_to(Path::new(&tar));
        store.give_to_user(Path::new(&tar));
        store.ok(&["import", &tar, "--name", image]);
        for number in 0..6 {
            let name = format!("{image}-{number}");
            store.ok(&["snapshot", image, &name]);
            let file = store.path("file");
            fs::write(&file, format!("I am {name}\n")).unwrap();
            store.ok(&["cp", &file, &format!("{name}:/own")]);
        }
    }
    store
}

/// Overwrites the middle of a block of the pool.
fn damage(store: &TempStore, block: usize) {
    let pool = File::options().write(true).open(store.pool()).unwrap();
    let at = u64::try_from(block * BLOCK_BYTES + 500).unwrap();
    pool.write_all_at(&[0x5a; 200], at).unwrap();
    pool.sync_all().unwrap();
}

/// The blocks that a name stands in: pages of layer records, and batches of the journal.
fn blocks_with(store: &TempStore, name: &str) -> Vec<usize> {
    let bytes = fs::read(store.pool()).unwrap();
    let has_name = |block: &&[u8]| block.windows(name.len()).any(|text| text == name.as_bytes());
    let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
    blocks.filter(|(_, block)| has_name(block)).map(|(index, _)| index).collect()
}

fn findings(store: &TempStore) -> Vec<String> {
    let outcome = store.run(&["check", "--format", "json"]).assert_code(&[0, 6]);
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(report["clean"], outcome.code() == 0);
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["structure"].as_str().unwrap().to_owned()).collect()
}

/// Every container reads as it did.
fn assert_containers_whole(store: &TempStore) {
    for name in store.names("ls") {
        let image = name.split('-').next().unwrap();
        let own = store.ok(&["cat", &name, "/own"]).stdout_text();
        assert_eq!(own, format!("I am {name}\n"));
        assert_eq!(store.ok(&["cat", &name, "/colour"]).stdout_text(), image.repeat(100_000));
    }
}

#[test]
fn a_damaged_superblock_costs_nothing() {
    let store = filled_store();
    let before = store.contents();
    for block in SUPERBLOCKS {
        damage(&store, block);
        assert_eq!(findings(&store), ["superblock"]);
        let damaged = content_hash(&store.pool());
        let told = store.run(&["repair"]).assert_code(&[6]).stdout_text();
        assert!(told.contains("all of it can be given back; nothing was written"), "{told}");
        assert_eq!(content_hash(&store.pool()), damaged, "it wrote without --yes");
        let told = store.ok(&["repair", "--yes"]).stdout_text();
        assert!(told.contains("is repaired"), "{told}");
        assert_eq!(findings(&store), [""; 0]);
        assert_eq!(store.contents(), before);
    }
    let told = store.ok(&["repair", "--yes"]).stdout_text();
    assert_eq!(told, "clean: nothing to repair\n");
    assert_containers_whole(&store);
    store.finish();
}

#[test]
fn layers_whose_records_are_lost_take_nothing_with_them() {
    let store = filled_store();
    let all = store.names("ls");
    // The records of some containers and of what they stand on.
    let records = blocks_with(&store, "red-0");
    for block in &records {
        damage(&store, *block);
    }
    store.refused(&[6], &["ls"], &["damaged"]);
    assert!(findings(&store).contains(&"layer table".to_owned()), "{:?}", findings(&store));

    let damaged = content_hash(&store.pool());
    let copy = store.path("copy");
    store.run(&["repair", "--copy", &copy]).assert_code(&[2]);
    store.run(&["repair", "--yes", "--copy", &copy]).assert_code(&[6]);
    assert_eq!(content_hash(&store.pool()), damaged, "the pool was written, not the copy");
    assert!(fs::metadata(&copy).unwrap().len() == fs::metadata(store.pool()).unwrap().len());
    store.refused(&[4], &["repair", "--yes", "--copy", &copy], &["copy"]);

    let outcome = store.run(&["repair", "--yes", "--format", "json"]).assert_code(&[6]);
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(report["written"], store.pool().to_str().unwrap());
    assert_eq!(report["remaining"], serde_json::json!([]));
    assert!(!report["losses"].as_array().unwrap().is_empty(), "{report}");
    assert_eq!(content_hash(&store.pool()), content_hash(Path::new(&copy)), "two repairs differ");

    assert_eq!(findings(&store), [""; 0]);
    let left = store.names("ls");
    assert!(!left.is_empty() && left.len() < all.len(), "{left:?}");
    assert_containers_whole(&store);
    for listing in ["images", "layers", "tree", "df"] {
        store.ok(&[listing]);
    }
    // It is a store like any other.
    store.ok(&["snapshot", &left[0], "new"]);
    store.ok(&["rm", "new"]);
    for name in &left {
        store.ok(&["rm", name]);
    }
    for name in store.names("images") {
        store.ok(&["rmi", &name]);
    }
    store.ok(&["df", "--wait"]);
    assert_eq!(findings(&store), [""; 0]);
    store.finish();
}

#[test]
fn a_pool_without_superblocks_and_a_store_in_use_are_refused() {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "64M"]);
    let daemon = store.start(&["serve"]);
    while store.daemon_pid().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    store.refused(&[4], &["repair"], &["serve --stop"]);
    store.ok(&["serve", "--stop"]);
    drop(daemon);
    for block in SUPERBLOCKS {
        damage(&store, block);
    }
    store.refused(&[6], &["repair", "--yes"], &["both superblocks", "backup"]);
    store.run(&["check"]).assert_code(&[6]);
}
