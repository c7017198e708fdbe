//! Opening the pool when its last owner was killed and cannot end.
//!
//! A process that was killed while one of its threads waited for a device that it served itself goes on
//! holding the pool's lock: the thread waits for an answer that nobody is left to give. Failing the
//! connection's requests lets it end. Only a process that was killed is treated so: one that lives is never disturbed.

use std::time::{Duration, Instant};

use thinstore_export::Exporter;
use thinstore_storage::{ErrorKind, FileOptions, FileStorage, Result, lock_holder_of};

use crate::layout::Layout;

/// How long a killed owner may take to end once its requests have failed.
const ENDING_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Opens the pool's file, with the lock on it.
///
/// # Errors
/// `InUse` if a living process has it, and what opening finds.
pub(crate) fn open_pool_file(layout: &Layout, read_only: bool) -> Result<FileStorage> {
    let deadline = Instant::now() + ENDING_TIMEOUT;
    loop {
        let error = match FileOptions::new().read_only(read_only).open(layout.pool()) {
            Err(error) if error.kind() == ErrorKind::InUse => error,
            other => return other,
        };
        let dying = lock_holder_of(&layout.pool()).is_some_and(is_dying);
        if !dying || Instant::now() >= deadline {
            return Err(error);
        }
        if let Err(error) = Exporter::abort(&layout.devices()) {
            tracing::warn!("cannot let a killed owner of the pool end: {error}");
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// Was the process killed, and cannot end? Its main thread has ended while others have not, or waits with
/// a SIGKILL pending.
fn is_dying(pid: u32) -> bool {
    const SIGKILL_BIT: u64 = 1 << 8;
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    // proc_pid_status(5): one field a line; signal sets in hexadecimal, bit 0 for signal 1.
    status.lines().filter_map(|line| line.split_once(':')).any(|(field, value)| match field {
        "State" => matches!(value.trim().chars().next(), Some('Z' | 'X')),
        "SigPnd" | "ShdPnd" => {
            u64::from_str_radix(value.trim(), 16).is_ok_and(|set| set & SIGKILL_BIT != 0)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_dying_and_a_zombie_is() {
        assert!(!is_dying(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("true starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_dying(child.id()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_dying(child.id()));
        child.wait().expect("it ended");
        assert!(!is_dying(child.id()));
    }
}
