//! Repairing a pool that does not open, or in which a check found damage.
//!
//! Nothing is patched. What one of the superblocks and the journal still lead to is read
//! (`survey`), brought into a pool in memory by the operations of the engine itself, as opening does it
//! (`salvage`), completed where layers lost the ones that they stand on (`parents`, `owners`), and written by two
//! checkpoints of the engine. All of that happens on an `overlay`: the storage is written only when the
//! outcome was checked, and on demand.
//!
//! What is given back, and how:
//!  - *superblocks*: either leads to everything, the older one with a longer replay;
//!  - *space map, bitmaps, counts*: from the maps, which say what is in use;
//!  - *a page of a map*: the blocks below it are lost, for the layers that see them through it. They become
//!    lost pointers: reading them is an error, never a hole or somebody else's data. What children still see of
//!    them in pages of their own, their origin gets back;
//!  - *layer records*: the layers are lost, by their names and contents. Those that stood on them keep all
//!    that they have: what they see of the lost ones goes to nameless layers made for it;
//!  - *the journal*: what comes before the damage is applied.

mod overlay;
mod owners;
mod parents;
mod report;
mod salvage;
mod survey;

use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result, Storage};

use self::overlay::Overlay;
pub use self::report::{Loss, RepairReport};
use self::salvage::{Candidate, Salvaged, salvage};
use self::survey::Survey;
use crate::check::{CheckReport, Finding, blocks_text};
use crate::format::batch::pool_tag;
use crate::format::geometry::SUPERBLOCK_HOMES;
use crate::format::superblock::{Superblock, SuperblockFault};
use crate::journal::replay::read_until_damage;
use crate::journal::ring::Ring;
use crate::open::{find_roots, read_superblock};
use crate::pool::{OpenOptions, Pool};
use crate::types::BLOCK_BYTES;

/// How a pool is read to be looked at: nothing is written, and nothing happens by itself.
fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, background: false, ..OpenOptions::default() }
}

/// Both superblocks, newest first, and what is wrong with them.
fn superblocks(storage: &dyn Storage) -> Result<(Vec<Candidate>, Vec<Finding>)> {
    if let Err(error) = find_roots(storage)
        && error.kind() != ErrorKind::Corrupt
    {
        return Err(error);
    }
    let mut candidates = Vec::new();
    let mut findings = Vec::new();
    for (index, home) in SUPERBLOCK_HOMES.into_iter().enumerate() {
        match read_superblock(storage, home) {
            Ok(Ok(superblock)) => candidates.push(Candidate { superblock, home: index }),
            Ok(Err(fault)) => findings.push(superblock_finding(home.get(), &fault)),
            Err(error) => findings.push(Finding::new("superblock", None, error.to_string())),
        }
    }
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.superblock.checkpoint));
    Ok((candidates, findings))
}

fn superblock_finding(block: u64, fault: &SuperblockFault) -> Finding {
    let message = format!("the one at pool block {block} is damaged ({fault:?})");
    Finding::new("superblock", None, message)
}

/// A pool that is cut off must be made as long as it was before anything else.
fn check_length(storage: &dyn Storage, superblock: &Superblock) -> Result<()> {
    let expected_bytes = superblock.geometry.pool_blocks * BLOCK_BYTES;
    if storage.size_bytes() >= expected_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "{} is cut off: {} bytes of {expected_bytes}; give it its length back (`truncate -s {expected_bytes}`) \
             and repair what is lost then",
            storage.name(),
            storage.size_bytes()
        ),
    ))
}

fn none_is_whole(storage: &dyn Storage) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "both superblocks of {} are damaged: nothing leads to what it holds; restore it from a backup",
            storage.name()
        ),
    )
}

