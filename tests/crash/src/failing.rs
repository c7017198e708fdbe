//! Disks that fail: the n-th operation of a kind goes wrong, for every n of a story. Whoever asked hears
//! of it, nothing that was acknowledged is lost, and opening again recovers.

use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_pool::{OpenOptions, Pool};
use thinstore_storage::{
    CrashPolicy, DiskOperation, ErrorKind, FailedSync, FailedWrite, Fault, FaultPlan,
    SimulatedDisk, Storage,
};

use crate::actor::Trouble;
use crate::model::Model;
use crate::oracle::verify;
use crate::scenario::{Scenario, Stage};
use crate::search::{Finding, Outcome, guarded};

/// What goes wrong, and how.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which operations.
    pub operation: DiskOperation,
    /// With which error.
    pub fault: Fault,
    /// What a failed write leaves.
    pub failed_write: FailedWrite,
    /// What a failed flush leaves.
    pub failed_sync: FailedSync,
}

/// All kinds of failure that a disk may answer with.
pub fn failures() -> Vec<Failure> {
    let plain = Failure {
        operation: DiskOperation::Read,
        fault: Fault::InputOutput,
        failed_write: FailedWrite::LeavesNothing,
        failed_sync: FailedSync::KeepsUnsynced,
    };
    let mut failures = vec![plain.clone()];
    for operation in [DiskOperation::Punch, DiskOperation::Grow, DiskOperation::Reserve] {
        failures.push(Failure { operation, ..plain.clone() });
    }
    for fault in [Fault::InputOutput, Fault::NoSpace] {
        for failed_write in [FailedWrite::LeavesNothing, FailedWrite::LeavesPrefix { seed: 7 }] {
            let operation = DiskOperation::Write;
            failures.push(Failure { operation, fault, failed_write, ..plain.clone() });
        }
    }
    for failed_sync in
        [FailedSync::KeepsUnsynced, FailedSync::LosesUnsynced, FailedSync::LosesSome { seed: 11 }]
    {
        failures.push(Failure { operation: DiskOperation::Sync, failed_sync, ..plain.clone() });
    }
    failures
}

/// How many operations of each kind a story has when nothing fails. Punched holes and reservations are
/// counted by the disk only together with the rest: a bound.
fn operations(scenario: &Scenario, seed: u64, options: &OpenOptions) -> Result<u64, String> {
    let (disk, _, _) = tell(scenario, seed, options, None)?;
    let counters = disk.counters();
    Ok(disk.operations().max(counters.reads))
}

type Told = (Arc<SimulatedDisk>, Model, Option<ErrorKind>);

/// Tells a story until something fails. Gives the disk, what may be found on it, and the error.
fn tell(
    scenario: &Scenario,
    seed: u64,
    options: &OpenOptions,
    plan: Option<FaultPlan>,
) -> Result<Told, String> {
    let disk = Arc::new(SimulatedDisk::new(scenario.pool_bytes));
    Pool::create(&*disk, &scenario.pool_options(seed)).map_err(|error| error.to_string())?;
    let fails = plan.is_some();
    disk.set_faults(plan.unwrap_or_default());
    let model = Arc::new(Mutex::new(Model::default()));
    let pool = match Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, options) {
        Ok(pool) => pool,
        Err(error) if fails => return Ok((disk, Model::default(), Some(error.kind()))),
        Err(error) => return Err(error.to_string()),
    };
    let stage = Stage { pool, model: Arc::clone(&model), seed, life: 0 };
    let failed = match (scenario.run)(&stage) {
        Ok(()) => None,
        Err(Trouble::Engine(error)) => Some(error.kind()),
        // A read of what was just made may be what failed.
        Err(Trouble::Wrong(_)) if fails => Some(ErrorKind::Io),
        Err(Trouble::Wrong(what)) => return Err(what),
    };
    drop(stage);
    let model = model.lock().clone();
    Ok((disk, model, failed))
}

/// Lets the operation of each number fail in turn, and opens what is left: as if the process had been
/// killed, and as if the power had failed as well.
pub fn fail_each(
    scenario: &'static Scenario,
    seed: u64,
    failure: &Failure,
    stride: u64,
    options: &OpenOptions,
) -> Outcome {
    let mut outcome = Outcome::default();
    let finding = |number, policy, message| Finding {
        scenario: scenario.name,
        seed,
        life: 0,
        operation: Some(number),
        policy,
        message: format!("{failure:?} number {number}: {message}"),
    };
    let last = match operations(scenario, seed, options) {
        Ok(last) => last,
        Err(message) => {
            outcome.finding = Some(finding(0, None, message));
            return outcome;
        }
    };
    for number in (1 + seed % stride..=last).step_by(stride as usize) {
        let plan = FaultPlan::new()
            .failed_write(failure.failed_write)
            .failed_sync(failure.failed_sync)
            .once(failure.operation, number, failure.fault);
        let mut policy = None;
        let judged = guarded(|| {
            let (disk, model, _) = tell(scenario, seed, options, Some(plan))?;
            disk.set_faults(FaultPlan::new());
            for kept in
                [CrashPolicy::KeepAll, CrashPolicy::DropAll, CrashPolicy::from_seed(number + 2)]
            {
                policy = Some(kept);
                outcome.cuts += 1;
                let storage = Arc::new(disk.crash_with(kept)) as Arc<dyn Storage>;
                let pool = Pool::open(storage, options)
                    .map_err(|error| format!("the pool does not open: {error}"))?;
                verify(&pool, &model)?;
            }
            Ok(())
        });
        if let Err(message) = judged {
            outcome.finding = Some(finding(number, policy, message));
            break;
        }
    }
    outcome
}
