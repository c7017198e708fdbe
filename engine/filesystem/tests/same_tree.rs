//! A tree written in user space is the tree that the kernel writes, and the kernel reads it so.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::*;
use thinstore_filesystem::{
    DirectoryTree, Ext4Reader, Ext4Writer, Metadata, Node, Timestamp, TreePath, TreeWriter,
    tree_hash,
};

fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

fn with(mut metadata: Metadata, xattrs: &[(&str, &[u8])]) -> Metadata {
    for (name, value) in xattrs {
        metadata.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
    }
    metadata
}

/// Everything that an image layer can hold, at once.
fn everything(tree: &mut dyn TreeWriter) {
    let none = u32::MAX;
    let mut random = Random(7);
    tree.put(&TreePath::root(), &Node::Directory, &metadata(0o755), None).expect("root");
    for folder in ["usr", "usr/lib", "etc", "var", "deep/er/and/deeper"] {
        put_folder(tree, folder);
    }
    put_symlink(tree, "lib", "usr/lib");
    put_symlink(tree, "absolute", "/usr/lib");
    put_symlink(tree, "long", &"x/".repeat(100));
    put_symlink(tree, "exactly59", &"y".repeat(59));
    put_symlink(tree, "exactly60", &"y".repeat(60));
    put_symlink(tree, "longest", &"z".repeat(4095));
    put_file(tree, "lib/through-a-symlink", b"lands in usr/lib");
    put_file(tree, "absolute/too", b"as well");
    put_file(tree, "implicit/parents/made", b"0755");
    put_file(tree, "empty", b"");
    put_file(tree, "one", b"1");
    put_file(tree, "block", &random.bytes(4096));
    put_file(tree, "large", &random.bytes(5 << 20));
    let sparse = Node::File { size_bytes: (4 << 30) + 17 };
    let mut content = Parts(vec![
        (100, random.bytes(50)),
        (4090, random.bytes(10_000)),
        (1 << 30, random.bytes(8192)),
        ((4 << 30) + 1, random.bytes(16)),
    ]);
    tree.put(&path("sparse"), &sparse, &metadata(0o600), Some(&mut content)).expect("sparse");
    let fragments = (0..3000u64).map(|at| (at * 8192, vec![at as u8 | 1; 4096])).collect();
    let node = Node::File { size_bytes: 3000 * 8192 };
    tree.put(&path("fragments"), &node, &metadata(0o600), Some(&mut Parts(fragments)))
        .expect("fragments");
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2755), ("sticky", 0o1777), ("none", 0)] {
        let data = &mut Parts(vec![(0, b"x".to_vec())]);
        let node = Node::File { size_bytes: 1 };
        tree.put(&path(name), &node, &metadata(mode), Some(data)).expect(name);
    }
    let owned = Metadata { uid: 70_000, gid: 4_000_000_000, ..metadata(0o4711) };
    let data = &mut Parts(vec![(0, b"x".to_vec())]);
    tree.put(&path("owned"), &Node::File { size_bytes: 1 }, &owned, Some(data)).expect("owned");
    for (name, seconds, nanoseconds) in [
        ("before-1970", -1_000_000_000, 1),
        ("before-1901", -9_000_000_000, 5),
        ("after-2038", 4_102_444_800, 999_999_999),
        ("after-2446", 99_000_000_000, 7),
        ("zero", 0, 0),
    ] {
        let time = Metadata { modified: Timestamp { seconds, nanoseconds }, ..metadata(0o644) };
        tree.put(&path(name), &Node::File { size_bytes: 0 }, &time, None).expect(name);
        let link = Node::Symlink { target: b"t".to_vec() };
        tree.put(&path(&format!("link-{name}")), &link, &time, None).expect(name);
        tree.put(&path(&format!("folder-{name}")), &Node::Directory, &time, None).expect(name);
        put_file(tree, &format!("folder-{name}/child"), b"changes no time");
    }
    for (major, minor) in [(1, 3), (255, 255), (259, 65_537), (4095, 1_048_575), (0, 0)] {
        let name = format!("character-{major}-{minor}");
        let node = Node::CharacterDevice { major, minor };
        tree.put(&path(&name), &node, &metadata(0o666), None).expect(&name);
        let name = format!("block-{major}-{minor}");
        let node = Node::BlockDevice { major, minor };
        tree.put(&path(&name), &node, &metadata(0o660), None).expect(&name);
    }
    tree.put(&path("fifo"), &Node::Fifo, &metadata(0o622), None).expect("fifo");
    tree.put(&path("socket"), &Node::Socket, &metadata(0o755), None).expect("socket");

    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let named =
        access_list(&[(1, 6, none), (2, 7, 1000), (4, 4, none), (16, 6, none), (32, 0, none)]);
    let plain = access_list(&[(1, 7, none), (4, 5, none), (32, 1, none)]);
    let attributes: &[(&str, Node, Metadata)] = &[
        (
            "capable",
            Node::File { size_bytes: 0 },
            with(metadata(0o755), &[("security.capability", &capability)]),
        ),
        (
            "attributed",
            Node::File { size_bytes: 0 },
            with(
                metadata(0o644),
                &[
                    ("user.a", b"1"),
                    ("user.empty", b""),
                    ("trusted.t", b"tt"),
                    ("user.large", &[7; 2000]),
                    ("user.other", &[8; 500]),
                ],
            ),
        ),
        (
            "listed",
            Node::File { size_bytes: 0 },
            with(metadata(0o4640), &[("system.posix_acl_access", &named)]),
        ),
        (
            "unlisted",
            Node::File { size_bytes: 0 },
            with(metadata(0o600), &[("system.posix_acl_access", &plain)]),
        ),
        (
            "default",
            Node::Directory,
            with(
                metadata(0o750),
                &[
                    ("system.posix_acl_access", &named),
                    ("system.posix_acl_default", &plain),
                    ("user.folder", b"x"),
                ],
            ),
        ),
        (
            "attributed-link",
            Node::Symlink { target: b"t".to_vec() },
            with(metadata(0o777), &[("trusted.link", b"x"), ("security.other", b"y")]),
        ),
        ("attributed-fifo", Node::Fifo, with(metadata(0o600), &[("trusted.fifo", &[9; 300])])),
        (
            "attributed-device",
            Node::CharacterDevice { major: 5, minor: 1 },
            with(metadata(0o600), &[("system.posix_acl_access", &named)]),
        ),
    ];
    for (name, node, metadata) in attributes {
        tree.put(&path(name), node, metadata, None).expect(name);
    }
    put_file(tree, "default/child-without-a-list", b"x");
    put_folder(tree, "default/folder-without-a-list");

    tree.hard_link(&path("etc/one-again"), &path("one")).expect("hard link");
    tree.hard_link(&path("a-third"), &path("etc/one-again")).expect("hard link");
    tree.hard_link(&path("link-to-a-link"), &path("lib")).expect("hard link");
    tree.hard_link(&path("lib/linked-device"), &path("character-1-3")).expect("hard link");
    tree.hard_link(&path("etc/one-again"), &path("one")).expect("the same again");

    let odd = TreePath::from_archive(b"etc/\xff\xfe not UTF-8 \n").expect("path");
    tree.put(&odd, &Node::File { size_bytes: 0 }, &metadata(0o644), None).expect("odd name");
    let longest = "n".repeat(255);
    put_file(tree, &longest, b"the longest name");
}

