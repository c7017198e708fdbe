//! Tars whose entries are chosen by an input: good, bad, and everything between, behind checksums that
//! are right.

use crate::input::Input;

const UNIT: usize = 512;
const MOST_ENTRIES: usize = 40;
const MOST_CONTENT: u64 = 20_000;

const NAMES: [&str; 32] = [
    "a",
    "b",
    "c",
    "a/b",
    "a/b/c",
    "a/c",
    "b/a",
    "./",
    "./a/",
    "a/",
    "dir/sub/deep/file",
    "../x",
    "/abs",
    "a/../b",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh..wh..opq",
    ".wh.",
    "a/.wh.",
    ".wh..wh.plnk",
    "",
    ".",
    "..",
    "a//b",
    "a/./b",
    "link",
    "link/x",
    "link/../x",
    "loop",
    "loop/loop",
    "\u{1b}[31m",
];

const KEYS: [&str; 28] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "atime",
    "charset",
    "hdrcharset",
    "uname",
    "SCHILY.xattr.user.x",
    "SCHILY.xattr.user.y",
    "SCHILY.xattr.security.capability",
    "SCHILY.xattr.system.posix_acl_access",
    "SCHILY.acl.access",
    "SCHILY.acl.default",
    "SCHILY.devmajor",
    "SCHILY.realsize",
    "LIBARCHIVE.xattr.user.z",
    "LIBARCHIVE.xattr.%75ser",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.name",
    "GNU.sparse.realsize",
    "GNU.sparse.map",
    "GNU.sparse.offset",
    "GNU.sparse.numbytes",
    "GNU.sparse.numblocks",
];

const TYPES: [u8; 18] = [
    b'0', b'5', b'2', b'1', b'x', b'L', b'K', b'S', b'3', b'4', b'6', b'7', b'g', 0, b'V', b'M',
    b'D', b'X',
];

/// Brings the checksum of a header up to what it says.
pub(crate) fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn name(input: &mut Input<'_>) -> Vec<u8> {
    match input.u8() {
        choice @ 0..=159 => NAMES[usize::from(choice) % NAMES.len()].into(),
        160..=239 => {
            let count = usize::from(input.u8() % 24);
            input.take(count).to_vec()
        }
        240..=247 => vec![b'n'; usize::from(input.u16() % 5000)],
        _ => "d/".repeat(usize::from(input.u16() % 500)).into_bytes(),
    }
}

fn put(header: &mut [u8], at: usize, width: usize, bytes: &[u8]) {
    let count = bytes.len().min(width);
    header[at..at + count].copy_from_slice(&bytes[..count]);
}

