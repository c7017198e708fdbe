//! Every feature of tar that a container image may use.

use std::collections::BTreeMap;
use std::io::Write;

use thinstore_filesystem::{Node, Timestamp};

use crate::raw::{RawHeader, RawTar};
use crate::tree::MemoryTree;
use crate::{apply, file_of, refusal, tree_of};

#[test]
fn every_type_of_node_is_read() {
    let device = |kind, name: &[u8], major: &[u8], minor: &[u8]| {
        RawHeader::new(name, kind, 0).with(329, major).with(337, minor)
    };
    let bytes = RawTar::new()
        .folder("./")
        .folder("d/")
        .entry(RawHeader::new(b"d/f", b'0', 3).with(100, b"0004755\0"), b"abc")
        .entry(RawHeader::new(b"old", 0, 1), b"o")
        .entry(RawHeader::new(b"olddir/", 0, 0), b"")
        .entry(RawHeader::new(b"contiguous", b'7', 1), b"c")
        .symlink("s", "/etc/../../anything")
        .entry(device(b'3', b"c", b"0007777\0", b"3777777\0"), b"")
        .entry(device(b'4', b"b", b"0000010\0", b"0000021\0"), b"")
        .entry(RawHeader::new(b"p", b'6', 0), b"")
        .hard_link("h", "d/f")
        .end();
    let tree = tree_of(&bytes);
    assert_eq!(tree.get("d").0, Node::Directory);
    assert_eq!(tree.get("d/f").0, Node::File { size_bytes: 3 });
    assert_eq!(tree.get("d/f").1.mode, 0o4755);
    assert_eq!(tree.bytes("d/f"), b"abc");
    assert_eq!(tree.bytes("old"), b"o");
    assert_eq!(tree.get("olddir").0, Node::Directory);
    assert_eq!(tree.bytes("contiguous"), b"c");
    assert_eq!(tree.get("s").0, Node::Symlink { target: b"/etc/../../anything".to_vec() });
    assert_eq!(tree.get("c").0, Node::CharacterDevice { major: 4095, minor: 1_048_575 });
    assert_eq!(tree.get("b").0, Node::BlockDevice { major: 8, minor: 17 });
    assert_eq!(tree.get("p").0, Node::Fifo);
    assert!(tree.same_file("h", "d/f"));
}

#[test]
fn long_names_are_read_in_every_form() {
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let target = "t".repeat(300);
    let prefixed = RawHeader::new(b"name", b'0', 1).with(345, b"some/prefix");
    let star = RawHeader::new(b"star", b'0', 1)
        .with(345, b"short")
        .with(480, b"12345")
        .with(508, b"tar\0");
    // What stands in a GNU header where others have a prefix is no name.
    let gnu = RawHeader::new(b"gnu", b'0', 1).gnu().with(345, b"00000000000\0");
    let bytes = RawTar::new()
        .extension(b'L', format!("{long}-gnu\0").as_bytes())
        .extension(b'K', format!("{target}\0").as_bytes())
        .entry(RawHeader::new(b"cut", b'2', 0).link(b"cut"), b"")
        .pax(&[("path", format!("{long}-pax").as_bytes()), ("linkpath", target.as_bytes())])
        .entry(RawHeader::new(b"cut", b'2', 0).link(b"cut"), b"")
        .entry(prefixed, b"p")
        .entry(star, b"s")
        .entry(gnu, b"g")
        .end();
    let tree = tree_of(&bytes);
    for form in ["gnu", "pax"] {
        let node = tree.get(&format!("{long}-{form}")).0;
        assert_eq!(node, Node::Symlink { target: target.clone().into_bytes() });
    }
    assert_eq!(tree.bytes("some/prefix/name"), b"p");
    assert_eq!(tree.bytes("short/star"), b"s");
    assert_eq!(tree.bytes("gnu"), b"g");
}

#[test]
fn a_pax_path_wins_over_a_gnu_name_in_either_order() {
    let tree = tree_of(
        &RawTar::new()
            .extension(b'L', b"gnu1\0")
            .pax(&[("path", b"pax1")])
            .file("plain", b"")
            .pax(&[("path", b"pax2")])
            .extension(b'L', b"gnu2\0")
            .file("plain", b"")
            .end(),
    );
    assert_eq!(tree.paths(), ["", "pax1", "pax2"]);
}

