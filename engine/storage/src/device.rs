//! A device of fixed size that floors above read and write: a thin device of a pool, or memory.

use crate::Result;

/// A block device: any byte range can be read and written; 4096-byte aligned requests are the fast
/// ones. All methods may be called from many threads at once.
pub trait BlockDevice: Send + Sync {
    /// The device's size, a multiple of 4096.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` from `offset_bytes`; what was never written, or discarded, reads as zeroes.
    /// A range past the end is an error of kind `Usage`.
    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes `data` at `offset_bytes`. It is durable after the next [`BlockDevice::flush`].
    /// Where there is no room it may wait for some, if the device was opened so.
    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()>;

    /// As [`BlockDevice::write`], but never waits for room: then it fails with kind `Full`, and some of
    /// the data may be written.
    fn write_at_once(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.write(offset_bytes, data)
    }

    /// Would a write that finds no room wait for some?
    fn waits_for_room(&self) -> bool {
        false
    }

    /// While `hurried`, no write waits for room, and those that do fail: for whoever waits for the device
    /// to come to rest.
    fn hurry(&self, hurried: bool) {
        let _ = hurried;
    }

    /// Makes a range read as zeroes, freeing the space of the blocks that lie in it wholly.
    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()>;

    /// Frees the blocks that lie wholly in a range; they read as zeroes. Partly covered blocks at its
    /// ends keep their contents.
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()>;

    /// Makes every completed write, discard and write-zeroes of this device durable.
    fn flush(&self) -> Result<()>;
}
