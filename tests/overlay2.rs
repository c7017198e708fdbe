//! Layers as Docker's overlay2 folders: mounted by the kernel's overlay they are the tree of the container,
//! and read back they are the image.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use thinstore_tests::command::{TIME_LIMIT, run_within};
use thinstore_tests::layout::rich_image;
use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore, Tree, run_tool};

/// Does something with the mounted container.
fn with_mounted<T>(store: &TempStore, container: &str, action: impl FnOnce(&Path) -> T) -> T {
    let point = store.new_folder("at-container");
    store.ok(&["mount", container, &point]);
    let result = action(Path::new(&point));
    store.ok(&["umount", container]);
    result
}

fn tree_of_image(store: &TempStore, image: &str) -> Tree {
    store.ok(&["snapshot", image, "reader"]);
    let tree = with_mounted(store, "reader", Tree::read);
    store.ok(&["rm", "reader"]);
    tree
}

/// The names of the layers' folders, the uppermost first, as their `link` and `lower` say.
fn folders_from_the_top(data_root: &Path) -> Vec<PathBuf> {
    let overlay = data_root.join("overlay2");
    let mut folders: Vec<(usize, PathBuf)> = fs::read_dir(&overlay)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap() != "l")
        .map(|path| {
            let lower = fs::read_to_string(path.join("lower")).unwrap_or_default();
            (lower.split(':').filter(|name| !name.is_empty()).count(), path)
        })
        .collect();
    folders.sort();
    folders.reverse();
    folders.into_iter().map(|(_, path)| path).collect()
}

/// Mounts the layers as Docker does, with short names relative to the folder, and reads the tree.
fn tree_of_overlay(store: &TempStore, data_root: &Path) -> Tree {
    let folders = folders_from_the_top(data_root);
    let top = &folders[0];
    let link = fs::read_to_string(top.join("link")).unwrap();
    let lower = fs::read_to_string(top.join("lower")).unwrap();
    let point = store.new_folder("at-overlay");
    let mut command = Command::new("mount");
    let options = format!("lowerdir=l/{link}:{lower}");
    command.args(["-t", "overlay", "overlay", "-o", &options, &point]);
    command.current_dir(data_root.join("overlay2"));
    run_within(command, TIME_LIMIT).assert_success();
    let tree = Tree::read(Path::new(&point));
    run_tool("umount", &[&point]);
    tree
}

fn import_rich_image(store: &TempStore) {
    let source = store.path("source");
    Layout::write(Path::new(&source), &rich_image());
    store.ok(&["import", &source, "--name", "image"]);
}

/// What a program in a container does that no layer of the image has done.
fn change_container(root: &Path) {
    let text = |name: &str| root.join(name).to_str().unwrap().to_owned();
    run_tool("mknod", &[&text("device"), "c", "1", "3"]);
    run_tool("mknod", &["-m", "640", &text("block"), "b", "7", "300"]);
    run_tool("setfattr", &["-n", "user.mine", "-v", "value", &text("etc/kept")]);
    fs::remove_dir_all(root.join("away-and-back")).unwrap();
    fs::create_dir(root.join("away-and-back")).unwrap();
    fs::write(root.join("away-and-back/third"), b"third").unwrap();
    fs::remove_file(root.join("bin/su")).unwrap();
    fs::hard_link(root.join("links/first"), root.join("links/fourth")).unwrap();
    fs::set_permissions(root.join("bin"), fs::Permissions::from_mode(0o1711)).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
}

#[test]
#[ignore = "needs root: devices, trusted attributes and mounts"]
fn overlay2_folders_mounted_are_the_tree_of_the_image_and_imported_the_same_image() {
    let store = TempStore::new();
    import_rich_image(&store);
    let expected = tree_of_image(&store, "image");
    assert!(expected.get("etc/emptied/new").is_some());
    assert!(expected.get("etc/emptied/one").is_none());
    let folder = PathBuf::from(store.path("exported"));
    store.ok(&["export", "image", "--overlay2", folder.to_str().unwrap()]);
    tree_of_overlay(&store, &folder).assert_same(&expected);

    store.ok(&["import", folder.to_str().unwrap(), "--name", "back"]);
    tree_of_image(&store, "back").assert_same(&expected);
    assert_eq!(store.rows(&["images"]).len(), 2);
    // What was read back is exported to the same folders, under the same names.
    let again = PathBuf::from(store.path("again"));
    store.ok(&["export", "back", "--overlay2", again.to_str().unwrap()]);
    let names = |root: &Path| -> BTreeSet<String> {
        let names = folders_from_the_top(root);
        names.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&again), names(&folder));
    // So it is the same layers, and they are there.
    let layers = store.layer_count();
    store.ok(&["import", again.to_str().unwrap(), "--name", "twice"]);
    assert_eq!(store.layer_count(), layers);
    store.finish();
}

