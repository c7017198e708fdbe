//! Blocks that say whose they are: a whole block follows from its stream, its number and its generation, so
//! a byte of another file, another place or another time is seen.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::ledger::{Content, erases};
use super::random::Random;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The length of a block.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: u64 = u64::from_le_bytes(*b"tsrecord");

/// Memory that O_DIRECT takes: blocks on a block's boundary.
pub struct Blocks {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Blocks {
    /// So many blocks, zero.
    pub fn new(count: usize) -> Blocks {
        let memory = vec![0; (count + 1) * BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Blocks { memory, start, length: count * BLOCK_BYTES }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).expect("fits 64 bits")
}

/// Where a block lies in its file.
pub fn offset_of(block: usize) -> u64 {
    to_u64(block) * to_u64(BLOCK_BYTES)
}

fn fill_block(block: &mut [u8], stream: u64, number: usize, generation: u64) {
    let number = to_u64(number);
    let mut random = Random::new(stream ^ number.rotate_left(20) ^ generation.rotate_left(40));
    let head = [MAGIC, stream, number, generation];
    for (index, word) in block.chunks_exact_mut(8).enumerate() {
        let value = head.get(index).copied().unwrap_or_else(|| random.number());
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// `count` blocks of a stream from number `first` on, as `generation` writes them.
pub fn blocks_of(stream: u64, first: usize, count: usize, generation: u64) -> Blocks {
    let mut blocks = Blocks::new(count);
    for (index, block) in blocks.bytes_mut().chunks_exact_mut(BLOCK_BYTES).enumerate() {
        fill_block(block, stream, first + index, generation);
    }
    blocks
}

/// What a block of a stream holds.
///
/// # Errors
/// How it differs from every block that could be here.
pub fn read_block(block: &[u8], stream: u64, number: usize) -> Result<Content, String> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(Content::Erased);
    }
    let word = |index: usize| {
        let bytes = block.get(index * 8..index * 8 + 8).unwrap_or(&[0; 8]);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    let (their_stream, their_number, generation) = (word(1), word(2), word(3));
    let mut wanted = [0; BLOCK_BYTES];
    fill_block(&mut wanted, stream, number, generation);
    if block == wanted {
        return Ok(Content::Generation(generation));
    }
    if word(0) != MAGIC {
        return Err(format!("block {number} is no record: it begins with {:02x?}", &block[..16]));
    }
    if (their_stream, their_number) != (stream, to_u64(number)) {
        return Err(format!(
            "block {number} of stream {stream:x} holds block {their_number} of stream {their_stream:x}"
        ));
    }
    let wrong = block.iter().zip(&wanted).position(|(a, b)| a != b).unwrap_or(0);
    Err(format!("block {number} is torn: generation {generation} ends at its byte {wrong}"))
}

/// Is the block one into which some of `generations` were being written when the power failed: does each of its
/// sectors hold what one of them, or nothing, has there?
pub fn is_torn_among(
    block: &[u8],
    stream: u64,
    number: usize,
    generations: RangeInclusive<u64>,
) -> bool {
    let may_be_empty = generations.clone().any(erases);
    let wanted: Vec<Blocks> = generations
        .filter(|generation| *generation > 0 && !erases(*generation))
        .map(|generation| blocks_of(stream, number, 1, generation))
        .collect();
    block.chunks(SECTOR_BYTES).enumerate().all(|(index, sector)| {
        let place = index * SECTOR_BYTES..index * SECTOR_BYTES + sector.len();
        (may_be_empty && sector.iter().all(|byte| *byte == 0))
            || wanted.iter().any(|one| one.bytes().get(place.clone()) == Some(sector))
    })
}

/// Opens a file past the page cache, or through it.
pub fn open(path: &Path, direct: bool) -> std::io::Result<File> {
    let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(i32::try_from(flags.bits()).expect("open flags"))
        .open(path)
}

/// What every block of a file of `blocks` blocks holds, read past the page cache. Blocks beyond its end are
/// erased.
///
/// # Errors
/// A block that is no record of this file, and errors of reading.
pub fn read_file(path: &Path, stream: u64, blocks: usize) -> Result<Vec<Content>, String> {
    const AT_ONCE: usize = 64;
    let at = |what: String| format!("{}: {what}", path.display());
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::DIRECT.bits()).expect("open flags"))
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(vec![Content::Erased; blocks]);
        }
        Err(error) => return Err(at(error.to_string())),
    };
    let mut contents = Vec::new();
    let mut buffer = Blocks::new(AT_ONCE);
    while contents.len() < blocks {
        let count = AT_ONCE.min(blocks - contents.len());
        let bytes = &mut buffer.bytes_mut()[..count * BLOCK_BYTES];
        let read = file
            .read_at(bytes, offset_of(contents.len()))
            .map_err(|error| at(format!("reading failed: {error}")))?;
        if read == 0 {
            contents.resize(blocks, Content::Erased);
            break;
        }
        if read % BLOCK_BYTES != 0 {
            return Err(at(format!(
                "it ends within block {}",
                contents.len() + read / BLOCK_BYTES
            )));
        }
        for block in bytes[..read].chunks_exact(BLOCK_BYTES) {
            contents.push(read_block(block, stream, contents.len()).map_err(at)?);
        }
    }
    Ok(contents)
}

