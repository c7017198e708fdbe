//! The superblock: 4096 bytes in one of two places, written in turn by each checkpoint.

use byteorder::{ByteOrder, LittleEndian};

use super::geometry::Geometry;
use super::pointer::BlockPtr;
use super::{Fields, PutFields};
use crate::types::{BLOCK_LENGTH, Epoch};

/// The first eight bytes of a pool.
pub(crate) const MAGIC: [u8; 8] = *b"thinpool";
/// The format's version. A reader refuses a higher one.
pub(crate) const VERSION: u32 = 1;
/// Features that a reader must know to read the pool at all.
pub(crate) const KNOWN_INCOMPATIBLE_FEATURES: u64 = 0;
/// Features that a writer must know to change the pool.
pub(crate) const KNOWN_READ_ONLY_FEATURES: u64 = 0;

const FIELDS_BYTES: usize = 256;
/// The end of the sector that all fields are in: a disk writes it whole or not, so a superblock is never
/// half written, and one that is not valid is damaged.
const SECTOR_BYTES: usize = 512;
const CRC_AT: usize = SECTOR_BYTES - 4;

/// Where replay starts: just after the last batch that the checkpoint contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalPosition {
    /// Sequence number of the last batch contained.
    pub(crate) sequence: u64,
    /// Blocks ever written to the ring: the next batch lies at this number modulo the ring's length.
    pub(crate) head_blocks: u64,
    /// CRC of the last batch contained: the next one carries it.
    pub(crate) chain_crc: u32,
}

/// The root of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: [u8; 16],
    pub(crate) geometry: Geometry,
    pub(crate) allocation_run_blocks: u32,
    pub(crate) default_device_blocks: u64,
    /// Counts checkpoints; the higher of two valid superblocks is the newer.
    pub(crate) checkpoint: u64,
    pub(crate) epoch: Epoch,
    /// The serial number that the next layer gets. Never used twice.
    pub(crate) next_serial: u64,
    pub(crate) journal: JournalPosition,
    /// Blocks that are not free, without the fixed ones.
    pub(crate) used_blocks: u64,
    /// Of these, blocks that hold data of devices.
    pub(crate) data_blocks: u64,
    /// Root of the layer table, height 3.
    pub(crate) layer_table: BlockPtr,
    /// Root of the space map, height 3.
    pub(crate) space_map: BlockPtr,
    pub(crate) created_unix_ns: i64,
}

/// Why a block is not a superblock that can be used, in the order in which it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockFault {
    /// Not a pool at all.
    Magic,
    /// Damaged.
    Checksum,
    /// Made by a newer program.
    Version(u32),
    /// Uses features that this program does not know.
    Features(u64),
    /// Numbers that cannot be.
    Geometry(String),
}

/// The bytes of a superblock as read, before anything in them is believed.
pub(crate) struct UnverifiedSuperblock<'a>(pub(crate) &'a [u8; BLOCK_LENGTH]);