#[test]
fn names_that_are_not_utf8_stay_as_they_are() {
    let bytes = RawTar::new()
        .entry(RawHeader::new(b"caf\xe9", b'0', 1), b"1")
        .pax(&[("path", b"\xff\xfe/\x80")])
        .entry(RawHeader::new(b"x", b'0', 1), b"2")
        .end();
    let tree = tree_of(&bytes);
    assert_eq!(tree.get_raw(b"caf\xe9").0, Node::File { size_bytes: 1 });
    assert_eq!(tree.get_raw(b"\xff\xfe/\x80").0, Node::File { size_bytes: 1 });
}

#[test]
fn large_ids_and_times_are_read_from_octal_base256_and_pax() {
    let base256 = |value: i64, width: usize| {
        let mut field = vec![if value < 0 { 0xff } else { 0 }; width];
        field[width - 8..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
        field
    };
    let wide = RawHeader::new(b"base256", b'0', 0)
        .with(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe])
        .with(116, &[0x80, 0, 0, 0, 0, 1, 0, 0])
        .with(136, &base256(-86_400, 12));
    let bytes = RawTar::new()
        .entry(wide, b"")
        .entry(RawHeader::new(b"octal", b'0', 0).with(108, b"7777777\0"), b"")
        .pax(&[("uid", b"3000000000"), ("gid", b"70000"), ("mtime", b"-1.5")])
        .file("pax", b"")
        .pax(&[("mtime", b"1700000000.123456789"), ("atime", b"1.5"), ("ctime", b"2")])
        .file("ns", b"")
        .pax(&[("mtime", b"5"), ("mtime", b"")])
        .entry(RawHeader::new(b"unset", b'0', 0).with(136, b"00000000011\0"), b"")
        .end();
    let tree = tree_of(&bytes);
    let metadata = tree.get("base256").1;
    assert_eq!((metadata.uid, metadata.gid), (4_294_967_294, 65_536));
    assert_eq!(metadata.modified, Timestamp { seconds: -86_400, nanoseconds: 0 });
    assert_eq!(tree.get("octal").1.uid, 0o7_777_777);
    let metadata = tree.get("pax").1;
    assert_eq!((metadata.uid, metadata.gid), (3_000_000_000, 70_000));
    assert_eq!(metadata.modified, Timestamp { seconds: -2, nanoseconds: 500_000_000 });
    let modified = tree.get("ns").1.modified;
    assert_eq!(modified, Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 });
    assert_eq!(tree.get("unset").1.modified.seconds, 9);
}

#[test]
fn extended_attributes_are_read_as_bytes_in_both_forms() {
    let capability = b"\x01\0\0\x02\0\x0a=\n\0\0\0\0\0\0\0\0\0\0\0\0";
    let bytes = RawTar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.empty", b""),
            ("LIBARCHIVE.xattr.user.a%3Db%20c", b"AAEC/w"),
            ("SCHILY.fflags", b"ignored"),
        ])
        .file("f", b"")
        .file("g", b"")
        .end();
    let tree = tree_of(&bytes);
    let expected: BTreeMap<Vec<u8>, Vec<u8>> = [
        (&b"security.capability"[..], &capability[..]),
        (b"user.a=b c", b"\0\x01\x02\xff"),
        (b"user.empty", b""),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_vec(), value.to_vec()))
    .collect();
    assert_eq!(tree.get("f").1.xattrs, expected);
    assert!(tree.get("g").1.xattrs.is_empty());
}

#[test]
fn acls_in_text_become_the_kernels_attributes_and_give_way_to_them() {
    let text = b"user::rw-,user:7:rwx,group::r--,mask::rw-,other::---";
    let kernel =
        b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x09\0\0\0\x04\0\x04\0\xff\xff\xff\xff\
                   \x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let bytes = RawTar::new()
        .pax(&[
            ("SCHILY.acl.access", text),
            ("SCHILY.acl.default", b"user::rwx,group::r-x,other::---"),
        ])
        .folder("d/")
        .pax(&[
            ("SCHILY.xattr.system.posix_acl_access", kernel),
            ("SCHILY.acl.access", b"user::rw-,user:lisa:rwx,group::r--,mask::rwx,other::---"),
        ])
        .file("f", b"")
        .end();
    let tree = tree_of(&bytes);
    let folder = tree.get("d").1;
    assert_eq!(folder.mode, 0o660);
    assert_eq!(folder.xattrs[&b"system.posix_acl_access"[..]].len(), 4 + 5 * 8);
    assert_eq!(folder.xattrs[&b"system.posix_acl_default"[..]].len(), 4 + 3 * 8);
    assert_eq!(tree.get("f").1.xattrs[&b"system.posix_acl_access"[..]], kernel);
    let by_name = RawTar::new()
        .pax(&[("SCHILY.acl.access", b"user::rw-,user:lisa:rwx,group::r--,mask::rwx,other::---")])
        .file("f", b"")
        .end();
    assert!(refusal(&by_name).contains("'lisa'"));
}

