//! The changes between two trees, as `docker diff` tells them.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::*;
use thinstore_filesystem::{
    DirectoryTree, Ext4Reader, Ext4Writer, Metadata, Node, Timestamp, TreeReader, TreeWriter,
    difference,
};

fn base(tree: &mut dyn TreeWriter) {
    for folder in ["etc", "etc/deep", "var/log", "gone/with/children", "usr/kept"] {
        put_folder(tree, folder);
    }
    for file in ["etc/a", "etc/b", "etc/deep/file", "gone/with/children/x", "usr/kept/file", "same"]
    {
        put_file(tree, file, file.as_bytes());
    }
    put_symlink(tree, "link", "etc");
}

fn changed(tree: &mut dyn TreeWriter) {
    put_file(tree, "etc/a", b"other");
    put_file(tree, "etc/same-length", b"x");
    tree.remove(&path("gone")).expect("remove");
    put_file(tree, "var/log/new/deep", b"1");
    put_file(tree, "link", b"a file now");
    put_folder(tree, "etc/b");
    put_file(tree, "etc/b/inside", b"x");
    put_file(tree, "usr-early", b"sorts before usr/kept");
    // Only the time of a folder changes, which is none of docker's changes.
    let time = Timestamp { seconds: 5, nanoseconds: 0 };
    let later = Metadata { modified: time, ..metadata(0o755) };
    tree.put(&path("usr"), &Node::Directory, &later, None).expect("put");
    let mode = Metadata { mode: 0o700, ..metadata(0) };
    tree.put(&path("etc/deep"), &Node::Directory, &mode, None).expect("put");
}

const WANTED: &str = "C /etc\nC /etc/a\nC /etc/b\nA /etc/b/inside\nC /etc/deep\nA /etc/same-length\n\
                      D /gone\nC /link\nA /usr-early\nC /var\nC /var/log\nA /var/log/new\n\
                      A /var/log/new/deep\n";

fn told(old: &dyn TreeReader, new: &dyn TreeReader) -> String {
    let changes = difference(old, new, None).expect("difference");
    changes.iter().map(|change| format!("{change}\n")).collect()
}

#[test]
fn changes_are_told_as_docker_tells_them() {
    let old = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(old.device()).expect("open");
    base(&mut writer);
    writer.finish().expect("finish");
    let new = old.copy();
    let mut writer = Ext4Writer::open(new.device()).expect("open");
    changed(&mut writer);
    writer.finish().expect("finish");
    let before = Ext4Reader::open(old.device()).expect("open");
    let after = Ext4Reader::open(new.device()).expect("open");
    assert_eq!(told(&before, &after), WANTED);
    assert_eq!(told(&before, &before), "");
    let back = told(&after, &before);
    assert!(back.contains("A /gone\nA /gone/with\nA /gone/with/children\n"), "{back}");
    assert!(back.contains("D /usr-early\n"), "{back}");
}

#[test]
fn content_is_read_only_where_nobody_knows_that_it_is_shared() {
    let image = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    base(&mut writer);
    writer.finish().expect("finish");
    // The same metadata and other bytes, as a write with the clock set back leaves them.
    let copy = image.copy();
    let reader = Ext4Reader::open(copy.device()).expect("open");
    let extents = reader.extents(&path("same")).expect("extents");
    assert_eq!(extents.len(), 1);
    use thinstore_storage::BlockDevice;
    copy.device().write(extents[0].device_offset_bytes, b"tame").expect("write");
    let old = Ext4Reader::open(image.device()).expect("open");
    let new = Ext4Reader::open(copy.device()).expect("open");
    assert_eq!(old.stamp(&path("same")).expect("stamp"), new.stamp(&path("same")).expect("stamp"));
    assert_eq!(told(&old, &new), "C /same\n");
    let mut asked = 0;
    let believed = difference(
        &old,
        &new,
        Some(Box::new(|_| {
            asked += 1;
            Ok(true)
        })),
    );
    assert_eq!(believed.expect("difference"), []);
    assert_eq!(asked, 6, "once for each file whose metadata is the same");
}

#[test]
#[ignore = "needs root: sets owners"]
fn a_folder_of_the_host_and_an_ext4_can_be_compared() {
    let image = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    base(&mut writer);
    writer.finish().expect("finish");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut tree = DirectoryTree::open(folder.path()).expect("open");
    tree.put(&path("."), &Node::Directory, &metadata(0o755), None).expect("root");
    base(&mut tree);
    tree.finish().expect("finish");
    let reader = Ext4Reader::open(image.device()).expect("open");
    assert_eq!(told(&tree, &reader), "");
    changed(&mut tree);
    tree.finish().expect("finish");
    assert_eq!(told(&reader, &tree), WANTED);
}
