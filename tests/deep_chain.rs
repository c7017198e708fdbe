//! Deep chains of snapshots: they cost little, read the same at any depth, and come apart in any order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::path::Path;
use std::time::Duration;

use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore};

const DEPTH: usize = 1000;

/// A fixed shuffle, so that a failure can be had again.
fn shuffled(mut names: Vec<String>) -> Vec<String> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    for last in (1..names.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bound = u64::try_from(last).unwrap() + 1;
        names.swap(last, usize::try_from(state % bound).unwrap());
    }
    names
}

fn median_of_reads(store: &TempStore, name: &str) -> Duration {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let outcome = store.ok(&["cat", name, "/file"]);
            assert_eq!(outcome.stdout.len(), 256 << 10);
            outcome.elapsed
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_thousand_snapshots_in_a_chain_read_alike_and_are_removed_in_any_order() {
    let store = TempStore::with_size(Identity::Unprivileged, "4G");
    let source = store.path("source");
    let tar = TarWriter::new().file("file", &vec![b'x'; 256 << 10]).finish();
    Layout::write(Path::new(&source), &LayoutImage::new().layer(tar));
    store.ok(&["import", &source, "--name", "image"]);
    let before = store.contents();

    let changed = store.path("changed");
    let mut names = Vec::new();
    let mut parent = "image".to_owned();
    for number in 0..DEPTH {
        let name = format!("box-{number}");
        store.ok(&["snapshot", &parent, &name]);
        if number % 100 == 50 {
            // Something of its own here and there, so that there is something to absorb.
            std::fs::write(&changed, format!("{number}\n")).unwrap();
            store.ok(&["cp", &changed, &format!("{name}:/changed-{number}")]);
        }
        names.push(name.clone());
        parent = name;
    }
    let cost = store.pool_used_bytes() - before.pool_used_bytes;
    assert!(cost < 16 << 20, "{DEPTH} snapshots cost {cost} bytes");
    let (first, last) = (median_of_reads(&store, "box-0"), median_of_reads(&store, "box-999"));
    assert!(
        last < first * 2 + Duration::from_millis(20),
        "{last:?} at the end, {first:?} at the start"
    );
    assert_eq!(store.ok(&["cat", "box-999", "/changed-950"]).stdout, b"950\n");
    store.ok(&["check"]);

    let order = shuffled(names);
    for (batch, names) in order.chunks(50).enumerate() {
        let mut words = vec!["rm"];
        words.extend(names.iter().map(String::as_str));
        store.ok(&words);
        if batch % 5 == 0 {
            store.ok(&["check"]);
        }
    }
    assert_eq!(store.contents(), before);
    store.finish();
}
