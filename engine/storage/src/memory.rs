//! Bytes in memory, for tests: a storage for a pool, and a plain block device.

use std::io;

use parking_lot::RwLock;

use crate::pages::SparsePages;
use crate::range::{check_within, length_bytes, lies_within};
use crate::{BlockDevice, Error, ErrorKind, Result, Storage};

const STORAGE_NAME: &str = "memory";

/// Sparse bytes of a stated size: what both types of this file are.
struct SizedPages {
    size_bytes: u64,
    pages: SparsePages,
}

impl SizedPages {
    fn new(size_bytes: u64) -> RwLock<SizedPages> {
        RwLock::new(SizedPages { size_bytes, pages: SparsePages::default() })
    }

    fn check(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        check_within(|| STORAGE_NAME.to_owned(), offset_bytes, length_bytes, self.size_bytes)
    }
}

/// A pool's storage in memory. Every completed write counts as durable.
pub struct MemoryStorage {
    bytes: RwLock<SizedPages>,
}

impl MemoryStorage {
    /// A storage of `size_bytes` zeroes.
    pub fn new(size_bytes: u64) -> MemoryStorage {
        MemoryStorage { bytes: SizedPages::new(size_bytes) }
    }
}

impl Storage for MemoryStorage {
    fn size_bytes(&self) -> u64 {
        self.bytes.read().size_bytes
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.read();
        bytes.check(offset_bytes, length_bytes(buffer))?;
        bytes.pages.read(offset_bytes, buffer);
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        bytes.check(offset_bytes, length_bytes(data))?;
        bytes.pages.write(offset_bytes, data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        bytes.check(offset_bytes, length_bytes)?;
        bytes.pages.zero(offset_bytes, length_bytes);
        Ok(())
    }

    fn reserve(&self, _offset_bytes: u64, _length_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        bytes.size_bytes = bytes.size_bytes.max(size_bytes);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        STORAGE_NAME.to_owned()
    }
}

/// A plain block device in memory: what a thin device is compared with in tests.
pub struct MemoryDevice {
    bytes: RwLock<SizedPages>,
}

impl MemoryDevice {
    /// A device of `size_bytes` zeroes.
    pub fn new(size_bytes: u64) -> MemoryDevice {
        MemoryDevice { bytes: SizedPages::new(size_bytes) }
    }

    fn check(bytes: &SizedPages, offset_bytes: u64, length: u64) -> Result<()> {
        if lies_within(offset_bytes, length, bytes.size_bytes) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            format!("{length} bytes at {offset_bytes} lie past the end of the device"),
        ))
    }
}

impl BlockDevice for MemoryDevice {
    fn size_bytes(&self) -> u64 {
        self.bytes.read().size_bytes
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.bytes.read();
        Self::check(&bytes, offset_bytes, length_bytes(buffer))?;
        bytes.pages.read(offset_bytes, buffer);
        Ok(())
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.write();
        Self::check(&bytes, offset_bytes, length_bytes(data))?;
        bytes.pages.write(offset_bytes, data);
        Ok(())
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let mut bytes = self.bytes.write();
        Self::check(&bytes, offset_bytes, length_bytes)?;
        bytes.pages.zero(offset_bytes, length_bytes);
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let mut bytes = self.bytes.write();
        Self::check(&bytes, offset_bytes, length_bytes)?;
        let end = (offset_bytes + length_bytes) / 4096 * 4096;
        if let Some(start) = offset_bytes.checked_next_multiple_of(4096)
            && start < end
        {
            bytes.pages.zero(start, end - start);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_reads_back_what_was_written_and_zeroes_elsewhere() {
        let storage = MemoryStorage::new(16384);
        storage.write_at(4000, &[5; 200]).unwrap();
        let mut buffer = [1; 300];
        storage.read_at(3950, &mut buffer).unwrap();
        assert_eq!(buffer[..50], [0; 50]);
        assert_eq!(buffer[50..250], [5; 200]);
        storage.punch_hole(0, 16384).unwrap();
        storage.read_at(3950, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 300]);
    }

    #[test]
    fn storage_refuses_ranges_past_the_end_until_it_grows() {
        let storage = MemoryStorage::new(4096);
        let error = storage.write_at(4095, &[0; 2]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(storage.read_at(u64::MAX, &mut [0; 2]).is_err());
        assert!(storage.punch_hole(4096, 1).is_err());
        storage.grow(8192).unwrap();
        storage.write_at(4095, &[0; 2]).unwrap();
        storage.grow(4096).unwrap();
        assert_eq!(storage.size_bytes(), 8192);
    }

    #[test]
    fn discard_keeps_the_blocks_that_are_covered_only_in_part() {
        let device = MemoryDevice::new(4 * 4096);
        device.write(0, &[9; 4 * 4096]).unwrap();
        device.discard(100, 3 * 4096).unwrap();
        let mut buffer = vec![0; 4 * 4096];
        device.read(0, &mut buffer).unwrap();
        assert_eq!(buffer[..4096], [9; 4096]);
        assert_eq!(buffer[4096..3 * 4096], [0; 2 * 4096]);
        assert_eq!(buffer[3 * 4096..], [9; 4096]);
    }

    #[test]
    fn device_refuses_ranges_past_the_end_as_wrong_usage() {
        let device = MemoryDevice::new(4096);
        assert_eq!(device.read(4096, &mut [0]).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(device.write_zeroes(1, u64::MAX).unwrap_err().kind(), ErrorKind::Usage);
    }
}
