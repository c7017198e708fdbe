//! Archives that mean harm or are damaged: refused with a sentence that names the entry, and never a
//! panic.

use std::time::Instant;

use thinstore_archive::{Layer, Limits, apply_layer};
use thinstore_filesystem::{FileContent, Metadata, Node, TreePath, TreeWriter};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::random::Random;
use crate::raw::{RawHeader, RawTar, pax};
use crate::tree::{MemoryTree, describe};
use crate::{apply, apply_with, file_of, refusal, refused};

fn assert_names(bytes: &[u8], parts: &[&str]) {
    let message = refusal(bytes);
    for part in parts {
        assert!(message.contains(part), "'{message}' does not say '{part}'");
    }
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

#[test]
fn paths_out_of_the_tree_are_refused() {
    for name in ["/etc/passwd", "../up", "a/../../up", "a/..", "//x", "./../x"] {
        assert_names(&RawTar::new().file(name, b"").end(), &[&format!("'{name}'")]);
        assert_names(&RawTar::new().folder(&format!("{name}/")).end(), &[name]);
        let by_pax = RawTar::new().pax(&[("path", name.as_bytes())]).file("x", b"").end();
        assert_names(&by_pax, &[name]);
        let mark = format!("{name}/.wh.x");
        assert_names(&RawTar::new().file(&mark, b"").end(), &[&mark]);
    }
    assert_names(&RawTar::new().pax(&[("path", b"a\0b")]).file("x", b"").end(), &["NUL"]);
    assert_names(&RawTar::new().file("", b"").end(), &["no name"]);
}

#[test]
fn the_root_may_be_written_in_every_way_but_only_as_a_folder() {
    for name in ["./", "/", ".", "//", "././"] {
        let header = RawHeader::new(name.as_bytes(), b'5', 0).with(100, b"0000700\0");
        let bytes = RawTar::new().entry(header, b"").file("f", b"").end();
        let tree = crate::tree_of(&bytes);
        assert_eq!(tree.paths(), ["", "f"], "{name}");
        assert_eq!(tree.get("").1.mode, 0o700);
    }
    assert_names(&RawTar::new().symlink("./", "/tmp").end(), &["root"]);
    assert_names(&RawTar::new().symlink("/", "/tmp").end(), &["root"]);
    assert_names(&RawTar::new().file("a", b"").hard_link(".", "a").end(), &["root"]);
}

#[test]
fn hard_links_out_of_the_tree_are_refused() {
    for target in ["/etc/shadow", "../x", "a/../../x", "", ".", "h", ".wh.x", ".wh..wh.plnk/1.2"] {
        let bytes = RawTar::new().file("x", b"").hard_link("h", target).end();
        assert_names(&bytes, &["'h'", "hard link"]);
    }
}

#[test]
fn names_that_no_linux_file_system_holds_are_refused() {
    let long = "n".repeat(256);
    assert_names(&RawTar::new().pax(&[("path", long.as_bytes())]).file("x", b"").end(), &["255"]);
    let deep = vec!["d"; 2100].join("/");
    assert_names(&RawTar::new().pax(&[("path", deep.as_bytes())]).file("x", b"").end(), &["4095"]);
    let target = "t".repeat(4096);
    let bytes = RawTar::new().pax(&[("linkpath", target.as_bytes())]).symlink("s", "x").end();
    assert_names(&bytes, &["'s'", "target"]);
    assert_names(&RawTar::new().symlink("s", "").end(), &["'s'", "target"]);
}

#[test]
fn control_characters_of_names_do_not_reach_the_terminal() {
    assert_names(&RawTar::new().file("../\x1b[2J\n", b"").end(), &["\\u{1b}"]);
}

#[test]
fn unknown_types_are_refused() {
    for kind in [b'8', b'9', b'A', b'D', b'M', b'N', b'Z', 0xff] {
        assert_names(
            &RawTar::new().entry(RawHeader::new(b"x", kind, 0), b"").end(),
            &["'x'", "type"],
        );
    }
}

#[test]
fn impossible_numbers_are_refused() {
    let header = || RawHeader::new(b"x", b'0', 0);
    let negative = &[0xff; 12];
    let huge = &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for (broken, word) in [
        (header().with(124, negative), "size"),
        (header().with(124, huge), "declares"),
        (header().with(124, &[0xbf; 12]), "size"),
        (header().with(124, b"77777777777\0"), "truncated"),
        (header().with(124, b"0000000000z\0"), "size"),
        (header().with(108, &[0xff; 8]), "owner"),
        (header().with(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "owner"),
        (header().with(116, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "group"),
        (header().with(100, b"rwxr-xr\0"), "mode"),
        (header().with(136, b"yesterday\0\0\0"), "time"),
        (RawHeader::new(b"x", b'3', 0).with(329, b"0010000\0"), "device"),
        (RawHeader::new(b"x", b'4', 0).with(337, b"4000000\0"), "device"),
        (RawHeader::new(b"x/", b'0', 5), ""),
    ] {
        let bytes = RawTar::new().entry(broken, b"").end();
        let mut tree = MemoryTree::new();
        if let Err(error) = apply(&bytes, &mut tree) {
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(word), "{error} / {word}");
        } else {
            assert_eq!(word, "");
        }
    }
    for (key, value) in [
        ("size", "-1"),
        ("size", "99999999999999999999"),
        ("size", "1e3"),
        ("uid", "-1"),
        ("uid", "4294967296"),
        ("gid", "x"),
        ("mtime", "soon"),
    ] {
        let bytes = RawTar::new().pax(&[(key, value.as_bytes())]).file("x", b"").end();
        refusal(&bytes);
    }
}

#[test]
fn nonsense_sparse_files_are_refused() {
    let records: [&[(&str, &[u8])]; 9] = [
        &[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"0,5,3,5")],
        &[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"5,10")],
        &[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"5,9")],
        &[("GNU.sparse.map", b"0,10")],
        &[("GNU.sparse.size", b"100"), ("GNU.sparse.numbytes", b"10")],
        &[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")],
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")],
        &[("GNU.sparse.size", b"99999999999999999999999"), ("GNU.sparse.map", b"0,10")],
        &[("GNU.sparse.size", b"18446744073709551615"), ("GNU.sparse.map", b"0,10")],
    ];
    for records in records {
        let bytes = RawTar::new().pax(records).file("holes", b"0123456789").end();
        assert_names(&bytes, &["'holes'"]);
    }
    let not_gnu = RawTar::new().entry(RawHeader::new(b"holes", b'S', 0), b"").end();
    assert_names(&not_gnu, &["'holes'"]);
    let endless = RawHeader::new(b"holes", b'S', 0).gnu().with(482, b"\x01");
    let mut tar = RawTar::new().entry(endless, b"");
    for _ in 0..100 {
        let mut block = [0; 512];
        block[504] = 1;
        tar.bytes.extend_from_slice(&block);
    }
    assert_names(&tar.bytes, &["truncated"]);
}

