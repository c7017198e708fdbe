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
    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()>;

    /// Makes a range read as zeroes, freeing the space of the blocks that lie in it wholly.
    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()>;

    /// Frees the blocks that lie wholly in a range; they read as zeroes. Partly covered blocks at its
    /// ends keep their contents.
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()>;

    /// Makes every completed write, discard and write-zeroes of this device durable.
    fn flush(&self) -> Result<()>;
}
