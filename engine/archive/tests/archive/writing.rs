//! Tars and archives that are written: the same every time, and read back as what they were.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thinstore_archive::{
    Change, ChangeKind, Compression, Digest, ImageSource, OciArchiveWriter, SourceKind,
    SourceOptions, TarWriter, WhiteoutNames, apply_layer, write_changes, write_tree,
};
use thinstore_filesystem::{
    FileContent, Metadata, Node, Timestamp, TreePath, TreeReader, TreeWriter,
};
use thinstore_storage::{ErrorKind, Result};

use crate::random::Random;
use crate::raw::RawTar;
use crate::tree::{Description, MemoryTree, assert_same, describe, tree_path};
use crate::{apply, file_of, tree_of};

/// Content given as one piece.
pub struct Bytes(pub u64, pub Vec<u8>);

impl FileContent for Bytes {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let count = self.1.len().min(buffer.len());
        if count == 0 {
            return Ok(None);
        }
        buffer[..count].copy_from_slice(&self.1[..count]);
        self.1.drain(..count);
        self.0 += count as u64;
        Ok(Some((self.0 - count as u64, count)))
    }
}

pub fn put_file(tree: &mut MemoryTree, path: &TreePath, bytes: &[u8], metadata: &Metadata) {
    let node = Node::File { size_bytes: bytes.len() as u64 };
    tree.put(path, &node, metadata, Some(&mut Bytes(0, bytes.to_vec()))).unwrap();
}

/// A tree of everything that a tar can hold.
pub fn rich_tree() -> MemoryTree {
    let mut tree = MemoryTree::new();
    let plain = Metadata { mode: 0o644, ..Metadata::default() };
    let at = |path: &[u8]| TreePath::from_archive(path).unwrap();
    let root = Metadata { mode: 0o755, modified: time(5, 6), ..Metadata::default() };
    tree.put(&TreePath::root(), &Node::Directory, &root, None).unwrap();
    let folder = Metadata { mode: 0o1777, modified: time(-3, 999_999_999), ..Metadata::default() };
    tree.put(&at(b"d"), &Node::Directory, &folder, None).unwrap();
    put_file(
        &mut tree,
        &at(b"d/f"),
        b"content",
        &Metadata { mode: 0o6755, uid: 70_000, gid: 4_294_967_294, ..plain.clone() },
    );
    put_file(&mut tree, &at(b"empty"), b"", &plain);
    put_file(&mut tree, &at(b"block"), &[7; 512], &plain);
    put_file(&mut tree, &at("n".repeat(255).as_bytes()), b"long", &plain);
    let deep = ["d".repeat(200), "e".repeat(200), "f".repeat(200)].join("/");
    put_file(&mut tree, &at(deep.as_bytes()), b"deep", &plain);
    put_file(&mut tree, &at("gr\u{fc}n".as_bytes()), b"utf8", &plain);
    put_file(&mut tree, &at(b"caf\xe9"), b"latin", &plain);
    let raw_long = [&b"\xff"[..], &[b'x'; 150]].concat();
    put_file(&mut tree, &at(&raw_long), b"latin and long", &plain);
    for (index, seconds) in [0, -1, 1 << 33, 1 << 36, i64::MIN / 2].into_iter().enumerate() {
        let metadata = Metadata { modified: time(seconds, 1), ..plain.clone() };
        put_file(&mut tree, &at(format!("time{index}").as_bytes()), b"t", &metadata);
    }
    let xattrs: BTreeMap<Vec<u8>, Vec<u8>> = [
        (&b"user.a"[..], &b"1\n2\0=3"[..]),
        (b"user.empty", b""),
        (b"user.with=equals", b"\xff"),
        (b"security.capability", b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_vec(), value.to_vec()))
    .collect();
    put_file(&mut tree, &at(b"x"), b"xattrs", &Metadata { xattrs, ..plain.clone() });
    let link = |target: &[u8]| Node::Symlink { target: target.to_vec() };
    tree.put(&at(b"s"), &link(b"../../etc"), &Metadata { mode: 0o777, ..plain.clone() }, None)
        .unwrap();
    tree.put(&at(b"s-long"), &link(&[b't'; 3000]), &plain, None).unwrap();
    tree.put(&at(b"s-raw"), &link(b"\xff\xfe"), &plain, None).unwrap();
    let device = Node::CharacterDevice { major: 4095, minor: 1_048_575 };
    tree.put(&at(b"c"), &device, &plain, None).unwrap();
    tree.put(&at(b"b"), &Node::BlockDevice { major: 8, minor: 1 }, &plain, None).unwrap();
    tree.put(&at(b"p"), &Node::Fifo, &plain, None).unwrap();
    tree.hard_link(&at(b"a-first-name"), &at(b"d/f")).unwrap();
    tree.hard_link(&at(b"z-last-name"), &at(b"d/f")).unwrap();
    let sparse = Node::File { size_bytes: 1 << 20 };
    tree.put(&at(b"sparse"), &sparse, &plain, Some(&mut Bytes(500_000, b"data".to_vec()))).unwrap();
    tree
}

fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds }
}

pub fn tar_of_tree(tree: &dyn TreeReader, start: &str) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new(), WhiteoutNames::Plain);
    write_tree(tree, &tree_path(start), &mut writer).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_tree_comes_back_from_its_tar_and_the_tar_is_the_same_every_time() {
    let tree = rich_tree();
    let first = tar_of_tree(&tree, "");
    assert_same(&tree_of(&first), &tree);
    assert_eq!(first, tar_of_tree(&tree_of(&first), ""));
    assert_eq!(first.len() % 512, 0);
}

#[test]
fn a_part_of_a_tree_is_written_relative_to_itself() {
    let tree = rich_tree();
    let folder = tree_of(&tar_of_tree(&tree, "d"));
    assert_eq!(folder.paths(), ["", "f"]);
    assert_eq!(folder.get("").1, tree.get("d").1);
    assert_eq!(tree_of(&tar_of_tree(&tree, "d/f")).paths(), ["", "f"]);
    let mut writer = TarWriter::new(Vec::new(), WhiteoutNames::Plain);
    let error = write_tree(&tree, &tree_path("nothing"), &mut writer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn names_that_mark_deletions_are_an_error_in_layers_only() {
    let mut tree = MemoryTree::new();
    put_file(&mut tree, &tree_path(".wh.x"), b"", &Metadata::default());
    let mut layer = TarWriter::new(Vec::new(), WhiteoutNames::Refused);
    let error = write_tree(&tree, &TreePath::root(), &mut layer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let mut plain = TarWriter::new(Vec::new(), WhiteoutNames::Plain);
    write_tree(&tree, &TreePath::root(), &mut plain).unwrap();
}

#[test]
fn content_that_is_not_as_long_as_promised_is_an_error() {
    let metadata = Metadata::default();
    for (size_bytes, offset) in [(2, 0), (4, 2)] {
        let mut writer = TarWriter::new(Vec::new(), WhiteoutNames::Plain);
        let mut content = Bytes(offset, b"abc".to_vec());
        let node = Node::File { size_bytes };
        let error = writer.node(&tree_path("f"), &node, &metadata, Some(&mut content)).unwrap_err();
        assert!(error.to_string().contains("'/f'"), "{error}");
    }
}

/// The changes from one tree to another.
pub fn changes(before: &dyn TreeReader, after: &dyn TreeReader) -> Vec<Change> {
    let (before, after) = (describe(before), describe(after));
    let mut found = Vec::new();
    let mut push = |kind, path: &TreePath| found.push(Change { kind, path: path.clone() });
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        push(ChangeKind::Deleted, path);
    }
    for (path, description) in &after {
        match before.get(path) {
            None => push(ChangeKind::Added, path),
            Some(old) if differs(old, description) => push(ChangeKind::Modified, path),
            Some(_) => {}
        }
    }
    found
}

/// Links are left out: a diff that looks at each path alone does not see them.
fn differs(old: &Description, new: &Description) -> bool {
    old.node != new.node || old.metadata != new.metadata || old.blocks != new.blocks
}

fn diff_layer(after: &dyn TreeReader, changes: &[Change]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new(), WhiteoutNames::Refused);
    write_changes(after, changes, &mut writer).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_difference_is_written_with_whiteouts_and_the_folders_above() {
    let before = tree_of(
        &RawTar::new()
            .folder("etc/")
            .file("etc/a", b"a")
            .file("etc/b", b"b")
            .folder("gone/")
            .file("gone/x", b"")
            .folder("was-folder/")
            .file("was-folder/x", b"")
            .file("was-file", b"")
            .end(),
    );
    let mut after = before.clone();
    for path in ["etc/a", "gone", "was-folder", "was-file"] {
        after.remove(&tree_path(path)).unwrap();
    }
    put_file(&mut after, &tree_path("etc/b"), b"changed", &Metadata::default());
    put_file(&mut after, &tree_path("was-folder"), b"file", &Metadata::default());
    put_file(&mut after, &tree_path("was-file/now"), b"folder", &Metadata::default());
    let tar = diff_layer(&after, &changes(&before, &after));
    let names: Vec<String> = tar_names(&tar);
    assert_eq!(
        names,
        ["./", "etc/", "etc/.wh.a", "etc/b", ".wh.gone", "was-file/", "was-file/now", "was-folder"]
    );
    let mut applied = before.clone();
    apply(&tar, &mut applied).unwrap();
    assert_same(&applied, &after);
}

#[test]
fn a_folder_of_which_nothing_is_left_is_written_with_one_mark() {
    let before = tree_of(
        &RawTar::new().folder("d/").file("d/a", b"a").folder("d/b/").file("d/b/c", b"").end(),
    );
    let mut after = before.clone();
    after.clear(&tree_path("d")).unwrap();
    put_file(&mut after, &tree_path("d/new"), b"new", &Metadata::default());
    let changes = [
        Change { kind: ChangeKind::Emptied, path: tree_path("d") },
        Change { kind: ChangeKind::Added, path: tree_path("d/new") },
    ];
    let tar = diff_layer(&after, &changes);
    assert_eq!(tar_names(&tar), ["./", "d/", "d/.wh..wh..opq", "d/new"]);
    let mut applied = before.clone();
    apply(&tar, &mut applied).unwrap();
    assert_same(&applied, &after);
}

/// The names of a tar without extensions.
fn tar_names(tar: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut place = 0;
    while tar[place] != 0 {
        let header = &tar[place..place + 512];
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8(header[range].split(|byte| *byte == 0).next().unwrap().to_vec())
                .unwrap()
        };
        names.push(text(0..100));
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        place += 512 + size.next_multiple_of(512);
    }
    names
}

#[test]
fn a_new_name_of_an_unchanged_file_brings_the_file_along_as_one_file() {
    let before = tree_of(&RawTar::new().folder("d/").file("d/old", b"x").file("z", b"").end());
    let mut after = before.clone();
    after.hard_link(&tree_path("new"), &tree_path("d/old")).unwrap();
    let found = changes(&before, &after);
    assert_eq!(found, [Change { kind: ChangeKind::Added, path: tree_path("new") }]);
    let mut applied = before.clone();
    apply(&diff_layer(&after, &found), &mut applied).unwrap();
    assert_same(&applied, &after);
}

#[test]
fn random_differences_turn_one_tree_into_the_other() {
    let names = ["a", "b", "c", "a/a", "a/b", "b/a", "b/a/x", "b/a/y", "c/d", "c/d/e"];
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let mut before = MemoryTree::new();
        let mut after = MemoryTree::new();
        for step in 0..24 {
            let path = tree_path(random.pick(&names));
            let tree = &mut after;
            match random.below(6) {
                0..=2 => {
                    let metadata =
                        Metadata { mode: 0o600 + random.below(8) as u32, ..Metadata::default() };
                    put_file(tree, &path, format!("{step}").as_bytes(), &metadata);
                }
                3 => {
                    let metadata =
                        Metadata { mode: 0o700 + random.below(8) as u32, ..Metadata::default() };
                    tree.put(&path, &Node::Directory, &metadata, None).unwrap();
                }
                4 => {
                    let target = tree_path(random.pick(&names));
                    let below = target.as_bytes().starts_with(path.as_bytes());
                    if target != path && !below {
                        // Fails where there is no such file, and then does nothing.
                        let _ = tree.hard_link(&path, &target);
                    }
                }
                _ => tree.remove(&path).unwrap(),
            }
            if step == 12 {
                before = after.clone();
            }
        }
        let tar = diff_layer(&after, &changes(&before, &after));
        assert_eq!(tar, diff_layer(&after, &changes(&before, &after)));
        let mut applied = before.clone();
        apply(&tar, &mut applied).unwrap();
        assert_eq!(applied.paths(), after.paths(), "seed {seed}");
        let (found, expected) = (describe(&applied), describe(&after));
        for (path, description) in &expected {
            assert!(!differs(&found[path], description), "seed {seed}: {path}");
        }
    }
}