#[test]
fn damaged_headers_are_refused() {
    let good = RawTar::new().file("a", b"x").file("b", b"y").end();
    let mut bad_checksum = good.clone();
    bad_checksum[1024 + 3] ^= 1;
    assert_names(&bad_checksum, &["checksum", "1024"]);
    let mut single_zero_block = RawTar::new().file("a", b"x").raw(&[0; 512]).file("b", b"y").end();
    assert_names(&single_zero_block, &["zeroes"]);
    single_zero_block.truncate(1024);
    assert_names(&single_zero_block, &["truncated"]);
    for body in [&b"5 a=b"[..], b"nonsense\n", b"0 a=b\n", b"20 a=b\n", b"\n"] {
        assert_names(
            &RawTar::new().extension(b'x', body).file("e", b"").end(),
            &["extended header"],
        );
    }
    assert_names(&RawTar::new().pax(&[("path", b"x")]).end(), &["extended header"]);
}

#[test]
fn bombs_are_stopped_at_their_limits() {
    let limits = Limits {
        max_entries: 10,
        max_extension_bytes: 1000,
        max_xattr_bytes: 100,
        max_sparse_pieces: 5,
        max_file_bytes: 1_000_000,
        max_uncompressed_bytes: 100_000,
        max_path_bytes: 50,
        ..Limits::default()
    };
    let refused_with = |tar: RawTar, part: &str| {
        let message = refused(apply_with(&tar.end(), &mut MemoryTree::new(), &limits));
        assert!(message.contains(part), "'{message}' does not say '{part}'");
    };
    let many =
        |count| (0..count).fold(RawTar::new(), |tar, index| tar.file(&format!("{index}"), b""));
    apply_with(&many(10).end(), &mut MemoryTree::new(), &limits).unwrap();
    refused_with(many(11), "more than 10 entries");
    // Extension headers count, so that they cannot go on for ever without an entry.
    refused_with((0..11).fold(RawTar::new(), |tar, _| tar.pax(&[("comment", b"x")])), "10 entries");
    refused_with(RawTar::new().extension(b'x', &pax(&[("comment", &[b'c'; 1000])])), "1000 bytes");
    refused_with(RawTar::new().extension(b'L', &[b'n'; 1001]), "1000 bytes");
    refused_with(RawTar::new().pax(&[("path", &[b'n'; 51])]).file("x", b""), "50 are allowed");
    refused_with(
        RawTar::new().pax(&[("SCHILY.xattr.user.a", &[0; 100])]).file("x", b""),
        "100 bytes",
    );
    refused_with(
        RawTar::new()
            .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,0,1,0,2,0,3,0,4,0,5,0")])
            .file("x", b""),
        "5 pieces",
    );
    refused_with(
        RawTar::new()
            .pax(&[("GNU.sparse.size", b"1000001"), ("GNU.sparse.map", b"0,1")])
            .file("x", b"1"),
        "1000000",
    );
    refused_with(RawTar::new().file("x", &vec![0; 60_000]).file("y", &vec![0; 60_000]), "declares");
    let name = [b'n'; 300];
    let record = [&b"SCHILY.xattr."[..], &name].concat();
    let record = String::from_utf8(record).unwrap();
    refused_with(RawTar::new().pax(&[(&record, b"")]).file("x", b""), "extended attribute");
}

