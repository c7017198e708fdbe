//! Target `pool_image`: edits of a whole pool, with the checksums brought up to them or not.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::exercise::exercise;
use super::image::Image;
use super::journal;
use super::{POOL_BYTES, RING};
use crate::input::Input;
use crate::overlay::{BLOCK, Overlay};

/// Edits of one input.
const MOST_EDITS: usize = 64;

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| Image::new(true))
}

struct Edits<'a> {
    image: &'a Image,
    disk: Overlay,
    changed: BTreeSet<u64>,
    aimed: Vec<(u64, usize)>,
}

impl Edits<'_> {
    fn put(&mut self, block: u64, at: usize, bytes: &[u8]) {
        let at = at.min(BLOCK - bytes.len());
        self.disk.change(block, |content| content[at..at + bytes.len()].copy_from_slice(bytes));
        self.changed.insert(block);
    }

    fn word(&self, block: u64, word: usize) -> u64 {
        let content = self.disk.block(block);
        u64::from_le_bytes(content[word * 8..][..8].try_into().unwrap())
    }

    /// One edit.
    fn next(&mut self, input: &mut Input<'_>) {
        let image = self.image;
        match input.u8() % 8 {
            0 => {
                let block = *input.choose(&image.metadata);
                let at = usize::from(input.u16()) % BLOCK;
                let flipped = self.disk.block(block)[at] ^ input.u8().max(1);
                self.put(block, at, &[flipped]);
            }
            1 => {
                let block = *input.choose(&image.metadata);
                let at = usize::from(input.u16()) % BLOCK;
                let count = usize::from(input.u8() % 32);
                self.put(block, at, input.take(count));
            }
            2 => {
                let block = *input.choose(&image.metadata);
                let word = usize::from(input.u16() % 512);
                self.put(block, word * 8, &input.number().to_le_bytes());
            }
            3 => {
                // A word in which something stands becomes a little different.
                let block = *input.choose(&image.metadata);
                let written: Vec<usize> =
                    (0..512).filter(|word| self.word(block, *word) != 0).collect();
                if written.is_empty() {
                    return;
                }
                let word = *input.choose(&written);
                let old = self.word(block, word);
                let (shift, value) = (u32::from(input.u8() % 8) * 8, input.number());
                let new = match input.u8() % 5 {
                    0 => old.wrapping_add(1 << shift),
                    1 => old.wrapping_sub(1 << shift),
                    2 => old ^ (value << shift),
                    3 => (old & !(0xffff << shift)) | (value & 0xffff) << shift,
                    _ => 0,
                };
                self.put(block, word * 8, &new.to_le_bytes());
            }
            4 => {
                // A pointer to another block, with the right checksum for it.
                let block = *input.choose(&image.pages);
                let at = usize::from(input.u8()) * 16;
                let target = match input.u8() % 4 {
                    0 => *input.choose(&image.pages),
                    1 => *input.choose(&image.metadata),
                    2 => *input.choose(&image.data),
                    _ => input.number() & ((1 << 48) - 1),
                };
                let address = target | u64::from(input.u8() % 6) << 48;
                let birth = input.number() as u32;
                self.put(block, at, &address.to_le_bytes());
                self.put(block, at + 8, &u64::from(birth).to_le_bytes());
                self.aimed.push((block, at));
            }
            5 => {
                // A pointer once more, elsewhere.
                let from = *input.choose(&image.pages);
                let at = usize::from(input.u8()) * 16;
                let pointer = self.disk.block(from)[at..at + 16].to_vec();
                let to = *input.choose(&image.pages);
                let at = usize::from(input.u8()) * 16;
                self.put(to, at, &pointer);
                self.aimed.push((to, at));
            }
            6 => {
                let at = u64::from(input.u32()) % ((RING.end - RING.start) * BLOCK as u64);
                let count = usize::from(input.u8() % 32);
                let block = RING.start + at / BLOCK as u64;
                self.put(block, at as usize % BLOCK, input.take(count));
            }
            _ => {
                let at = input.number() % POOL_BYTES;
                let count = usize::from(input.u8() % 32);
                self.put(at / BLOCK as u64, at as usize % BLOCK, input.take(count));
            }
        }
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let image = image();
    let repairs = input.u8();
    let mut edits =
        Edits { image, disk: image.disk(), changed: BTreeSet::new(), aimed: Vec::new() };
    for _ in 0..MOST_EDITS {
        if input.is_empty() {
            break;
        }
        edits.next(&mut input);
    }
    let Edits { disk, mut changed, aimed, .. } = edits;
    if repairs & 1 == 0 {
        image.repair(&disk, &mut changed, &aimed);
    }
    if repairs & 2 == 0 {
        journal::repair(&disk);
    }
    exercise(disk);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![1], vec![3]];
    for kind in 0..8 {
        for place in [0, 1, 5, 9, 20] {
            seeds.push(vec![0, kind, place, 0, place * 3, 0, 2, kind, place, 4, 1, 1, 2, 3, 4]);
        }
    }
    seeds
}
