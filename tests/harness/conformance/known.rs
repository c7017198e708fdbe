//! What is known to differ from one plain file system. Whoever makes one of these better takes its line away.

/// A driver, a check, and why it ends otherwise.
const KNOWN: [(&str, &str, &str); 15] = [
    ("overlay2", "rename a folder of the image", EXDEV),
    ("overlay2", "hard links stay one file", PARTED),
    ("overlay2", "chown of a tree", PARTED),
    ("overlay2", "commit is of one moment", COPIED),
    ("fuse-overlayfs", "rename a folder of the image", EXDEV),
    ("fuse-overlayfs", "hard links stay one file", PARTED),
    ("fuse-overlayfs", "chown of a tree", PARTED),
    ("fuse-overlayfs", "commit is of one moment", COPIED),
    ("fuse-overlayfs", "whiteouts", PARTED_BY_REMOVAL),
    ("fuse-overlayfs", "rename a file of the image", COPIED_UP),
    ("fuse-overlayfs", "attributes", LINKS),
    ("fuse-overlayfs", "times of what is not touched", TIMES),
    ("btrfs", "commit is of one moment", FLUSHED),
    ("zfs", "attributes", ACLS),
    ("vfs", "commit is of one moment", COPIED),
];

const EXDEV: &str = "refused with EXDEV (redirect_dir=off, as Docker mounts); programs copy then";
const PARTED: &str =
    "the first change of a file copies it up, away from its other names (index=off)";
const PARTED_BY_REMOVAL: &str = "removing one name of a file parts its other names";
const COPIED_UP: &str = "the first change of a file loses setuid, and makes a pipe a plain file";
const LINKS: &str =
    "attributes of a link go to what it leads to, setuid is lost, a default ACL is taken amiss";
const ACLS: &str =
    "with zfs-fuse, nothing comes of an ACL: it is kept, but changes no mode and is not inherited";
const TIMES: &str = "folders above a change get its time";
const FLUSHED: &str =
    "what is written while the snapshot is made may be in it or not, file by file";
const COPIED: &str = "files are copied one after the other while the container goes on";

/// Differences that only show if a writer happens to come at the wrong moment, or with one of the host's programs.
const BY_CHANCE: [(&str, &str); 3] = [
    ("fuse-overlayfs", "commit is of one moment"),
    ("btrfs", "commit is of one moment"),
    ("zfs", "attributes"),
];

/// Need a known difference not show each time?
pub fn is_by_chance(driver: &str, check: &str) -> bool {
    BY_CHANCE.contains(&(driver, check))
}

/// Why a check ends otherwise with a driver, if it is known to.
pub fn difference(driver: &str, check: &str) -> Option<&'static str> {
    let found = KNOWN.iter().find(|(of, name, _)| *of == driver && *name == check);
    found.map(|(_, _, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_difference_is_of_a_check_that_there_is() {
        for (_, name, _) in KNOWN {
            assert!(super::super::CHECKS.iter().any(|check| check.name == name), "{name}");
        }
    }
}