#[test]
fn a_small_archive_that_expands_without_end_is_stopped_early() {
    let huge = vec![0; 8 << 20];
    let tar = RawTar::new().file("zeroes", &huge).end();
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..50 {
            encoder.write_all(&tar).unwrap();
        }
        encoder.finish().unwrap()
    };
    assert!(gzip.len() < 1 << 20);
    let limits = Limits { max_uncompressed_bytes: 20 << 20, ..Limits::default() };
    let begun = Instant::now();
    let message = refused(apply_with(&gzip, &mut MemoryTree::new(), &limits));
    assert!(message.contains("limit"), "{message}");
    assert!(begun.elapsed().as_secs() < 20);
}

/// A tar with something of everything.
fn rich_tar() -> Vec<u8> {
    RawTar::new()
        .folder("d/")
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"1\n2"), ("path", b"d/long-name")])
        .file("cut", b"content of more than nothing")
        .extension(b'L', b"d/gnu-name\0")
        .entry(RawHeader::new(b"cut", b'0', 700).gnu(), &[7; 700])
        .hard_link("h", "d/gnu-name")
        .symlink("s", "d")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"holes"),
            ("GNU.sparse.realsize", b"100000"),
        ])
        .file("x", &[&b"1\n50000\n4\n"[..], &[0; 502], b"data"].concat())
        .file(".wh.gone", b"")
        .entry(RawHeader::new(b"c", b'3', 0).with(329, b"0000001\0").with(337, b"0000003\0"), b"")
        .end()
}

#[test]
fn an_archive_cut_anywhere_is_refused_or_means_the_same() {
    let whole = rich_tar();
    let expected = describe(&crate::tree_of(&whole));
    let mut same = 0;
    for length in (0..whole.len()).step_by(512).chain((0..whole.len()).step_by(97)) {
        let mut tree = MemoryTree::new();
        match apply(&whole[..length], &mut tree) {
            Ok(_) => {
                assert!(describe(&tree) == expected, "cut at {length}");
                same += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "cut at {length}: {error}"),
        }
    }
    // Only the second closing block may be missing.
    assert!(same <= 2, "{same} cuts went unnoticed");
}

#[test]
fn an_archive_that_ends_inside_content_names_whose_content_it_is() {
    let tar = RawTar::new().file("whole", b"w").file("folder/cut", &[7; 1000]);
    let message = refusal(&tar.bytes[..2000]);
    assert!(message.contains("inside the content of the entry 'folder/cut'"), "{message}");
    assert_names(&RawTar::new().extension(b'L', &[b'n'; 600]).bytes[..700], &["content", "'"]);
}

/// A tree that has no room, and says so with or without the path.
struct FullTree {
    names_the_path: bool,
}

impl FullTree {
    fn full(&self, path: &TreePath) -> Result<()> {
        let what = match self.names_the_path {
            true => format!("cannot write '{path}': no room"),
            false => "the file system has no free inode".to_owned(),
        };
        Err(Error::new(ErrorKind::Full, what))
    }
}

impl TreeWriter for FullTree {
    fn put(
        &mut self,
        path: &TreePath,
        _node: &Node,
        _metadata: &Metadata,
        _content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        self.full(path)
    }

    fn hard_link(&mut self, path: &TreePath, _target: &TreePath) -> Result<()> {
        self.full(path)
    }

