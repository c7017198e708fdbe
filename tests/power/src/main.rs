//! What `tools/guest log-writes` and `tools/guest kill` run, on the host and in the guest. See `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use thinstore_power::{attack, load};

/// Cuts the power of a guest whose containers are written, and holds what is found against what was
/// acknowledged. Needs root, sqlite3, e2fsck and debugfs.
///
/// The exit code is 0 if nothing was lost, and 1 with the first finding on standard error; what there is to look
/// at is kept then, and named.
#[derive(Parser)]
#[command(name = "tools/guest", bin_name = "tools/guest")]
struct Arguments {
    /// The script that boots the guest
    #[arg(long, hide = true, default_value = "tools/guest")]
    script: PathBuf,
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Subcommand)]
enum Attack {
    /// Records all that is written to the guest's disk, and cuts the power at moments of the record
    LogWrites {
        #[command(flatten)]
        options: attack::Options,
        /// How many moments
        #[arg(long, default_value_t = 200)]
        cuts: usize,
        /// How long the load goes on
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Kills the guest under its load, again and again
    Kill {
        #[command(flatten)]
        options: attack::Options,
        /// How many kills
        #[arg(long, default_value_t = 20)]
        times: u32,
    },
    /// The load, in the guest
    #[command(hide = true)]
    Load(load::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.attack {
        Attack::LogWrites { options, cuts, seconds } => {
            attack::log_writes(&arguments.script, &options, cuts, seconds)
        }
        Attack::Kill { options, times } => attack::kill(&arguments.script, &options, times),
        Attack::Load(options) => {
            // No thread goes on without the others.
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                report(panic);
                std::process::exit(101);
            }));
            load::run(options);
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tools/guest: {error}");
            ExitCode::FAILURE
        }
    }
}
