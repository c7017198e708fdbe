//! What a disk did, as it counted itself.

use std::path::Path;

use crate::{Error, Result, mounts};

/// Since the system was started. Sectors are of 512 bytes, whatever the disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads that were completed.
    pub reads: u64,
    /// What they brought.
    pub read_bytes: u64,
    /// Writes that were completed.
    pub writes: u64,
    /// What they wrote.
    pub written_bytes: u64,
    /// Discards that were completed.
    pub discards: u64,
    /// What they gave back.
    pub discarded_bytes: u64,
    /// Flushes that were completed; not counted before Linux 5.5.
    pub flushes: u64,
}

impl DiskCounters {
    /// What was done since an earlier reading.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            writes: self.writes.saturating_sub(earlier.writes),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            discards: self.discards.saturating_sub(earlier.discards),
            discarded_bytes: self.discarded_bytes.saturating_sub(earlier.discarded_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }
}

/// The disk below a path, as it is called in diskstats, through partitions and loop devices.
pub fn disk_below(path: &Path) -> Result<String> {
    mounts::disk_of(path)?.ok_or_else(|| {
        Error::Invalid(format!(
            "{}: there is no disk below, so what is written cannot be counted; use a folder on a disk",
            path.display()
        ))
    })
}

/// The counters of a disk.
pub fn disk_counters(device: &str) -> Result<DiskCounters> {
    let path = Path::new("/proc/diskstats");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    counters_in(&text, device)
        .ok_or_else(|| Error::Invalid(format!("{device}: not in {}", path.display())))
}

fn counters_in(diskstats: &str, device: &str) -> Option<DiskCounters> {
    let line =
        diskstats.lines().find(|line| line.split_ascii_whitespace().nth(2) == Some(device))?;
    let numbers: Vec<u64> =
        line.split_ascii_whitespace().skip(3).map_while(|word| word.parse().ok()).collect();
    let at = |place: usize| numbers.get(place).copied();
    // Discards came with Linux 4.18, flushes with 5.5.
    let later = |place: usize| at(place).unwrap_or(0);
    Some(DiskCounters {
        reads: at(0)?,
        read_bytes: at(2)?.saturating_mul(512),
        writes: at(4)?,
        written_bytes: at(6)?.saturating_mul(512),
        discards: later(11),
        discarded_bytes: later(13).saturating_mul(512),
        flushes: later(15),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_device() {
        let text = "   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n \
                    254       0 vda 10 0 80 4 20 1 160 8 0 10 11 30 0 240 15 7 17\n \
                    254       1 vda1 1 0 8 4 2 1 16 8 0 10 11\n";
        let counters = counters_in(text, "vda").unwrap();
        assert_eq!((counters.writes, counters.written_bytes), (20, 160 * 512));
        assert_eq!(
            (counters.discards, counters.discarded_bytes, counters.flushes),
            (30, 240 * 512, 7)
        );
        let old = counters_in(text, "vda1").unwrap();
        assert_eq!((old.written_bytes, old.flushes), (16 * 512, 0));
        assert_eq!(counters_in(text, "vdb"), None);
        assert_eq!(counters.since(&counters), DiskCounters::default());
    }
}
