//! Target `journal`: batches of records, behind checksums that are right or not, over a pool whose journal
//! is empty.

use std::sync::OnceLock;

use super::exercise::exercise;
use super::image::Image;
use super::{RING, SUPERBLOCKS, UUID};
use crate::input::Input;
use crate::overlay::{BLOCK, Overlay};

const HEADER: usize = 48;
const MOST_BATCHES: usize = 8;
const MOST_RECORDS: usize = 64;
const RECORD_LAYER: usize = 512;

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| Image::new(false))
}

/// Where the next batch goes, as the newest superblock has it.
struct Position {
    sequence: u64,
    head_blocks: u64,
    chain_crc: u32,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Position {
    fn of(disk: &Overlay) -> Position {
        let newest = SUPERBLOCKS.map(|block| disk.block(block));
        let newest = newest.iter().max_by_key(|bytes| number(&bytes[..], 80)).unwrap();
        Position {
            sequence: number(newest, 104),
            head_blocks: number(newest, 112),
            chain_crc: number(newest, 120) as u32,
        }
    }
}

fn ring_block(head_blocks: u64) -> u64 {
    RING.start + head_blocks % (RING.end - RING.start)
}

/// The CRC of a batch: header but for itself, and records.
fn batch_crc(bytes: &[u8], length: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..HEADER - 4]);
    hasher.update(&bytes[HEADER..HEADER + length]);
    hasher.finalize()
}

/// Brings the checksums of a chain of batches up to what was changed in them.
pub(super) fn repair(disk: &Overlay) {
    let mut position = Position::of(disk);
    for _ in 0..RING.end - RING.start {
        let first = disk.block(ring_block(position.head_blocks));
        let length = (number(&first, 0) >> 32) as usize;
        let blocks = (HEADER + length).div_ceil(BLOCK) as u64;
        if first[..4] != *b"tbat" || blocks > RING.end - RING.start {
            return;
        }
        let mut bytes: Vec<u8> = (0..blocks)
            .flat_map(|index| disk.block(ring_block(position.head_blocks + index)))
            .collect();
        bytes[32..36].copy_from_slice(&position.chain_crc.to_le_bytes());
        position.chain_crc = batch_crc(&bytes, length);
        bytes[44..48].copy_from_slice(&position.chain_crc.to_le_bytes());
        disk.set_block(ring_block(position.head_blocks), bytes[..BLOCK].try_into().unwrap());
        position.head_blocks += blocks;
    }
}

/// A layer record of the pool with some fields changed, or one of zeroes.
fn layer_record(disk: &Overlay, input: &mut Input<'_>) -> [u8; RECORD_LAYER] {
    let image = image();
    let mut record = [0; RECORD_LAYER];
    let page = disk.block(*input.choose(&image.metadata));
    let slot = usize::from(input.u8() % 8) * RECORD_LAYER;
    record.copy_from_slice(&page[slot..slot + RECORD_LAYER]);
    for _ in 0..input.u8() % 16 {
        let fields =
            [0, 4, 8, 9, 10, 12, 16, 20, 24, 28, 32, 40, 56, 64, 72, 80, 96, 136, 256, 257];
        let at = *input.choose(&fields);
        let value = input.number().to_le_bytes();
        let width = [1, 2, 4, 8][usize::from(input.u8() % 4)];
        record[at..at + width].copy_from_slice(&value[..width]);
    }
    record
}

/// One record: its kind, and fields that mean something, or nothing.
fn record(disk: &Overlay, input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.u8() % 16;
    let mut body = Vec::new();
    match kind {
        1 => {
            body.extend((input.number() as u32).to_le_bytes());
            body.extend(input.number().to_le_bytes());
            let block = match input.u8() % 3 {
                0 => *input.choose(&image().data),
                // Where free blocks are.
                1 => 300 + u64::from(input.u16() % 7_500),
                _ => input.number(),
            };
            body.extend(block.to_le_bytes());
            body.extend((input.number() as u32).to_le_bytes());
            for index in 0..u64::from(input.u8() % 20) {
                let crc = crc32fast::hash(&disk.block(block.wrapping_add(index)));
                body.extend(crc.to_le_bytes());
            }
        }
        2 => {
            body.extend((input.number() as u32).to_le_bytes());
            body.extend(input.number().to_le_bytes());
            body.extend(input.number().to_le_bytes());
        }
        3 | 6 => body.extend(layer_record(disk, input)),
        4 => {
            body.extend((input.number() as u32).to_le_bytes());
            body.extend(layer_record(disk, input));
        }
        5 | 8 | 11 => body.extend((input.number() as u32).to_le_bytes()),
        7 | 9 | 10 | 13 => {
            body.extend((input.number() as u32).to_le_bytes());
            body.extend(input.number().to_le_bytes());
        }
        12 => body.extend(input.number().to_le_bytes()),
        _ => {
            let count = usize::from(input.u8());
            body.extend(input.take(count));
        }
    }
    let mut record = vec![kind, 0];
    record.extend(((body.len() + 4) as u16).to_le_bytes());
    record.extend(body);
    record
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = image().disk();
    let start = Position::of(&disk);
    let Position { mut sequence, mut head_blocks, mut chain_crc } = start;
    for _ in 0..MOST_BATCHES {
        if input.is_empty() {
            break;
        }
        let form = input.u8();
        sequence = sequence.wrapping_add(if form & 1 == 0 { 1 } else { input.number() });
        let settled = match form & 2 {
            0 => sequence.wrapping_sub(1 + u64::from(input.u8() % 4)),
            _ => input.number(),
        };
        let mut records = Vec::new();
        if form & 4 == 0 {
            for _ in 0..1 + usize::from(input.u8()) % MOST_RECORDS {
                records.extend(record(&disk, &mut input));
                if input.is_empty() {
                    break;
                }
            }
        } else {
            let count = usize::from(input.u16());
            records.extend(input.take(count));
        }
        let mut batch = Vec::new();
        batch.extend(b"tbat");
        batch.extend((records.len() as u32).to_le_bytes());
        batch.extend(&UUID[..8]);
        batch.extend(sequence.to_le_bytes());
        batch.extend(settled.to_le_bytes());
        batch.extend(chain_crc.to_le_bytes());
        batch.extend(7_u64.to_le_bytes());
        batch.extend([0; 4]);
        batch.extend(&records);
        let crc = batch_crc(&batch, records.len());
        let spoiled = if form & 8 == 0 { 0 } else { u32::from(input.u8()) };
        batch[44..48].copy_from_slice(&(crc ^ spoiled).to_le_bytes());
        chain_crc = crc;
        batch.resize(batch.len().next_multiple_of(BLOCK), 0);
        for block in batch.chunks_exact(BLOCK) {
            disk.set_block(ring_block(head_blocks), block.try_into().unwrap());
            head_blocks += 1;
        }
    }
    exercise(disk);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![4, 0, 5, 0, 1, 2, 3, 4, 5]];
    for kind in 0..15 {
        for layer in 1..14 {
            seeds.push(vec![
                0, 0, 3, kind, layer, 1, 1, layer, 0, 1, 2, 2, kind, layer, 3, 4, 5, 6, 7,
            ]);
        }
    }
    seeds
}