#[test]
fn global_headers_set_owner_and_time_and_are_otherwise_passed_over() {
    let bytes = RawTar::new()
        .extension(
            b'g',
            &crate::raw::pax(&[("comment", b"a commit"), ("mtime", b"7.5"), ("uid", b"9")]),
        )
        .file("a", b"")
        .pax(&[("mtime", b"8")])
        .file("b", b"")
        .file("c", b"")
        .end();
    let tree = tree_of(&bytes);
    assert_eq!(tree.get("a").1.modified, Timestamp { seconds: 7, nanoseconds: 500_000_000 });
    assert_eq!(tree.get("b").1.modified.seconds, 8);
    assert_eq!(tree.get("c").1.modified.seconds, 7);
    assert_eq!(tree.get("c").1.uid, 9);
    for key in ["path", "linkpath", "size", "SCHILY.xattr.user.a", "GNU.sparse.map"] {
        let bytes =
            RawTar::new().extension(b'g', &crate::raw::pax(&[(key, b"1")])).file("a", b"").end();
        assert!(refusal(&bytes).contains("global"), "{key}");
    }
}

/// Three pieces of data in a file of 5 GiB.
const PIECES: [(u64, &[u8]); 3] = [(0, b"first"), (1 << 20, b"second"), ((5 << 30) - 4, b"last")];
const SPARSE_SIZE: u64 = 5 << 30;

fn assert_sparse(tree: &MemoryTree, path: &str) {
    assert_eq!(tree.get(path).0, Node::File { size_bytes: SPARSE_SIZE }, "{path}");
    let expected: Vec<(u64, u64)> =
        PIECES.iter().map(|(offset, data)| (*offset, data.len() as u64)).collect();
    assert_eq!(tree.extents(path), expected, "{path}");
}

#[test]
fn sparse_files_are_read_in_all_four_forms() {
    let data: Vec<u8> = PIECES.iter().flat_map(|(_, data)| data.iter().copied()).collect();
    let list: Vec<String> =
        PIECES.iter().map(|(offset, data)| format!("{offset},{}", data.len())).collect();
    let list = list.join(",");
    let size = SPARSE_SIZE.to_string();

    let mut old = RawHeader::new(b"old", b'S', data.len() as u64).gnu();
    for (index, (offset, piece)) in PIECES.iter().enumerate() {
        old.set(386 + 24 * index, format!("{offset:011o}\0{:011o}\0", piece.len()).as_bytes());
    }
    old.set(483, format!("{SPARSE_SIZE:011o}\0").as_bytes());

    let mut map = b"3\n".to_vec();
    for (offset, piece) in PIECES {
        map.extend_from_slice(format!("{offset}\n{}\n", piece.len()).as_bytes());
    }
    map.resize(512, 0);
    map.extend_from_slice(&data);

    let mut records: Vec<(&str, Vec<u8>)> = vec![
        ("GNU.sparse.size", size.clone().into_bytes()),
        ("GNU.sparse.numblocks", b"3".to_vec()),
    ];
    for (offset, piece) in PIECES {
        records.push(("GNU.sparse.offset", offset.to_string().into_bytes()));
        records.push(("GNU.sparse.numbytes", piece.len().to_string().into_bytes()));
    }
    let records: Vec<(&str, &[u8])> =
        records.iter().map(|(key, value)| (*key, value.as_slice())).collect();

    let bytes = RawTar::new()
        .entry(old, &data)
        .pax(&records)
        .file("v00", &data)
        .pax(&[
            ("GNU.sparse.name", b"v01"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"3"),
            ("GNU.sparse.map", list.as_bytes()),
        ])
        .file("GNUSparseFile.1/v01", &data)
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .file("GNUSparseFile.1/v10", &map)
        .file("after", b"still in step")
        .end();
    let tree = tree_of(&bytes);
    for path in ["old", "v00", "v01", "v10"] {
        assert_sparse(&tree, path);
    }
    assert_eq!(tree.bytes("after"), b"still in step");
}

