//! An import that is cut off at any moment leaves the store as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use thinstore_tests::command::TIME_LIMIT;
use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore, host};

/// Three layers of files that take a second or so to import.
fn write_image(source: &Path) {
    let mut image = LayoutImage::new();
    for layer in 0..3_u8 {
        let mut tar = TarWriter::new().directory("files");
        for number in 0..1500_u32 {
            let content = vec![layer.wrapping_add(number.to_le_bytes()[0]); 4000];
            tar = tar.file(&format!("files/{layer}-{number}"), &content);
        }
        image =
            image.layer(tar.file(&format!("large-{layer}"), &vec![layer + 1; 16 << 20]).finish());
    }
    Layout::write(source, &image);
}

/// A store that has imported before, so that what is made only once is there already.
fn used_store(identity: Identity) -> TempStore {
    let store = TempStore::with_size(identity, "4G");
    let source = store.path("small");
    let tar = TarWriter::new().file("file", b"small").finish();
    Layout::write(Path::new(&source), &LayoutImage::new().layer(tar));
    store.ok(&["import", &source, "--name", "small"]);
    write_image(Path::new(&store.path("source")));
    store
}

/// Cuts imports off with `signal`, each at another moment of the time that one takes.
fn cut_off(identity: Identity, signal: Signal) {
    let store = used_store(identity);
    let before = store.contents();
    let source = store.path("source");
    // How long a whole one takes, so that the moments fall into it on any machine.
    let whole = store.ok(&["import", &source, "--name", "cut"]).elapsed;
    store.ok(&["rmi", "cut"]);
    assert_eq!(store.contents(), before);

    let mut cut = 0;
    for percent in [1, 10, 25, 40, 55, 70, 85, 95, 99] {
        let mut import = store.start(&["import", &source, "--name", "cut"]);
        std::thread::sleep(whole * percent / 100);
        let ended = import.has_ended();
        import.signal(signal);
        let outcome = import.wait(TIME_LIMIT);
        if ended || outcome.status.success() {
            // It was faster this time: a whole import, which is no less right.
            store.ok(&["rmi", "cut"]);
        } else {
            cut += 1;
            // In its first moments, before it minds signals, the program ends without a word.
            if signal == Signal::INT && outcome.status.code().is_some() {
                outcome.assert_sentence(&[]);
            }
        }
        store.ok(&["check"]);
        if store.contents().images.iter().any(|image| image == "cut:latest") {
            // The signal came after the one record that publishes an image: then all of it is there.
            store.ok(&["export", "cut", "-o", "/dev/null"]);
            store.ok(&["rmi", "cut"]);
        }
        assert_eq!(store.contents(), before, "cut off after {percent} %");
        let clean = host::wait_until(Duration::from_secs(10), || {
            host::loops_below(store.folder()).is_empty()
                && host::mounts_below(store.folder())
                    .iter()
                    .all(|mount| mount.kind.starts_with("fuse"))
        });
        assert!(clean, "cut off after {percent} %: {:#?}", host::left_below(store.folder()));
    }
    assert!(cut >= 3, "only {cut} imports were cut off");
    store.ok(&["import", &source, "--name", "cut"]);
    assert_eq!(store.layer_count(), before.layers + 3);
    store.finish();
}

#[test]
fn killed_without_root() {
    cut_off(Identity::Unprivileged, Signal::KILL);
}

#[test]
fn interrupted_without_root() {
    cut_off(Identity::Unprivileged, Signal::INT);
}

#[test]
#[ignore = "needs root: imports through the kernel"]
fn killed_through_the_kernel() {
    cut_off(Identity::Current, Signal::KILL);
}

#[test]
#[ignore = "needs root: imports through the kernel"]
fn interrupted_through_the_kernel() {
    cut_off(Identity::Current, Signal::INT);
}
