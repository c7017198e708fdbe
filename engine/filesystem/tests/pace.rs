//! The pace of writing, beside tar: not a test of right or wrong, but of folders that would grow
//! quadratically. Prints its numbers with `--nocapture`.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use thinstore_filesystem::template::make_ext4;
use thinstore_filesystem::{
    DirectoryTree, Ext4Reader, Ext4Writer, Node, TreePath, TreeReader, TreeWriter, tree_hash,
};
use thinstore_storage::MemoryDevice;

/// Copies a tree; returns how many paths it has.
fn copy(from: &dyn TreeReader, to: &mut dyn TreeWriter) -> usize {
    let mut seen = std::collections::HashMap::new();
    let mut pending = vec![TreePath::root()];
    let mut count = 0;
    while let Some(at) = pending.pop() {
        count += 1;
        let (node, metadata) = from.node(&at).expect("node");
        if matches!(node, Node::Directory) {
            to.put(&at, &node, &metadata, None).expect("put");
            pending.extend(from.names(&at).expect("names").iter().rev().map(|name| at.join(name)));
            continue;
        }
        let (number, links) = from.identity(&at).expect("identity");
        if links > 1 {
            if let Some(first) = seen.get(&number) {
                to.hard_link(&at, first).expect("hard link");
                continue;
            }
            seen.insert(number, at.clone());
        }
        if matches!(node, Node::File { .. }) {
            let mut content = from.content(&at).expect("content");
            to.put(&at, &node, &metadata, Some(content.as_mut())).expect("put");
        } else {
            to.put(&at, &node, &metadata, None).expect("put");
        }
    }
    to.finish().expect("finish");
    count
}

fn time<T>(what: &str, work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    println!("{what}: {} ms", took.as_millis());
    (result, took)
}

#[test]
fn a_folder_of_many_names_takes_time_in_proportion() {
    let fill = |count: u32| {
        let image = Image::new(1 << 30);
        let mut writer = Ext4Writer::open(image.device()).expect("open");
        let (_, took) = time(&format!("{count} files in one folder"), || {
            for at in 0..count {
                put_file(&mut writer, &format!("many/name-{at}"), b"content");
            }
            writer.finish().expect("finish");
        });
        image.check();
        took
    };
    let (small, large) = (fill(5_000), fill(40_000));
    assert!(large < small * 8 * 4, "{small:?} for 5,000 and {large:?} for 40,000");
}

#[test]
fn a_fresh_file_system_takes_milliseconds() {
    for size_bytes in [64 << 20, 10 << 30, 1 << 40] {
        let device = MemoryDevice::new(size_bytes);
        let what = format!("a template of {} MiB", size_bytes >> 20);
        let (report, took) = time(&what, || make_ext4(&device, &IDENTITY).expect("make"));
        println!("  {report:?}");
        assert!(took < Duration::from_secs(5));
    }
}

/// THINSTORE_TREE names the tree to copy: a root file system. Without it /usr/share is taken.
#[test]
#[ignore = "needs root: mounts a loop device"]
fn a_tree_is_written_at_the_pace_of_tar() {
    let source = std::env::var("THINSTORE_TREE").unwrap_or_else(|_| "/usr/share".to_owned());
    let from = DirectoryTree::open(std::path::Path::new(&source)).expect("open the source");
    let (hash, _) =
        time("hashing the source (warms the cache)", || tree_hash(&from).expect("hash"));
    let (image, kernel, tar) = (Image::new(20 << 30), Image::new(20 << 30), Image::new(20 << 30));
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    let (count, user) = time("in user space", || copy(&from, &mut writer));
    println!("  {count} paths");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    let (copied, _) = time("hashing in user space", || tree_hash(&reader).expect("hash"));
    assert_eq!(copied, hash);
    let mounted = kernel.mount();
    let mut tree = DirectoryTree::open(&mounted.point).expect("open");
    time("by the kernel", || copy(&from, &mut tree));
    assert_eq!(tree_hash(&tree).expect("hash"), hash);
    let archive = image.folder.path().join("archive.tar");
    run("tar", &["--xattrs", "-C", &source, "-cf", text(&archive), "."]);
    let mounted = tar.mount();
    let (_, with_tar) = time("by tar -x and sync", || {
        run("tar", &["--xattrs", "-C", text(&mounted.point), "-xf", text(&archive)]);
        run("sync", &["-f", text(&mounted.point)]);
    });
    assert!(user < with_tar * 4, "{user:?} in user space, {with_tar:?} by tar");
}
