//! What every driver must do, tried out with the real program: one list of checks for all of them.
//!
//! A check does something to a container and says how it ended: as on one plain file system, or how else. Where
//! a driver is known to do something else, [`known`] says so; then it must, and a check that ends well there
//! has become better than its documents. `THINSTORE_CONFORMANCE_ONLY=attributes` for the checks with that in their name.

pub mod bench;
pub mod changes;
pub mod crash;
pub mod depth;
pub mod files;
pub mod known;
pub mod life;
pub mod live;
pub mod metadata;
pub mod rows;
pub mod trees;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

pub use bench::Bench;
use rows::{CheckRow, Row, Verdict};

/// How a check ended: as on one plain file system, or how else.
pub type Seen = Result<(), String>;

/// Something that every driver is asked to do.
pub struct Check {
    /// What it is called in the table.
    pub name: &'static str,
    run: fn(&Bench) -> Seen,
}

/// All of them, in the order of the table.
pub const CHECKS: [Check; 19] = [
    Check { name: "create and remove", run: life::create_and_remove },
    Check { name: "mount", run: life::mount },
    Check { name: "same tree as with thin", run: trees::same_tree },
    Check { name: "nested layers", run: trees::nested_layers },
    Check { name: "whiteouts", run: trees::whiteouts },
    Check { name: "opaque folders", run: trees::opaque_folders },
    Check { name: "rename a file of the image", run: files::rename_file },
    Check { name: "rename a folder of the image", run: files::rename_folder },
    Check { name: "hard links stay one file", run: files::hard_links },
    Check { name: "an open file sees a change", run: files::open_file },
    Check { name: "chown of a tree", run: metadata::chown_of_a_tree },
    Check { name: "attributes", run: metadata::attributes },
    Check { name: "times of what is not touched", run: metadata::times },
    Check { name: "1, 10 and 128 layers", run: depth::deep_stacks },
    Check { name: "diff and apply", run: changes::diff_and_apply },
    Check { name: "changes", run: changes::listed_changes },
    Check { name: "commit of a mounted container", run: live::live_commit },
    Check { name: "commit is of one moment", run: live::one_moment },
    Check { name: "killed at any moment", run: crash::killed },
];

/// Runs all checks on one driver, and writes its row down. What a check reports by a panic is not its end: the
/// others are run, and then all is reported.
#[track_caller]
pub fn run(driver: &str) {
    let listed = bench::listed_drivers();
    let Some(listed) = listed.iter().find(|one| one["name"] == driver) else {
        panic!("'thinstore drivers' does not know {driver}");
    };
    let mut row = Row::new(driver);
    if let Some(obstacle) = listed["obstacle"].as_str() {
        row.obstacle = Some(obstacle.to_owned());
        row.write();
        println!("{driver} cannot run here: {obstacle}");
        return;
    }
    let mut wrong = Vec::new();
    let bench = Bench::new(driver);
    let only = std::env::var("THINSTORE_CONFORMANCE_ONLY").unwrap_or_default();
    for check in CHECKS.iter().filter(|check| check.name.contains(&only)) {
        let started = Instant::now();
        // what is found after a panic is only taken down
        let seen = catch_unwind(AssertUnwindSafe(|| {
            let seen = (check.run)(&bench);
            bench.clear();
            seen
        }));
        let verdict = match (seen, known::difference(driver, check.name)) {
            (Ok(Ok(())), None) => Verdict::Yes,
            (Ok(Err(_)), Some(reason)) => Verdict::Differs(reason.to_owned()),
            (Ok(Ok(())), Some(reason)) if known::is_by_chance(driver, check.name) => {
                Verdict::Differs(reason.to_owned())
            }
            (Ok(Ok(())), Some(reason)) => {
                Verdict::Fails(format!("it is known to differ ({reason}), and did not"))
            }
            (Ok(Err(difference)), None) => Verdict::Fails(difference),
            (Err(panic), _) => {
                bench.clear_after_a_failure();
                Verdict::Fails(message_of(panic.as_ref()))
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        println!("{driver}: {}: {verdict} ({seconds:.1} s)", check.name);
        if let Verdict::Fails(why) = &verdict {
            wrong.push(format!("{}: {why}", check.name));
        }
        row.checks.push(CheckRow { name: check.name.to_owned(), verdict, seconds });
    }
    bench.let_go();
    row.tree_hash = bench.tree_hash();
    row.write();
    assert!(wrong.is_empty(), "{driver}:\n{}", wrong.join("\n"));
    bench.store.finish();
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
