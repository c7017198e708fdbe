//! A journal batch: what becomes durable together, or not at all.
//!
//! Each batch starts on a block of its own in the ring. Its CRC covers its header and its records, and
//! its header carries the CRC of the batch before: an old batch that was left in the ring cannot pass
//! as a successor. It also carries a number that is new each time the pool is opened: a batch that is
//! written once more after a loss of power, with the same records, is not the same batch, and what
//! followed the lost one does not follow it.

use byteorder::{ByteOrder, LittleEndian};

use super::{Fields, PutFields};
use crate::convert::{to_u64, to_usize};
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH};

const MAGIC: u32 = u32::from_le_bytes(*b"tbat");
/// Bytes of a batch before its records.
pub(crate) const BATCH_HEADER_BYTES: usize = 48;
/// The most bytes of records in a batch.
pub(crate) const BATCH_LIMIT_BYTES: u64 = 16 << 20;
const CRC_AT: usize = BATCH_HEADER_BYTES - 4;

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Counts batches over the life of the pool.
    pub(crate) sequence: u64,
    /// The highest batch that was known to be durable when this one was written.
    pub(crate) settled: u64,
    /// Bytes of records.
    pub(crate) length_bytes: u32,
    /// CRC of the batch before.
    pub(crate) previous_crc: u32,
    /// CRC of this batch.
    pub(crate) crc: u32,
}

impl BatchHeader {
    /// Blocks that the whole batch takes in the ring.
    pub(crate) fn blocks(&self) -> u64 {
        blocks_for(u64::from(self.length_bytes))
    }
}

/// Blocks in the ring for so many bytes of records.
pub(crate) fn blocks_for(length_bytes: u64) -> u64 {
    (to_u64(BATCH_HEADER_BYTES) + length_bytes).div_ceil(BLOCK_BYTES)
}

/// Puts a batch together, padded to whole blocks; gives its bytes and its CRC.
pub(crate) fn encode(
    pool_tag: u64,
    life: u64,
    sequence: u64,
    settled: u64,
    previous_crc: u32,
    records: &[u8],
) -> (Vec<u8>, u32) {
    let length_bytes = u32::try_from(records.len()).unwrap_or(u32::MAX);
    let padded = to_usize(blocks_for(to_u64(records.len())) * BLOCK_BYTES);
    let mut bytes = Vec::with_capacity(padded);
    bytes.put_u32(MAGIC);
    bytes.put_u32(length_bytes);
    bytes.put_u64(pool_tag);
    bytes.put_u64(sequence);
    bytes.put_u64(settled);
    bytes.put_u32(previous_crc);
    bytes.put_u64(life);
    debug_assert_eq!(bytes.len(), CRC_AT);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(records);
    let crc = hasher.finalize();
    bytes.put_u32(crc);
    bytes.extend_from_slice(records);
    bytes.pad_to(padded);
    (bytes, crc)
}

/// Reads a header; `None` if the block does not begin a batch of this pool. The CRC is not checked yet:
/// the length says how much more is to be read first.
pub(crate) fn decode_header(pool_tag: u64, block: &[u8]) -> Option<BatchHeader> {
    let mut fields = Fields::new(block.get(..BATCH_HEADER_BYTES)?);
    if fields.u32()? != MAGIC {
        return None;
    }
    let length_bytes = fields.u32()?;
    if u64::from(length_bytes) > BATCH_LIMIT_BYTES || fields.u64()? != pool_tag {
        return None;
    }
    let sequence = fields.u64()?;
    let settled = fields.u64()?;
    let previous_crc = fields.u32()?;
    // The number of the opening: only that the CRC covers it matters.
    fields.take(8)?;
    let crc = fields.u32()?;
    (settled < sequence).then_some(BatchHeader {
        sequence,
        settled,
        length_bytes,
        previous_crc,
        crc,
    })
}

/// The records of a whole batch, if its CRC is right.
pub(crate) fn verified_records<'a>(header: &BatchHeader, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let end = BATCH_HEADER_BYTES + to_usize(u64::from(header.length_bytes));
    let records = bytes.get(BATCH_HEADER_BYTES..end)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..CRC_AT)?);
    hasher.update(records);
    let stored = LittleEndian::read_u32(bytes.get(CRC_AT..BATCH_HEADER_BYTES)?);
    (hasher.finalize() == stored && stored == header.crc).then_some(records)
}

/// The tag that ties batches to their pool: the first half of its UUID.
pub(crate) fn pool_tag(uuid: &[u8; 16]) -> u64 {
    LittleEndian::read_u64(uuid)
}

const _: () = assert!(BATCH_HEADER_BYTES < BLOCK_LENGTH);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fills_whole_blocks_and_is_read_back() {
        for length in [0, 1, 4048, 4049, 10_000] {
            let records = vec![7; length];
            let (bytes, crc) = encode(1, 9, 5, 4, 77, &records);
            assert_eq!(bytes.len() % BLOCK_LENGTH, 0);
            let header = decode_header(1, &bytes).unwrap();
            assert_eq!(header.sequence, 5);
            assert_eq!((header.settled, header.previous_crc, header.crc), (4, 77, crc));
            assert_eq!(header.blocks() * BLOCK_BYTES, to_u64(bytes.len()));
            assert_eq!(verified_records(&header, &bytes), Some(&records[..]));
        }
    }

    #[test]
    fn the_same_batch_in_another_life_of_the_pool_has_another_crc() {
        let (_, crc) = encode(1, 9, 5, 4, 77, b"records");
        assert_ne!(encode(1, 10, 5, 4, 77, b"records").1, crc);
    }

    #[test]
    fn a_batch_of_another_pool_and_a_changed_byte_are_refused() {
        let (bytes, _) = encode(1, 9, 5, 4, 77, b"records");
        assert_eq!(decode_header(2, &bytes), None);
        for at in 0..BATCH_HEADER_BYTES + 7 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let accepted = decode_header(1, &damaged)
                .is_some_and(|header| verified_records(&header, &damaged).is_some());
            assert!(!accepted, "byte {at}");
        }
    }
}
