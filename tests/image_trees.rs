//! What an imported image looks like: the same tree as umoci unpacks, to the last attribute, whichever
//! way it came in; and what a second image costs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use thinstore_tests::{Identity, Layout, LayoutImage, TarWriter, TempStore, Tree, images, layout};

/// The tree of a fresh container of `image`, as the kernel shows it when mounted.
fn mounted_tree(store: &TempStore, image: &str) -> Tree {
    let name = "reader";
    store.ok_as(Identity::Current, &["snapshot", image, name]);
    let point = store.new_folder("at-reader");
    store.ok_as(Identity::Current, &["mount", name, &point, "--read-only"]);
    let tree = Tree::read(Path::new(&point));
    store.ok_as(Identity::Current, &["umount", name]);
    store.assert_file_system_clean(name);
    store.ok_as(Identity::Current, &["rm", name]);
    tree
}

fn equals_umoci_through_the_kernel(source: &Path) {
    let store = TempStore::new();
    store.ok(&["import", source.to_str().unwrap(), "--name", "image"]);
    let unpacked = images::umoci_unpack(source);
    mounted_tree(&store, "image").assert_same(&Tree::read(&unpacked.root()));
    store.finish();
}

/// The import runs as somebody without privileges; root then mounts what came of it.
fn equals_umoci_without_root(source: &Path) {
    let store = TempStore::unprivileged();
    let copy = images::copy_for_everyone(source, store.folder());
    store.ok(&["import", copy.to_str().unwrap(), "--name", "image"]);
    let unpacked = images::umoci_unpack(source);
    mounted_tree(&store, "image").assert_same(&Tree::read(&unpacked.root()));
    store.finish();
}

#[test]
#[ignore = "needs root: imports through the kernel and mounts"]
fn debian_imported_through_the_kernel_is_the_tree_that_umoci_unpacks() {
    let source = images::debian();
    let unpacked = images::umoci_unpack(&source);
    let tree = Tree::read(&unpacked.root());
    assert!(tree.file_count() > 10_000, "{} files", tree.file_count());
    assert!(layout::layer_digests(&source).len() >= 4);
    drop(unpacked);
    equals_umoci_through_the_kernel(&source);
}

#[test]
#[ignore = "needs root: imports through the kernel and mounts"]
fn busybox_imported_through_the_kernel_is_the_tree_that_umoci_unpacks() {
    equals_umoci_through_the_kernel(&images::busybox());
}

#[test]
#[ignore = "needs root: mounts what was imported without root"]
fn debian_imported_without_root_is_the_tree_that_umoci_unpacks() {
    equals_umoci_without_root(&images::debian());
}

#[test]
#[ignore = "needs root: mounts what was imported without root"]
fn busybox_imported_without_root_is_the_tree_that_umoci_unpacks() {
    equals_umoci_without_root(&images::busybox());
}

/// Layers whose entries need care: an opaque mark that comes after the entries it must not hide, a
/// whiteout of what the same layer adds, types that change, entries below symlinks.
fn awkward_image() -> LayoutImage {
    let lower = TarWriter::new()
        .directory(".")
        .directory("usr")
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .file("usr/lib/old", b"old")
        .directory("hidden")
        .file("hidden/below", b"below")
        .directory("folder-to-file")
        .file("folder-to-file/inside", b"inside")
        .file("file-to-folder", b"file")
        .symlink("link-to-folder", "usr")
        .directory("empty-after")
        .file("empty-after/one", b"1")
        .file("twice", b"first")
        .hard_link("twice-linked", "twice")
        .finish();
    let upper = TarWriter::new()
        .directory("hidden")
        .file("hidden/above", b"above")
        .file("hidden/.wh..wh..opq", b"")
        .file("folder-to-file", b"a file now")
        .directory("file-to-folder")
        .file("file-to-folder/inside", b"inside")
        .directory("link-to-folder")
        .file("link-to-folder/inside", b"inside")
        .file("empty-after/.wh.one", b"")
        .file("lib/new", b"through a symlink")
        .file("twice", b"second")
        .directory("made")
        .file("made/missing/parents/file", b"deep")
        .file(".wh.nothing-of-this-name", b"")
        .finish();
    LayoutImage::new().layer(lower).layer(upper)
}

#[test]
#[ignore = "needs root: umoci unpacks, the kernel mounts"]
fn awkward_layers_become_the_tree_that_umoci_unpacks() {
    let folder = tempfile::tempdir().unwrap();
    Layout::write(folder.path(), &awkward_image());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Parents that no layer names get the time of the unpacking, which nobody can foresee; and so does
    // the folder they were made in.
    let comparable = |tree: Tree| tree.without("made");
    let unpacked = images::umoci_unpack(folder.path());
    let expected = comparable(Tree::read(&unpacked.root()));
    for identity in [Identity::Current, Identity::Unprivileged] {
        let store = TempStore::with_size(identity, "20G");
        let copy = images::copy_for_everyone(folder.path(), store.folder());
        store.ok(&["import", copy.to_str().unwrap(), "--name", "image"]);
        let tree = mounted_tree(&store, "image");
        assert!(tree.get("made/missing/parents/file").is_some());
        comparable(tree).assert_same(&expected);
        store.finish();
    }
}

