//! Whiteouts and opaque folders hide what lower layers have and nothing else, wherever they stand.

use thinstore_filesystem::{Metadata, Node, TreeWriter};

use crate::random::Random;
use crate::raw::{RawHeader, RawTar};
use crate::tree::{MemoryTree, assert_same, tree_path};
use crate::{apply, refusal, refused};

fn lower() -> MemoryTree {
    let bytes = RawTar::new()
        .folder("d/")
        .file("d/a", b"lower a")
        .file("d/b", b"lower b")
        .folder("d/sub/")
        .file("d/sub/x", b"lower x")
        .file("f", b"lower f")
        .file("g", b"lower g")
        .symlink("s", "d")
        .end();
    let mut tree = MemoryTree::new();
    apply(&bytes, &mut tree).unwrap();
    tree
}

fn over(tar: RawTar) -> MemoryTree {
    let mut tree = lower();
    apply(&tar.end(), &mut tree).unwrap();
    tree
}

#[test]
fn a_whiteout_removes_a_file_and_a_folder_with_all_below() {
    let tree = over(RawTar::new().file(".wh.f", b"").file("d/.wh.sub", b""));
    assert_eq!(tree.paths(), ["", "d", "d/a", "d/b", "g", "s"]);
}

#[test]
fn a_whiteout_of_any_type_and_with_content_counts() {
    let tree = over(
        RawTar::new()
            .folder(".wh.f/")
            .entry(RawHeader::new(b".wh.g", b'1', 0).link(b".wh..wh.aufs"), b"")
            .file("d/.wh.a", b"some content"),
    );
    assert_eq!(tree.paths(), ["", "d", "d/b", "d/sub", "d/sub/x", "s"]);
}

#[test]
fn an_opaque_folder_keeps_what_its_own_layer_puts_wherever_the_mark_stands() {
    let mark = |tar: RawTar| tar.file("d/.wh..wh..opq", b"");
    let entries = |tar: RawTar| tar.folder("d/").file("d/new", b"n").file("d/sub/y", b"y");
    for tar in [
        entries(mark(RawTar::new())),
        mark(entries(RawTar::new())),
        mark(RawTar::new().folder("d/").file("d/new", b"n")).file("d/sub/y", b"y"),
    ] {
        let tree = over(tar);
        assert_eq!(tree.paths(), ["", "d", "d/new", "d/sub", "d/sub/y", "f", "g", "s"]);
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let tree = over(RawTar::new().file("new", b"").file(".wh..wh..opq", b""));
    assert_eq!(tree.paths(), ["", "new"]);
}

#[test]
fn a_whiteout_beside_a_new_file_of_the_same_name_hides_only_the_lower_one() {
    for tar in [
        RawTar::new().file(".wh.f", b"").file("f", b"new"),
        RawTar::new().file("f", b"new").file(".wh.f", b""),
    ] {
        assert_eq!(over(tar).bytes("f"), b"new");
    }
    // A folder that is replaced: what was in the lower one must not show through.
    for tar in [
        RawTar::new().file(".wh.d", b"").folder("d/").file("d/new", b""),
        RawTar::new().folder("d/").file("d/new", b"").file(".wh.d", b""),
        RawTar::new().file("d/new", b"").file(".wh.d", b""),
    ] {
        let tree = over(tar);
        assert_eq!(tree.paths(), ["", "d", "d/new", "f", "g", "s"]);
    }
}

#[test]
fn marks_that_come_first_are_applied_in_one_pass() {
    let tar = RawTar::new()
        .folder("d/")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"")
        .file("f", b"new")
        .file(".wh.f", b"")
        .file(".wh.g", b"");
    let mut tree = lower();
    tree.calls.clear();
    apply(&tar.end(), &mut tree).unwrap();
    assert_eq!(tree.calls, ["put /d", "clear /d", "put /d/new", "put /f", "remove /g"]);
}

#[test]
fn a_compressed_layer_is_started_over_as_well() {
    let tar = RawTar::new().folder("d/").file("d/new", b"").file("d/.wh..wh..opq", b"").end();
    let mut tree = lower();
    let stats = apply(&zstd::encode_all(&tar[..], 1).unwrap(), &mut tree).unwrap();
    assert_eq!(tree.paths(), ["", "d", "d/new", "f", "g", "s"]);
    assert_eq!((stats.files, stats.directories, stats.whiteouts), (1, 1, 1));
}

#[test]
fn hard_links_survive_a_start_over_as_links() {
    let tar = RawTar::new()
        .folder("d/")
        .file("d/new", b"n")
        .hard_link("outside", "d/new")
        .hard_link("d/again", "outside")
        .file("d/.wh..wh..opq", b"");
    let tree = over(tar);
    assert!(tree.same_file("d/new", "outside"));
    assert!(tree.same_file("d/again", "outside"));
    assert!(!tree.has("d/a"));
}

