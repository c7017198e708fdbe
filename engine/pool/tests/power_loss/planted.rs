//! The searches of this file, searched themselves: each fault that is planted must be found, by what the table
//! says, within what is run every time. One fault is of threads alone: `engine/pool/src/schedules` finds it.
//!
//!     cargo test -p thinstore-pool --features planted-faults --test power_loss planted

use thinstore_pool::planted::{Fault as Planted, plant};

use super::*;

/// What runs every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Random scenarios, cut everywhere.
    Cuts,
    /// The same, of overwrites in place and forks.
    Forks,
    /// Each flush fails in turn.
    FailingFlushes,
    /// A batch from before a loss of power lies behind a later one.
    LeftOverBatch,
}

impl Search {
    /// What must find a fault; none for the one that needs threads.
    fn of(fault: Planted) -> Option<Search> {
        match fault {
            Planted::ForkDoesNotDrain => None,
            Planted::ForkDoesNotFlush => Some(Search::Forks),
            Planted::LatchIgnored => Some(Search::FailingFlushes),
            Planted::ChainNotChecked => Some(Search::LeftOverBatch),
            _ => Some(Search::Cuts),
        }
    }

    /// Runs until something is found; gives the seed that it took.
    fn finds(self, fault: Planted) -> Option<u64> {
        let fails = |work: &dyn Fn()| {
            let _planted = plant(fault);
            catch_unwind(AssertUnwindSafe(work)).is_err()
        };
        match self {
            Search::Cuts => scenarios().find(|seed| {
                fails(&|| {
                    search(*seed, 60, 2, Scenario::step);
                })
            }),
            Search::Forks => scenarios().find(|seed| {
                fails(&|| {
                    search(*seed, 60, 4, Scenario::overwrite_and_fork);
                })
            }),
            Search::FailingFlushes => {
                let plan = FaultPlan::new().failed_sync(FailedSync::LosesUnsynced);
                let work = || {
                    fail_each(DiskOperation::Sync, Fault::InputOutput, &plan);
                };
                fails(&work).then_some(1)
            }
            Search::LeftOverBatch => {
                let work = a_batch_that_a_loss_of_power_left_over_is_not_taken_for_a_later_one;
                fails(&work).then_some(1)
            }
        }
    }
}

/// More than are run without a fault: which seed finds a fault changes with where the pool puts its blocks.
fn scenarios() -> std::ops::Range<u64> {
    1..100
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for fault in Planted::ALL {
        let Some(search) = Search::of(fault) else { continue };
        match search.finds(fault) {
            Some(seed) => println!("{fault:?}: {search:?}, seed {seed}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
