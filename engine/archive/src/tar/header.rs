//! One 512-byte tar header: where its fields stand, how they are read and written.

use thinstore_storage::Result;

use super::number::parse_field;
use crate::refuse;

/// Headers and content come in units of this.
pub(crate) const BLOCK_BYTES: usize = 512;

/// One unit of an archive.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// A block of zeroes; two of them end an archive.
pub(crate) const ZERO_BLOCK: Block = [0; BLOCK_BYTES];

/// The start and end of every field.
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MODIFIED: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const TYPE: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..263;
    pub(super) const VERSION: Range<usize> = 263..265;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
    /// star keeps times behind a shorter prefix, and its mark in the last four bytes.
    pub(super) const STAR_PREFIX: Range<usize> = 345..476;
    pub(super) const STAR_MARK: Range<usize> = 508..512;
    /// GNU: four pieces of a sparse file, "more follow", and its full length.
    pub(super) const SPARSE_PIECES: Range<usize> = 386..482;
    pub(super) const SPARSE_EXTENDED: usize = 482;
    pub(super) const SPARSE_SIZE: Range<usize> = 483..495;
    /// A block of further pieces: twenty-one, and "more follow".
    pub(super) const MORE_PIECES: Range<usize> = 0..504;
    pub(super) const MORE_EXTENDED: usize = 504;
}

/// A header whose checksum holds; its fields are read when they are asked for, since extension records
/// may stand in for them.
#[derive(Clone)]
pub(crate) struct Header(Block);

/// One piece of a sparse file: where it starts and how long it is.
pub(crate) type Piece = (u64, u64);

impl Header {
    /// Takes a block that must be a header; `place` is its offset, for the message.
    pub(crate) fn verified(block: Block, place: u64) -> Result<Header> {
        let Some(promised) = parse_field(&block[field::CHECKSUM]) else {
            return Err(refuse(format!(
                "the archive is damaged or not a tar: what stands at byte {place} is not a header"
            )));
        };
        // The sum counts the checksum field itself as spaces. Some old writers added signed bytes.
        let (mut unsigned, mut signed) = (0_i128, 0_i128);
        for (index, byte) in block.iter().enumerate() {
            let byte = if field::CHECKSUM.contains(&index) { b' ' } else { *byte };
            unsigned += i128::from(byte);
            signed += i128::from(byte.cast_signed());
        }
        if promised != unsigned && promised != signed {
            return Err(refuse(format!(
                "the archive is damaged or not a tar: the header at byte {place} has a wrong checksum"
            )));
        }
        Ok(Header(block))
    }

    /// Would this block pass as a header?
    pub(crate) fn plausible(block: &Block) -> bool {
        Header::verified(*block, 0).is_ok()
    }

    /// The type of the entry.
    pub(crate) fn kind(&self) -> u8 {
        self.0[field::TYPE]
    }

    fn is_gnu(&self) -> bool {
        self.0[field::MAGIC] == *b"ustar " && self.0[field::VERSION] == *b" \0"
    }

    fn is_ustar(&self) -> bool {
        self.0[field::MAGIC] == *b"ustar\0"
    }

    /// The name, with its prefix where the format has one.
    pub(crate) fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[field::NAME]);
        if !self.is_ustar() {
            return name.to_vec();
        }
        let is_star = self.0[field::STAR_MARK] == *b"tar\0";
        let prefix = if is_star { field::STAR_PREFIX } else { field::PREFIX };
        match until_nul(&self.0[prefix]) {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    /// The target of a link.
    pub(crate) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[field::LINK]).to_vec()
    }

    /// The mode as written, with whatever file type bits some writers add.
    pub(crate) fn mode(&self) -> Option<i128> {
        parse_field(&self.0[field::MODE])
    }

    pub(crate) fn uid(&self) -> Option<i128> {
        parse_field(&self.0[field::UID])
    }

    pub(crate) fn gid(&self) -> Option<i128> {
        parse_field(&self.0[field::GID])
    }

    pub(crate) fn size(&self) -> Option<i128> {
        parse_field(&self.0[field::SIZE])
    }

    /// Seconds since 1970.
    pub(crate) fn modified(&self) -> Option<i128> {
        parse_field(&self.0[field::MODIFIED])
    }

    /// Major and minor number of a device.
    pub(crate) fn device(&self) -> Option<(i128, i128)> {
        Some((parse_field(&self.0[field::MAJOR])?, parse_field(&self.0[field::MINOR])?))
    }

    /// What a GNU sparse entry says of itself: its full length, its first pieces, and whether blocks of
    /// further pieces follow. `None` if this is no GNU header or a field is not a number.
    pub(crate) fn gnu_sparse(&self) -> Option<(i128, Vec<Piece>, bool)> {
        if !self.is_gnu() {
            return None;
        }
        let size = parse_field(&self.0[field::SPARSE_SIZE])?;
        let pieces = parse_pieces(&self.0[field::SPARSE_PIECES])?;
        Some((size, pieces, self.0[field::SPARSE_EXTENDED] != 0))
    }
}

