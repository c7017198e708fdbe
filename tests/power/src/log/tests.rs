//! Logs as the kernel writes them, made by hand.

use std::io::Cursor;

use super::*;

const SECTOR: usize = 512;

/// A log in the making.
pub(crate) struct Made {
    bytes: Vec<u8>,
    entries: u64,
}

impl Made {
    pub(crate) fn new() -> Made {
        Made { bytes: vec![0; SECTOR], entries: 0 }
    }

    pub(crate) fn entry(mut self, words: [u64; 4], inline: &[u8], data: &[u8]) -> Made {
        let start = self.bytes.len();
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.bytes.extend(inline);
        self.bytes.resize(start + SECTOR, 0);
        self.bytes.extend(data);
        self.entries += 1;
        self
    }

    /// One sector of `byte` at sector number `sector`.
    pub(crate) fn write(self, sector: u64, flags: u64, byte: u8) -> Made {
        self.entry([sector, 1, flags, 0], &[], &[byte; SECTOR])
    }

    pub(crate) fn flush(self) -> Made {
        self.entry([0, 0, FLUSH, 0], &[], &[])
    }

    pub(crate) fn mark(self, text: &str) -> Made {
        let length = u64::try_from(text.len()).expect("a length");
        self.entry([0, 0, MARK, length], text.as_bytes(), &[])
    }

    pub(crate) fn reader(mut self) -> LogReader<Cursor<Vec<u8>>> {
        let words = [MAGIC, VERSION, self.entries, 512];
        let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes[..head.len()].copy_from_slice(&head);
        LogReader::open(Cursor::new(self.bytes)).expect("a log")
    }
}

#[test]
fn every_kind_of_entry_is_read() {
    let made = Made::new()
        .write(9, 0, 7)
        .flush()
        .write(3, FLUSH | FUA, 8)
        .entry([16, 8, DISCARD, 0], &[], &[])
        .mark("12")
        .write(4, 0, 5);
    let mut reader = made.reader();
    let entries = read_entries(&mut reader).expect("entries");
    let write = |flush_before, durable, offset_bytes, data_at, length_bytes| Entry::Write {
        flush_before,
        durable,
        offset_bytes,
        data_at,
        length_bytes,
    };
    assert_eq!(
        entries,
        [
            write(false, false, 9 * 512, 1024, 512),
            write(true, false, 0, 2048, 0),
            write(true, true, 3 * 512, 2560, 512),
            Entry::Discard { offset_bytes: 16 * 512, length_bytes: 8 * 512 },
            Entry::Mark("12".to_owned()),
            write(false, false, 4 * 512, 4608, 512),
        ]
    );
    assert_eq!(reader.data(2560, 512), Ok(vec![8; 512]));
    assert_eq!(reader.data(4608, 512), Ok(vec![5; 512]));
}

#[test]
fn what_is_no_log_is_refused() {
    let refused = |bytes: Vec<u8>| LogReader::open(Cursor::new(bytes)).map(|_| ()).unwrap_err();
    assert!(refused(vec![0; 10]).contains("cannot be read"));
    assert!(refused(vec![0; 512]).contains("no log"));
    let wrong = |made: Made| read_entries(&mut made.reader()).unwrap_err();
    assert!(wrong(Made::new().entry([0, 0, 0, 0], &[], &[])).contains("does nothing"));
    assert!(wrong(Made::new().entry([0, 0, MARK, 500], &[], &[])).contains("mark"));
    assert!(wrong(Made::new().entry([u64::MAX, 1, 0, 0], &[], &[])).contains("beyond"));
    assert!(wrong(Made::new().entry([0, 1 << 40, 0, 0], &[], &[])).contains("at once"));
    let mut cut_off = Made::new().write(0, 0, 1).reader();
    cut_off.entries = 2;
    assert!(read_entries(&mut cut_off).unwrap_err().contains("entry 1 of the log cannot be read"));
}