/// A number in octal, or in base 256, or anything.
fn number(header: &mut [u8], at: usize, width: usize, value: u64, input: &mut Input<'_>) {
    match input.u8() % 16 {
        0 => {
            header[at] = 0x80;
            header[at + width - 8..at + width].copy_from_slice(&value.to_be_bytes());
        }
        1 => header[at..at + width].fill(0xff),
        2 => {
            let bytes = input.take(width);
            put(header, at, width, bytes);
        }
        _ => put(header, at, width, format!("{value:0width$o}", width = width - 1).as_bytes()),
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
    bytes
}

/// A PAX header's records.
fn records(input: &mut Input<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..1 + input.u8() % 8 {
        let key = match input.u8() {
            choice @ 0..=223 => KEYS[usize::from(choice) % KEYS.len()].into(),
            _ => name(input),
        };
        let value = match input.u8() % 6 {
            0 => input.number().to_string().into_bytes(),
            1 => format!("{},{},{},{}", input.u8(), input.u8(), input.u16(), input.number())
                .into_bytes(),
            2 => format!("-{}.{}", input.number(), input.number()).into_bytes(),
            3 => name(input),
            4 => b"user::rwx,user:1000:r-x,group::r--,mask::rwx,other::---".to_vec(),
            _ => {
                let count = usize::from(input.u8() % 40);
                input.take(count).to_vec()
            }
        };
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        if input.u8() == 255 {
            length = usize::from(input.u16());
        }
        all.extend(format!("{length} ").into_bytes());
        all.extend(key);
        all.push(b'=');
        all.extend(value);
        all.push(b'\n');
    }
    all
}

/// The map of a sparse file in PAX form 1.0, as text before its data.
fn sparse_text(input: &mut Input<'_>) -> Vec<u8> {
    let count = input.u8() % 6;
    let mut text = format!("{count}\n");
    for _ in 0..count {
        text.push_str(&format!("{}\n{}\n", input.number(), input.number()));
    }
    padded(text.into_bytes())
}

fn content(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    match kind {
        b'x' | b'g' | b'X' => records(input),
        b'L' | b'K' => {
            let mut name = name(input);
            name.push(0);
            name
        }
        b'5' | b'2' | b'1' | b'3' | b'4' | b'6' => Vec::new(),
        _ => match input.u8() % 8 {
            0 => sparse_text(input),
            1 => vec![b'z'; (input.number() % MOST_CONTENT) as usize],
            _ => {
                let count = usize::from(input.u8());
                input.take(count).to_vec()
            }
        },
    }
}

fn entry(input: &mut Input<'_>, tar: &mut Vec<u8>) {
    let kind = match input.u8() {
        choice @ 0..=247 => TYPES[usize::from(choice) % TYPES.len()],
        _ => input.u8(),
    };
    let mut header = vec![0; UNIT];
    put(&mut header, 0, 100, &name(input));
    let target = match kind {
        b'1' | b'2' => name(input),
        _ => Vec::new(),
    };
    put(&mut header, 157, 100, &target);
    let content = content(kind, input);
    let form = input.u8();
    let mode = if form & 1 == 0 { 0o755 } else { u64::from(input.u16()) };
    number(&mut header, 100, 8, mode, input);
    let owner = if form & 2 == 0 { 0 } else { input.number() };
    number(&mut header, 108, 8, owner, input);
    number(&mut header, 116, 8, owner, input);
    let size = if form & 4 == 0 { content.len() as u64 } else { input.number() };
    number(&mut header, 124, 12, size, input);
    let modified = if form & 8 == 0 { 1_700_000_000 } else { input.number() };
    number(&mut header, 136, 12, modified, input);
    header[156] = kind;
    let magic: &[u8] = match form / 16 % 4 {
        0 | 1 => b"ustar\x0000",
        2 => b"ustar  \0",
        _ => b"",
    };
    put(&mut header, 257, 8, magic);
    if matches!(kind, b'3' | b'4') {
        number(&mut header, 329, 8, input.number(), input);
        number(&mut header, 337, 8, input.number(), input);
    }
    let mut more = Vec::new();
    if kind == b'S' {
        for piece in 0..usize::from(input.u8() % 5) {
            number(&mut header, 386 + piece * 24, 12, input.number(), input);
            number(&mut header, 398 + piece * 24, 12, input.number(), input);
        }
        number(&mut header, 483, 12, input.number(), input);
        for extended in 0..usize::from(input.u8() % 3) {
            let at = if extended == 0 { 482 } else { 504 };
            if extended == 0 {
                header[at] = 1
            } else {
                more[at] = 1
            }
            let mut block = vec![0; UNIT];
            number(&mut block, 0, 12, input.number(), input);
            number(&mut block, 12, 12, input.number(), input);
            more.extend(block);
            if extended > 0 {
                break;
            }
        }
    } else if form & 64 != 0 {
        put(&mut header, 345, 155, &name(input));
    }
    seal(&mut header);
    tar.extend(header);
    tar.extend(more);
    tar.extend(padded(content));
}

/// A tar of the entries that an input chooses.
pub(crate) fn build(input: &mut Input<'_>) -> Vec<u8> {
    let mut tar = Vec::new();
    let ending = input.u8();
    for _ in 0..MOST_ENTRIES {
        if input.is_empty() {
            break;
        }
        entry(input, &mut tar);
    }
    match ending % 8 {
        0..=5 => tar.extend([0; 2 * UNIT]),
        6 => tar.extend([0; UNIT]),
        _ => tar.truncate(tar.len().saturating_sub(usize::from(ending))),
    }
    tar
}

/// One file for tars that stand inside images.
pub(crate) fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; UNIT];
    put(&mut header, 0, 100, name.as_bytes());
    put(&mut header, 100, 8, b"0000644\0");
    put(&mut header, 108, 8, b"0000000\0");
    put(&mut header, 116, 8, b"0000000\0");
    put(&mut header, 124, 12, format!("{:011o}\0", content.len()).as_bytes());
    put(&mut header, 136, 12, b"00000000000\0");
    header[156] = b'0';
    put(&mut header, 257, 8, b"ustar\x0000");
    seal(&mut header);
    header.extend(padded(content.to_vec()));
    header
}

/// A file system with one of each thing that paths can lead to.
pub(crate) fn small_system() -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, target, content) in [
        ("etc/", b'5', "", &b""[..]),
        ("etc/motd", b'0', "", b"welcome\n"),
        ("etc/other", b'1', "etc/motd", b""),
        ("link", b'2', "/etc/motd", b""),
        ("loop", b'2', "loop", b""),
        ("up", b'2', "../../..", b""),
        ("pipe", b'6', "", b""),
        ("bin/sh", b'0', "", &[b'x'; 9000]),
    ] {
        let mut entry = member(name, content);
        entry[156] = kind;
        put(&mut entry, 157, 100, target.as_bytes());
        seal(&mut entry[..UNIT]);
        tar.extend(entry);
    }
    tar.extend([0; 2 * UNIT]);
    tar
}
