//! Damage in the pool's file: `scrub` finds it and names all that it affects, and nobody is given wrong data.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};
use thinstore_tests::pool_file::{assert_unwritten_by, block_with, content_hash, flip_bit};
use thinstore_tests::{Identity, TempStore, host};

/// The exit code of damage.
const CORRUPT: i32 = 6;
const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = 4096;
const BLOCKS: usize = 100;

/// A file no two blocks of which are alike.
fn numbered(seed: usize) -> Vec<u8> {
    (0..BLOCKS)
        .flat_map(|block| {
            let line = format!("{seed} {block}\n");
            line.into_bytes().into_iter().cycle().take(BLOCK)
        })
        .collect()
}

/// Where a block begins, in bytes.
fn blocks(count: usize) -> u64 {
    u64::try_from(count).unwrap() * BLOCK_BYTES
}

fn block(contents: &[u8], index: usize) -> &[u8] {
    &contents[index * BLOCK..(index + 1) * BLOCK]
}

/// Imports a folder with one file as an image.
fn import(store: &TempStore, name: &str, contents: &[u8]) {
    let source = store.new_folder(&format!("source-{name}"));
    fs::write(Path::new(&source).join("file"), contents).unwrap();
    store.ok(&["import", &source, "--name", name]);
}

fn scrub(store: &TempStore, names: &[&str], code: i32) -> Value {
    let mut arguments = vec!["--format", "json", "scrub"];
    arguments.extend(names);
    let summary = store.run(&arguments).assert_code(&[code]).json();
    assert_eq!(summary["clean"], code == 0, "{summary}");
    summary
}

/// The one finding of a scrub.
fn only(summary: &Value) -> &Value {
    let findings = summary["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{summary}");
    &findings[0]
}

fn affected(finding: &Value) -> Vec<(&str, &str)> {
    let objects = finding["affected"].as_array().unwrap();
    objects
        .iter()
        .map(|object| (object["kind"].as_str().unwrap(), object["name"].as_str().unwrap()))
        .collect()
}

#[test]
fn damage_in_an_image_is_named_with_all_that_it_affects_and_is_never_read() {
    let store = TempStore::with_size(Identity::Unprivileged, "1G");
    let contents = numbered(1);
    import(&store, "image", &contents);
    import(&store, "other", &numbered(2));
    store.ok(&["snapshot", "image", "box"]);
    store.ok(&["snapshot", "other", "apart"]);
    store.wait_for_checksums();
    let clean = scrub(&store, &[], 0);
    assert!(clean["data_bytes"].as_u64().unwrap() >= blocks(2 * BLOCKS), "{clean}");
    assert!(store.ok(&["scrub"]).stdout_text().starts_with("clean: "));
    let layer = store.json(&["inspect", "image"])[0]["GraphDriver"]["Data"]["DeviceName"].clone();
    let layer = layer.as_str().unwrap();

    let place = block_with(&store.pool(), block(&contents, 70));
    // Its data, and its checksum: docs/format.md, blocks 3 to 34 of a group's head.
    let entry = 3 * BLOCK_BYTES + place * 4;
    for damaged in [place * BLOCK_BYTES + 1234, entry] {
        flip_bit(&store.pool(), damaged);
        let before = content_hash(&store.pool());
        let summary = scrub(&store, &[], CORRUPT);
        let finding = only(&summary);
        assert_eq!(finding["structure"], "data");
        assert_eq!(finding["owner"], json!({"kind": "layer", "name": layer}));
        assert_eq!(finding["pool_block"], place);
        assert_eq!(finding["block_count"], 1);
        assert_eq!(finding["damage"], "mismatch");
        assert_ne!(finding["found_crc"], finding["recorded_crc"]);
        assert_eq!(
            affected(finding),
            [("image", "image:latest"), ("container", "box"), ("layer", layer)]
        );
        let text = store.run(&["scrub"]).assert_code(&[CORRUPT]).stdout_text();
        let short = &layer[.."sha256:".len() + 12];
        for part in [short, "image:latest", "box", &format!("pool block {place} "), "1 damaged"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("apart") && !text.contains("other"), "{text}");
        // Of some, with what they stand on.
        for (name, code) in [("box", CORRUPT), ("image", CORRUPT), (layer, CORRUPT), ("other", 0)] {
            scrub(&store, &[name], code);
        }
        scrub(&store, &["apart", "box"], CORRUPT);
        store.refused(&[3], &["scrub", "absent"], &["absent"]);

        // Whoever reads it is told, and gets nothing but what is right.
        let outcome = store.run(&["cat", "box", "/file"]).assert_code(&[CORRUPT]);
        assert!(outcome.stdout.len() <= 70 * BLOCK && contents.starts_with(&outcome.stdout));
        outcome.assert_sentence(&["damaged", &format!("pool block {place} ")]);
        assert_eq!(content_hash(&store.pool()), before, "something was written");

        // The daemon finds the same.
        let service = store.start(&["serve"]);
        assert!(host::wait_until(std::time::Duration::from_secs(30), || {
            store.daemon_pid().is_some()
        }));
        let through_daemon = scrub(&store, &[], CORRUPT);
        assert_eq!(only(&through_daemon), finding);
        assert_unwritten_by(&store.pool(), "scrub", || drop(scrub(&store, &["image"], CORRUPT)));
        store.ok(&["serve", "--stop"]);
        drop(service);
        flip_bit(&store.pool(), damaged);
        scrub(&store, &[], 0);
        assert_eq!(store.ok(&["cat", "box", "/file"]).stdout, contents);
    }
    store.finish();
}

