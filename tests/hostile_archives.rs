//! Archives made to do harm: refused with a sentence that names the entry, and nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use thinstore_tests::layout::digest_of;
use thinstore_tests::tar::Header;
use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore};

/// Refused, or the pool is full: what an archive that asks for too much may get.
const REFUSED: &[i32] = &[1];
const REFUSED_OR_FULL: &[i32] = &[1, 5];

fn good_layer() -> Vec<u8> {
    TarWriter::new().directory("etc").file("etc/file", b"good").finish()
}

/// A store that has imported before, so that what is made only once is there already.
fn used_store(identity: Identity) -> TempStore {
    let store = TempStore::with_size(identity, "4G");
    let source = store.path("good");
    Layout::write(Path::new(&source), &LayoutImage::new().layer(good_layer()));
    store.ok(&["import", &source, "--name", "good"]);
    store
}

/// Imports what `make` wrote to the path it is given; it must be refused with a sentence that names
/// `names`, and the store must be as it was.
#[track_caller]
fn assert_refused(store: &TempStore, codes: &[i32], names: &[&str], make: impl FnOnce(&Path)) {
    let before = store.contents();
    let source = PathBuf::from(store.path("hostile"));
    make(&source);
    store.refused(codes, &["import", source.to_str().unwrap(), "--name", "hostile"], names);
    assert_eq!(store.contents(), before, "a refused import left something");
    store.ok(&["check"]);
    let _ = fs::remove_dir_all(&source);
    let _ = fs::remove_file(&source);
}

/// The entries that try to get out, and the name by which each must be told.
fn escaping_layers() -> Vec<(&'static str, TarWriter)> {
    let start = || TarWriter::new().directory("folder").file("folder/good", b"good");
    vec![
        ("/canary", start().file("/canary", b"evil")),
        ("../canary", start().file("../canary", b"evil")),
        ("folder/../../canary", start().file("folder/../../canary", b"evil")),
        ("..", start().entry(&Header { name: b"..", kind: b'5', ..Header::default() }, b"")),
        ("../.wh.canary", start().file("../.wh.canary", b"")),
        (
            "way/canary",
            start().symlink("way", "../../../../../../../..").file("way/canary", b"evil"),
        ),
        ("linked", start().hard_link("linked", "../canary")),
        ("linked", start().hard_link("linked", "../../../../../../etc/passwd")),
        ("linked", start().hard_link("linked", "folder/absent")),
        ("linked", start().hard_link("linked", "folder")),
        (
            "way/linked",
            start().symlink("way", "../../../../../..").hard_link("way/linked", "folder/good"),
        ),
        ("../canary", start().pax(&[("path", b"../canary")]).file("harmless", b"evil")),
        ("linked", start().pax(&[("linkpath", b"../canary")]).hard_link("linked", "folder/good")),
    ]
}

fn refuses_escapes(identity: Identity) {
    let store = used_store(identity);
    let canary = PathBuf::from(store.path("canary"));
    fs::write(&canary, "untouched").unwrap();
    for (name, tar) in escaping_layers() {
        let layer = tar.clone().finish();
        assert_refused(&store, REFUSED, &[name], |source| {
            Layout::write(source, &LayoutImage::new().layer(good_layer()).layer(layer));
        });
        assert_refused(&store, REFUSED, &[name], |source| tar.write_to(source));
        assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched", "{name}");
    }
    store.finish();
}

#[test]
fn entries_that_leave_the_root_are_refused_without_root() {
    refuses_escapes(Identity::Unprivileged);
}

#[test]
#[ignore = "needs root: imports through the kernel"]
fn entries_that_leave_the_root_are_refused_through_the_kernel() {
    refuses_escapes(Identity::Current);
}

#[test]
fn a_wrong_digest_or_diff_id_is_refused() {
    let store = used_store(Identity::Unprivileged);
    let layer = TarWriter::new().file("file", b"as it was signed").finish();
    let digest = digest_of(&layer);
    let hex = digest.strip_prefix("sha256:").unwrap();
    assert_refused(&store, REFUSED, &[hex], |source| {
        let layout = Layout::write(source, &LayoutImage::new().layer(layer.clone()));
        // One bit of a file's content.
        let mut bytes = layer.clone();
        bytes[512] ^= 1;
        fs::write(layout.blob(&digest), bytes).unwrap();
    });
    assert_refused(&store, REFUSED, &[], |source| {
        Layout::write(source, &LayoutImage::new().layer(layer.clone()).with_wrong_diff_id());
    });
    assert_refused(&store, &[1, 3], &[hex], |source| {
        let layout = Layout::write(source, &LayoutImage::new().layer(layer.clone()));
        fs::remove_file(layout.blob(&digest)).unwrap();
    });
    store.finish();
}

