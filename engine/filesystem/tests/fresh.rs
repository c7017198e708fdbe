//! Fresh file systems, seen by the tools and the kernel.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::os::unix::fs::MetadataExt;

use common::*;
use thinstore_filesystem::{Ext4Reader, Ext4Writer, TreePath, TreeReader, TreeWriter};

#[test]
fn every_size_is_clean_without_lost_and_found() {
    for mebibytes in [16, 17, 64, 127, 128, 129, 1000, 10_240, 100_000] {
        let image = Image::new(mebibytes << 20);
        image.check();
        let features = run("dumpe2fs", &["-h", text(&image.path)]);
        assert!(features.contains("metadata_csum") && features.contains("64bit"), "{features}");
        assert!(features.contains("Reserved block count:     0"), "{features}");
        let mut writer = Ext4Writer::open(image.device()).expect("open");
        put_file(&mut writer, "file", &vec![1; 1 << 20]);
        writer.finish().expect("finish");
        image.check();
    }
}

#[test]
#[ignore = "needs root: mounts a loop device"]
fn the_kernel_mounts_it_shows_an_empty_root_and_leaves_it_clean() {
    let image = Image::new(10 << 30);
    let before = std::fs::metadata(&image.path).expect("stat").blocks() * 512;
    {
        let mounted = image.mount();
        assert_eq!(std::fs::read_dir(&mounted.point).expect("read").count(), 0);
        let root = std::fs::metadata(&mounted.point).expect("stat");
        assert_eq!((root.mode() & 0o7777, root.uid(), root.mtime()), (0o755, 0, 0));
        std::fs::write(mounted.point.join("file"), b"x").expect("write");
        // Long enough for the kernel to begin with inode tables that it had to clear.
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    image.check();
    let after = std::fs::metadata(&image.path).expect("stat").blocks() * 512;
    assert!(after - before < 1 << 20, "a mount and one file took {} bytes", after - before);
    let reader = Ext4Reader::open(image.device()).expect("open");
    assert_eq!(reader.names(&TreePath::root()).expect("names"), [b"file".to_vec()]);
}

#[test]
fn a_file_system_that_was_grown_is_written_to_and_clean() {
    let image = Image::new(200 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    put_file(&mut writer, "before", &vec![1; 100 << 20]);
    writer.finish().expect("finish");
    let file = std::fs::File::options().write(true).open(&image.path).expect("open");
    file.set_len(9 << 30).expect("grow");
    run("resize2fs", &[text(&image.path)]);
    image.check();
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    put_file(&mut writer, "after", &vec![2; 300 << 20]);
    writer.remove(&path("before")).expect("remove");
    writer.finish().expect("finish");
    image.check();
}

#[test]
fn a_file_system_of_another_maker_is_written_to_and_clean() {
    let shapes: [&[&str]; 5] = [
        &[],
        &["-O", "^orphan_file,^flex_bg"],
        &["-O", "^orphan_file,^64bit,^resize_inode"],
        &["-O", "^orphan_file,sparse_super2", "-E", "num_backup_sb=2"],
        &["-O", "^orphan_file,^dir_index,^has_journal", "-N", "5000"],
    ];
    for shape in shapes {
        let image = Image::foreign(300 << 20, shape);
        let mut writer = Ext4Writer::open(image.device()).expect("open");
        for at in 0..2000 {
            put_file(&mut writer, &format!("folder/name-{at}"), &vec![1; at * 50]);
        }
        writer.remove(&path("lost+found")).expect("remove");
        writer.finish().expect("finish");
        image.check();
        let reader = Ext4Reader::open(image.device()).expect("open");
        assert_eq!(reader.names(&path("folder")).expect("names").len(), 2000, "{shape:?}");
        writer.remove(&path("folder")).expect("remove");
        writer.finish().expect("finish");
        image.check();
    }
}
