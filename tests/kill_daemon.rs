//! The daemon killed under load: nothing acknowledged is lost. `tools/kill-daemon` does it many times.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test reports by panicking")]

use thinstore_tests::attack::kill::{Options, run};

#[test]
#[ignore = "needs root: kills the daemon under mounted containers, with fio"]
fn a_daemon_killed_again_and_again_under_load_loses_nothing_acknowledged() {
    let report = run(Options { times: 6, seed: 1, verbose: true });
    assert_eq!(report.kills, 6);
    assert!(report.acknowledged > 100, "hardly anything was written: {report}");
}
