//! What is found on a disk after a loss of power.

use super::SimulatedDisk;
use super::random::Random;
use super::unsynced::UnsyncedList;
use crate::pages::SparsePages;

/// Which of the unsynced writes a loss of power leaves on the disk. A punched hole counts as a write
/// of zeroes. The same policy on the same image always gives the same disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashPolicy {
    /// All of them: the disk was about to finish, or has no volatile cache.
    KeepAll,
    /// None of them.
    DropAll,
    /// Only the newest: a disk that wrote last things first.
    LastOnly,
    /// All but the oldest: a write that waited while others went by.
    AllButFirst,
    /// The oldest, up to a random one, and some sectors of the next: a disk that keeps the order.
    Prefix {
        /// Chooses where the prefix ends.
        seed: u64,
    },
    /// All but one: what shows a write that somebody forgot to wait for.
    AllButOne {
        /// Chooses which one is missing.
        seed: u64,
    },
    /// A random choice of whole writes and some torn ones, in random order where they overlap.
    Writes {
        /// Makes every choice.
        seed: u64,
    },
    /// Each sector by itself is what it was, or what any of the writes to it left there.
    Sectors {
        /// Makes every choice.
        seed: u64,
    },
}

impl CrashPolicy {
    /// A policy for every number: 0 to 3 are the four without a seed, and from 4 on the others take
    /// turns. A search over `0..n` so begins with the plainest cases.
    pub fn from_seed(seed: u64) -> CrashPolicy {
        match seed {
            0 => CrashPolicy::KeepAll,
            1 => CrashPolicy::DropAll,
            2 => CrashPolicy::LastOnly,
            3 => CrashPolicy::AllButFirst,
            _ => match seed % 4 {
                3 => CrashPolicy::Sectors { seed },
                0 => CrashPolicy::AllButOne { seed },
                1 => CrashPolicy::Prefix { seed },
                _ => CrashPolicy::Writes { seed },
            },
        }
    }

    /// Whether a growth that power failed in is there afterwards.
    fn keeps_growth(self) -> bool {
        match self {
            CrashPolicy::KeepAll | CrashPolicy::LastOnly | CrashPolicy::AllButFirst => true,
            CrashPolicy::DropAll => false,
            CrashPolicy::Prefix { seed }
            | CrashPolicy::AllButOne { seed }
            | CrashPolicy::Writes { seed }
            | CrashPolicy::Sectors { seed } => Random::new(!seed).chance(4),
        }
    }
}

/// A disk at one moment: what is durable, and what may or may not be.
///
/// Cheap to make and to clone (pages and writes are shared), so that a search can keep one for every
/// operation of a run, and turn each into as many disks as it likes.
#[derive(Clone)]
pub struct CrashImage {
    pub(super) size_bytes: u64,
    /// What the size was to be when power failed in the midst of growing.
    pub(super) interrupted_growth_bytes: Option<u64>,
    pub(super) durable: SparsePages,
    pub(super) unsynced: UnsyncedList,
    pub(super) operations: u64,
}

impl CrashImage {
    /// How many operations the disk had begun.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// How many writes and punched holes were not synced.
    pub fn unsynced_count(&self) -> usize {
        self.unsynced.len()
    }

    /// The numbers of the operations that were not synced, oldest first.
    pub fn unsynced_operations(&self) -> impl Iterator<Item = u64> {
        self.unsynced.iter().map(|unsynced| unsynced.operation)
    }

    /// The disk as it is found after power comes back: its operations and counters start anew.
    pub fn disk(&self, policy: CrashPolicy) -> SimulatedDisk {
        let size_bytes = match self.interrupted_growth_bytes {
            Some(larger) if policy.keeps_growth() => larger,
            _ => self.size_bytes,
        };
        SimulatedDisk::with_content(size_bytes, self.surviving(policy))
    }

    fn surviving(&self, policy: CrashPolicy) -> SparsePages {
        let mut pages = self.durable.clone();
        match policy {
            CrashPolicy::DropAll => {}
            CrashPolicy::KeepAll => {
                for unsynced in &self.unsynced {
                    unsynced.apply(&mut pages);
                }
            }
            CrashPolicy::LastOnly => {
                if let Some(newest) = self.unsynced.last() {
                    newest.apply(&mut pages);
                }
            }
            CrashPolicy::AllButFirst => {
                for unsynced in self.unsynced.iter().skip(1) {
                    unsynced.apply(&mut pages);
                }
            }
            CrashPolicy::Prefix { seed } => self.keep_prefix(&mut pages, &mut Random::new(seed)),
            CrashPolicy::AllButOne { seed } => {
                let missing = self.any_index(&mut Random::new(seed));
                for (index, unsynced) in self.unsynced.iter().enumerate() {
                    if index != missing {
                        unsynced.apply(&mut pages);
                    }
                }
            }
            CrashPolicy::Writes { seed } => self.keep_writes(&mut pages, &mut Random::new(seed)),
            CrashPolicy::Sectors { seed } => self.keep_sectors(&mut pages, &mut Random::new(seed)),
        }
        pages
    }

    fn any_index(&self, random: &mut Random) -> usize {
        let count = u64::try_from(self.unsynced.len()).unwrap_or(u64::MAX);
        usize::try_from(random.below(count)).unwrap_or(0)
    }

    fn keep_prefix(&self, pages: &mut SparsePages, random: &mut Random) {
        let torn = self.any_index(random);
        for unsynced in self.unsynced.iter().take(torn) {
            unsynced.apply(pages);
        }
        if let Some(unsynced) = self.unsynced.get(torn) {
            unsynced.apply_torn(pages, random, 4);
        }
    }

    fn keep_writes(&self, pages: &mut SparsePages, random: &mut Random) {
        let kept_eighths = few_half_or_most(random);
        let mut kept = self.unsynced.clone();
        kept.retain(|_| random.chance(kept_eighths));
        random.shuffle(&mut kept);
        for unsynced in kept {
            if random.chance(2) {
                unsynced.apply_torn(pages, random, 4);
            } else {
                unsynced.apply(pages);
            }
        }
    }

    /// Going through the writes in order and keeping each sector by chance can leave each sector with
    /// any of its candidates: what was durable if no write to it is kept, and what a certain write
    /// left there if that one is kept and no later one.
    fn keep_sectors(&self, pages: &mut SparsePages, random: &mut Random) {
        let kept_eighths = few_half_or_most(random);
        for unsynced in &self.unsynced {
            unsynced.apply_torn(pages, random, kept_eighths);
        }
    }
}

/// A share in eighths. With one half alone, the chance that nearly all or nearly none of many writes
/// survive would be nil.
fn few_half_or_most(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => 1,
        1 => 4,
        _ => 7,
    }
}
