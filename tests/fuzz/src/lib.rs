//! What is fuzzed. Each target is a function of bytes that panics if something is wrong. libFuzzer looks
//! for such bytes (`fuzz/`, `tools/fuzz`); what it has found is run again by an ordinary test
//! (`tests/corpora.rs`).

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::as_conversions,
    clippy::panic,
    reason = "a target reports by panicking"
)]

mod api;
mod archive;
mod cli;
mod input;
mod overlay;
mod pool;

/// Something that takes bytes from outside.
pub struct Target {
    /// What it is called by `tools/fuzz`, and its folder below `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target { name: "pool_image", run: pool::pool_image::run, seeds: pool::pool_image::seeds },
    Target { name: "journal", run: pool::journal::run, seeds: pool::journal::seeds },
    Target { name: "map_page", run: pool::map_page::run, seeds: pool::map_page::seeds },
    Target { name: "tar", run: archive::tar::run, seeds: archive::tar::seeds },
    Target { name: "oci", run: archive::oci::run, seeds: archive::oci::seeds },
    Target { name: "api", run: api::run, seeds: api::seeds },
    Target { name: "cli", run: cli::run, seeds: cli::seeds },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs the target of a name.
///
/// # Panics
/// If there is none, or something is wrong.
pub fn run(name: &str, input: &[u8]) {
    let target = target(name).expect("a target of this name");
    (target.run)(input);
}
