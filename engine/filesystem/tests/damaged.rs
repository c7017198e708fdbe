//! Damaged file systems: whatever the bytes, reading and writing end, with an error or without, and
//! never in a panic.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::*;
use thinstore_filesystem::{
    Ext4Reader, Ext4Writer, Node, TreePath, TreeReader, TreeWriter, difference, tree_hash,
};
use thinstore_storage::{BlockDevice, MemoryDevice};

const SIZE: u64 = 32 << 20;

/// A device with a little of everything on it, and its blocks in use.
fn sample() -> (MemoryDevice, Vec<u64>) {
    let device = Arc::new(MemoryDevice::new(SIZE));
    thinstore_filesystem::template::make_ext4(device.as_ref(), &IDENTITY).expect("make");
    let mut writer = Ext4Writer::open(device.clone()).expect("open");
    for at in 0..600 {
        put_file(&mut writer, &format!("many/name-that-is-long-enough-{at}"), b"x");
    }
    let parts = (0..900u64).map(|at| (at * 8192, vec![1; 100])).collect();
    let node = Node::File { size_bytes: 900 * 8192 };
    let mut attributed = metadata(0o644);
    attributed.xattrs.insert(b"user.large".to_vec(), vec![7; 3000]);
    attributed.xattrs.insert(b"security.small".to_vec(), vec![7; 20]);
    writer.put(&path("fragments"), &node, &attributed, Some(&mut Parts(parts))).expect("put");
    put_symlink(&mut writer, "long", &"x/".repeat(100));
    put_symlink(&mut writer, "link", "many");
    put_folder(&mut writer, "a/b/c/d");
    writer.finish().expect("finish");
    let bytes = contents(&device);
    let used = bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0));
    let used = used.map(|(at, _)| at as u64).collect();
    let copy = MemoryDevice::new(SIZE);
    copy.write(0, &bytes).expect("write");
    (copy, used)
}

fn contents(device: &MemoryDevice) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    device.read(0, &mut bytes).expect("read");
    bytes
}

/// Repairs the checksum of the superblock, so that the fields behind it are looked at.
fn seal_superblock(bytes: &mut [u8]) {
    let sum = fs_ext4::checksum::linux_crc32c(u32::MAX, &bytes[1024..1024 + 0x3fc]);
    bytes[1024 + 0x3fc..2048].copy_from_slice(&sum.to_le_bytes());
}

/// Reads everything and changes some, ignoring errors.
fn exercise(bytes: &[u8]) {
    let device = Arc::new(MemoryDevice::new(SIZE));
    device.write(0, bytes).expect("write");
    if let Ok(reader) = Ext4Reader::open(device.clone()) {
        let _ = tree_hash(&reader);
        let _ = difference(&reader, &reader, None);
        for name in ["fragments", "link/name-that-is-long-enough-7", "a/b/c", "long/x"] {
            let _ = reader.node(&path(name));
            let _ = reader.extents(&path(name));
        }
    }
    if let Ok(mut writer) = Ext4Writer::open(device.clone()) {
        let file = Node::File { size_bytes: 5000 };
        let mut content = Parts(vec![(0, vec![1; 5000])]);
        for name in ["many/new", "a/b/new", "link/other"] {
            let _ = writer.put(&path(name), &file, &metadata(0o644), Some(&mut content));
        }
        let _ = writer.remove(&path("fragments"));
        let _ = writer.remove(&path("many"));
        let _ = writer.clear(&path("a"));
        let _ = writer.put(&TreePath::root(), &Node::Directory, &metadata(0o755), None);
        let _ = writer.finish();
    }
}

#[test]
fn flipped_bytes_anywhere_in_the_metadata_end_in_errors_at_worst() {
    let (device, used) = sample();
    let sound = contents(&device);
    let started = Instant::now();
    let mut random = Random(5);
    for round in 0..400 {
        let mut bytes = sound.clone();
        for _ in 0..1 + random.below(6) {
            let block = used[random.below(used.len() as u64) as usize];
            let at = (block * 4096 + random.below(4096)) as usize;
            bytes[at] = random.next() as u8;
        }
        if round % 2 == 0 {
            // In the superblock, behind a right checksum.
            for _ in 0..1 + random.below(3) {
                bytes[1024 + random.below(0x280) as usize] = random.next() as u8;
            }
            seal_superblock(&mut bytes);
        }
        exercise(&bytes);
    }
    assert!(started.elapsed().as_secs() < 240, "{:?}", started.elapsed());
}

/// The same with checksums switched off in the superblock, so that every damaged field is believed.
#[test]
fn damage_that_no_checksum_shows_ends_in_errors_at_worst() {
    let (device, used) = sample();
    let mut sound = contents(&device);
    // RO_COMPAT_METADATA_CSUM is bit 10 of the word at 0x64.
    sound[1024 + 0x65] &= !0x04;
    seal_superblock(&mut sound);
    let started = Instant::now();
    let mut random = Random(9);
    for _ in 0..400 {
        let mut bytes = sound.clone();
        for _ in 0..1 + random.below(8) {
            let block = used[1 + random.below(used.len() as u64 - 1) as usize];
            let at = (block * 4096 + random.below(4096)) as usize;
            let small = random.below(2) == 0;
            bytes[at] = if small { random.below(4) as u8 } else { random.next() as u8 };
        }
        exercise(&bytes);
    }
    assert!(started.elapsed().as_secs() < 240, "{:?}", started.elapsed());
}

#[test]
fn a_cut_off_device_is_refused() {
    let (device, _) = sample();
    let bytes = contents(&device);
    for size in [4096u64, 65_536, SIZE / 2] {
        let short = Arc::new(MemoryDevice::new(size));
        short.write(0, &bytes[..size as usize]).expect("write");
        assert!(Ext4Reader::open(short.clone()).is_err(), "{size}");
        assert!(Ext4Writer::open(short).is_err(), "{size}");
    }
}