    fn remove(&mut self, path: &TreePath) -> Result<()> {
        self.full(path)
    }

    fn clear(&mut self, path: &TreePath) -> Result<()> {
        self.full(path)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn an_error_of_the_tree_keeps_its_kind_and_names_the_entry_once() {
    for (tar, name) in [
        (RawTar::new().file("folder/file", b"x"), "folder/file"),
        (RawTar::new().folder("folder/"), "folder"),
        (RawTar::new().symlink("link", "x"), "link"),
        (RawTar::new().file("folder/.wh.gone", b""), "folder/gone"),
        (RawTar::new().file("folder/.wh..wh..opq", b""), "folder"),
        (RawTar::new().hard_link("linked", "below"), "linked"),
    ] {
        let file = file_of(&tar.end());
        let layer = Layer::from_tar_file(file.path(), &Limits::default()).unwrap();
        for names_the_path in [false, true] {
            let mut tree = FullTree { names_the_path };
            let error = apply_layer(&mut layer.open(None).unwrap(), &mut tree).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            assert_eq!(error.to_string().matches(name).count(), 1, "{error}");
        }
    }
}

#[test]
fn a_compressed_archive_cut_anywhere_is_refused() {
    use std::io::Write;
    let whole = rich_tar();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&whole).unwrap();
    for form in [encoder.finish().unwrap(), zstd::encode_all(whole.as_slice(), 1).unwrap()] {
        for length in (0..form.len()).step_by(7) {
            let outcome = apply(&form[..length], &mut MemoryTree::new());
            refused(outcome);
        }
        let mut longer = form.clone();
        longer.extend_from_slice(b"trailing garbage");
        refused(apply(&longer, &mut MemoryTree::new()));
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let whole = rich_tar();
    let mut random = Random::new(7);
    let mut refusals = 0;
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.below(3) {
            let place = random.below(bytes.len());
            bytes[place] = random.next() as u8;
        }
        // Half of them with the checksum mended, or nothing behind it is ever reached.
        if random.below(2) == 0 {
            mend_checksums(&mut bytes);
        }
        match apply(&bytes, &mut MemoryTree::new()) {
            Ok(_) => {}
            Err(error) => {
                refusals += 1;
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::Refused | ErrorKind::Incompatible),
                    "{kind:?}: {error}"
                );
            }
        }
    }
    assert!(refusals > 500);
}

/// Sets the checksum of every block that has the mark of a header.
fn mend_checksums(bytes: &mut [u8]) {
    for block in bytes.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            *block = RawHeader(*block).sealed();
        }
    }
}

#[test]
fn flipped_bytes_of_compressed_archives_never_panic() {
    use std::io::Write;
    let whole = rich_tar();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&whole).unwrap();
    let forms = [encoder.finish().unwrap(), zstd::encode_all(whole.as_slice(), 1).unwrap()];
    let mut random = Random::new(8);
    for round in 0..1000 {
        let mut bytes = forms[round % 2].clone();
        let place = random.below(bytes.len());
        bytes[place] ^= 1 << random.below(8);
        let _ = apply(&bytes, &mut MemoryTree::new());
    }
}

#[test]
fn a_layer_that_changes_behind_our_back_is_refused_at_its_end() {
    let bytes = RawTar::new().file("a", b"before").end();
    let file = file_of(&bytes);
    let layer = Layer::from_tar_file(file.path(), &Limits::default()).unwrap();
    let changed = RawTar::new().file("a", b"after!").end();
    std::fs::write(file.path(), &changed).unwrap();
    let mut reader = layer.open(None).unwrap();
    while reader.next_item().unwrap().is_some() {}
    let message = refused(reader.finish());
    assert!(message.contains("digest"), "{message}");
    std::fs::write(file.path(), &changed[..600]).unwrap();
    let mut reader = layer.open(None).unwrap();
    let outcome = (|| {
        while reader.next_item()?.is_some() {}
        reader.finish()
    })();
    assert!(outcome.is_err());
}

#[test]
fn dropping_a_reader_early_ends_its_thread() {
    let bytes = RawTar::new().file("a", &vec![1; 20 << 20]).end();
    let file = file_of(&bytes);
    let layer = Layer::from_tar_file(file.path(), &Limits::default()).unwrap();
    for _ in 0..20 {
        let mut reader = layer.open(None).unwrap();
        reader.next_item().unwrap();
    }
    let threads = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "thinstore-layer")
        })
        .count();
    // Other tests run beside this one; each has one reader at a time.
    assert!(threads < 10, "{threads} threads are left");
}
