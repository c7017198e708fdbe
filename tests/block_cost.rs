//! What a change costs in the pool: blocks, not files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use thinstore_tests::TempStore;

const BIG_FILE_BYTES: u64 = 1 << 30;
const ALLOWED_BYTES: u64 = 64 << 10;

/// Writes bytes that neither compress nor repeat, so that nothing can be saved on them.
fn write_noise(path: &Path, size_bytes: u64) {
    let mut file = File::create(path).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut chunk = Vec::with_capacity(1 << 20);
    let mut written = 0;
    while written < size_bytes {
        chunk.clear();
        while chunk.len() < 1 << 20 {
            // xorshift64: good enough for noise.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&chunk).unwrap();
        written += 1 << 20;
    }
}

/// A store with an image whose one layer holds a 1 GiB file, and a container of it, mounted.
fn with_big_file() -> (TempStore, String) {
    let store = TempStore::new();
    let source = store.new_folder("source");
    write_noise(&Path::new(&source).join("big"), BIG_FILE_BYTES);
    store.ok(&["import", &source, "--name", "image"]);
    std::fs::remove_dir_all(&source).unwrap();
    store.ok(&["snapshot", "image", "box"]);
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    (store, format!("{point}/big"))
}

fn cost_of(store: &TempStore, change: impl FnOnce()) -> u64 {
    // What the mount itself wrote is not the change's.
    rustix::fs::sync();
    let before = store.pool_used_bytes();
    change();
    store.pool_used_bytes().saturating_sub(before)
}

#[test]
#[ignore = "needs root: mounts a container"]
fn a_byte_appended_to_a_gibibyte_of_a_lower_layer_costs_at_most_64_kib() {
    let (store, big) = with_big_file();
    let cost = cost_of(&store, || {
        let mut file = OpenOptions::new().append(true).open(&big).unwrap();
        file.write_all(b"x").unwrap();
        file.sync_all().unwrap();
    });
    assert!(cost > 0, "the byte is nowhere");
    assert!(cost <= ALLOWED_BYTES, "{cost} bytes");
    let cost = cost_of(&store, || {
        let file = OpenOptions::new().write(true).open(&big).unwrap();
        file.write_all_at(b"x", BIG_FILE_BYTES / 2 + 5).unwrap();
        file.sync_all().unwrap();
    });
    assert!(cost <= ALLOWED_BYTES, "{cost} bytes for a byte in the middle");
    store.ok(&["umount", "box"]);
    store.assert_file_system_clean("box");
    store.finish();
}
