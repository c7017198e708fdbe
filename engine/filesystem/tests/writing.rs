//! Writing in user space: large folders, a full file system, crashed ones, and bad requests.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::*;
use thinstore_filesystem::{
    Ext4Reader, Ext4Writer, FileContent, Metadata, Node, TreePath, TreeReader, TreeWriter,
};
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

#[test]
fn a_folder_of_tens_of_thousands_of_names_is_indexed_and_clean() {
    let image = Image::new(1 << 30);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    // Long names make few names a block, and so two levels of the index.
    let name = |at: u32| format!("many/{at:06}-{}", "n".repeat(120));
    for at in 0..20_000 {
        put_file(&mut writer, &name(at), b"");
    }
    writer.finish().expect("finish");
    image.check();
    for at in (0..20_000).step_by(3) {
        writer.remove(&path(&name(at))).expect("remove");
    }
    for at in 20_000..21_000 {
        put_file(&mut writer, &name(at), b"");
    }
    writer.finish().expect("finish");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    assert_eq!(reader.names(&path("many")).expect("names").len(), 20_000 - 6667 + 1000);
    let text = run("debugfs", &["-R", "htree_dump /many", text(&image.path)]);
    assert!(text.contains("Indirect levels: 1"), "the index has two levels");
    writer.remove(&path("many")).expect("remove all");
    writer.finish().expect("finish");
    image.check();
}

#[test]
#[ignore = "needs root: mounts a loop device"]
fn the_kernel_finds_adds_and_removes_names_in_a_folder_that_was_indexed_here() {
    let image = Image::new(1 << 30);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    for at in 0..5000 {
        put_file(&mut writer, &format!("many/name-{at}"), b"");
    }
    writer.finish().expect("finish");
    {
        let mounted = image.mount();
        for at in 0..5000 {
            let file = mounted.point.join(format!("many/name-{at}"));
            assert!(file.exists(), "{at}");
            if at % 2 == 0 {
                std::fs::remove_file(file).expect("remove");
            }
        }
        for at in 5000..10_000 {
            std::fs::write(mounted.point.join(format!("many/name-{at}")), b"").expect("write");
        }
    }
    image.check();
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    for at in 10_000..15_000 {
        put_file(&mut writer, &format!("many/name-{at}"), b"");
    }
    for at in (1..5000).step_by(2) {
        writer.remove(&path(&format!("many/name-{at}"))).expect("remove");
    }
    writer.finish().expect("finish");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    assert_eq!(reader.names(&path("many")).expect("names").len(), 10_000);
}

#[test]
fn more_subfolders_than_a_link_count_holds_are_clean() {
    let image = Image::new(2 << 30);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    for at in 0..65_010 {
        put_folder(&mut writer, &format!("many/{at}"));
    }
    writer.finish().expect("finish");
    image.check();
    writer.remove(&path("many/7")).expect("remove");
    writer.finish().expect("finish");
    image.check();
}

