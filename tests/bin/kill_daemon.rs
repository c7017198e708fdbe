//! `tools/kill-daemon`: kills the daemon under load, many times. See `--help`.
#![allow(clippy::print_stdout, reason = "a tool prints what it did")]

use std::process::ExitCode;

use clap::Parser;
use thinstore_tests::attack::kill::{Options, run};

/// Kills thinstore's daemon with SIGKILL again and again under three mounted containers that are written, and
/// holds what is found after each restart against what was acknowledged. Needs root, fio and e2fsck.
///
/// Prints what it did. The exit code is 0 if nothing was found, and 1 with the first finding on standard error.
#[derive(Parser)]
#[command(name = "tools/kill-daemon")]
struct Arguments {
    /// How many kills
    #[arg(long, default_value_t = 200)]
    times: u32,
    /// What the moments and the operations follow from; the default is the time
    #[arg(long)]
    seed: Option<u64>,
    /// Say on standard error what is going on
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !thinstore_tests::program::is_root() {
        eprintln!("tools/kill-daemon: it needs root: it mounts containers");
        return ExitCode::from(2);
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_secs()
    });
    let options = Options { times: arguments.times, seed, verbose: arguments.verbose };
    println!("{} kills, seed {seed}", options.times);
    // A finding is a panic, whose message is printed where it happens.
    match std::panic::catch_unwind(|| run(options)) {
        Ok(report) => {
            println!("{report}\nnothing was lost");
            ExitCode::SUCCESS
        }
        Err(_) => {
            eprintln!("tools/kill-daemon: a finding, with seed {seed}");
            ExitCode::FAILURE
        }
    }
}
