//! What is mounted where: `/proc/PID/mountinfo`, as proc(5) describes it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use thinstore_storage::Result;

use crate::error::io_error;

/// The number of a block device, or of a file system without one (major 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The driver: 7 is loop.
    pub major: u32,
    /// The driver's own number for the device.
    pub minor: u32,
}

impl DeviceNumber {
    /// The number in the form that `stat` gives.
    pub fn from_raw(raw: u64) -> DeviceNumber {
        let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        DeviceNumber {
            major: part(nix::sys::stat::major(raw)),
            minor: part(nix::sys::stat::minor(raw)),
        }
    }
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// One mount of a mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The kernel's number for the mount.
    pub mount_id: u64,
    /// The mount that this one stands on.
    pub parent_id: u64,
    /// The device of the file system.
    pub device: DeviceNumber,
    /// Which directory of the file system is shown; not `/` for most bind mounts.
    pub root: PathBuf,
    /// Where it is shown.
    pub mount_point: PathBuf,
    /// Options of the mount: `rw,relatime`.
    pub options: String,
    /// `shared:N`, `master:N` and their like; empty for a private mount.
    pub propagation: Vec<String>,
    /// The file system's type: `ext4`, `fuse.thinstore`.
    pub file_system_type: String,
    /// What was mounted: a device's path, or any word.
    pub source: PathBuf,
    /// Options of the file system.
    pub super_options: String,
}

impl MountEntry {
    /// Whether the mount, or its file system, takes no writes.
    pub fn is_read_only(&self) -> bool {
        let has = |options: &str| options.split(',').any(|option| option == "ro");
        has(&self.options) || has(&self.super_options)
    }
}

/// Replaces the `\ooo` that the kernel writes for space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let code = match (first, tail) {
            (b'\\', [high, middle, low, ..]) => {
                [high, middle, low].into_iter().try_fold(0_u32, |value, digit| match digit {
                    b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
                    _ => None,
                })
            }
            _ => None,
        };
        match code.map(u8::try_from) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mount_id = number(fields.next()?)?;
    let parent_id = number(fields.next()?)?;
    let mut numbers = fields.next()?.splitn(2, |byte| *byte == b':');
    let (major, minor) = (number(numbers.next()?)?, number(numbers.next()?)?);
    let device = DeviceNumber { major, minor };
    let root = path(fields.next()?);
    let mount_point = path(fields.next()?);
    let options = text(fields.next()?);
    let propagation = fields.by_ref().take_while(|field| field != b"-").map(text).collect();
    let file_system_type = text(fields.next()?);
    let source = path(fields.next()?);
    let super_options = fields.next().map(text).unwrap_or_default();
    Some(MountEntry {
        mount_id,
        parent_id,
        device,
        root,
        mount_point,
        options,
        propagation,
        file_system_type,
        source,
        super_options,
    })
}

/// All mounts in the text of a mountinfo file. A line of an unknown form is left out.
pub(crate) fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// All mounts of this process's namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounts() -> Result<Vec<MountEntry>> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(|error| {
        io_error("reading /proc/self/mountinfo failed; is /proc mounted?", error)
    })?;
    Ok(parse(&text))
}

/// The mounts whose file system is on a device, in this process's namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounts_of(device: DeviceNumber) -> Result<Vec<MountEntry>> {
    Ok(mounts()?.into_iter().filter(|entry| entry.device == device).collect())
}

/// The mount that shows at a directory, if one does: where several lie on each other, the top one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounted_at(directory: &Path) -> Result<Option<MountEntry>> {
    Ok(top_at(mounts()?, directory))
}

/// As [`mounted_at`], of a list.
pub(crate) fn top_at(entries: Vec<MountEntry>, directory: &Path) -> Option<MountEntry> {
    let here: Vec<MountEntry> =
        entries.into_iter().filter(|entry| entry.mount_point == directory).collect();
    let covered: Vec<u64> = here.iter().map(|entry| entry.parent_id).collect();
    here.into_iter().rfind(|entry| !covered.contains(&entry.mount_id))
}

/// The mount that a path lies on, of a list; the path must be absolute and without links.
pub(crate) fn covering<'a>(entries: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    let covered: Vec<(u64, &Path)> =
        entries.iter().map(|entry| (entry.parent_id, entry.mount_point.as_path())).collect();
    entries
        .iter()
        .filter(|entry| path.starts_with(&entry.mount_point))
        .filter(|entry| !covered.contains(&(entry.mount_id, entry.mount_point.as_path())))
        .max_by_key(|entry| entry.mount_point.as_os_str().as_bytes().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] =
        b"22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n\
        30 22 7:3 / /mnt/a\\040b\\134\\011x rw,nosuid - ext4 /dev/loop3 ro,noload\n\
        31 22 0:40 / /srv/devices rw - fuse.thinstore thinstore rw,user_id=0\n\
        32 31 0:41 / /srv/devices rw - fuse.thinstore thinstore rw,user_id=0\n\
        33 22 0:42 /sub /odd\\04 rw - tmpfs  rw\n\
        broken line\n\
        34 22 x:1 / /y rw - tmpfs none rw\n";

    #[test]
    fn escapes_are_undone_and_what_is_no_escape_stays() {
        let entries = parse(SAMPLE);
        assert_eq!(entries.len(), 5);
        assert_eq!(entries[1].mount_point, Path::new("/mnt/a b\\\tx"));
        assert_eq!(entries[4].mount_point, Path::new("/odd\\04"));
        assert_eq!(unescape(b"\\999\\777\\"), b"\\999\\777\\");
    }

    #[test]
    fn optional_fields_of_any_number_are_read() {
        let entries = parse(SAMPLE);
        assert_eq!(entries[0].propagation, ["shared:1", "master:2"]);
        assert!(entries[1].propagation.is_empty());
        assert_eq!(entries[1].device, DeviceNumber { major: 7, minor: 3 });
        assert_eq!(entries[4].source, Path::new(""));
        assert_eq!(entries[4].super_options, "rw");
        assert!(entries[1].is_read_only());
        assert!(!entries[0].is_read_only());
    }

    #[test]
    fn the_top_one_of_stacked_mounts_is_found() {
        let top = top_at(parse(SAMPLE), Path::new("/srv/devices")).unwrap();
        assert_eq!(top.mount_id, 32);
        assert!(top_at(parse(SAMPLE), Path::new("/srv")).is_none());
    }

    #[test]
    fn the_mount_that_covers_a_path_is_the_deepest_top_one() {
        let entries = parse(SAMPLE);
        let id = |path: &str| covering(&entries, Path::new(path)).map(|entry| entry.mount_id);
        assert_eq!(id("/srv/devices/one"), Some(32));
        assert_eq!(id("/srv/devicesx"), Some(22));
        assert_eq!(id("/"), Some(22));
    }

    #[test]
    fn the_kernels_own_table_is_read() {
        let entries = mounts().unwrap();
        assert!(entries.iter().any(|entry| entry.mount_point == Path::new("/")));
        assert!(mounted_at(Path::new("/proc")).unwrap().is_some());
    }
}
