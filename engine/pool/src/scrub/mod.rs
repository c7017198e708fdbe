//! Scrubbing: all that has a checksum is read from the disk, past every cache, and held against it. Nothing is
//! written, and everything else goes on meanwhile: no lock is held while something is read.
//!
//! Every block has one owner, so layers are gone through one by one and of each what is its own: what many
//! share is read once. Origins come before those that stand on them. Who takes over the blocks of its origin
//! meanwhile is so met after it, and what was not come to in the one is found in the other.
//!
//! What a pointer leads to may be freed and used anew between the look at the pointer and the read. So what
//! does not match counts only if the pointer is found unchanged after it, and another read does not match
//! either.

mod affected;
mod data;
mod pages;
mod read;
mod tables;
mod walk;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::convert::to_u64;
use crate::core::Core;
use crate::layers::table::Table;
use crate::map::page::Page;
use crate::types::{BLOCK_BYTES, Epoch, LayerId, PoolBlock};

/// Findings beyond this many are counted, not listed.
const MOST_FINDINGS: usize = 1000;
/// One round over the layers that are there, and one over those that were made meanwhile: these may have
/// taken blocks of a layer that was still to come.
const ROUNDS: u8 = 2;

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has another checksum than is recorded: it has changed, or the record has.
    Mismatch {
        /// The CRC-32 of what was read.
        found: u32,
        /// The CRC-32 that it should have.
        recorded: u32,
    },
    /// It cannot be read, or what leads to it makes no sense.
    Unreadable {
        /// Why, in words that end a sentence.
        why: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Mismatch { found, recorded } => {
                write!(formatter, "has checksum {found:08x}, recorded is {recorded:08x}")
            }
            Damage::Unreadable { why } => write!(formatter, "cannot be read: {why}"),
        }
    }
}

/// A block that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubFinding {
    /// Which structure: "data", "map", "layer table", "space map", "bitmap" or "superblock".
    pub structure: &'static str,
    /// Whose it is, where it is a layer's.
    pub layer: Option<LayerId>,
    /// The blocks of the layer that are lost with it: one of data, or all that a page of its map leads to.
    pub blocks: Option<Range<u64>>,
    /// The block of the pool.
    pub pool_block: u64,
    /// What is wrong with it.
    pub damage: Damage,
    /// The layers that see it, the layer itself and those whose document it is among them. Removed ones
    /// are left out.
    pub affected: Vec<LayerId>,
}

impl ScrubFinding {
    /// What is wrong, and where.
    pub fn message(&self) -> String {
        let place = PoolBlock::new(self.pool_block);
        let damage = &self.damage;
        match &self.blocks {
            Some(blocks) if self.structure == "data" => {
                format!("block {}: the data at {place} {damage}", blocks.start)
            }
            Some(blocks) => {
                let last = blocks.end.saturating_sub(1);
                format!("blocks {} to {last}: the map page at {place} {damage}", blocks.start)
            }
            None => format!("the one at {place} {damage}"),
        }
    }
}

/// What a scrub found.
#[derive(Clone, Debug, Default)]
pub struct ScrubReport {
    /// What is damaged; empty for a sound pool.
    pub findings: Vec<ScrubFinding>,
    /// Findings beyond those listed.
    pub more_findings: u64,
    /// Layers looked at.
    pub layers: u64,
    /// Data that was read and has a checksum.
    pub data_bytes: u64,
    /// Pages of maps and tables, and bitmaps, that were read.
    pub metadata_bytes: u64,
    /// Data that has no checksum: nothing can be said of it.
    pub unsummed_bytes: u64,
    /// It came to its end, and was not stopped.
    pub complete: bool,
}

impl ScrubReport {
    /// Is nothing wrong with what was looked at?
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// How far a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubProgress {
    /// What was read.
    pub done_bytes: u64,
    /// What is to be read in all, as it looked when the scrub began.
    pub total_bytes: u64,
    /// The layers that were there then.
    pub layers: u64,
}

/// Is told how far a scrub is, and says whether it goes on.
pub type OnProgress<'a> = &'a mut dyn FnMut(ScrubProgress) -> ControlFlow<()>;

struct Scrub<'a> {
    core: &'a Core,
    /// Only these, and what they lead to; empty: everything.
    only: Vec<Candidate>,
    report: ScrubReport,
    progress: ScrubProgress,
    on_progress: OnProgress<'a>,
    /// Pages as they are on the disk, those that a walk now needs among them.
    pages: HashMap<PoolBlock, Arc<Page>>,
    /// Pages that did not match once. Asked for again, they are damaged.
    suspects: HashSet<pages::Key>,
    damaged: HashSet<pages::Key>,
}

/// Reads all that has a checksum, or all that the layers in `only` lead to. Never writes.
pub(crate) fn scrub(core: &Core, only: &[LayerId], on_progress: OnProgress<'_>) -> ScrubReport {
    let only: Vec<Candidate> = {
        let table = core.table.read();
        let serial = |id: &LayerId| table.get(*id).map_or(0, |entry| entry.meta.serial);
        only.iter().map(|id| Candidate { id: *id, serial: serial(id) }).collect()
    };
    let (layers, total_bytes) = extent_of_work(core, &only);
    let mut scrub = Scrub {
        core,
        only,
        report: ScrubReport::default(),
        progress: ScrubProgress { done_bytes: 0, total_bytes, layers },
        on_progress,
        pages: HashMap::new(),
        suspects: HashSet::new(),
        damaged: HashSet::new(),
    };
    scrub.report.complete = scrub.everything().is_continue();
    scrub.report
}

