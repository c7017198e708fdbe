//! The search finds every fault that is planted, and nothing where none is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use thinstore_crash::failing::{fail_each, failures};
use thinstore_crash::scenario::SCENARIOS;
use thinstore_crash::search::{Budget, search};
use thinstore_pool::planted::{Fault, plant};

/// Goes through the stories as the tests without faults do, seed by seed, and lets disks fail; gives what
/// found the fault, and after how many outcomes.
fn hunt(fault: Fault, seeds: u64) -> Result<String, u64> {
    let _planted = plant(fault);
    let mut looked = 0;
    // The pool's own thread works without the fault.
    let stories = || SCENARIOS.iter().filter(|scenario| !scenario.background);
    for seed in 1..=seeds {
        for scenario in stories() {
            let budget = Budget { looks: 2, lives: 3 };
            let outcome = search(scenario, seed, budget, &scenario.open_options());
            looked += outcome.cuts;
            if let Some(finding) = outcome.finding {
                let name = scenario.name;
                let message: String = finding.message.chars().take(90).collect();
                return Ok(format!("{name}, seed {seed}, after {looked}: {message}"));
            }
        }
        for scenario in stories().filter(|scenario| !scenario.threads) {
            for failure in failures() {
                let outcome = fail_each(scenario, seed, &failure, 29, &scenario.open_options());
                looked += outcome.cuts;
                if outcome.finding.is_some() {
                    let name = scenario.name;
                    return Ok(format!("{name}, a failed {:?}, after {looked}", failure.operation));
                }
            }
        }
    }
    Err(looked)
}

#[test]
fn every_planted_fault_is_found_within_the_normal_budget() {
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(fault) = Fault::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Whether threads meet in it is chance here; the pool's `schedules` decide it.
                    if *fault == Fault::ForkDoesNotDrain {
                        continue;
                    }
                    match hunt(*fault, 6) {
                        Ok(how) => println!("{fault:?}: {how}"),
                        Err(looked) => missed.lock().unwrap().push((*fault, looked)),
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
