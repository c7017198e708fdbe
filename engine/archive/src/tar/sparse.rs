//! The maps of sparse files: where the data that stands in the archive belongs in the file.
//!
//! Source: the GNU tar manual, "Storing Sparse Files" (old GNU, PAX 0.0, 0.1 and 1.0).

use thinstore_storage::Result;

use super::header::{Block, Piece};
use crate::refuse;

/// Checks a map against the file's length and what the archive holds of it: pieces ascend, do not
/// overlap, end inside the file, and add up. Empty pieces, which writers put at the end, are dropped.
pub(crate) fn checked(
    pieces: Vec<Piece>,
    size_bytes: u64,
    stored_bytes: u64,
    entry: &str,
) -> Result<Vec<Piece>> {
    let bad = || refuse(format!("the sparse file of {entry} has a map that makes no sense"));
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in &pieces {
        let piece_end = offset.checked_add(*length).ok_or_else(bad)?;
        if *offset < end || piece_end > size_bytes {
            return Err(bad());
        }
        end = piece_end;
        sum = sum.checked_add(*length).ok_or_else(bad)?;
    }
    if sum != stored_bytes {
        return Err(bad());
    }
    Ok(pieces.into_iter().filter(|(_, length)| *length > 0).collect())
}

/// Reads a map of the PAX 0.1 kind: `offset,length,offset,length,...`.
pub(crate) fn parse_list(text: &[u8], max_pieces: usize, entry: &str) -> Result<Vec<Piece>> {
    let bad = || refuse(format!("the sparse file of {entry} has a map that is no list of numbers"));
    let mut pieces = Vec::new();
    if text.is_empty() {
        return Ok(pieces);
    }
    let mut numbers = text.split(|byte| *byte == b',');
    while let Some(offset) = numbers.next() {
        let offset = parse(offset).ok_or_else(bad)?;
        let length = numbers.next().and_then(parse).ok_or_else(bad)?;
        push(&mut pieces, (offset, length), max_pieces, entry)?;
    }
    Ok(pieces)
}

/// Appends a piece unless there are too many.
pub(crate) fn push(
    pieces: &mut Vec<Piece>,
    piece: Piece,
    max_pieces: usize,
    entry: &str,
) -> Result<()> {
    if pieces.len() >= max_pieces {
        return Err(refuse(format!(
            "the sparse file of {entry} has more than {max_pieces} pieces"
        )));
    }
    pieces.push(piece);
    Ok(())
}

/// A number of a sparse map: decimal digits.
pub(crate) fn parse(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a map of the PAX 1.0 kind, which stands in whole blocks before the data: the count of pieces,
/// then offset and length of each, every number on a line of its own.
#[derive(Debug, Default)]
pub(crate) struct MapReader {
    line: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    pieces: Vec<Piece>,
}

impl MapReader {
    /// Takes one more block; true when the map is complete. What is left of the block is padding.
    pub(crate) fn feed(&mut self, block: &Block, max_pieces: usize, entry: &str) -> Result<bool> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err(self.bad(entry));
                }
                continue;
            }
            let Some(number) = parse(&self.line) else {
                return Err(self.bad(entry));
            };
            self.line.clear();
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => {
                    push(&mut self.pieces, (offset, number), max_pieces, entry)?;
                }
            }
            if self.offset.is_none() && self.count == Some(crate::to_u64(self.pieces.len())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The pieces read.
    pub(crate) fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }

    fn bad(&self, entry: &str) -> thinstore_storage::Error {
        refuse(format!("the sparse file of {entry} has a map that is no list of numbers"))
    }
}

/// Writes a map of the PAX 1.0 kind, padded to whole blocks.
pub(crate) fn encode_map(pieces: &[Piece]) -> Vec<u8> {
    let mut text = format!("{}\n", pieces.len()).into_bytes();
    for (offset, length) in pieces {
        text.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    let padded = text.len().next_multiple_of(super::header::BLOCK_BYTES);
    text.resize(padded, 0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(map: &[u8]) -> Result<Vec<Piece>> {
        let mut reader = MapReader::default();
        for block in map.as_chunks::<512>().0 {
            if reader.feed(block, 1000, "e")? {
                return Ok(reader.into_pieces());
            }
        }
        Err(refuse("unfinished"))
    }

    #[test]
    fn maps_that_span_blocks_are_read_back() {
        for count in [0, 1, 20, 50, 999] {
            let pieces: Vec<Piece> = (0..count).map(|index| (index * 1_000_000, 4096)).collect();
            assert_eq!(read(&encode_map(&pieces)).unwrap(), pieces);
        }
        let too_many: Vec<Piece> = (0..1001).map(|index| (index, 0)).collect();
        assert!(read(&encode_map(&too_many)).is_err());
    }

    #[test]
    fn nonsense_maps_are_refused() {
        assert!(checked(vec![(0, 5), (4, 5)], 100, 10, "e").is_err());
        assert!(checked(vec![(50, 5), (0, 5)], 100, 10, "e").is_err());
        assert!(checked(vec![(98, 5)], 100, 5, "e").is_err());
        assert!(checked(vec![(u64::MAX, 5)], u64::MAX, 5, "e").is_err());
        assert!(checked(vec![(0, 5)], 100, 6, "e").is_err());
        assert_eq!(checked(vec![(0, 5), (100, 0)], 100, 5, "e").unwrap(), vec![(0, 5)]);
        assert!(parse_list(b"1,2,3", 10, "e").is_err());
        assert!(parse_list(b"1,-2", 10, "e").is_err());
        assert!(parse_list(b"1,2,3,4", 1, "e").is_err());
        assert_eq!(parse_list(b"1,2,3,4", 2, "e").unwrap(), vec![(1, 2), (3, 4)]);
    }
}
