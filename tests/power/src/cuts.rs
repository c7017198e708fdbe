//! Moments at which power is cut, and the disk as it is found after them.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;

use thinstore_storage::{CrashPolicy, SimulatedDisk, Storage};
use thinstore_tests::attack::random::Random;

use crate::attack::for_pieces;
use crate::log::{Entry, LogReader};

/// A loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// So many entries of the log have happened.
    pub position: usize,
    /// What of the writes since the last flush is kept.
    pub policy: CrashPolicy,
}

/// The first and the second superblock of a pool that begins where the disk does (docs/format.md).
const SUPERBLOCKS_AT: [u64; 2] = [0, 35 * 4096];

/// Moments that tell most, from entry `first` on.
struct Moments {
    /// Right before a flush or FUA: most may be lost.
    flushes: Vec<usize>,
    /// Of these, those that a write to a superblock waits for.
    superblocks: Vec<usize>,
    /// Right after a mark: what was acknowledged before it must be there.
    marks: Vec<usize>,
}

fn moments(entries: &[Entry], first: usize) -> Moments {
    let mut moments = Moments { flushes: Vec::new(), superblocks: Vec::new(), marks: Vec::new() };
    let mut superblock = false;
    for (index, entry) in entries.iter().enumerate().skip(first) {
        match entry {
            Entry::Mark(_) => moments.marks.push(index + 1),
            Entry::Write { flush_before, durable, offset_bytes, length_bytes, .. } => {
                if *flush_before || *durable {
                    moments.flushes.push(index);
                    if std::mem::take(&mut superblock) {
                        moments.superblocks.push(index);
                    }
                }
                superblock |= *length_bytes > 0 && SUPERBLOCKS_AT.contains(offset_bytes);
            }
            Entry::Discard { .. } => {}
        }
    }
    moments
}

/// `count` cuts behind entry `first`, in order: a quarter of each kind of `Moments`, or all of them where there
/// are fewer, and any moments for the rest; each with nothing, everything, or a part of what was not flushed.
pub fn choose(entries: &[Entry], first: usize, count: usize, random: &mut Random) -> Vec<Cut> {
    if entries.len() <= first {
        return Vec::new();
    }
    let Moments { flushes, superblocks, marks } = moments(entries, first);
    let mut positions = Vec::new();
    for mut kind in [flushes, superblocks, marks] {
        for _ in 0..kind.len().min(count / 4) {
            positions.push(kind.swap_remove(random.index(kind.len())));
        }
    }
    while positions.len() < count {
        positions.push(first + random.index(entries.len() - first + 1));
    }
    positions.sort_unstable();
    let policy = |random: &mut Random| {
        // The first four numbers are the plain policies.
        let seed = random.below(8);
        CrashPolicy::from_seed(if seed < 4 { seed } else { 4 + random.below(1 << 40) })
    };
    positions.into_iter().map(|position| Cut { position, policy: policy(random) }).collect()
}

/// The numbers of events that marks give: all of the first had happened at `position`, and nothing
/// beyond the second had begun (none: nothing is known of that).
///
/// The mark after the cut was counted before it was sent, so something may have begun between the two; the one after
/// that was counted when the first had arrived.
pub fn events_at(entries: &[Entry], position: usize) -> (u64, Option<u64>) {
    let number = |entry: &Entry| match entry {
        Entry::Mark(text) => text.parse().ok(),
        _ => None,
    };
    let (before, after) = entries.split_at(position.min(entries.len()));
    let least = before.iter().rev().find_map(number).unwrap_or(0);
    (least, after.iter().filter_map(number).nth(1))
}

/// The first entry after the first mark that is a number: there the load began.
pub fn beginning(entries: &[Entry]) -> Option<usize> {
    let is_number =
        |entry: &Entry| matches!(entry, Entry::Mark(text) if text.parse::<u64>().is_ok());
    entries.iter().position(is_number).map(|index| index + 1)
}

/// A disk that goes through a log.
pub struct Replay<'a, R> {
    reader: LogReader<R>,
    entries: &'a [Entry],
    disk: SimulatedDisk,
    position: usize,
}

impl<'a, R: Read + Seek> Replay<'a, R> {
    /// The disk as it was before, and the log that it will go through.
    pub fn new(reader: LogReader<R>, entries: &'a [Entry], disk: SimulatedDisk) -> Replay<'a, R> {
        Replay { reader, entries, disk, position: 0 }
    }

    /// Does the disk hold what `file` does?
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn is_same_as(&self, file: &File) -> Result<bool, String> {
        let mut same = true;
        let mut other = Vec::new();
        for_pieces(self.disk.size_bytes(), |offset_bytes, piece| {
            self.disk.read_at(offset_bytes, piece)?;
            other.resize(piece.len(), 0);
            file.read_exact_at(&mut other, offset_bytes)?;
            same &= other == piece;
            Ok(())
        })?;
        Ok(same)
    }

    /// Goes on until so many entries have happened.
    ///
    /// # Errors
    /// When the log cannot be read, or writes beyond the disk.
    pub fn advance_to(&mut self, position: usize) -> Result<(), String> {
        while self.position < position {
            let Some(entry) = self.entries.get(self.position) else { return Ok(()) };
            self.apply(entry)
                .map_err(|error| format!("entry {} of the log: {error}", self.position))?;
            self.position += 1;
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let say = |error: std::io::Error| error.to_string();
        match *entry {
            Entry::Mark(_) => Ok(()),
            Entry::Discard { offset_bytes, length_bytes } => {
                self.disk.punch_hole(offset_bytes, length_bytes).map_err(say)
            }
            Entry::Write { flush_before, durable, offset_bytes, data_at, length_bytes } => {
                if flush_before {
                    self.disk.sync().map_err(say)?;
                }
                if length_bytes > 0 {
                    let data = self.reader.data(data_at, length_bytes)?;
                    self.disk.write_at(offset_bytes, &data).map_err(say)?;
                }
                // The log has nothing before it that was not durable by then.
                if durable {
                    self.disk.sync().map_err(say)?;
                }
                Ok(())
            }
        }
    }

    /// The disk as it is found if the power fails now.
    pub fn after_power_loss(&self, policy: CrashPolicy) -> SimulatedDisk {
        self.disk.image().disk(policy)
    }
}

#[cfg(test)]
mod tests;
