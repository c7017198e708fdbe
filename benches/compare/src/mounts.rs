//! What a path lies on: the mount, and the disk at the bottom of it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::{Error, Result};

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of what it shows.
    pub device: String,
    /// `ext4`.
    pub file_system: String,
    /// `/dev/vda1`.
    pub source: String,
    /// Those of the mount, then those of the file system, each once.
    pub options: String,
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                text.push(char::from(code));
                text.push_str(rest);
            }
            _ => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

/// The mount of this number.
fn find(mountinfo: &str, id: u64) -> Option<Mount> {
    let id = id.to_string();
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(&id))?;
    let (mount, file_system) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let mut file_system = file_system.split(' ');
    let name = file_system.next()?.to_owned();
    let source = unescaped(file_system.next()?);
    let mut options: Vec<&str> = mount.get(5)?.split(',').collect();
    for option in file_system.next().unwrap_or_default().split(',') {
        if !option.is_empty() && !options.contains(&option) {
            options.push(option);
        }
    }
    let device = (*mount.get(2)?).to_owned();
    Some(Mount { device, file_system: name, source, options: options.join(",") })
}

/// The mount that a path lies on.
pub fn mount_of(path: &Path) -> Result<Mount> {
    let status = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|error| Error::io("look at", path)(error.into()))?;
    let list = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(list).map_err(Error::io("read", list))?;
    find(&text, status.stx_mnt_id).ok_or_else(|| {
        Error::Invalid(format!("{}: its mount is not in {}", path.display(), list.display()))
    })
}

/// The name of the disk below a path, as in diskstats: through partitions, loop devices on files, and what the
/// device mapper stacks. None where there is none, as below tmpfs.
pub fn disk_of(path: &Path) -> Result<Option<String>> {
    let mut path = path.to_owned();
    // Nobody stacks that deep.
    for _ in 0..8 {
        let mount = mount_of(&path)?;
        let Some(mut folder) = device_folder(&mount) else { return Ok(None) };
        while let Some(below) = below(&folder) {
            folder = below;
        }
        let backing = std::fs::read_to_string(folder.join("loop/backing_file"));
        match backing {
            Ok(file) => path = PathBuf::from(file.trim_end_matches('\n')),
            Err(_) => {
                return Ok(folder.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
    }
    Ok(None)
}

/// The folder of a mount's device below /sys.
fn device_folder(mount: &Mount) -> Option<PathBuf> {
    let folder = |device: &str| std::fs::canonicalize(format!("/sys/dev/block/{device}")).ok();
    // Btrfs shows a number of its own; where it is mounted from says more.
    folder(&mount.device).or_else(|| {
        let device = std::fs::metadata(&mount.source).ok()?.rdev();
        folder(&format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    })
}

/// What a device stands on: the disk of a partition, the first of what was put together.
fn below(folder: &Path) -> Option<PathBuf> {
    if folder.join("partition").exists() {
        return folder.parent().map(Path::to_owned);
    }
    let entry = std::fs::read_dir(folder.join("slaves")).ok()?.next()?.ok()?;
    std::fs::canonicalize(entry.path()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_number() {
        let text = "21 1 0:20 / /proc rw - proc proc rw\n\
                    36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/a\\040b rw,errors=continue\n";
        let mount = find(text, 36).unwrap();
        assert_eq!(mount.device, "98:0");
        assert_eq!((mount.file_system.as_str(), mount.source.as_str()), ("ext3", "/dev/a b"));
        assert_eq!(mount.options, "rw,noatime,errors=continue");
        assert_eq!(find(text, 3), None);
        assert_eq!(unescaped("a\\04"), "a\\04");
    }

    #[test]
    fn this_folder_lies_on_a_mount() {
        let mount = mount_of(Path::new(".")).unwrap();
        assert!(!mount.file_system.is_empty() && !mount.options.is_empty());
        assert_eq!(disk_of(Path::new("/proc")).unwrap(), None);
        assert!(mount_of(Path::new("/nowhere/at/all")).is_err());
    }
}
