//! What the host shows of a store: its mounts, loop devices and processes; and taking them down.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

/// One line of `/proc/self/mountinfo`, as far as tests need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// The device or other source.
    pub source: PathBuf,
    /// The mount's own options, comma-separated.
    pub options: String,
}

/// A loop device that has a backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// `/dev/loopN`.
    pub device: PathBuf,
    /// The backing file as the kernel names it now.
    pub backing: PathBuf,
}

/// Undoes the octal escapes of the kernel's tables (`\040` is a space).
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // "36 35 98:0 /root /point options [optional]... - type source super-options"
    let dash = fields.iter().position(|field| *field == b"-")?;
    Some(Mount {
        point: unescape(fields.get(4)?),
        kind: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: unescape(fields.get(dash + 2)?),
        options: String::from_utf8_lossy(fields.get(5)?).into_owned(),
    })
}

/// Every mount that this process sees, in the order in which they were made.
pub fn mounts() -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect()
}

/// The mounts at or below `folder`, in the order in which they were made.
pub fn mounts_below(folder: &Path) -> Vec<Mount> {
    mounts().into_iter().filter(|mount| mount.point.starts_with(folder)).collect()
}

/// The mount at `point`, if there is one: the topmost.
pub fn mount_at(point: &Path) -> Option<Mount> {
    mounts().into_iter().rfind(|mount| mount.point == point)
}

/// Every loop device in use.
pub fn loops() -> Vec<Loop> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return found;
    };
    for entry in entries.flatten() {
        let backing = entry.path().join("loop/backing_file");
        if let Ok(mut bytes) = fs::read(backing) {
            while bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            found.push(Loop {
                device: Path::new("/dev").join(entry.file_name()),
                backing: PathBuf::from(std::ffi::OsString::from_vec(bytes)),
            });
        }
    }
    found
}

/// The loop devices whose backing file lies below `folder`.
pub fn loops_below(folder: &Path) -> Vec<Loop> {
    loops().into_iter().filter(|one| one.backing.starts_with(folder)).collect()
}

/// The processes other than this one that have `folder` on their command line.
pub fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let needle = folder.as_os_str().as_bytes();
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if name != own && line.windows(needle.len()).any(|window| window == needle) {
            let text = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push((pid, text.trim().to_owned()));
        }
    }
    found
}

/// Is a process there, and not a zombie?
pub fn is_alive(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with(['Z', 'X']),
        Err(_) => false,
    }
}

/// Kills a process and waits until it is gone.
pub fn kill(pid: i32) {
    if let Some(target) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(target, Signal::KILL);
    }
    wait_until(Duration::from_secs(10), || !is_alive(pid));
}

/// Waits until `condition` holds; false if it does not within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What of the host still stands on `folder`, in words; empty if nothing does.
pub fn left_below(folder: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for mount in mounts_below(folder) {
        left.push(format!("mount {} ({})", mount.point.display(), mount.kind));
    }
    for one in loops_below(folder) {
        left.push(format!("{} on {}", one.device.display(), one.backing.display()));
    }
    for (pid, line) in processes_of(folder) {
        left.push(format!("process {pid}: {line}"));
    }
    left
}

/// Takes down everything that stands on `folder`: mounts of file systems, then the processes, then
/// loop devices, then what is left of FUSE. Never fails: this is the last resort of a clean-up.
pub fn take_down(folder: &Path) {
    for mount in mounts_below(folder).into_iter().rev() {
        if !mount.kind.starts_with("fuse") {
            unmount(&mount.point);
        }
    }
    for (pid, _) in processes_of(folder) {
        kill(pid);
    }
    for one in loops_below(folder) {
        remove_holders(&one.device);
        let _ = std::process::Command::new("losetup").arg("-d").arg(&one.device).status();
    }
    for mount in mounts_below(folder).into_iter().rev() {
        unmount(&mount.point);
    }
}

/// The devices of device-mapper that stand on another device, the upper ones first.
fn remove_holders(device: &Path) {
    let name = device.file_name().unwrap_or_default();
    let holders = Path::new("/sys/block").join(name).join("holders");
    for holder in fs::read_dir(holders).into_iter().flatten().flatten() {
        remove_holders(&Path::new("/dev").join(holder.file_name()));
        let name = fs::read_to_string(holder.path().join("dm/name")).unwrap_or_default();
        let words = ["remove", "--retry", name.trim_end()];
        let _ = std::process::Command::new("dmsetup").args(words).status();
    }
}

fn unmount(point: &Path) {
    if rustix::mount::unmount(point, UnmountFlags::empty()).is_ok() {
        return;
    }
    if rustix::mount::unmount(point, UnmountFlags::DETACH).is_err() {
        // Without root, a FUSE mount of one's own goes through the setuid helper.
        let _ = std::process::Command::new("fusermount3").arg("-uz").arg(point).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_line_with_optional_fields_and_escapes_is_read() {
        let line = b"36 35 98:0 / /a\\040b rw,noatime shared:1 master:2 - ext4 /dev/loop0 rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new("/a b"));
        assert_eq!(mount.kind, "ext4");
        assert_eq!(mount.source, Path::new("/dev/loop0"));
        assert_eq!(mount.options, "rw,noatime");
    }

    #[test]
    fn mounts_of_this_host_are_read() {
        assert!(mount_at(Path::new("/")).is_some());
        assert!(mount_at(Path::new("/proc")).is_some());
    }

    #[test]
    fn a_process_is_found_by_the_folder_it_names_and_taken_down() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let mut child = std::process::Command::new("tail").arg("-f").arg(&file).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(wait_until(Duration::from_secs(5), || {
            processes_of(folder.path()).iter().any(|process| process.0 == pid)
        }));
        assert_eq!(left_below(folder.path()).len(), 1);
        take_down(folder.path());
        child.wait().unwrap();
        assert!(left_below(folder.path()).is_empty());
        assert!(!is_alive(pid));
    }

    #[test]
    #[ignore = "needs root: makes a loop device and mounts it"]
    fn a_mount_and_its_loop_device_are_taken_down() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let point = folder.path().join("point");
        fs::create_dir(&point).unwrap();
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        crate::run_tool("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        let device = crate::run_tool("losetup", &["-f", "--show", image.to_str().unwrap()]);
        let device = device.stdout_text().trim().to_owned();
        crate::run_tool("mount", &[device.as_str(), point.to_str().unwrap()]);
        assert_eq!(left_below(folder.path()).len(), 2);
        take_down(folder.path());
        assert_eq!(left_below(folder.path()), Vec::<String>::new());
    }
}
