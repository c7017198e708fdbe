//! Writing to a folder of the host: nothing leads out of it, and it is filled as umoci fills it.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use thinstore_filesystem::{DirectoryTree, Metadata, Node, TreePath, TreeReader, TreeWriter};
use thinstore_storage::ErrorKind;

/// A folder that is the tree, beside one that must stay as it is.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("tree")).expect("mkdir");
        std::fs::create_dir(folder.path().join("outside")).expect("mkdir");
        std::fs::write(folder.path().join("outside/kept"), b"kept").expect("write");
        Place { folder }
    }
    fn tree(&self) -> DirectoryTree {
        DirectoryTree::open(&self.folder.path().join("tree")).expect("open")
    }
    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
    fn assert_outside_is_untouched(&self) {
        let names: Vec<_> = std::fs::read_dir(self.at("outside")).expect("read").collect();
        assert_eq!(names.len(), 1);
        assert_eq!(std::fs::read(self.at("outside/kept")).expect("read"), b"kept");
    }
}

#[test]
#[ignore = "needs root: sets owners"]
fn symlinks_that_point_outside_lead_nowhere_outside() {
    let place = Place::new();
    let outside = place.at("outside");
    symlink(&outside, place.at("tree/absolute")).expect("symlink");
    symlink("../outside", place.at("tree/relative")).expect("symlink");
    symlink("../../../../../../../../etc", place.at("tree/far")).expect("symlink");
    let mut tree = place.tree();
    put_file(&mut tree, "absolute/new", b"inside");
    tree.remove(&path("absolute/kept")).expect("remove");
    tree.clear(&path("absolute")).expect("clear");
    put_file(&mut tree, "file", b"inside");
    for name in ["relative", "far"] {
        // A reader stays in the root, as a process rooted there would; that opens no way to a writer.
        let read = tree.node(&path(&format!("{name}/new"))).expect_err("nothing");
        assert_eq!(read.kind(), ErrorKind::NotFound);
        assert_climbing_is_refused(&mut tree, name);
    }
    tree.remove(&path("absolute")).expect("remove");
    put_file(&mut tree, "relative", b"replaced");
    tree.finish().expect("finish");
    place.assert_outside_is_untouched();
    // It landed where a process rooted in the tree would have put it.
    let inside = place.at("tree").join(outside.strip_prefix("/").expect("absolute"));
    assert_eq!(std::fs::read(inside.join("new")).expect("read"), b"inside");
    assert!(!place.at("tree/etc").exists() && !Path::new("/etc/new").exists());
}

#[test]
#[ignore = "needs root: sets owners"]
fn hard_links_devices_and_metadata_do_not_follow_a_last_symlink() {
    let place = Place::new();
    symlink(place.at("outside/kept"), place.at("tree/link")).expect("symlink");
    let before = std::fs::metadata(place.at("outside/kept")).expect("stat");
    let mut tree = place.tree();
    tree.hard_link(&path("second"), &path("link")).expect("a link to the symlink");
    assert!(std::fs::symlink_metadata(place.at("tree/second")).expect("stat").is_symlink());
    let owned = thinstore_filesystem::Metadata { uid: 5, gid: 5, ..metadata(0o777) };
    let node = Node::Symlink { target: place.at("outside/kept").to_str().expect("text").into() };
    tree.put(&path("third"), &node, &owned, None).expect("symlink");
    put_file(&mut tree, "link", b"in place of the symlink");
    tree.finish().expect("finish");
    let after = std::fs::metadata(place.at("outside/kept")).expect("stat");
    assert_eq!(
        (before.uid(), before.mode(), before.mtime_nsec(), before.nlink()),
        (after.uid(), after.mode(), after.mtime_nsec(), after.nlink())
    );
    place.assert_outside_is_untouched();
    assert!(tree.content(&path("third")).is_err(), "a symlink is not read through");
}

