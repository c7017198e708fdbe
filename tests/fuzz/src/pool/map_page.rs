//! Target `map_page`: whole pages of maps, tables and layer records, and bitmaps, as an input has them,
//! behind checksums that are right.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::exercise::exercise;
use super::image::Image;
use crate::input::Input;
use crate::overlay::BLOCK;

/// Pages of one input, and entries of each.
const MOST_PAGES: usize = 6;
const MOST_ENTRIES: usize = 300;

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| Image::new(false))
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let image = image();
    let disk = image.disk();
    let mut changed = BTreeSet::new();
    let mut aimed = Vec::new();
    for _ in 0..MOST_PAGES {
        if input.is_empty() {
            break;
        }
        let block = *input.choose(&image.metadata);
        let form = input.u8();
        let mut page = match form & 1 {
            0 => disk.block(block),
            _ => [0; BLOCK],
        };
        match form / 2 % 4 {
            3 => {
                // The same pointer everywhere: trees that grow without taking space.
                let target = *input.choose(&image.metadata) | u64::from(input.u8() % 6) << 48;
                let birth = u64::from(input.number() as u32);
                for at in (0..256).map(|slot| slot * 16) {
                    page[at..at + 8].copy_from_slice(&target.to_le_bytes());
                    page[at + 8..at + 16].copy_from_slice(&birth.to_le_bytes());
                    aimed.push((block, at));
                }
            }
            0 => {
                // Pointers, one after the other or here and there.
                let mut at = 0;
                for _ in 0..1 + usize::from(input.u8()).min(MOST_ENTRIES) {
                    at = (at + 1 + usize::from(input.u8())) % 256;
                    let target = match input.u8() % 5 {
                        0 => 0,
                        1 => *input.choose(&image.pages),
                        2 => *input.choose(&image.data),
                        3 => *input.choose(&image.metadata),
                        _ => input.number() & ((1 << 48) - 1),
                    };
                    let kind = u64::from(input.u8() % 6) << 48;
                    page[at * 16..][..8].copy_from_slice(&(target | kind).to_le_bytes());
                    let birth = input.number() as u32;
                    page[at * 16 + 8..][..8].copy_from_slice(&u64::from(birth).to_le_bytes());
                    aimed.push((block, at * 16));
                    if input.is_empty() {
                        break;
                    }
                }
            }
            1 => {
                // Bytes, as many as there are.
                let at = usize::from(input.u16()) % BLOCK;
                let count = usize::from(input.u16()) % (BLOCK + 1 - at);
                let bytes = input.take(count);
                page[at..at + bytes.len()].copy_from_slice(bytes);
            }
            _ => {
                // Fields of layer records, and bits of bitmaps.
                for _ in 0..1 + input.u8() % 16 {
                    let at = usize::from(input.u8() % 8) * 512 + usize::from(input.u8() % 64) * 4;
                    let value = input.number().to_le_bytes();
                    let width = [1, 2, 4, 8][usize::from(input.u8() % 4)];
                    page[at..at + width].copy_from_slice(&value[..width]);
                }
            }
        }
        disk.set_block(block, page);
        changed.insert(block);
    }
    image.repair(&disk, &mut changed, &aimed);
    exercise(disk);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![]];
    for place in 0..40 {
        for target in [1, 2, 3] {
            seeds.push(vec![
                place,
                0,
                6,
                place + target,
                0,
                2,
                1,
                place + 1,
                0,
                6,
                place + 2,
                0,
                2,
                1,
            ]);
        }
        seeds.push(vec![place, 0, place % 6, 3, 1, 1, place, 0, 2, 1, 1, 2, place, 0, 1, 1]);
        seeds.push(vec![place, 0, 4, 4, 0, place, 3, 2, 1, 10, 7, 3]);
    }
    seeds
}