/// A layer that is to be gone through. Its slot may be another's when its turn comes: its serial tells.
#[derive(Clone, Copy)]
struct Candidate {
    id: LayerId,
    serial: u64,
}

/// How many layers there are, and the bytes of theirs that have checksums.
fn extent_of_work(core: &Core, only: &[Candidate]) -> (u64, u64) {
    let candidates = candidates(core, only);
    let table = core.table.read();
    let mut blocks: u64 = 0;
    for candidate in &candidates {
        let Ok(entry) = table.get(candidate.id) else { continue };
        let (data, pages) = entry.layer.own_blocks();
        let is_summed = entry.layer.map.read().is_summed(entry.meta.summed_blocks);
        let counts = is_summed && !entry.meta.deleting;
        blocks = blocks.saturating_add(pages).saturating_add(if counts { data } else { 0 });
    }
    // Of a damaged pool, counts may be anything.
    let blocks = blocks.min(core.pages.space.geometry().pool_blocks);
    (to_u64(candidates.len()), blocks * BLOCK_BYTES)
}

/// The layers, origins before those that stand on them: in the order of their seals, writable ones last.
fn candidates(core: &Core, only: &[Candidate]) -> Vec<Candidate> {
    let table = core.table.read();
    let wanted = (!only.is_empty()).then(|| needed_by(&table, only));
    let mut found: Vec<(Epoch, Candidate)> = table
        .iter()
        .filter(|(id, _)| wanted.as_ref().is_none_or(|wanted| wanted.contains(id)))
        .map(|(id, entry)| {
            let map = entry.layer.map.read();
            let seal = if map.sealed { map.seal_epoch } else { Epoch::new(u32::MAX) };
            (seal, Candidate { id: *id, serial: entry.meta.serial })
        })
        .collect();
    found.sort_by_key(|(seal, candidate)| (*seal, candidate.serial));
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Layers that are still the ones they were, and all that they stand on, need, or have as a document.
fn needed_by(table: &Table, only: &[Candidate]) -> HashSet<LayerId> {
    let is_the_same = |candidate: &&Candidate| {
        table.get(candidate.id).is_ok_and(|entry| entry.meta.serial == candidate.serial)
    };
    let mut next: Vec<LayerId> =
        only.iter().filter(is_the_same).map(|candidate| candidate.id).collect();
    let mut found = HashSet::new();
    while let Some(id) = next.pop() {
        let Ok(entry) = table.get(id) else { continue };
        if found.insert(id) {
            let meta = &entry.meta;
            next.extend([meta.origin, meta.reference, meta.document].into_iter().flatten());
        }
    }
    found
}

impl Scrub<'_> {
    fn everything(&mut self) -> ControlFlow<()> {
        self.advance(0)?;
        self.tables();
        let mut done = HashSet::new();
        for _ in 0..ROUNDS {
            for candidate in candidates(self.core, &self.only) {
                if done.insert(candidate.serial) {
                    self.layer(candidate)?;
                }
            }
        }
        // What was not written yet, or went meanwhile, was not read.
        self.advance(self.progress.total_bytes - self.progress.done_bytes)
    }

    /// All that a layer owns, in portions.
    fn layer(&mut self, candidate: Candidate) -> ControlFlow<()> {
        let mut from = 0;
        let mut own_blocks = 0;
        while let Some(portion) = self.next_portion(candidate, from) {
            let blocks = to_u64(portion.found.data.len()) + portion.found.pages;
            own_blocks += blocks + portion.found.unsummed;
            if own_blocks / 2 > self.core.pages.space.geometry().pool_blocks {
                self.add_endless(candidate.id, &portion);
                break;
            }
            self.report.metadata_bytes += portion.found.pages * BLOCK_BYTES;
            self.report.unsummed_bytes += portion.found.unsummed * BLOCK_BYTES;
            from = portion.found.next;
            let is_end = from >= portion.end;
            self.report.layers += u64::from(is_end);
            self.data(portion);
            self.advance(blocks * BLOCK_BYTES)?;
            if is_end {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    fn advance(&mut self, bytes: u64) -> ControlFlow<()> {
        let done_bytes = self.progress.done_bytes + bytes;
        self.progress.done_bytes = done_bytes;
        // What was made since it began comes on top.
        self.progress.total_bytes = self.progress.total_bytes.max(done_bytes);
        (self.on_progress)(self.progress)
    }

    fn add(&mut self, finding: ScrubFinding) {
        // What another layer took over meanwhile may be met there again.
        let is_told = |told: &ScrubFinding| {
            told.pool_block == finding.pool_block && told.structure == finding.structure
        };
        if self.report.findings.iter().any(is_told) {
            return;
        }
        if self.report.findings.len() < MOST_FINDINGS {
            self.report.findings.push(finding);
        } else {
            self.report.more_findings += 1;
        }
    }

    /// Is the list full? Then who is affected need not be found out.
    fn is_full(&self) -> bool {
        self.report.findings.len() >= MOST_FINDINGS
    }
}