#[test]
#[ignore = "needs root: mounts"]
fn every_form_of_an_image_gives_the_same_tree_and_shares_the_same_layers() {
    let store = TempStore::new();
    let source = images::busybox();
    store.ok(&["import", source.to_str().unwrap(), "--name", "layout"]);
    let tree = mounted_tree(&store, "layout");
    let layers = store.layer_count();
    for (name, archive) in [
        ("oci-archive", images::busybox_oci_archive()),
        ("docker-archive", images::busybox_docker_archive()),
    ] {
        store.ok(&["import", archive.to_str().unwrap(), "--name", name]);
        assert_eq!(store.layer_count(), layers, "{name} brought layers that were there");
        mounted_tree(&store, name).assert_same(&tree);
    }
    // From standard input.
    let mut command = store.command(&["import", "-", "--name", "from-stdin"]);
    command.stdin(fs::File::open(images::busybox_docker_archive()).unwrap());
    thinstore_tests::command::Running::start(command)
        .wait(thinstore_tests::command::TIME_LIMIT)
        .assert_success();
    assert_eq!(store.layer_count(), layers);
    mounted_tree(&store, "from-stdin").assert_same(&tree);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts"]
fn a_root_file_system_as_tar_or_folder_gives_the_tree_it_holds() {
    let store = TempStore::new();
    let unpacked = images::umoci_unpack(&images::busybox());
    let root = unpacked.root();
    let expected = Tree::read(&root);
    let plain = store.path("root.tar");
    thinstore_tests::run_tool(
        "tar",
        &[
            "--create",
            "--format=posix",
            "--numeric-owner",
            "--sparse",
            "--xattrs",
            "--xattrs-include=*",
            "-f",
            &plain,
            "-C",
            root.to_str().unwrap(),
            ".",
        ],
    );
    thinstore_tests::run_tool("gzip", &["--keep", &plain]);
    thinstore_tests::run_tool("zstd", &["--quiet", "--keep", &plain]);
    let sources = [
        ("plain", plain.clone()),
        ("gzip", format!("{plain}.gz")),
        ("zstd", format!("{plain}.zst")),
        ("folder", root.to_str().unwrap().to_owned()),
    ];
    for (name, source) in sources {
        store.ok(&["import", &source, "--name", name]);
        mounted_tree(&store, name).assert_same(&expected);
    }
    store.finish();
}

#[test]
#[ignore = "needs root: GNU tar restores owners and devices"]
fn an_exported_container_extracts_to_the_tree_it_was() {
    let store = TempStore::new();
    store.ok(&["import", images::debian().to_str().unwrap(), "--name", "image"]);
    let expected = mounted_tree(&store, "image");
    store.ok(&["snapshot", "image", "box"]);
    let tar = store.path("box.tar");
    store.ok(&["export", "box", "-o", &tar]);
    // What the program writes, the program reads.
    store.ok(&["import", &tar, "--name", "again"]);
    mounted_tree(&store, "again").assert_same(&expected);
    // And so does GNU tar.
    let out = store.new_folder("extracted");
    thinstore_tests::run_tool(
        "tar",
        &[
            "--extract",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--same-owner",
            "-p",
            "-f",
            &tar,
            "-C",
            &out,
        ],
    );
    Tree::read(Path::new(&out)).assert_same(&expected);
    store.ok(&["rm", "box"]);
    store.finish();
}

#[test]
#[ignore = "needs root: mounts"]
fn an_exported_oci_archive_imports_to_the_same_tree_with_its_layers() {
    let store = TempStore::new();
    store.ok(&["import", images::busybox().to_str().unwrap(), "--name", "image"]);
    let expected = mounted_tree(&store, "image");
    let layers = store.layer_count();
    let archive = store.path("image.oci.tar");
    store.ok(&["export", "image", "--oci", "-o", &archive]);
    let other = TempStore::new();
    other.ok(&["import", &archive, "--name", "image"]);
    assert_eq!(other.layer_count(), layers);
    mounted_tree(&other, "image").assert_same(&expected);
    other.finish();
    store.finish();
}

#[test]
fn a_second_image_costs_only_the_layer_that_differs() {
    let store = TempStore::unprivileged();
    let first = images::copy_for_everyone(&images::busybox(), store.folder());
    store.ok(&["import", first.to_str().unwrap(), "--name", "first"]);
    let before = store.contents();
    store.ok(&["import", first.to_str().unwrap(), "--name", "again"]);
    let after = store.contents();
    assert_eq!(after.layers, before.layers);
    // A name and the image's configuration, no more.
    assert!(after.pool_used_bytes <= before.pool_used_bytes + (64 << 10));
    store.ok(&["rmi", "again"]);
    assert_eq!(store.contents(), before);
    store.finish();
}

#[test]
#[ignore = "needs root: the debian images are made as root"]
fn debian_variant_costs_only_its_fourth_layer() {
    let (first, second) = (images::debian(), images::debian_variant());
    let (below, above) = (layout::layer_digests(&first), layout::layer_digests(&second));
    assert_eq!(below[..3], above[..3], "the images share three layers");
    assert_ne!(below[3], above[3]);

    let store = TempStore::new();
    store.ok(&["import", second.to_str().unwrap(), "--name", "variant"]);
    let alone = store.pool_used_bytes();
    let own_bytes = |name: &str| {
        let layers = store.rows(&["layers"]);
        let layer = layers.into_iter().find(|layer| layer["depth"].as_u64() == Some(3));
        layer.unwrap_or_else(|| panic!("no fourth layer of {name}"))["own_bytes"].as_u64().unwrap()
    };
    let fourth = own_bytes("variant");
    store.ok(&["import", first.to_str().unwrap(), "--name", "debian"]);
    assert_eq!(store.layer_count(), 5);
    let both = store.contents();
    let cost = both.pool_used_bytes - alone;
    // The two fourth layers are of one kind and size; the image's document comes on top.
    assert!(cost <= 4 * fourth + (256 << 10), "{cost} bytes, the variant's own layer has {fourth}");
    assert!(cost * 20 < alone, "{cost} bytes beside {alone}");

    store.ok(&["rmi", "debian"]);
    assert_eq!(store.layer_count(), 4);
    assert_eq!(store.pool_used_bytes(), alone);
    store.finish();
}
