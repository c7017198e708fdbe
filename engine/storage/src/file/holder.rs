//! Who has a file locked or a block device mounted: for the sentence that an owner's rival is shown.
//!
//! All of this is best effort. What `/proc` does not tell (another pid namespace, a process of another
//! user) is left out of the sentence, never made an error of its own.

use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

/// How much of a command line a sentence carries.
const COMMAND_LINE_CHARACTERS: usize = 80;

/// Says who holds the `flock` of the file with this metadata, or "another process".
pub(super) fn describe_lock_holder(metadata: &Metadata) -> String {
    match lock_holder(metadata) {
        Some(pid) if pid == std::process::id() => "this process itself".to_owned(),
        Some(pid) => match command_line(pid) {
            Some(command) => format!("process {pid} ({command})"),
            None => format!("process {pid}"),
        },
        None => "another process".to_owned(),
    }
}

/// The process that holds the `flock` of a file, as far as `/proc` tells.
pub fn lock_holder_of(path: &Path) -> Option<u32> {
    lock_holder(&fs::metadata(path).ok()?)
}

/// Where the block device with this metadata is mounted, if it is.
pub(super) fn mount_point(metadata: &Metadata) -> Option<String> {
    let wanted = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
    // Format: proc_pid_mountinfo(5). The third field is the device, the fifth the mount point.
    let mounts = BufReader::new(File::open("/proc/self/mountinfo").ok()?);
    mounts.lines().map_while(std::io::Result::ok).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.nth(2)?;
        let mount_point = fields.nth(1)?;
        (device == wanted).then(|| mount_point.to_owned())
    })
}

fn lock_holder(metadata: &Metadata) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locking_process(&locks, metadata.dev(), metadata.ino())?;
    if Path::new(&format!("/proc/{pid}")).exists() {
        return Some(pid);
    }
    // The process that took the lock has ended, but a child of it keeps the file open.
    process_with_locked_file(metadata)
}

/// Finds the process in the text of `/proc/locks`, whose format is in proc_locks(5):
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`, device numbers in hexadecimal.
fn locking_process(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let exact = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let same_inode = format!(":{inode}");
    let mut candidate = None;
    for line in locks.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        // A line of a process that waits has an arrow here, and is passed over.
        if fields.next() != Some("FLOCK") {
            continue;
        }
        let Some(pid) = fields.nth(2).and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0)
        else {
            continue;
        };
        match fields.next() {
            Some(place) if place == exact => return Some(pid),
            // btrfs and overlayfs show another device number here than stat does.
            Some(place) if place.ends_with(&same_inode) => candidate = Some(pid),
            _ => {}
        }
    }
    candidate
}

/// Looks for the open file description that has the lock: its lines of proc_pid_fdinfo(5) tell it
/// apart from one that merely has the same file open, such as that of the caller.
fn process_with_locked_file(metadata: &Metadata) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| has_locked(*pid, metadata).unwrap_or(false))
}

fn has_locked(pid: u32, wanted: &Metadata) -> Option<bool> {
    let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    Some(descriptors.any(|entry| {
        let same_file = fs::metadata(entry.path())
            .is_ok_and(|file| file.dev() == wanted.dev() && file.ino() == wanted.ino());
        let information = Path::new("/proc").join(pid.to_string()).join("fdinfo");
        same_file
            && fs::read_to_string(information.join(entry.file_name()))
                .is_ok_and(|text| text.contains("FLOCK"))
    }))
}

/// The program's name without its folder, and its arguments, on one short line.
fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = shorten_command(&bytes);
    (!command.is_empty()).then_some(command)
}

fn shorten_command(bytes: &[u8]) -> String {
    let mut words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let program = words.next().and_then(|word| word.rsplit(|byte| *byte == b'/').next());
    let words: Vec<_> = program.into_iter().chain(words).map(String::from_utf8_lossy).collect();
    // Whatever a process calls itself: one line, and nothing that drives a terminal.
    let line = words.join(" ").replace(char::is_control, "?");
    match line.char_indices().nth(COMMAND_LINE_CHARACTERS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 900 fe:00:5678 0 EOF
2: FLOCK  ADVISORY  READ  0 fe:00:5678 0 EOF
3: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
3: -> FLOCK  ADVISORY  WRITE 1300 fe:00:5678 0 EOF
4: FLOCK  ADVISORY  WRITE 77 00:2f:91 0 EOF
5: nonsense
";

    fn device(major: u64, minor: u64) -> u64 {
        nix::sys::stat::makedev(major, minor)
    }

    #[test]
    fn the_locking_process_is_found_by_device_and_inode() {
        assert_eq!(locking_process(LOCKS, device(0xfe, 0), 5678), Some(1234));
    }

    #[test]
    fn another_device_number_is_accepted_when_the_inode_is_the_same() {
        assert_eq!(locking_process(LOCKS, device(0, 0x33), 91), Some(77));
    }

    #[test]
    fn locks_of_other_files_name_nobody() {
        assert_eq!(locking_process(LOCKS, device(0xfe, 0), 678), None);
        assert_eq!(locking_process("", 0, 0), None);
    }

    #[test]
    fn a_command_line_is_short_and_printable() {
        assert_eq!(shorten_command(b"/usr/bin/thinstore\0serve\0"), "thinstore serve");
        assert_eq!(shorten_command(b"a\x1b[2J\nb\0"), "a?[2J?b");
        assert_eq!(shorten_command(b""), "");
        let long = shorten_command(&[b'x'; 500]);
        assert_eq!(long.chars().count(), COMMAND_LINE_CHARACTERS + 3);
    }
}