#[test]
#[ignore = "needs root: devices, trusted attributes and mounts"]
fn what_a_container_changed_is_the_uppermost_overlay2_folder() {
    let store = TempStore::new();
    import_rich_image(&store);
    store.ok(&["snapshot", "image", "box"]);
    let folder = PathBuf::from(store.path("exported"));
    // An export of a container that is mounted and changes takes what is there at that moment.
    let expected = with_mounted(&store, "box", |root| {
        change_container(root);
        run_tool("sync", &["-f", root.to_str().unwrap()]);
        store.ok(&["export", "box", "--overlay2", folder.to_str().unwrap()]);
        Tree::read(root)
    });
    tree_of_overlay(&store, &folder).assert_same(&expected);
    let folders = folders_from_the_top(&folder);
    assert_eq!(folders.len(), 4);
    let top = folders[0].join("diff");
    assert!(!top.join("etc/deleted").exists());
    assert!(fs::metadata(top.join("bin/su")).unwrap().file_type().is_char_device());
    store.ok(&["import", folder.to_str().unwrap(), "--name", "back"]);
    tree_of_image(&store, "back").assert_same(&expected);
    store.finish();
}

#[test]
#[ignore = "needs root: devices and trusted attributes"]
fn overlay2_folders_are_laid_out_as_docker_lays_them_out() {
    let store = TempStore::new();
    import_rich_image(&store);
    let folder = PathBuf::from(store.path("exported"));
    store.ok(&["export", "image", "--overlay2", folder.to_str().unwrap()]);
    let folders = folders_from_the_top(&folder);
    assert_eq!(folders.len(), 3);
    let mut lower: Vec<String> = Vec::new();
    for (index, layer) in folders.iter().rev().enumerate() {
        let link = fs::read_to_string(layer.join("link")).unwrap();
        assert_eq!(link.len(), 26);
        assert!(link.bytes().all(|letter| matches!(letter, b'A'..=b'Z' | b'2'..=b'7')), "{link}");
        let id = layer.file_name().unwrap().to_str().unwrap();
        assert_eq!(id.len(), 64);
        let target = fs::read_link(folder.join("overlay2/l").join(&link)).unwrap();
        assert_eq!(target, Path::new("..").join(id).join("diff"));
        assert_eq!(fs::metadata(layer.join("committed")).unwrap().len(), 0);
        if index == 0 {
            assert!(!layer.join("lower").exists() && !layer.join("work").exists());
        } else {
            assert_eq!(fs::read_to_string(layer.join("lower")).unwrap(), lower.join(":"));
            assert!(layer.join("work").is_dir());
        }
        lower.insert(0, format!("l/{link}"));
    }
    let middle = folders[1].join("diff");
    let deleted = fs::symlink_metadata(middle.join("etc/deleted")).unwrap();
    assert!(deleted.file_type().is_char_device() && deleted.rdev() == 0);
    let emptied = middle.join("etc/emptied");
    let names: Vec<_> =
        fs::read_dir(&emptied).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, ["new"]);
    let arguments = ["--only-values", "-n", "trusted.overlay.opaque", emptied.to_str().unwrap()];
    assert_eq!(run_tool("getfattr", &arguments).stdout, b"y");
    let database = folder.join("image/overlay2/layerdb/sha256");
    assert_eq!(fs::read_dir(&database).unwrap().count(), 3);
    let parents = fs::read_dir(&database)
        .unwrap()
        .filter(|record| record.as_ref().unwrap().path().join("parent").exists());
    assert_eq!(parents.count(), 2);
    store.finish();
}