#[test]
fn an_old_sparse_file_with_many_pieces_continues_in_further_blocks() {
    let count = 100_u64;
    let mut header = RawHeader::new(b"many", b'S', count).gnu();
    let piece = |index: u64| format!("{:011o}\0{:011o}\0", index * 8192, 1);
    for index in 0..4 {
        header.set(386 + 24 * index as usize, piece(index).as_bytes());
    }
    header.set(482, b"\x01");
    header.set(483, format!("{:011o}\0", count * 8192).as_bytes());
    let mut tar = RawTar::new();
    tar.bytes.extend_from_slice(&header.sealed());
    let mut next = 4;
    while next < count {
        let mut block = [0; 512];
        for slot in 0..21 {
            if next < count {
                block[slot * 24..slot * 24 + 24].copy_from_slice(piece(next).as_bytes());
                next += 1;
            }
        }
        block[504] = u8::from(next < count);
        tar.bytes.extend_from_slice(&block);
    }
    tar.bytes.extend_from_slice(&vec![b'x'; count as usize]);
    let padded = tar.bytes.len().next_multiple_of(512);
    tar.bytes.resize(padded, 0);
    let tree = tree_of(&tar.file("after", b"a").end());
    assert_eq!(tree.extents("many").len(), 100);
    assert_eq!(tree.extents("many")[99], (99 * 8192, 1));
    assert_eq!(tree.bytes("after"), b"a");
}

#[test]
fn sizes_from_pax_and_base256_are_taken_and_later_entries_stay_in_step() {
    let content = vec![b'x'; 600];
    let header =
        RawHeader::new(b"b", b'0', 0).with(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x58]);
    let bytes = RawTar::new()
        .pax(&[("size", b"600")])
        .entry(RawHeader::new(b"a", b'0', 0), &content)
        .entry(header, &content)
        .file("c", b"end")
        .end();
    let tree = tree_of(&bytes);
    assert_eq!(tree.bytes("a"), content);
    assert_eq!(tree.bytes("b"), content);
    assert_eq!(tree.bytes("c"), b"end");
}

#[test]
fn links_and_folders_have_no_content_whatever_their_size_says() {
    let bytes = RawTar::new()
        .file("a", b"1")
        .entry(RawHeader::new(b"h", b'1', 77).link(b"a"), b"")
        .entry(RawHeader::new(b"d/", b'5', 77), b"")
        .entry(RawHeader::new(b"s", b'2', 77).link(b"a"), b"")
        .file("z", b"end")
        .end();
    assert_eq!(tree_of(&bytes).bytes("z"), b"end");
}

#[test]
#[ignore = "reads 4 GiB"]
fn a_file_above_4_gib_is_read_to_its_last_byte() {
    let size = (4_u64 << 30) + 5;
    let mut file = file_of(&RawTar::new().pax(&[("size", size.to_string().as_bytes())]).bytes);
    let mut header = RawHeader::new(b"big", b'0', 0);
    header.set(124, b"00000000000\0");
    let content_at = {
        file.write_all(&header.sealed()).unwrap();
        file.as_file().metadata().unwrap().len()
    };
    use std::os::unix::fs::FileExt;
    let end = (content_at + size).next_multiple_of(512);
    file.as_file().write_all_at(b"tail", content_at + size - 4).unwrap();
    file.as_file().write_all_at(&RawTar::new().file("after", b"a").end(), end).unwrap();
    let mut tree = MemoryTree::new();
    crate::apply_file(file.path(), &mut tree, &Default::default()).unwrap();
    assert_eq!(tree.get("big").0, Node::File { size_bytes: size });
    assert_eq!(tree.extents("big"), [(0, size)]);
    let blocks = &crate::tree::describe(&tree)[&crate::tree::tree_path("big")].blocks;
    assert_eq!(&blocks[&((size - 1) / 4096)][1..5], b"tail");
    assert_eq!(tree.bytes("after"), b"a");
}

#[test]
fn gzip_of_several_members_and_zstd_of_several_frames_are_read_whole() {
    let bytes = RawTar::new().file("a", &vec![b'a'; 3000]).file("b", b"b").end();
    let (head, tail) = bytes.split_at(1500);
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    let plain = tree_of(&bytes);
    for form in [
        gzip(&bytes),
        [gzip(head), gzip(tail)].concat(),
        zstd(&bytes),
        [zstd(head), zstd(tail)].concat(),
        [skippable.clone(), zstd(&bytes), skippable].concat(),
    ] {
        crate::tree::assert_same(&tree_of(&form), &plain);
    }
}

#[test]
fn other_compressions_are_named() {
    for (start, form) in
        [(&b"BZh91AY&SY"[..], "bzip2"), (b"\xfd7zXZ\0\0\0", "xz"), (b"\x04\x22\x4d\x18\0\0", "lz4")]
    {
        let error = apply(start, &mut MemoryTree::new()).unwrap_err();
        assert!(error.to_string().contains(form), "{error}");
    }
}