#[test]
#[ignore = "needs root: sets owners"]
fn a_folder_that_turns_into_a_symlink_while_it_is_written_leads_nowhere() {
    let place = Place::new();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, tree, outside) = (stop.clone(), place.at("tree"), place.at("outside"));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = std::fs::rename(tree.join("a"), tree.join("aside"));
                let _ = symlink(&outside, tree.join("a"));
                let _ = std::fs::remove_file(tree.join("a"));
                let _ = std::fs::rename(tree.join("aside"), tree.join("a"));
            }
        })
    };
    for round in 0..300 {
        // Each may fail, for the folder comes and goes; none may reach what is outside.
        let mut tree = place.tree();
        let node = Node::File { size_bytes: 0 };
        let _ = tree.put(&path(&format!("a/new-{round}")), &node, &metadata(0o644), None);
        let _ = tree.put(&path("a"), &Node::Directory, &metadata(0o700), None);
        let _ = tree.remove(&path("a/kept"));
        let _ = tree.finish();
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the other thread");
    place.assert_outside_is_untouched();
}

#[test]
fn what_is_not_there_is_not_found() {
    let place = Place::new();
    let tree = place.tree();
    assert_eq!(tree.node(&path("a")).expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(tree.names(&path("a/b")).expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(
        tree.content(&path("a")).map(|_| ()).expect_err("missing").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        tree.content(&TreePath::root()).map(|_| ()).expect_err("a folder").kind(),
        ErrorKind::Usage
    );
    let missing = DirectoryTree::open(&place.at("no")).map(|_| ()).expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(DirectoryTree::open(&place.at("outside/kept")).is_err(), "a file is no tree");
}

/// Layers as tar archives, applied by umoci and by us. What differs between the two would be read off
/// this test's failure.
#[test]
#[ignore = "needs root, umoci and tar: unpacks an image"]
fn layers_come_out_as_umoci_unpacks_them() {
    let place = Place::new();
    let image = place.at("image");
    let reference = format!("{}:latest", text(&image));
    let umoci = |arguments: &[&str]| run("umoci", arguments);
    umoci(&["init", "--layout", text(&image)]);
    umoci(&["new", "--image", &reference]);

    // Layer 1: folders, a symlinked folder, files. Layer 2: through the symlink, over things.
    let first = place.at("first");
    std::fs::create_dir_all(first.join("usr/lib")).expect("mkdir");
    std::fs::create_dir_all(first.join("real")).expect("mkdir");
    std::fs::write(first.join("usr/lib/old"), b"old").expect("write");
    std::fs::write(first.join("real/below"), b"below").expect("write");
    std::fs::write(first.join("file"), b"file").expect("write");
    symlink("usr/lib", first.join("lib")).expect("symlink");
    symlink("/real", first.join("link")).expect("symlink");
    symlink("nowhere/yet", first.join("dangling")).expect("symlink");
    let tar = |from: &Path, name: &str, entries: &[&str]| {
        let archive = place.at(name);
        let fixed = [
            "--format=pax",
            "--numeric-owner",
            "--owner=7",
            "--group=8",
            "--mtime=@1500000000.25",
            "--no-recursion",
            "-C",
            text(from),
            "-cf",
            text(&archive),
        ];
        run("tar", &[&fixed[..], entries].concat());
        archive
    };
    let all = [
        ".",
        "usr",
        "usr/lib",
        "usr/lib/old",
        "real",
        "real/below",
        "file",
        "lib",
        "link",
        "dangling",
    ];
    let one = tar(&first, "one.tar", &all);

    let second = place.at("second");
    for folder in ["lib", "link", "dangling", "usr/lib", "file"] {
        std::fs::create_dir_all(second.join(folder)).expect("mkdir");
    }
    std::fs::write(second.join("lib/through"), b"lands in usr/lib").expect("write");
    std::fs::write(second.join("dangling/made"), b"makes what was missing").expect("write");
    std::fs::write(second.join("link/own"), b"the symlink was replaced").expect("write");
    std::fs::write(second.join("usr/lib/.wh.old"), b"").expect("write");
    std::fs::write(second.join("file/inside"), b"a folder over a file").expect("write");
    // No entry for lib and dangling: their symlinks stay. One for link: it becomes a folder.
    let two = tar(
        &second,
        "two.tar",
        &[
            "lib/through",
            "dangling/made",
            "link",
            "link/own",
            "usr/lib/.wh.old",
            "file",
            "file/inside",
        ],
    );
    for layer in [&one, &two] {
        umoci(&["raw", "add-layer", "--image", &reference, text(layer)]);
    }
    let bundle = place.at("bundle");
    umoci(&["unpack", "--image", &reference, text(&bundle)]);

    let mut tree = place.tree();
    let layer = thinstore_filesystem::Metadata {
        uid: 7,
        gid: 8,
        modified: thinstore_filesystem::Timestamp {
            seconds: 1_500_000_000,
            nanoseconds: 250_000_000,
        },
        ..metadata(0)
    };
    let put = |tree: &mut DirectoryTree, from: &Path, name: &str| {
        let source = from.join(name);
        let stat = std::fs::symlink_metadata(&source).expect("stat");
        let metadata =
            thinstore_filesystem::Metadata { mode: stat.mode() & 0o7777, ..layer.clone() };
        let at = path(name);
        if stat.is_dir() {
            tree.put(&at, &Node::Directory, &metadata, None).expect(name);
        } else if stat.is_symlink() {
            let target = std::fs::read_link(&source).expect("read");
            let target = target.to_str().expect("text").as_bytes().to_vec();
            tree.put(&at, &Node::Symlink { target }, &metadata, None).expect(name);
        } else {
            let data = std::fs::read(&source).expect("read");
            let node = Node::File { size_bytes: data.len() as u64 };
            tree.put(&at, &node, &metadata, Some(&mut Parts(vec![(0, data)]))).expect(name);
        }
    };
    for name in all {
        put(&mut tree, &first, name);
    }
    for name in ["lib/through", "dangling/made", "link", "link/own"] {
        put(&mut tree, &second, name);
    }
    tree.remove(&path("usr/lib/old")).expect("whiteout");
    for name in ["file", "file/inside"] {
        put(&mut tree, &second, name);
    }
    tree.finish().expect("finish");
    let unpacked = DirectoryTree::open(&bundle.join("rootfs")).expect("open");
    // Parents that no layer names get the time of the unpacking from umoci, and 0 from us; and what
    // they were made in is changed by that for umoci.
    for made in [
        "tree",
        "bundle/rootfs",
        "tree/nowhere",
        "tree/nowhere/yet",
        "bundle/rootfs/nowhere",
        "bundle/rootfs/nowhere/yet",
    ] {
        let status = Command::new("touch").args(["-h", "-d", "@5"]).arg(place.at(made)).status();
        assert!(status.expect("touch").success());
    }
    assert_same_manifest(&manifest_of(&tree), &manifest_of(&unpacked), "as umoci unpacks");
}

#[test]
#[ignore = "needs root: sets owners"]
fn an_empty_folder_that_is_made_anew_is_as_it_was_and_others_stay() {
    let place = Place::new();
    let mut tree = place.tree();
    for folder in ["above", "above/empty", "above/full"] {
        let metadata = Metadata { mode: 0o2751, uid: 3, gid: 4, ..Metadata::default() };
        tree.put(&path(folder), &Node::Directory, &metadata, None).expect("put");
    }
    put_file(&mut tree, "above/full/file", b"kept");
    put_file(&mut tree, "above/empty/file", b"goes");
    tree.finish().expect("finish");
    let state = |name: &str| {
        let found = std::fs::metadata(place.at(name)).expect("stat");
        (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec())
    };
    let number = |name: &str| std::fs::metadata(place.at(name)).expect("stat").ino();
    let (before, above) = (state("tree/above/empty"), state("tree/above"));
    let full = number("tree/above/full");
    // what is there already keeps its number, so that the new one has another
    let held = std::fs::File::open(place.at("tree/above/empty")).expect("open");
    let mut tree = place.tree();
    tree.clear(&path("above/empty")).expect("clear");
    for name in ["above/empty", "above/full", "above/full/file", "missing", ""] {
        tree.renew_empty_folder(&path(name)).expect("made anew, or left alone");
    }
    tree.finish().expect("finish");
    assert_ne!(number("tree/above/empty"), held.metadata().expect("stat").ino());
    assert_eq!((state("tree/above/empty"), state("tree/above")), (before, above));
    assert_eq!(number("tree/above/full"), full);
    assert_eq!(std::fs::read(place.at("tree/above/full/file")).expect("read"), b"kept");
    // it came from below this writer as before
    tree.clear(&path("above")).expect("clear");
    assert!(!place.at("tree/above/empty").exists());
}
