//! The search within the tests' budget: every scenario, a few seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use thinstore_crash::failing::{fail_each, failures};
use thinstore_crash::scenario::{SCENARIOS, find};
use thinstore_crash::search::{Budget, search};

/// Seeds of each scenario: `THINSTORE_CRASH_SEEDS` is how many.
fn seeds() -> u64 {
    std::env::var("THINSTORE_CRASH_SEEDS").map_or(6, |wanted| wanted.parse().unwrap())
}

/// Searches a scenario, and gives how many cuts that were.
fn cut(name: &str) -> u64 {
    let scenario = find(name).unwrap();
    let mut cuts = 0;
    for seed in 1..=seeds() {
        let outcome =
            search(scenario, seed, Budget { looks: 2, lives: 3 }, &scenario.open_options());
        assert!(outcome.finding.is_none(), "{}", outcome.finding.unwrap());
        cuts += outcome.cuts;
    }
    cuts
}

macro_rules! survives {
    ($($test:ident: $scenario:literal, $least:literal;)*) => {
        /// All of them together make the number of cuts that every run of the tests covers.
        const LEAST: &[(&str, u64)] = &[$(($scenario, $least)),*];
        $(
            #[test]
            fn $test() {
                let cuts = cut($scenario);
                assert!(cuts >= $least, "{cuts} cuts are too few to say anything");
            }
        )*
    };
}

survives! {
    random_operations_survive_any_loss_of_power: "random", 5500;
    random_operations_with_maintenance_survive_any_loss_of_power: "random-background", 3000;
    devices_of_several_threads_survive_any_loss_of_power: "threads", 3500;
    snapshots_of_a_device_that_is_written_survive_any_loss_of_power: "shared-device", 2500;
    overwrites_survive_any_loss_of_power: "overwrite", 1200;
    forks_survive_any_loss_of_power: "fork", 1800;
    taking_over_an_origin_survives_any_loss_of_power: "absorb", 1200;
    trimming_survives_any_loss_of_power: "trim", 1200;
    removals_survive_any_loss_of_power: "delete", 1800;
    discards_survive_any_loss_of_power: "discard", 2500;
    a_turning_journal_survives_any_loss_of_power: "journal-wrap", 8000;
    batches_that_are_lost_survive_any_loss_of_power: "lost-batch", 600;
    checkpoints_survive_any_loss_of_power: "checkpoint", 1200;
    turning_superblocks_survive_any_loss_of_power: "superblock-turn", 1800;
    checksums_of_sealed_data_survive_any_loss_of_power: "sums", 1200;
    growth_survives_any_loss_of_power: "growth", 1200;
    imports_survive_any_loss_of_power: "import", 2000;
    a_full_pool_survives_any_loss_of_power: "full", 3000;
}

#[test]
fn regression_a_batch_written_again_after_a_loss_does_not_revive_those_after_the_lost_one() {
    let scenario = find("lost-batch").unwrap();
    let outcome = search(scenario, 5, Budget { looks: 2, lives: 3 }, &scenario.open_options());
    assert!(outcome.finding.is_none(), "{}", outcome.finding.unwrap());
}

#[test]
fn every_run_of_the_tests_covers_twenty_thousand_cuts() {
    assert_eq!(LEAST.len(), SCENARIOS.len());
    let sum: u64 = LEAST.iter().map(|(_, least)| least).sum();
    assert!(sum >= 20_000, "{sum}");
}

#[test]
fn a_disk_that_fails_at_any_operation_loses_nothing_that_was_acknowledged() {
    let mut judged = 0;
    for scenario in SCENARIOS.iter().filter(|scenario| !scenario.threads) {
        for (number, failure) in (0_u64..).zip(failures()) {
            let outcome = fail_each(scenario, number, &failure, 29, &scenario.open_options());
            assert!(outcome.finding.is_none(), "{}", outcome.finding.unwrap());
            judged += outcome.cuts;
        }
    }
    println!("{judged} outcomes");
    assert!(judged > 1000, "{judged}");
}
