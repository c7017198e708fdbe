//! Checking and repairing a store whose pool may be too damaged to be opened: both work on the pool file,
//! which nobody else may have open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use thinstore_pool::{Loss, Namespace, Pool, Repair};
use thinstore_storage::{Error, Result, Storage};

use crate::check::{finding, summary};
use crate::kinds;
use crate::layout::Layout;
use crate::store::Store;
use crate::takeover::open_pool_file;
use crate::types::{CheckSummary, RepairLoss, RepairSummary};

/// What a repair may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairTarget {
    /// Nothing: it only says what it would do.
    Nothing,
    /// The store's pool.
    Pool,
    /// A new file, a copy of the pool that is repaired; the pool stays as it is.
    Copy(PathBuf),
}

/// Lists what is wrong with the pool of a store that cannot be opened, which `error` said. Never writes.
pub fn survey(root: &Path, error: &Error) -> Result<CheckSummary> {
    let started = Instant::now();
    let layout = Layout::new(root);
    Store::require(&layout)?;
    let storage = open_pool_file(&layout, true)?;
    Ok(summary(Pool::survey(&storage, error)?, started.elapsed()))
}

/// Repairs the pool of the store at `root`, as far as `target` allows.
///
/// Errors: `InUse` while anybody has the pool open, `Corrupt` if nothing leads to what it holds any more, or
/// if it would not be sound afterwards; then nothing is written.
pub fn repair(root: &Path, target: &RepairTarget) -> Result<RepairSummary> {
    let started = Instant::now();
    let layout = Layout::new(root);
    Store::require(&layout)?;
    let read_only = *target != RepairTarget::Pool;
    let storage: Arc<dyn Storage> = match (open_pool_file(&layout, read_only)?, target) {
        (pool, RepairTarget::Copy(path)) => Arc::new(pool.copy_to(path)?),
        (pool, _) => Arc::new(pool),
    };
    let outcome = Repair::prepare(storage).and_then(|repair| match target {
        RepairTarget::Nothing => Ok(repair.report().clone()),
        _ => repair.write(),
    });
    if let (Err(_), RepairTarget::Copy(path)) = (&outcome, target) {
        // A copy that is as damaged as the pool is of no use; the first error is the one to tell.
        drop(std::fs::remove_file(path));
    }
    let report = outcome?;
    let is_damaged = !report.findings.is_empty();
    Ok(RepairSummary {
        damaged: is_damaged,
        written: match target {
            RepairTarget::Nothing => None,
            RepairTarget::Pool => is_damaged.then(|| layout.pool().display().to_string()),
            RepairTarget::Copy(path) => Some(path.display().to_string()),
        },
        findings: report.findings.into_iter().map(finding).collect(),
        losses: report.losses.into_iter().map(loss).collect(),
        remaining: report.remaining.into_iter().map(finding).collect(),
        from_older_superblock: report.from_older_superblock,
        replayed_changes: report.replayed_changes,
        made_parents: report.made_parents,
        written_blocks: report.written_blocks,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn loss(loss: Loss) -> RepairLoss {
    let (kind, name) = match loss.name {
        Some((namespace, name)) => (Some(kind_of(namespace).to_owned()), Some(name)),
        None => (None, None),
    };
    RepairLoss {
        layer_id: loss.layer.map(thinstore_pool::LayerId::get),
        kind,
        name,
        message: loss.message,
    }
}

fn kind_of(namespace: Namespace) -> &'static str {
    match namespace {
        kinds::IMAGE => "image",
        kinds::CONTAINER => "container",
        kinds::TEMPLATE => "template",
        kinds::VOLUME => "volume",
        _ => "layer",
    }
}