fn archive_options() -> SourceOptions {
    SourceOptions::new(&std::env::temp_dir())
}

/// An archive of the rich tree and a layer over it.
pub fn oci_archive(compression: Compression, name: Option<&str>) -> (Vec<u8>, MemoryTree) {
    let base = rich_tree();
    let mut top = base.clone();
    top.remove(&tree_path("d")).unwrap();
    put_file(&mut top, &tree_path("new"), b"new", &Metadata { mode: 0o600, ..Metadata::default() });
    let mut writer = OciArchiveWriter::new(&std::env::temp_dir(), compression);
    let base_tar = tar_of_tree(&base, "");
    let diff_id = writer
        .add_layer(|output| {
            let mut tar = TarWriter::new(output, WhiteoutNames::Refused);
            write_tree(&base, &TreePath::root(), &mut tar)?;
            tar.finish().map(drop)
        })
        .unwrap();
    assert_eq!(diff_id, Digest::of(&base_tar));
    writer
        .add_layer(|output| {
            let mut tar = TarWriter::new(output, WhiteoutNames::Refused);
            write_changes(&top, &changes(&base, &top), &mut tar)?;
            tar.finish().map(drop)
        })
        .unwrap();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["sh"], "Labels": { "a": "b" } },
        "history": [{ "created_by": "one" }],
        "rootfs": { "type": "layers", "diff_ids": ["outdated"] },
    });
    let (bytes, written) = writer.finish(config.to_string().as_bytes(), name, Vec::new()).unwrap();
    assert_eq!(written.manifest_digest.to_string().len(), 71);
    (bytes, top)
}