#[test]
fn truncated_archives_are_refused() {
    let store = used_store(Identity::Unprivileged);
    let content = vec![b'x'; 100_000];
    let layer = TarWriter::new().file("file", &content).finish();
    let digest = digest_of(&layer);
    // The blob is shorter than its descriptor says.
    assert_refused(&store, REFUSED, &[], |source| {
        let layout = Layout::write(source, &LayoutImage::new().layer(layer.clone()));
        fs::write(layout.blob(&digest), &layer[..50_000]).unwrap();
    });
    // The digest is right, but the tar ends in the middle of a file, or of a header.
    for length in [50_000, 512 + 100_000 / 2, 700] {
        let cut = layer[..length].to_vec();
        assert_refused(&store, REFUSED, &["file"], |source| {
            Layout::write(source, &LayoutImage::new().layer(cut.clone()));
        });
        assert_refused(&store, REFUSED, &["file"], |source| fs::write(source, &cut).unwrap());
    }
    assert_refused(&store, REFUSED, &[], |source| fs::write(source, &layer[..300]).unwrap());
    // A compressed stream that ends early.
    assert_refused(&store, REFUSED, &[], |source| {
        let plain = format!("{}.plain", source.display());
        fs::write(&plain, &layer).unwrap();
        thinstore_tests::run_tool("gzip", &["--force", &plain]);
        let bytes = fs::read(format!("{plain}.gz")).unwrap();
        fs::write(source, &bytes[..bytes.len() / 2]).unwrap();
    });
    store.finish();
}

#[test]
fn headers_that_lie_are_refused() {
    let store = used_store(Identity::Unprivileged);
    let claim = |size_bytes| Header {
        name: b"liar",
        claimed_size_bytes: Some(size_bytes),
        ..Header::default()
    };
    let damaged = {
        let mut bytes = TarWriter::new().file("liar", b"x").finish();
        // The mode, without a new checksum.
        bytes[100] ^= 1;
        bytes
    };
    let layers = [
        ("liar", TarWriter::new().entry(&claim(0o77_777_777_777), b"short").finish()),
        (
            "liar",
            TarWriter::new().pax(&[("size", b"18446744073709551615")]).file("liar", b"").finish(),
        ),
        ("liar", TarWriter::new().pax(&[("size", b"-1")]).file("liar", b"").finish()),
        ("", TarWriter::new().pax(&[("path", b"li\0ar")]).file("x", b"").finish()),
        ("", damaged),
        (
            "liar",
            TarWriter::new()
                .entry(&Header { name: b"liar", kind: b'?', ..Header::default() }, b"")
                .finish(),
        ),
        ("", TarWriter::new().pax(&[("path", &[b'p'; 5000][..])]).file("x", b"").finish()),
        (
            "",
            TarWriter::new()
                .file(&format!("{}/x", "n".repeat(90)), b"")
                .pax(&[("path", &[b'n'; 256][..])])
                .file("x", b"")
                .finish(),
        ),
        // A PAX header that claims to be larger than memory.
        (
            "",
            TarWriter::new()
                .entry(
                    &Header {
                        name: b"PaxHeaders/x",
                        kind: b'x',
                        claimed_size_bytes: Some(0o77_777_777_777),
                        ..Header::default()
                    },
                    b"30 path=short\n",
                )
                .finish(),
        ),
    ];
    for (name, layer) in layers {
        let names: &[&str] = if name.is_empty() { &[] } else { &[name] };
        assert_refused(&store, REFUSED, names, |source| {
            Layout::write(source, &LayoutImage::new().layer(layer.clone()));
        });
    }
    store.finish();
}

/// More entries than the device has room for: it must end, say so, and leave nothing.
#[test]
fn a_bomb_of_entries_is_refused() {
    let store = TempStore::without_init(Identity::Unprivileged);
    store.ok(&["init", "--size", "4G", "--device-size", "64M"]);
    let source = store.path("good");
    Layout::write(Path::new(&source), &LayoutImage::new().layer(good_layer()));
    store.ok(&["import", &source, "--name", "good"]);
    let mut tar = TarWriter::new();
    for number in 0..200_000 {
        tar = tar.file(&format!("bomb-{number:06}"), b"");
    }
    let layer = tar.finish();
    assert_refused(&store, REFUSED_OR_FULL, &["bomb-"], |source| {
        Layout::write(source, &LayoutImage::new().layer(layer));
    });
    store.finish();
}

#[test]
fn documents_that_are_not_what_they_should_be_are_refused() {
    let store = used_store(Identity::Unprivileged);
    let write = |source: &Path| Layout::write(source, &LayoutImage::new().layer(good_layer()));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "{}", "not json", "[]", r#"{"schemaVersion":2,"manifests":[]}"#, deep.as_str()]
    {
        assert_refused(&store, &[1, 3], &[], |source| {
            write(source);
            fs::write(source.join("index.json"), text).unwrap();
        });
    }
    // An index that points outside the layout.
    assert_refused(&store, &[1, 3], &[], |source| {
        write(source);
        let index = fs::read_to_string(source.join("index.json")).unwrap();
        let start = index.find("sha256:").unwrap() + "sha256:".len();
        let evil = format!("{}../../../../etc/passwd{}", &index[..start], &index[start + 64..]);
        fs::write(source.join("index.json"), evil).unwrap();
    });
    store.finish();
}

#[test]
fn sources_that_are_no_image_are_refused() {
    let store = used_store(Identity::Unprivileged);
    let noise: Vec<u8> =
        (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    assert_refused(&store, REFUSED, &[&store.path("hostile")], |source| {
        fs::write(source, &noise).unwrap();
    });
    assert_refused(&store, REFUSED, &[&store.path("hostile")], |source| {
        fs::write(source, b"").unwrap()
    });
    let before = store.contents();
    let absent = store.path("absent");
    store.refused(&[1, 3], &["import", &absent, "--name", "absent"], &[&absent]);
    store.refused(&[1, 2], &["import", "/dev/null", "--name", "null"], &["/dev/null"]);
    assert_eq!(store.contents(), before);
    store.finish();
}