/// Lists everything that is wrong with a pool that cannot be opened. `error` is why it cannot.
pub(crate) fn survey(storage: &dyn Storage, error: &Error) -> Result<CheckReport> {
    let (candidates, mut findings) = superblocks(storage)?;
    let mut more_findings = 0;
    if let Some(candidate) = candidates.first() {
        match check_length(storage, &candidate.superblock) {
            // All else would follow from that.
            Err(error) => {
                let message = error.to_string();
                findings.push(Finding::new("pool", None, message));
            }
            Ok(()) => {
                findings.extend(journal_finding(storage, &candidate.superblock));
                let survey = Survey::of(storage, &candidate.superblock);
                findings.extend(survey.findings);
                more_findings = survey.more_findings;
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::new("pool", None, error.to_string()));
    }
    Ok(CheckReport { findings, more_findings, ..CheckReport::default() })
}

fn journal_finding(storage: &dyn Storage, superblock: &Superblock) -> Option<Finding> {
    let ring = Ring { blocks: superblock.geometry.journal_blocks };
    let read = read_until_damage(storage, ring, pool_tag(&superblock.uuid), superblock.journal);
    let error = match read {
        Ok((_, damage)) => damage.err()?,
        Err(error) => error,
    };
    Some(Finding::new("journal", None, error.to_string()))
}

/// What is wrong: by a check if the pool opens, else by a survey.
fn findings(storage: &Arc<dyn Storage>) -> Result<Vec<Finding>> {
    match Pool::open(Arc::clone(storage), &read_only()).and_then(|pool| pool.check()) {
        Ok(report) => Ok(report.findings),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            Ok(survey(&**storage, &error)?.findings)
        }
        Err(error) => Err(error),
    }
}

/// A repair that was made, but not written.
pub struct Repair {
    overlay: Option<Arc<Overlay>>,
    report: RepairReport,
}

impl Repair {
    /// Looks at a pool, and repairs it in memory. The storage is only read.
    pub fn prepare(storage: Arc<dyn Storage>) -> Result<Repair> {
        let findings = findings(&storage)?;
        // What an earlier repair gave up does not come back by another one.
        if findings.iter().all(Finding::is_lost) {
            return Ok(Repair { overlay: None, report: RepairReport::default() });
        }
        let (candidates, _) = superblocks(&*storage)?;
        let newest = candidates.first().ok_or_else(|| none_is_whole(&*storage))?;
        check_length(&*storage, &newest.superblock)?;
        let mut best: Option<(Arc<Overlay>, Salvaged)> = None;
        for candidate in &candidates {
            let overlay = Arc::new(Overlay::new(Arc::clone(&storage)));
            let work: Arc<dyn Storage> = overlay.clone();
            let salvaged = salvage(&work, candidate)?;
            let is_better = best.as_ref().is_none_or(|(_, other)| salvaged.missing < other.missing);
            let is_whole = salvaged.missing.is_nothing();
            if is_better {
                best = Some((overlay, salvaged));
            }
            if is_whole {
                break;
            }
        }
        let (overlay, salvaged) = best.ok_or_else(|| none_is_whole(&*storage))?;
        let mut report = RepairReport {
            findings,
            losses: salvaged.losses,
            from_older_superblock: salvaged.checkpoint < newest.superblock.checkpoint,
            replayed_changes: salvaged.replayed_changes,
            made_parents: salvaged.made_parents,
            written_blocks: overlay.written_blocks(),
            remaining: Vec::new(),
        };
        let repaired: Arc<dyn Storage> = overlay.clone();
        report.look_at(&repaired)?;
        Ok(Repair { overlay: Some(overlay), report })
    }

    /// What was found, and what is lost.
    pub fn report(&self) -> &RepairReport {
        &self.report
    }

    /// Writes the repaired pool; durable on return. Refused if it would not be sound.
    pub fn write(self) -> Result<RepairReport> {
        if let Some(finding) = self.report.remaining.first() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the pool cannot be repaired: afterwards there would still be a damaged {} ({}); nothing was written",
                    finding.structure, finding.message
                ),
            ));
        }
        if let Some(overlay) = &self.overlay {
            overlay.bring_down()?;
        }
        Ok(self.report)
    }
}

impl RepairReport {
    /// Checks the repaired pool, and names what is lost in it.
    fn look_at(&mut self, repaired: &Arc<dyn Storage>) -> Result<()> {
        let pool = match Pool::open(Arc::clone(repaired), &read_only()) {
            Ok(pool) => pool,
            Err(error) => {
                let message = error.to_string();
                self.remaining.push(Finding::new("pool", None, message));
                return Ok(());
            }
        };
        for finding in pool.check()?.findings {
            let Some(blocks) = &finding.lost else {
                self.remaining.push(finding);
                continue;
            };
            let info = finding.layer.and_then(|id| pool.layer(id).ok());
            let name = info.map(|info| (info.namespace, info.name));
            self.losses.push(Loss {
                layer: finding.layer,
                name: name.filter(|(_, name)| !name.is_empty()),
                message: format!("{} cannot be read any more", blocks_text(blocks)),
            });
        }
        Ok(())
    }
}