impl UnverifiedSuperblock<'_> {
    /// Checks magic, checksum, version, features and geometry, in this order.
    pub(crate) fn verify(&self) -> Result<Superblock, SuperblockFault> {
        let bytes = self.0;
        if bytes[..8] != MAGIC {
            return Err(SuperblockFault::Magic);
        }
        if crc32fast::hash(&bytes[..CRC_AT]) != LittleEndian::read_u32(&bytes[CRC_AT..])
            || bytes[SECTOR_BYTES..].iter().any(|byte| *byte != 0)
        {
            return Err(SuperblockFault::Checksum);
        }
        let version = LittleEndian::read_u32(&bytes[8..]);
        if version != VERSION {
            return Err(SuperblockFault::Version(version));
        }
        let incompatible = LittleEndian::read_u64(&bytes[16..]);
        let read_only = LittleEndian::read_u64(&bytes[24..]);
        let unknown =
            (incompatible & !KNOWN_INCOMPATIBLE_FEATURES) | (read_only & !KNOWN_READ_ONLY_FEATURES);
        if unknown != 0 {
            return Err(SuperblockFault::Features(unknown));
        }
        let superblock = Self::fields(bytes)
            .ok_or_else(|| SuperblockFault::Geometry("reserved bytes are not zero".to_owned()))?;
        superblock.geometry.validate().map_err(SuperblockFault::Geometry)?;
        if !superblock.allocation_run_blocks.is_power_of_two()
            || superblock.allocation_run_blocks > 256
        {
            return Err(SuperblockFault::Geometry(format!(
                "an allocation run of {} blocks: it is a power of two up to 256",
                superblock.allocation_run_blocks
            )));
        }
        // Counters only grow by one: none comes near the end of its range.
        let counters = [
            superblock.checkpoint,
            superblock.next_serial,
            superblock.journal.sequence,
            superblock.journal.head_blocks,
        ];
        if counters.iter().any(|counter| *counter > u64::MAX / 2) {
            return Err(SuperblockFault::Geometry("a counter at its end".to_owned()));
        }
        Ok(superblock)
    }

    fn fields(bytes: &[u8; BLOCK_LENGTH]) -> Option<Superblock> {
        let mut fields = Fields::new(bytes.get(32..FIELDS_BYTES)?);
        let superblock = Superblock {
            uuid: fields.take(16)?.try_into().ok()?,
            geometry: Geometry { pool_blocks: fields.u64()?, journal_blocks: fields.u64()? },
            allocation_run_blocks: {
                let blocks = fields.u32()?;
                fields.reserved(4)?;
                blocks
            },
            default_device_blocks: fields.u64()?,
            checkpoint: fields.u64()?,
            epoch: Epoch::new(fields.u32()?),
            next_serial: {
                fields.reserved(4)?;
                fields.u64()?
            },
            journal: JournalPosition {
                sequence: fields.u64()?,
                head_blocks: fields.u64()?,
                chain_crc: fields.u32()?,
            },
            used_blocks: {
                fields.reserved(4)?;
                fields.u64()?
            },
            data_blocks: fields.u64()?,
            layer_table: BlockPtr::from_words(fields.u64()?, fields.u64()?),
            space_map: BlockPtr::from_words(fields.u64()?, fields.u64()?),
            created_unix_ns: fields.u64()?.cast_signed(),
        };
        fields.reserved(fields.remaining())?;
        bytes.get(FIELDS_BYTES..CRC_AT)?.iter().all(|byte| *byte == 0).then_some(superblock)
    }
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; BLOCK_LENGTH] {
        let mut fields = Vec::with_capacity(BLOCK_LENGTH);
        fields.extend_from_slice(&MAGIC);
        fields.put_u32(VERSION);
        // Compatible features: none yet.
        fields.put_u32(0);
        // Incompatible and read-only-compatible features: none yet.
        fields.put_u64(0);
        fields.put_u64(0);
        fields.extend_from_slice(&self.uuid);
        fields.put_u64(self.geometry.pool_blocks);
        fields.put_u64(self.geometry.journal_blocks);
        fields.put_u32(self.allocation_run_blocks);
        fields.put_u32(0);
        fields.put_u64(self.default_device_blocks);
        fields.put_u64(self.checkpoint);
        fields.put_u32(self.epoch.get());
        fields.put_u32(0);
        fields.put_u64(self.next_serial);
        fields.put_u64(self.journal.sequence);
        fields.put_u64(self.journal.head_blocks);
        fields.put_u32(self.journal.chain_crc);
        fields.put_u32(0);
        fields.put_u64(self.used_blocks);
        fields.put_u64(self.data_blocks);
        for pointer in [self.layer_table, self.space_map] {
            let (address, check) = pointer.words();
            fields.put_u64(address);
            fields.put_u64(check);
        }
        fields.put_u64(self.created_unix_ns.cast_unsigned());
        fields.pad_to(CRC_AT);
        let crc = crc32fast::hash(&fields);
        fields.put_u32(crc);
        fields.pad_to(BLOCK_LENGTH);
        let mut block = [0; BLOCK_LENGTH];
        block.copy_from_slice(&fields);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pointer::PointerKind;
    use crate::types::PoolBlock;

    fn example() -> Superblock {
        Superblock {
            uuid: *b"0123456789abcdef",
            geometry: Geometry { pool_blocks: 1 << 20, journal_blocks: 1024 },
            allocation_run_blocks: 16,
            default_device_blocks: 2_621_440,
            checkpoint: 42,
            epoch: Epoch::new(7),
            next_serial: 99,
            journal: JournalPosition { sequence: 1000, head_blocks: 2000, chain_crc: 0xfeed_f00d },
            used_blocks: 321,
            data_blocks: 300,
            layer_table: BlockPtr::new(PointerKind::Page, PoolBlock::new(5000), Epoch::FIRST, 17),
            space_map: BlockPtr::new(PointerKind::Page, PoolBlock::new(6000), Epoch::FIRST, 18),
            created_unix_ns: -5,
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let superblock = example();
        assert_eq!(UnverifiedSuperblock(&superblock.encode()).verify(), Ok(superblock));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = example().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert!(UnverifiedSuperblock(&damaged).verify().is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_and_an_unknown_feature_are_told_apart() {
        let reseal = |mut bytes: [u8; BLOCK_LENGTH]| {
            let crc = crc32fast::hash(&bytes[..CRC_AT]);
            LittleEndian::write_u32(&mut bytes[CRC_AT..], crc);
            UnverifiedSuperblock(&bytes).verify()
        };
        let mut newer = example().encode();
        newer[8] = 2;
        assert_eq!(reseal(newer), Err(SuperblockFault::Version(2)));
        let mut featured = example().encode();
        featured[16] = 4;
        assert_eq!(reseal(featured), Err(SuperblockFault::Features(4)));
    }
}
