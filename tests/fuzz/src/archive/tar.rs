//! Target `tar`: a layer's tar, brought into an empty ext4 by the user-space writer. What is not refused
//! is a file system that can be read, written as a tar, and brought in again to be the same.

use thinstore_archive::{Layer, Limits};

use super::tree::Tree;
use super::{Stored, is_refusal, stored, tar_builder, with_file};
use crate::input::Input;

fn limits() -> Limits {
    // Files may claim any length; what is stored of them is bounded by the input.
    Limits { max_uncompressed_bytes: 64 << 20, ..Limits::default() }
}

/// The archive that an input stands for.
fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut input = Input::new(bytes);
    let form = input.u8();
    let tar = match form & 3 {
        // Entries that the input chooses.
        0 | 1 => tar_builder::build(&mut input),
        // Bytes, with checksums where a header may be.
        2 => {
            let mut tar = input.rest().to_vec();
            tar.resize(tar.len().next_multiple_of(512), 0);
            let headers = tar.chunks_mut(512).filter(|unit| unit.iter().any(|byte| *byte != 0));
            headers.for_each(tar_builder::seal);
            tar
        }
        _ => return input.rest().to_vec(),
    };
    let how = match form >> 2 & 3 {
        0 | 1 => Stored::Plain,
        2 => Stored::Gzip,
        _ => Stored::Zstd,
    };
    let mut archive = stored(tar, how);
    if form & 0x80 != 0 {
        let middle = archive.len() / 2;
        if let Some(byte) = archive.get_mut(middle) {
            *byte ^= form;
        }
    }
    archive
}

/// Brings a tar into a fresh file system.
fn bring_in(bytes: &[u8]) -> Option<Tree> {
    with_file(bytes, |path| {
        let layer =
            Layer::from_tar_file(path, &limits()).map_err(|error| is_refusal(&error)).ok()?;
        let tree = Tree::new();
        tree.apply(&layer).map_err(|error| is_refusal(&error)).ok()?;
        Some(tree)
    })
}

pub(crate) fn run(bytes: &[u8]) {
    let Some(tree) = bring_in(&archive(bytes)) else { return };
    let manifest = tree.manifest();
    let Some(tar) = tree.tar() else { return };
    // Laid out in another order, it may not fit any more.
    let Some(again) = bring_in(&tar) else { return };
    assert_eq!(manifest, again.manifest(), "a tree that was written and read is another one");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![2], vec![3]];
    for kind in 0..18 {
        for name in [0, 3, 14, 16, 26] {
            // A folder, then something in it.
            let mut seed = vec![(kind % 4) * 4, 0, 1, 9, 0, 3, 3, 3, 3, 3];
            seed.extend([
                kind, name, 4, 5, b'h', b'e', b'l', b'l', b'o', 0, 3, 3, 3, 3, 3, 3, 9, 9,
            ]);
            seeds.push(seed);
        }
    }
    let mut plain = tar_builder::member("file", b"content");
    plain.extend([0; 1024]);
    seeds.push([vec![2], plain.clone()].concat());
    seeds.push([vec![3], stored(plain.clone(), Stored::Gzip)].concat());
    seeds.push([vec![3], stored(plain, Stored::Zstd)].concat());
    seeds
}
