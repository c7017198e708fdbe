//! The log of everything that was written to a disk, as the kernel's `log-writes` target of device-mapper leaves it
//! on its second device. The format is that of Linux: Documentation/admin-guide/device-mapper/log-writes.rst and
//! the comment and structures in drivers/md/dm-log-writes.c.
//!
//! Sector 0 has the superblock: magic, version, number of entries (64 bits each), sector size (32 bits), little-endian. Then the
//! entries follow one another. Each has a sector of its own (first sector, number of sectors, flags, length of a mark: 64
//! bits each, and the mark), and after it the data that was written, if it is a write.
//!
//! The kernel logs a write only when a flush has completed that was sent after the write was, so before each flush
//! stand the writes that it made durable, in the order in which they were completed. A write with FUA is logged at
//! once, and so is a mark: whatever was acknowledged before the mark was sent stands before it.

use std::io::{Read, Seek, SeekFrom};

/// The superblock's first word.
pub const MAGIC: u64 = 0x006a_7366_7773_6872;

const VERSION: u64 = 1;
const ENTRY_HEAD_BYTES: usize = 32;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// What the kernel writes when the log is closed in order.
pub const END_MARK: &str = "dm-log-writes-end";

/// Beyond this a write is not one of Linux, and its length is not believed.
const LONGEST_WRITE_BYTES: u64 = 64 << 20;

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A write, or a flush, or a write that begins with a flush or ends with one.
    Write {
        /// All that was written before it in the log was durable when it was done.
        flush_before: bool,
        /// It was itself durable when it was done.
        durable: bool,
        /// Where the bytes were written.
        offset_bytes: u64,
        /// Where in the log they stand.
        data_at: u64,
        /// How many they are; none for a mere flush.
        length_bytes: u64,
    },
    /// A discard: the range may read as anything.
    Discard {
        /// Where.
        offset_bytes: u64,
        /// How much.
        length_bytes: u64,
    },
    /// A mark of a user.
    Mark(String),
}

/// Reads a log.
pub struct LogReader<R> {
    log: R,
    sector_bytes: u64,
    entries: u64,
    read: u64,
    at: u64,
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(index * 8..index * 8 + 8) {
        word.copy_from_slice(found);
    }
    u64::from_le_bytes(word)
}

impl<R: Read + Seek> LogReader<R> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// When it is not that of a log, or cannot be read.
    pub fn open(mut log: R) -> Result<LogReader<R>, String> {
        let mut head = [0; ENTRY_HEAD_BYTES];
        log.seek(SeekFrom::Start(0))
            .and_then(|_| log.read_exact(&mut head))
            .map_err(|error| format!("the log's superblock cannot be read: {error}"))?;
        if word(&head, 0) != MAGIC {
            return Err("this is no log of writes: its first word is another".to_owned());
        }
        if word(&head, 1) != VERSION {
            return Err(format!("the log has version {}, not {VERSION}", word(&head, 1)));
        }
        let sector_bytes = word(&head, 3) & 0xffff_ffff;
        if !sector_bytes.is_power_of_two() || !(512..=65_536).contains(&sector_bytes) {
            return Err(format!("the log has sectors of {sector_bytes} bytes"));
        }
        Ok(LogReader { log, sector_bytes, entries: word(&head, 2), read: 0, at: sector_bytes })
    }

    /// How many entries it has.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; none after the last.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, String> {
        if self.read == self.entries {
            return Ok(None);
        }
        let number = self.read;
        let wrong = |what: &str| format!("entry {number} of the log {what}");
        let mut sector = vec![0; usize::try_from(self.sector_bytes).unwrap_or(512)];
        self.log
            .seek(SeekFrom::Start(self.at))
            .and_then(|_| self.log.read_exact(&mut sector))
            .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        let (flags, mark_bytes) = (word(&sector, 2), word(&sector, 3));
        let bytes = |sectors: u64| sectors.checked_mul(self.sector_bytes);
        let (offset_bytes, length_bytes) = bytes(word(&sector, 0))
            .zip(bytes(word(&sector, 1)))
            .filter(|(offset, length)| offset.checked_add(*length).is_some())
            .ok_or_else(|| wrong("lies beyond every disk"))?;
        let data_at = self.at + self.sector_bytes;
        let mut data_bytes = 0;
        let entry = if flags & MARK != 0 {
            let mark = usize::try_from(mark_bytes)
                .ok()
                .and_then(|length| sector[ENTRY_HEAD_BYTES..].get(..length))
                .ok_or_else(|| wrong("has a mark longer than a sector"))?;
            Entry::Mark(String::from_utf8_lossy(mark).into_owned())
        } else if flags & DISCARD != 0 {
            Entry::Discard { offset_bytes, length_bytes }
        } else {
            if length_bytes == 0 && flags & FLUSH == 0 {
                return Err(wrong("does nothing"));
            }
            if length_bytes > LONGEST_WRITE_BYTES {
                return Err(wrong(&format!("writes {length_bytes} bytes at once")));
            }
            data_bytes = length_bytes;
            Entry::Write {
                flush_before: flags & FLUSH != 0,
                durable: flags & FUA != 0,
                offset_bytes,
                data_at,
                length_bytes,
            }
        };
        self.at = data_at.checked_add(data_bytes).ok_or_else(|| wrong("lies beyond every disk"))?;
        self.read += 1;
        Ok(Some(entry))
    }

    /// The bytes that an entry of this log wrote.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn data(&mut self, data_at: u64, length_bytes: u64) -> Result<Vec<u8>, String> {
        let length = usize::try_from(length_bytes.min(LONGEST_WRITE_BYTES)).unwrap_or(0);
        let mut data = vec![0; length];
        self.log
            .seek(SeekFrom::Start(data_at))
            .and_then(|_| self.log.read_exact(&mut data))
            .map_err(|error| format!("data at byte {data_at} of the log: {error}"))?;
        Ok(data)
    }
}

/// All entries of a log.
///
/// # Errors
/// When one of them cannot be read.
pub fn read_entries<R: Read + Seek>(reader: &mut LogReader<R>) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
pub(crate) mod tests;
