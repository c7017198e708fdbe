//! What a process that serves block devices asks of the kernel, so that it does not wait for itself.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::ioctl;

/// Open files that a store of many devices may need.
const OPEN_FILES: u64 = 1 << 20;

/// The lowest value that keeps a process from being chosen when memory is short.
const NEVER_KILL: &str = "-1000";

/// One thing that [`harden`] could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotHardened {
    /// What it was.
    pub what: &'static str,
    /// Why not.
    pub reason: String,
}

impl std::fmt::Display for NotHardened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.what, self.reason)
    }
}

/// Prepares this process for serving block devices: its memory stays in RAM, its allocations do not
/// wait for I/O (which may be its own), it is not killed when memory is short, and it may open many
/// files. Call it first in `main`: threads inherit the second from the one that starts them.
///
/// Best effort: the answer is what did not work. Without these a device still works, but can stop under
/// memory pressure.
pub fn harden() -> Vec<NotHardened> {
    let steps: [(&'static str, Result<(), io::Error>); 4] = [
        ("marking the process as one that serves I/O", ioctl::set_io_flusher().map_err(Into::into)),
        ("locking its memory", ioctl::lock_memory().map_err(Into::into)),
        (
            "protecting it from being killed when memory is short",
            std::fs::write("/proc/self/oom_score_adj", NEVER_KILL),
        ),
        ("raising the limit of open files", raise_open_files().map_err(Into::into)),
    ];
    steps
        .into_iter()
        .filter_map(|(what, result)| {
            let error = result.err()?;
            Some(NotHardened { what, reason: error.to_string() })
        })
        .collect()
}

fn raise_open_files() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= OPEN_FILES {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES))
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
}