#[test]
fn hard_links_reach_files_of_lower_layers_even_if_these_are_replaced_later() {
    let tar = RawTar::new()
        .hard_link("kept", "f")
        .file("f", b"new f")
        .folder("d/")
        .file("d/new", b"")
        .file("d/.wh..wh..opq", b"");
    let tree = over(tar);
    assert_eq!(tree.bytes("kept"), b"lower f");
    assert_eq!(tree.bytes("f"), b"new f");
    assert!(!tree.has("d/a"));
}

#[test]
fn a_hard_link_to_nothing_is_refused_by_name() {
    let mut tree = lower();
    let message = refused(apply(&RawTar::new().hard_link("h", "nowhere").end(), &mut tree));
    assert!(message.contains("'/h'") && message.contains("'/nowhere'"), "{message}");
    let hidden = RawTar::new().hard_link("h", "f").file(".wh.f", b"").end();
    assert!(refused(apply(&hidden, &mut tree)).contains("'/f'"));
}

#[test]
fn notes_of_aufs_are_passed_over() {
    let tree = over(
        RawTar::new()
            .folder(".wh..wh.orph/")
            .file(".wh..wh.plnk/123.456", b"link")
            .file(".wh..wh.aufs", b""),
    );
    assert_same(&tree, &lower());
}

#[test]
fn whiteouts_of_the_root_or_of_what_is_above_are_refused() {
    for name in [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh...", ".wh.d/inside"] {
        let bytes = RawTar::new().file(name, b"").end();
        assert!(refusal(&bytes).contains(&format!("'{name}'")), "{name}");
    }
}

#[test]
fn a_symlink_of_a_lower_layer_is_replaced_and_never_followed() {
    let tree = over(RawTar::new().file("s/inside", b"1"));
    assert_eq!(tree.get("s").0, Node::Directory);
    assert!(!tree.has("d/inside"));
}

/// One entry of a random layer.
#[derive(Clone, Debug)]
enum Entry {
    File(&'static str),
    Folder(&'static str),
    Link(&'static str, &'static str),
    Whiteout(&'static str),
    Opaque(&'static str),
}

const PATHS: [&str; 12] =
    ["a", "b", "c", "a/a", "a/b", "a/c", "a/b/a", "a/b/b", "b/a", "b/b", "b/b/c", "!"];

fn random_layer(random: &mut Random) -> Vec<Entry> {
    let count = 1 + random.below(10);
    (0..count)
        .map(|_| {
            let path = random.pick(&PATHS);
            match random.below(10) {
                0..=3 => Entry::File(path),
                4..=5 => Entry::Folder(path),
                6 => Entry::Link(path, random.pick(&PATHS)),
                7..=8 => Entry::Whiteout(path),
                _ => Entry::Opaque(path),
            }
        })
        .collect()
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut tar = RawTar::new();
    for (index, entry) in entries.iter().enumerate() {
        tar = match entry {
            Entry::File(path) => tar.file(path, format!("{index}").as_bytes()),
            Entry::Folder(path) => tar.folder(path),
            Entry::Link(path, target) => tar.hard_link(path, target),
            Entry::Whiteout(path) => {
                let (folder, name) = path.rsplit_once('/').map_or(("", *path), |(f, n)| (f, n));
                let name = format!("{folder}/.wh.{name}");
                tar.file(name.trim_start_matches('/'), b"")
            }
            Entry::Opaque(path) => tar.file(&format!("{path}/.wh..wh..opq"), b""),
        };
    }
    tar.end()
}

/// What a layer means: all marks, then all entries in order.
fn model(entries: &[Entry], tree: &mut MemoryTree) -> bool {
    for entry in entries {
        match entry {
            Entry::Whiteout(path) => tree.remove(&tree_path(path)).unwrap(),
            Entry::Opaque(path) => tree.clear(&tree_path(path)).unwrap(),
            _ => {}
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        match entry {
            Entry::File(path) => {
                let bytes = RawTar::new().file(path, format!("{index}").as_bytes()).end();
                apply(&bytes, tree).unwrap();
            }
            Entry::Folder(path) => {
                let metadata = Metadata { mode: 0o755, ..Metadata::default() };
                tree.put(&tree_path(path), &Node::Directory, &metadata, None).unwrap();
            }
            Entry::Link(path, target) if path == target => return false,
            Entry::Link(path, target) => {
                let linked = tree.hard_link(&tree_path(path), &tree_path(target));
                if linked.is_err() {
                    return false;
                }
            }
            _ => {}
        }
    }
    true
}

#[test]
fn random_stacks_of_layers_come_out_as_marks_first_then_entries() {
    let mut applied = 0;
    for seed in 0..3000 {
        let mut random = Random::new(seed);
        let mut expected = MemoryTree::new();
        let mut found = MemoryTree::new();
        for _ in 0..3 {
            let entries = random_layer(&mut random);
            let possible = model(&entries, &mut expected);
            let outcome = apply(&tar_of(&entries), &mut found);
            assert_eq!(outcome.is_ok(), possible, "seed {seed}: {entries:?} {outcome:?}");
            if !possible {
                break;
            }
            applied += 1;
            assert_eq!(found.paths(), expected.paths(), "seed {seed}: {entries:?}");
            assert_same(&found, &expected);
        }
    }
    assert!(applied > 2000, "too few layers were possible: {applied}");
}