#[test]
fn an_oci_archive_is_read_back_and_is_the_same_every_time() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (bytes, tree) = oci_archive(compression, Some("app:2"));
        assert_eq!(bytes, oci_archive(compression, Some("app:2")).0);
        let file = file_of(&bytes);
        let source = ImageSource::open(file.path(), &archive_options()).unwrap();
        assert_eq!(source.kind(), SourceKind::OciArchive);
        let image = source.image(None, &archive_options()).unwrap();
        assert_eq!(image.name.as_deref(), Some("app:2"));
        let mut found = MemoryTree::new();
        for layer in &image.layers {
            apply_layer(&mut layer.open(None).unwrap(), &mut found).unwrap();
        }
        assert_same(&found, &tree);
        let config: Value = serde_json::from_slice(&image.config).unwrap();
        assert_eq!(config["config"]["Labels"]["a"], "b");
        // One step of history cannot tell of two layers.
        assert!(config.get("history").is_none());
    }
}

#[test]
fn the_same_layer_twice_is_one_blob() {
    let mut writer = OciArchiveWriter::new(&std::env::temp_dir(), Compression::Gzip);
    let tar = RawTar::new().file("a", b"a").end();
    for _ in 0..3 {
        writer
            .add_layer(|output| {
                output.write_all(&tar).unwrap();
                Ok(())
            })
            .unwrap();
    }
    let (bytes, _) = writer.finish(b"{}", None, Vec::new()).unwrap();
    let names = tar_names(&bytes);
    assert_eq!(names.iter().filter(|name| name.starts_with("blobs/")).count(), 3);
    let file = file_of(&bytes);
    let source = ImageSource::open(file.path(), &archive_options()).unwrap();
    let image = source.image(None, &archive_options()).unwrap();
    assert_eq!((image.layers.len(), image.name), (3, None));
}

#[test]
fn a_configuration_that_is_no_object_is_refused() {
    for config in [&b"[]"[..], b"", b"x", b"null"] {
        let writer = OciArchiveWriter::new(&std::env::temp_dir(), Compression::None);
        assert!(writer.finish(config, None, Vec::new()).is_err());
    }
}