/// Reads a block of further pieces of a GNU sparse entry, and whether one more follows.
pub(crate) fn more_gnu_pieces(block: &Block) -> Option<(Vec<Piece>, bool)> {
    let pieces = parse_pieces(&block[field::MORE_PIECES])?;
    Some((pieces, block[field::MORE_EXTENDED] != 0))
}

/// Pieces of two 12-byte numbers each; the first unused one is empty.
fn parse_pieces(raw: &[u8]) -> Option<Vec<Piece>> {
    let (records, _) = raw.as_chunks::<24>();
    let mut pieces = Vec::with_capacity(records.len());
    for record in records {
        let (offset, length) = record.split_at(12);
        if offset.first() == Some(&0) {
            break;
        }
        let offset = u64::try_from(parse_field(offset)?).ok()?;
        let length = u64::try_from(parse_field(length)?).ok()?;
        pieces.push((offset, length));
    }
    Some(pieces)
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}

/// The fields of a header to be written. What does not fit its field is for a PAX record to say, and the
/// field then holds zero (numbers) or the beginning (names).
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) modified: u64,
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl Fields<'_> {
    /// The longest name, and link target, that a header holds.
    pub(crate) const MAX_NAME_BYTES: usize = 100;
    /// The largest owner id that a header holds in octal.
    pub(crate) const MAX_ID: u64 = 0o7_777_777;
    /// The largest length and time that a header holds in octal.
    pub(crate) const MAX_LONG: u64 = 0o77_777_777_777;

    /// The header as it stands in the archive (POSIX ustar).
    pub(crate) fn encode(&self) -> Block {
        let mut block = ZERO_BLOCK;
        put_text(&mut block[field::NAME], self.name);
        put_octal(&mut block[field::MODE], u64::from(self.mode));
        put_octal(&mut block[field::UID], self.uid);
        put_octal(&mut block[field::GID], self.gid);
        put_octal(&mut block[field::SIZE], self.size);
        put_octal(&mut block[field::MODIFIED], self.modified);
        block[field::TYPE] = self.kind;
        put_text(&mut block[field::LINK], self.link);
        block[field::MAGIC].copy_from_slice(b"ustar\0");
        block[field::VERSION].copy_from_slice(b"00");
        put_octal(&mut block[field::MAJOR], self.major);
        put_octal(&mut block[field::MINOR], self.minor);
        block[field::CHECKSUM].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        // Six digits, a NUL and a space, as every writer does it.
        put_octal(&mut block[148..155], sum);
        block
    }
}

fn put_text(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

/// Octal digits and a closing NUL; zero if the value needs more digits.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len().saturating_sub(1);
    let fits =
        u32::try_from(digits * 3).is_ok_and(|bits| value.checked_shr(bits).unwrap_or(0) == 0);
    let value = if fits { value } else { 0 };
    let text = format!("{value:0digits$o}");
    put_text(field, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_is_read_back() {
        let fields = Fields {
            kind: b'3',
            name: b"dev/null",
            link: b"",
            mode: 0o4755,
            uid: 7,
            gid: Fields::MAX_ID,
            size: Fields::MAX_LONG,
            modified: 12,
            major: 4095,
            minor: 1_048_575,
        };
        let header = Header::verified(fields.encode(), 0).unwrap();
        assert_eq!(header.kind(), b'3');
        assert_eq!(header.name(), b"dev/null");
        assert_eq!(header.mode(), Some(0o4755));
        assert_eq!(header.uid(), Some(7));
        assert_eq!(header.gid(), Some(i128::from(Fields::MAX_ID)));
        assert_eq!(header.size(), Some(i128::from(Fields::MAX_LONG)));
        assert_eq!(header.device(), Some((4095, 1_048_575)));
    }

    #[test]
    fn a_value_that_does_not_fit_is_written_as_zero() {
        let fields = Fields { uid: Fields::MAX_ID + 1, ..Fields::default() };
        assert_eq!(Header::verified(fields.encode(), 0).unwrap().uid(), Some(0));
    }

    #[test]
    fn every_changed_byte_breaks_the_checksum() {
        let block = Fields { name: b"a", ..Fields::default() }.encode();
        for index in 0..BLOCK_BYTES {
            let mut damaged = block;
            damaged[index] ^= 1;
            assert!(!Header::plausible(&damaged), "byte {index}");
        }
    }
}