#[test]
fn a_damaged_superblock_is_found_while_the_other_still_leads_to_everything() {
    let store = TempStore::with_size(Identity::Unprivileged, "1G");
    import(&store, "image", &numbered(1));
    for place in [0, 35] {
        flip_bit(&store.pool(), place * BLOCK_BYTES + 90);
        let summary = scrub(&store, &[], CORRUPT);
        let finding = only(&summary);
        assert_eq!(
            (&finding["structure"], &finding["pool_block"]),
            (&json!("superblock"), &json!(place))
        );
        assert_eq!(finding["damage"], "unreadable");
        flip_bit(&store.pool(), place * BLOCK_BYTES + 90);
    }
    store.finish();
}

#[test]
#[ignore = "needs root: mounts a container"]
fn a_damaged_block_of_a_mounted_file_is_an_io_error_and_the_others_are_right() {
    let store = TempStore::with_size(Identity::Current, "4G");
    let (first, second) = (numbered(1), numbered(2));
    import(&store, "image", &first);
    store.ok(&["snapshot", "image", "box"]);
    let point = store.new_folder("at");
    store.ok(&["mount", "box", &point]);
    fs::write(format!("{point}/second"), &second).unwrap();
    store.ok(&["commit", "box", "committed"]);
    store.ok(&["umount", "box"]);
    store.ok(&["serve", "--stop"]);
    store.wait_for_checksums();
    let committed = store.json(&["inspect", "committed"])[0]["GraphDriver"]["Data"].clone();
    let committed = committed["DeviceName"].as_str().unwrap();

    let place = block_with(&store.pool(), block(&second, 30));
    flip_bit(&store.pool(), place * BLOCK_BYTES);
    store.ok(&["mount", "box", &point]);
    let file = File::open(format!("{point}/second")).unwrap();
    let mut right = 0;
    for index in 0..BLOCKS {
        let mut bytes = vec![0; BLOCK];
        match file.read_exact_at(&mut bytes, blocks(index)) {
            Ok(()) => {
                assert_eq!(bytes, block(&second, index), "block {index}");
                right += 1;
            }
            Err(error) => {
                let expected = rustix::io::Errno::IO.raw_os_error();
                assert_eq!(error.raw_os_error(), Some(expected), "block {index}: {error}");
            }
        }
    }
    let mut bytes = vec![0; BLOCK];
    assert!(file.read_exact_at(&mut bytes, 30 * BLOCK_BYTES).is_err(), "damage was read");
    assert!(right >= 90, "only {right} blocks were right");
    assert_eq!(fs::read(format!("{point}/file")).unwrap(), first);

    // While it is mounted, and by the name of the layer that was committed.
    let summary = scrub(&store, &[], CORRUPT);
    let finding = only(&summary);
    assert_eq!(finding["owner"]["name"], committed);
    assert_eq!(
        affected(finding),
        [("image", "committed:latest"), ("container", "box"), ("layer", committed)]
    );
    scrub(&store, &["image"], 0);
    drop(file);
    store.ok(&["umount", "box"]);
    store.ok(&["serve", "--stop"]);
    flip_bit(&store.pool(), place * BLOCK_BYTES);
    store.ok(&["mount", "box", &point]);
    assert_eq!(fs::read(format!("{point}/second")).unwrap(), second);
    store.ok(&["umount", "box"]);
    store.finish();
}
