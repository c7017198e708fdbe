//! What a written sector looks like: it says which write it belongs to and where it lies, so that the
//! oracle can tell whose it is, whatever it finds.

use crate::random::Random;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Sectors in a block.
pub const SECTORS: usize = 8;

/// One write of one thread, never used twice in a run. 0: zeroes, a hole.
///
/// The thread is in the upper byte, and its writes count up in the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId(pub u64);

impl WriteId {
    /// A hole.
    pub const ZEROES: WriteId = WriteId(0);

    /// The `count`th write of a thread, from 1.
    pub fn new(thread: u8, count: u64) -> WriteId {
        WriteId(u64::from(thread) << 56 | count)
    }

    /// The thread that wrote.
    pub fn thread(self) -> u8 {
        (self.0 >> 56) as u8
    }
}

/// Fills a sector with what `write` puts at a sector of a device.
pub fn fill_sector(write: WriteId, sector: u64, bytes: &mut [u8]) {
    if write == WriteId::ZEROES {
        bytes.fill(0);
        return;
    }
    let mut random = Random::new(write.0 ^ sector.rotate_left(32));
    bytes[..8].copy_from_slice(&write.0.to_le_bytes());
    for chunk in bytes[8..].chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes());
    }
}

/// Which write a sector comes from; none if no write left it like this.
pub fn read_sector(sector: u64, bytes: &[u8]) -> Option<WriteId> {
    let write = WriteId(u64::from_le_bytes(bytes[..8].try_into().ok()?));
    let mut expected = [0; SECTOR_BYTES];
    fill_sector(write, sector, &mut expected);
    (bytes == expected).then_some(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_is_recognized_at_its_place_only() {
        let mut bytes = [0; SECTOR_BYTES];
        assert_eq!(read_sector(5, &bytes), Some(WriteId::ZEROES));
        let write = WriteId::new(3, 17);
        fill_sector(write, 5, &mut bytes);
        assert_eq!(read_sector(5, &bytes), Some(write));
        assert_eq!(read_sector(6, &bytes), None);
        assert_eq!(write.thread(), 3);
        bytes[300] ^= 1;
        assert_eq!(read_sector(5, &bytes), None);
    }
}
