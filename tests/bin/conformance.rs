//! Prints what the tests of `tests/conformance.rs` found, driver by check.
#![allow(clippy::print_stdout, reason = "a tool prints what it found")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use thinstore_tests::conformance::{CHECKS, bench, rows};

/// Prints the table of drivers and checks, from the rows that `cargo test --test conformance` has written.
///
/// The exit code is 0 if every driver that runs here went through every check, and shows the same tree.
#[derive(Parser)]
#[command(name = "conformance")]
struct Arguments {
    /// Where the rows are; the build folder's 'conformance' if not given
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let folder = Arguments::parse().folder.unwrap_or_else(rows::folder);
    let listed = bench::listed_drivers();
    let names: Vec<String> =
        listed.iter().filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
    let rows = rows::read(&folder, &names);
    let checks: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    print!("{}", rows::table(&rows, &checks));
    let mut good = true;
    for name in names.iter().filter(|name| rows.iter().all(|row| row.driver != **name)) {
        println!("- {name} - was not tried");
        good = false;
    }
    let mut hashes: Vec<&str> = rows.iter().map(|row| row.tree_hash.as_str()).collect();
    hashes.retain(|hash| !hash.is_empty());
    hashes.dedup();
    match hashes.as_slice() {
        [one] => println!("\nThe same image is the same tree on each of them: {one}"),
        _ => good = false,
    }
    let failed = |row: &rows::Row| {
        row.checks.iter().any(|check| matches!(check.verdict, rows::Verdict::Fails(_)))
    };
    match good && !rows.iter().any(failed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
