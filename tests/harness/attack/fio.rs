//! fio as a load that verifies, and how its end is to be read.

use std::process::Command;

use crate::command::{Outcome, Running};

/// A job on a file: random writes of 4 to 128 KiB at a depth of 16, past the page cache, each block with a checksum.
fn job(name: &str, file: &str, size: &str, seed: u64) -> Command {
    let mut command = Command::new("fio");
    command.env("LC_ALL", "C").args([
        &format!("--name={name}"),
        &format!("--filename={file}"),
        &format!("--size={size}"),
        &format!("--randseed={}", seed & 0xffff_ffff),
        "--rw=randwrite",
        "--bsrange=4k-128k",
        "--iodepth=16",
        "--ioengine=libaio",
        "--direct=1",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--allow_file_create=1",
        "--end_fsync=1",
        "--minimal",
    ]);
    command
}

/// Starts a load that writes and reads back until it is ended.
pub fn start_load(file: &str, seed: u64) -> Running {
    let mut command = job("load", file, "16M", seed);
    command.args(["--do_verify=1", "--verify_backlog=64", "--time_based", "--runtime=600"]);
    Running::start(command)
}

/// Writes a file whole and syncs it. Only what ended well may be verified later: then every block of it is known.
pub fn start_writing_whole(file: &str, size: &str, seed: u64) -> Running {
    let mut command = job("whole", file, size, seed);
    command.arg("--do_verify=0");
    Running::start(command)
}

/// Verifies a file that [`start_writing_whole`] wrote, with the same arguments.
pub fn start_verifying_whole(file: &str, size: &str, seed: u64) -> Running {
    let mut command = job("whole", file, size, seed);
    command.arg("--verify_only");
    Running::start(command)
}

/// Did fio read something that it had not written? Its other failures are errors of reading and writing.
pub fn found_wrong_data(outcome: &Outcome) -> bool {
    let text = outcome.stderr_text() + &outcome.stdout_text();
    ["verify:", "crc32c:", "bad magic", "verify failed"].iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[ignore = "needs root: fio is installed for the tests that root runs"]
    fn wrong_data_is_found_and_right_data_is_not() {
        let limit = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = path.to_str().unwrap();
        start_writing_whole(file, "1M", 5).wait(limit).assert_success();
        let good = start_verifying_whole(file, "1M", 5).wait(limit).assert_success();
        assert!(!found_wrong_data(&good));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[500_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let bad = start_verifying_whole(file, "1M", 5).wait(limit);
        assert!(!bad.status.success() && found_wrong_data(&bad), "{bad}");
    }
}