#[test]
fn a_full_file_system_refuses_keeps_what_it_has_and_takes_more_after_a_removal() {
    let image = Image::new(32 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    let data = vec![7; 1 << 20];
    let mut count = 0;
    let error = loop {
        let mut content = Parts(vec![(0, data.clone())]);
        let node = Node::File { size_bytes: data.len() as u64 };
        let name = path(&format!("file-{count}"));
        match writer.put(&name, &node, &metadata(0o644), Some(&mut content)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(count > 20, "{count}");
    // The rest, in single blocks and empty files, until nothing goes any more.
    for at in 0.. {
        let mut content = Parts(vec![(0, vec![1; 4096])]);
        let node = Node::File { size_bytes: 4096 };
        let name = path(&format!("small-{at}"));
        if writer.put(&name, &node, &metadata(0o644), Some(&mut content)).is_err() {
            break;
        }
    }
    for at in 0..3000 {
        let name = path(&format!("folder-{at}"));
        if writer.put(&name, &Node::Directory, &metadata(0o755), None).is_err() {
            break;
        }
    }
    writer.finish().expect("finish");
    image.check();
    writer.remove(&path("file-0")).expect("remove");
    put_file(&mut writer, "again", &vec![3; 500_000]);
    writer.finish().expect("finish");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    let (node, _) = reader.node(&path("file-1")).expect("node");
    assert_eq!(node, Node::File { size_bytes: 1 << 20 });
}

/// Content that fails in the middle.
struct Failing(u32);

impl FileContent for Failing {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        self.0 += 1;
        if self.0 == 5 {
            return Err(Error::new(ErrorKind::Refused, "the archive is cut off"));
        }
        buffer.fill(5);
        // With holes, so that the file has several extents.
        Ok(Some((u64::from(self.0) * (1 << 20), buffer.len())))
    }
}

#[test]
fn content_that_fails_leaves_nothing_of_its_file() {
    let image = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    put_file(&mut writer, "kept", b"old");
    let free = writer.free();
    let node = Node::File { size_bytes: 1 << 30 };
    for name in ["new", "kept"] {
        let result = writer.put(&path(name), &node, &metadata(0o644), Some(&mut Failing(0)));
        assert_eq!(result.expect_err("fails").kind(), ErrorKind::Refused);
    }
    assert_eq!(writer.free(), free);
    writer.finish().expect("finish");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    assert_eq!(reader.names(&TreePath::root()).expect("names"), [b"kept".to_vec()]);
    assert_eq!(reader.node(&path("kept")).expect("node").0, Node::File { size_bytes: 3 });
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let image = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    put_file(&mut writer, "file", b"x");
    put_folder(&mut writer, "folder");
    put_symlink(&mut writer, "loop", "loop");
    writer.finish().expect("finish");
    let before = manifest_of(&Ext4Reader::open(image.device()).expect("open"));
    let root = TreePath::root();
    let file = Node::File { size_bytes: 0 };
    let mut large = metadata(0o644);
    large.xattrs.insert(b"user.large".to_vec(), vec![1; 5000]);
    let past = &mut Parts(vec![(10, vec![1; 10])]);
    let backwards = &mut Parts(vec![(10, vec![1; 10]), (5, vec![1; 2])]);
    let twenty = Node::File { size_bytes: 20 };
    let results = [
        writer.put(&root, &file, &metadata(0o644), None),
        writer.remove(&root),
        writer.hard_link(&root, &path("file")),
        writer.hard_link(&path("a"), &path("missing")),
        writer.hard_link(&path("a"), &path("folder")),
        writer.hard_link(&path("a"), &root),
        writer.put(&path("loop/x"), &file, &metadata(0o644), None),
        writer.put(&path("a"), &file, &large, None),
        writer.put(&path("folder"), &Node::Directory, &large, None),
        writer.put(&path("a"), &Node::File { size_bytes: 15 }, &metadata(0o644), Some(past)),
        writer.put(&path("a"), &twenty, &metadata(0o644), Some(backwards)),
        writer.put(&path("a"), &Node::File { size_bytes: 1 << 50 }, &metadata(0o644), None),
    ];
    for (at, result) in results.into_iter().enumerate() {
        assert_eq!(result.expect_err(&format!("request {at}")).kind(), ErrorKind::Refused);
    }
    writer.finish().expect("finish");
    image.check();
    let after = manifest_of(&Ext4Reader::open(image.device()).expect("open"));
    assert_same_manifest(&after, &before, "after bad requests");
}

#[test]
fn freed_blocks_go_back_to_the_device() {
    let image = Image::new(256 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    put_file(&mut writer, "large", &Random(3).bytes(20 << 20));
    writer.finish().expect("finish");
    let used = |image: &Image| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&image.path).expect("stat").blocks() * 512
    };
    assert!(used(&image) > 20 << 20);
    writer.remove(&path("large")).expect("remove");
    writer.finish().expect("finish");
    assert!(used(&image) < 1 << 20, "{}", used(&image));
    image.check();
}

#[test]
fn a_writer_that_did_not_finish_is_seen_by_the_next() {
    let image = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    put_file(&mut writer, "file", b"x");
    drop(writer);
    let error = Ext4Writer::open(image.device()).map(|_| ()).expect_err("cut off");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn what_is_no_ext4_is_refused() {
    for (size, fill) in [(4096, 0), (1 << 20, 0), (1 << 20, 0xff)] {
        let device = std::sync::Arc::new(thinstore_storage::MemoryDevice::new(size));
        device.write(0, &vec![fill; 4096]).expect("write");
        let error = Ext4Reader::open(device.clone()).map(|_| ()).expect_err("no ext4");
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(Ext4Writer::open(device).is_err());
    }
}

/// Copies the image of a mounted file system as a crash would leave it: what was synced is on it, in
/// the journal at least.
fn crashed_copy(image: &Image) -> Image {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("image");
    run("cp", &["--sparse=always", text(&image.path), text(&copy)]);
    Image { folder, path: copy }
}

#[test]
#[ignore = "needs root: mounts a loop device"]
fn a_crashed_file_system_is_read_as_its_journal_says_and_written_after_a_replay() {
    let image = Image::new(256 << 20);
    let crashed = {
        let mounted = image.mount();
        for at in 0..500 {
            let file = mounted.point.join(format!("file-{at}"));
            std::fs::write(&file, format!("content {at}")).expect("write");
        }
        std::fs::create_dir(mounted.point.join("folder")).expect("mkdir");
        std::fs::remove_file(mounted.point.join("file-7")).expect("remove");
        // An open file without a name: the next mount frees it.
        let open = std::fs::File::create(mounted.point.join("unnamed")).expect("create");
        open.set_len(1 << 20).expect("size");
        std::fs::remove_file(mounted.point.join("unnamed")).expect("remove");
        run("sync", &["-f", text(&mounted.point)]);
        crashed_copy(&image)
    };
    let before = std::fs::read(&crashed.path).expect("read");
    let reader = Ext4Reader::open(crashed.device()).expect("open a crashed file system");
    let names = reader.names(&TreePath::root()).expect("names");
    assert_eq!(names.len(), 500, "499 files and a folder");
    let mut buffer = [0; 100];
    let mut content = reader.content(&path("file-499")).expect("content");
    assert_eq!(content.next(&mut buffer).expect("read"), Some((0, 11)));
    assert_eq!(&buffer[..11], b"content 499");
    drop(content);
    let text_before = manifest_of(&reader);
    assert!(before == std::fs::read(&crashed.path).expect("read"), "a reader wrote");

    let mut writer = Ext4Writer::open(crashed.device()).expect("open for writing");
    put_file(&mut writer, "after", b"the crash");
    writer.remove(&path("after")).expect("remove");
    writer.finish().expect("finish");
    crashed.check();
    let text_after = manifest_of(&Ext4Reader::open(crashed.device()).expect("open"));
    assert_same_manifest(&text_after, &text_before, "after the replay");
    let mounted = crashed.mount();
    assert!(mounted.point.join("file-499").exists());
}

#[test]
fn a_second_implementation_reads_the_same_contents() {
    // It does not know meta_bg; so this also writes to a file system of another shape.
    let image = Image::foreign(256 << 20, &["-E", "lazy_itable_init=1"]);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    let mut random = Random(11);
    for at in 0..2000 {
        let length = usize::try_from(random.below(20_000)).expect("small");
        put_file(&mut writer, &format!("folder/{at}"), &random.bytes(length));
    }
    let fragments = (0..1000u64).map(|at| (at * 8192, vec![at as u8; 4096])).collect();
    let node = Node::File { size_bytes: 1000 * 8192 };
    let owner = Metadata { uid: 123_456, ..metadata(0o640) };
    writer.put(&path("fragments"), &node, &owner, Some(&mut Parts(fragments))).expect("put");
    put_symlink(&mut writer, "long", &"t/".repeat(150));
    writer.finish().expect("finish");
    image.check();

    let file = std::fs::File::open(&image.path).expect("open");
    let other = ext4_view::Ext4::load(Box::new(Source(file))).expect("load");
    let mut random = Random(11);
    for at in 0..2000 {
        let length = usize::try_from(random.below(20_000)).expect("small");
        let bytes = other.read(format!("/folder/{at}").as_str()).expect("read");
        assert!(bytes == random.bytes(length), "file {at}");
    }
    let bytes = other.read("/fragments").expect("read");
    assert_eq!(bytes.len(), 1000 * 8192);
    assert!(bytes.chunks(8192).enumerate().all(|(at, part)| {
        part[..4096].iter().all(|byte| *byte == at as u8) && part[4096..].iter().all(|b| *b == 0)
    }));
    assert_eq!(other.metadata("/fragments").expect("metadata").uid(), 123_456);
    let target = other.read_link("/long").expect("read the symlink");
    assert_eq!(<ext4_view::PathBuf as AsRef<[u8]>>::as_ref(&target).len(), 300);
}

struct Source(std::fs::File);

impl ext4_view::Ext4Read for Source {
    fn read(
        &mut self,
        start_byte: u64,
        target: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        use std::os::unix::fs::FileExt;
        Ok(self.0.read_exact_at(target, start_byte)?)
    }
}

#[test]
fn a_path_that_climbs_above_the_root_is_refused_and_one_that_stays_inside_is_not() {
    let image = Image::new(64 << 20);
    let mut writer = Ext4Writer::open(image.device()).expect("open");
    let mut link = |at: &str, target: &str| {
        let node = Node::Symlink { target: target.as_bytes().to_vec() };
        writer.put(&path(at), &node, &metadata(0o777), None).expect("symlink");
    };
    link("relative", "../outside");
    link("far", "../../../../../../etc");
    // Too long to stand in the inode.
    link("long", &"../".repeat(100));
    link("usr/up", "../run");
    link("usr/absolute", "/run");
    put_file(&mut writer, "file", b"inside");
    for name in ["relative", "far", "long"] {
        assert_climbing_is_refused(&mut writer, name);
    }
    put_file(&mut writer, "usr/up/one", b"one");
    put_file(&mut writer, "usr/absolute/two", b"two");
    writer.hard_link(&path("linked"), &path("usr/up/two")).expect("link");
    writer.finish().expect("finish");
    image.check();
    let reader = Ext4Reader::open(image.device()).expect("open");
    assert_eq!(reader.names(&path("run")).expect("names"), [b"one", b"two"]);
    let names = reader.names(&TreePath::root()).expect("names");
    assert!(!names.iter().any(|name| name == b"outside" || name == b"etc"));
}
