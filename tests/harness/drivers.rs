//! Which drivers beside the thin one a test is about.

/// Those that every host can run that has their programs.
const EVERYWHERE: [&str; 6] = ["overlay2", "fuse-overlayfs", "btrfs", "reflink", "qcow2", "vfs"];

/// What a test runs with: the drivers that `THINSTORE_TEST_DRIVERS` names, with commas between them, or those that
/// need nothing special of the host.
pub fn chosen_drivers() -> Vec<String> {
    match std::env::var("THINSTORE_TEST_DRIVERS") {
        Ok(names) => names.split(',').map(str::to_owned).collect(),
        Err(_) => EVERYWHERE.map(str::to_owned).to_vec(),
    }
}