#[test]
#[ignore = "needs root: trusted attributes and mounts"]
fn a_hundred_and_twenty_eight_overlay2_folders_are_mounted_at_once() {
    let store = TempStore::new();
    let mut image = LayoutImage::new();
    for number in 0..128 {
        let mut layer = TarWriter::new()
            .file("changed", format!("{number}").as_bytes())
            .file(&format!("file-{number}"), b"here");
        if number % 3 == 2 {
            layer = layer.file(&format!(".wh.file-{}", number - 1), b"");
        }
        image = image.layer(layer.finish());
    }
    let source = store.path("source");
    Layout::write(Path::new(&source), &image);
    store.ok(&["import", &source, "--name", "deep"]);
    let expected = tree_of_image(&store, "deep");
    assert_eq!(expected.file_count(), 1 + 128 - 42);
    let folder = PathBuf::from(store.path("exported"));
    store.ok(&["export", "deep", "--overlay2", folder.to_str().unwrap()]);
    tree_of_overlay(&store, &folder).assert_same(&expected);
    store.ok(&["import", folder.to_str().unwrap(), "--name", "back"]);
    tree_of_image(&store, "back").assert_same(&expected);
    store.finish();
}

#[test]
#[ignore = "needs root: devices and trusted attributes"]
fn an_overlay2_folder_that_somebody_changed_is_refused() {
    let store = TempStore::new();
    import_rich_image(&store);
    let folder = PathBuf::from(store.path("exported"));
    let source = folder.to_str().unwrap();
    store.ok(&["export", "image", "--overlay2", source]);
    let contents = store.contents();
    let lowest = folders_from_the_top(&folder).pop().unwrap().join("diff");
    // Nothing of it may be in the store already, or nothing would be read.
    let other = TempStore::new();
    let refused = |names: &[&str]| {
        other.refused(&[1], &["import", source, "--name", "back"], names);
        assert!(other.names("images").is_empty() && other.layer_count() == 0);
    };
    fs::write(lowest.join("etc/kept"), b"tepk").unwrap();
    refused(&["etc/kept", "content"]);
    fs::write(lowest.join("etc/kept"), b"longer than it was").unwrap();
    refused(&["etc/kept", "size"]);
    fs::remove_file(lowest.join("etc/kept")).unwrap();
    refused(&["etc/kept"]);
    // A way out of the folder is none.
    std::os::unix::fs::symlink("/etc/passwd", lowest.join("etc/kept")).unwrap();
    refused(&["etc/kept"]);
    fs::remove_file(lowest.join("etc/kept")).unwrap();
    fs::write(lowest.join("etc/kept"), b"kept").unwrap();
    other.ok(&["import", source, "--name", "back"]);
    assert_eq!(store.contents(), contents);
    other.finish();
    store.finish();
}

#[test]
#[ignore = "needs root: devices and trusted attributes"]
fn an_export_to_overlay2_is_whole_or_not_there() {
    let store = TempStore::new();
    import_rich_image(&store);
    let taken = store.new_folder("taken");
    fs::write(Path::new(&taken).join("file"), b"mine").unwrap();
    store.refused(&[4], &["export", "image", "--overlay2", &taken], &["taken", "empty"]);
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);

    // A device that would mean a deletion there, and an attribute that is the overlay's own.
    store.ok(&["snapshot", "image", "box"]);
    let target = store.path("target");
    let listing = || fs::read_dir(store.folder()).unwrap().count();
    for (tool, arguments, name) in [
        ("mknod", &["PATH", "c", "0", "0"][..], "null-device"),
        ("setfattr", &["-n", "trusted.overlay.opaque", "-v", "y", "PATH"][..], "etc"),
    ] {
        with_mounted(&store, "box", |root| {
            let path = root.join(name).to_str().unwrap().to_owned();
            let arguments: Vec<&str> =
                arguments.iter().map(|word| if *word == "PATH" { &path } else { *word }).collect();
            run_tool(tool, &arguments);
        });
        let before = listing();
        store.refused(&[1, 2], &["export", "box", "--overlay2", &target], &[name]);
        assert_eq!(listing(), before, "something was left beside the target");
        with_mounted(&store, "box", |root| {
            if name == "null-device" {
                fs::remove_file(root.join(name)).unwrap();
            }
        });
    }
    store.refused(&[3], &["export", "nothing", "--overlay2", &target], &["nothing"]);
    assert!(!Path::new(&target).exists());
    // An empty folder may take it.
    fs::create_dir(&target).unwrap();
    store.ok(&["export", "image", "--overlay2", &target]);
    assert_eq!(folders_from_the_top(Path::new(&target)).len(), 3);
    store.finish();
}

#[test]
fn overlay2_folders_are_not_for_somebody_without_root() {
    let store = TempStore::with_size(Identity::Unprivileged, "4G");
    let target = store.path("target");
    store.refused(&[1], &["export", "image", "--overlay2", &target], &["root", "--oci"]);
    assert!(!Path::new(&target).exists());
    store.finish();
}
