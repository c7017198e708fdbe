//! The same checks on every driver: `tests/harness/conformance/` has them, `target/debug/conformance` prints the
//! table of what came of them.
//!
//! A driver that cannot run here says why in its row. One that has no test of its own yet is tried by the last
//! one, which takes the list from the program.

use thinstore_tests::conformance::{bench, run};

/// A test for each driver: `name => "driver"`.
macro_rules! drivers {
    ($($name:ident => $driver:literal,)*) => {
        const WITH_TESTS: &[&str] = &[$($driver),*];

        $(
            #[test]
            #[ignore = "needs root: mounts what the driver has; needs its programs"]
            fn $name() {
                run($driver);
            }
        )*
    };
}

drivers! {
    thin => "thin",
    overlay2 => "overlay2",
    fuse_overlayfs => "fuse-overlayfs",
    btrfs => "btrfs",
    reflink => "reflink",
    qcow2 => "qcow2",
    devicemapper => "devicemapper",
    zfs => "zfs",
    vfs => "vfs",
}

#[test]
#[ignore = "needs root: mounts what the drivers have; needs their programs"]
fn any_other_driver_that_the_program_lists() {
    let listed = bench::listed_drivers();
    let names = listed.iter().map(|one| one["name"].as_str().unwrap_or_default());
    let mut known = 0;
    for name in names {
        match WITH_TESTS.contains(&name) {
            true => known += 1,
            false => run(name),
        }
    }
    assert_eq!(known, WITH_TESTS.len(), "the program has lost a driver: {listed:?}");
}