/// How many blocks a generation of a small file has.
pub fn small_file_blocks(generation: u64) -> usize {
    usize::try_from(1 + generation % 5).expect("a few blocks")
}

/// What a small file, written whole in one generation, holds; erased if it is not there.
///
/// # Errors
/// When it is not whole, or not its own.
pub fn read_small_file(path: &Path, stream: u64) -> Result<Content, String> {
    let at = |what: String| format!("{}: {what}", path.display());
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::Erased),
        Err(error) => return Err(at(error.to_string())),
    };
    let mut found = None;
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        match read_block(block, stream, number).map_err(at)? {
            Content::Generation(generation)
                if found.is_none_or(|found| found == generation) && !erases(generation) =>
            {
                found = Some(generation);
            }
            other => return Err(at(format!("block {number} holds {other:?} beside {found:?}"))),
        }
    }
    match found {
        Some(generation) if bytes.len() == small_file_blocks(generation) * BLOCK_BYTES => {
            Ok(Content::Generation(generation))
        }
        found => Err(at(format!("it has {} bytes of {found:?}", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_its_own_and_whole_or_told_apart() {
        let mut blocks = blocks_of(7, 3, 2, 9);
        let (first, second) = blocks.bytes_mut().split_at_mut(BLOCK_BYTES);
        assert_eq!(read_block(first, 7, 3), Ok(Content::Generation(9)));
        assert_eq!(read_block(second, 7, 4), Ok(Content::Generation(9)));
        assert!(read_block(second, 7, 3).unwrap_err().contains("holds block 4"));
        assert!(read_block(first, 8, 3).unwrap_err().contains("of stream 7"));
        let other = blocks_of(7, 3, 1, 10);
        first[2048..].copy_from_slice(&other.bytes()[2048..]);
        assert!(read_block(first, 7, 3).unwrap_err().contains("torn"));
        assert!(read_block(&[1; BLOCK_BYTES], 7, 3).unwrap_err().contains("no record"));
        assert_eq!(read_block(&[0; BLOCK_BYTES], 7, 3), Ok(Content::Erased));
    }

    #[test]
    fn a_torn_block_has_sectors_of_what_was_being_written_and_of_nothing_else() {
        let mut block = blocks_of(7, 3, 1, 9);
        block.bytes_mut()[2048..].copy_from_slice(&blocks_of(7, 3, 1, 11).bytes()[2048..]);
        assert!(is_torn_among(block.bytes(), 7, 3, 9..=11));
        assert!(!is_torn_among(block.bytes(), 7, 3, 10..=11));
        assert!(!is_torn_among(block.bytes(), 8, 3, 9..=11));
        block.bytes_mut()[512..1024].fill(0);
        assert!(!is_torn_among(block.bytes(), 7, 3, 9..=11), "nothing was erased");
        assert!(is_torn_among(block.bytes(), 7, 3, 8..=11));
        block.bytes_mut()[513] = 1;
        assert!(!is_torn_among(block.bytes(), 7, 3, 8..=11));
    }

    #[test]
    fn a_small_file_is_whole_or_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read_small_file(&path, 1), Ok(Content::Erased));
        let blocks = blocks_of(1, 0, small_file_blocks(3), 3);
        std::fs::write(&path, blocks.bytes()).unwrap();
        assert_eq!(read_small_file(&path, 1), Ok(Content::Generation(3)));
        std::fs::write(&path, &blocks.bytes()[BLOCK_BYTES..]).unwrap();
        assert!(read_small_file(&path, 1).is_err());
        std::fs::write(&path, &blocks.bytes()[..BLOCK_BYTES]).unwrap();
        assert!(read_small_file(&path, 1).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(read_small_file(&path, 1).is_err());
    }
}
