//! The versions of the programs that drivers and workloads run.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Each with what makes it say its version.
const PROGRAMS: [(&str, &str); 17] = [
    ("fio", "--version"),
    ("qemu-img", "--version"),
    ("qemu-storage-daemon", "--version"),
    ("runc", "--version"),
    ("crun", "--version"),
    ("mke2fs", "-V"),
    ("mkfs.btrfs", "--version"),
    ("mkfs.xfs", "-V"),
    ("fuse-overlayfs", "--version"),
    ("zfs", "--version"),
    ("dmsetup", "--version"),
    ("thin_check", "--version"),
    ("sqlite3", "--version"),
    ("postgres", "--version"),
    ("pgbench", "--version"),
    ("cc", "--version"),
    ("python3", "--version"),
];

/// Nobody needs longer to say a version.
const PATIENCE: Duration = Duration::from_secs(3);

/// Those that are there.
pub fn programs() -> BTreeMap<String, String> {
    let found = PROGRAMS.iter().filter_map(|(name, argument)| {
        Some(((*name).to_owned(), version_in(&said_by(name, argument)?)?))
    });
    found.collect()
}

/// What a program writes, to whichever output; nothing if it does not come to its end.
fn said_by(name: &str, argument: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(name)
        .arg(argument)
        // Administrators' programs are not on everybody's path.
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let begun = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().ok();
            child.wait().ok();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut said = String::new();
    let limit = 64 << 10;
    child.stdout.take()?.take(limit).read_to_string(&mut said).ok();
    child.stderr.take()?.take(limit).read_to_string(&mut said).ok();
    Some(said)
}

/// The first word with a number of several parts in it, as `3.33` or `v1.1.5+ds1-1`.
fn version_in(said: &str) -> Option<String> {
    let words =
        said.split(|letter: char| letter.is_whitespace() || matches!(letter, '(' | ')' | ','));
    let mut words =
        words.map(|word| word.trim_start_matches(|letter: char| !letter.is_ascii_digit()));
    words
        .find(|word| {
            let mut parts = word.split('.');
            let number = |part: Option<&str>| {
                part.is_some_and(|part| part.starts_with(|letter: char| letter.is_ascii_digit()))
            };
            number(parts.next()) && number(parts.next())
        })
        .map(|word| word.trim_end_matches(':').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("fio-3.33\n", "3.33"),
            ("qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
            ("runc version 1.1.5+ds1\ncommit: 1.1.5", "1.1.5+ds1"),
            ("mke2fs 1.47.0 (5-Feb-2023)", "1.47.0"),
            ("mkfs.btrfs, part of btrfs-progs v6.2", "6.2"),
            ("  Library version:   1.02.185 (2022-05-18)", "1.02.185"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(version_in("unknown option\n"), None);
    }

    #[test]
    fn a_program_that_is_not_there_has_said_nothing() {
        assert_eq!(said_by("there-is-no-such-program", "--version"), None);
    }
}