/// A second layer: replacing, removing, clearing.
fn changes(tree: &mut dyn TreeWriter) {
    put_folder(tree, "one");
    put_file(tree, "one/inside", b"where a file was");
    put_file(tree, "usr/lib/through-a-symlink", b"replaced");
    put_file(tree, "deep", b"where a folder was");
    tree.put(&path("default"), &Node::Directory, &metadata(0o700), None).expect("no list now");
    tree.put(&path("etc"), &Node::Directory, &metadata(0o1777), None).expect("kept");
    tree.remove(&path("large")).expect("remove");
    tree.remove(&path("large")).expect("remove again");
    tree.remove(&path("nothing/here")).expect("remove nothing");
    tree.remove(&path("lib/too")).expect("remove through a symlink");
    tree.remove(&path("fragments")).expect("remove");
    put_file(tree, "var/new/kept", b"kept");
    put_file(tree, "var/new/sub/kept", b"kept");
    tree.clear(&path("var")).expect("clear");
    put_file(tree, "implicit/parents/new", b"kept");
    tree.clear(&path("implicit")).expect("clear");
    tree.clear(&path("not/there")).expect("clear nothing");
    put_folder(tree, "absolute");
    put_file(tree, "absolute/own", b"a folder over a symlink");
    tree.hard_link(&path("sparse"), &path("block")).expect("over a file");
    put_file(tree, "block", b"the other name keeps the old content");
    for name in ["setuid", "capable", "attributed"] {
        put_file(tree, name, b"nothing of the old metadata is left");
    }
}

#[test]
fn what_is_written_in_user_space_is_clean_and_reads_back() {
    let image = Image::new(2 << 30);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    everything(&mut writer);
    writer.finish().expect("finish");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    let manifest = manifest_of(&reader);
    assert!(manifest.contains("/owned f 4711 70000 4000000000 1700000000.123456789 1 "));
    assert!(manifest.contains("/block-4095-1048575 b 0660 0 0 1700000000.123456789 4095:1048575"));
    drop(writer);
    let mut writer = Ext4Writer::open(image.device()).expect("open again");
    changes(&mut writer);
    writer.finish().expect("finish");
    image.check();
}

#[test]
#[ignore = "needs root: mounts a loop device"]
fn user_space_and_the_kernel_write_the_same_tree() {
    let (user, kernel) = (Image::new(2 << 30), Image::new(2 << 30));
    for (step, layer) in [everything, changes].into_iter().enumerate() {
        let mut writer = Ext4Writer::open(user.device()).expect("open");
        layer(&mut writer);
        writer.finish().expect("finish");
        user.check();
        let kernel_text = {
            let mounted = kernel.mount();
            let mut tree = DirectoryTree::open(&mounted.point).expect("open");
            layer(&mut tree);
            tree.finish().expect("finish");
            manifest_of(&tree)
        };
        kernel.check();
        let user_text = manifest_of(&Ext4Reader::open(user.device()).expect("open"));
        assert_same_manifest(&user_text, &kernel_text, &format!("layer {step}"));
        // Each route's file system, read the other way.
        let kernel_read = manifest_of(&Ext4Reader::open(kernel.device()).expect("open"));
        assert_same_manifest(&kernel_read, &kernel_text, "written by the kernel");
        let mounted = user.mount();
        let tree = DirectoryTree::open(&mounted.point).expect("open");
        assert_same_manifest(&manifest_of(&tree), &user_text, "read by the kernel");
        let reader = Ext4Reader::open(kernel.device()).expect("open");
        assert_eq!(tree_hash(&tree).expect("hash"), tree_hash(&reader).expect("hash"));
    }
    user.check();
}
