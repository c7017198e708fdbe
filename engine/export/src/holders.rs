//! Who holds a block device: mounts of any mount namespace, and open files, as far as `/proc` shows
//! them.

use std::collections::HashSet;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mount_table::{DeviceNumber, parse};

/// One holder of a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A mount, and one process of the namespace it is in.
    Mount {
        /// Where it is mounted, as that process sees it.
        mount_point: PathBuf,
        /// The process.
        process_id: u32,
        /// The process's name.
        command: String,
        /// The namespace is the one of this process.
        own_namespace: bool,
    },
    /// A process that has the device open.
    Process {
        /// The process.
        process_id: u32,
        /// The process's name.
        command: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Mount { mount_point, own_namespace: true, .. } => {
                write!(formatter, "mounted on {}", mount_point.display())
            }
            Holder::Mount { mount_point, process_id, command, .. } => write!(
                formatter,
                "mounted on {} in the mount namespace of process {process_id} ({command})",
                mount_point.display()
            ),
            Holder::Process { process_id, command } => {
                write!(formatter, "open in process {process_id} ({command})")
            }
        }
    }
}

fn command(process: &Path) -> String {
    std::fs::read(process.join("comm"))
        .map(|name| String::from_utf8_lossy(&name).trim_end().to_owned())
        .unwrap_or_default()
}

/// Who holds a device. Best effort: processes come and go, and those of other process namespaces are
/// not shown. `node` is the device's path, by which open files are told.
pub fn holders_of(device: DeviceNumber, node: &Path) -> Vec<Holder> {
    let own = std::fs::read_link("/proc/self/ns/mnt").ok();
    let own_process_id = std::process::id();
    let mut seen = HashSet::new();
    let mut holders = Vec::new();
    let mut process_ids: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // This process speaks for its own namespace.
    process_ids.sort_by_key(|process_id| (*process_id != own_process_id, *process_id));
    for process_id in process_ids {
        let process = PathBuf::from(format!("/proc/{process_id}"));
        if let Ok(namespace) = std::fs::read_link(process.join("ns/mnt"))
            && seen.insert(namespace.clone())
            && let Ok(text) = std::fs::read(process.join("mountinfo"))
        {
            let mounts = parse(&text).into_iter().filter(|entry| entry.device == device);
            holders.extend(mounts.map(|entry| Holder::Mount {
                mount_point: entry.mount_point,
                process_id,
                command: command(&process),
                own_namespace: own.as_ref() == Some(&namespace),
            }));
        }
        // The links are read, never followed: following one could ask a file system that hangs.
        let opens = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let has_open = opens
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|path| path.as_os_str().as_bytes() == node.as_os_str().as_bytes());
        if has_open {
            holders.push(Holder::Process { process_id, command: command(&process) });
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_table::mounted_at;

    #[test]
    fn a_mount_of_this_namespace_is_found_once_and_as_its_own() {
        let entry = mounted_at(Path::new("/proc")).unwrap().unwrap();
        let holders = holders_of(entry.device, Path::new("/nowhere"));
        let here: Vec<&Holder> = holders
            .iter()
            .filter(|holder| {
                matches!(holder, Holder::Mount { mount_point, own_namespace: true, .. }
                    if mount_point == Path::new("/proc"))
            })
            .collect();
        assert_eq!(here.len(), 1, "{holders:?}");
        assert!(here[0].to_string().contains("mounted on /proc"));
    }

    #[test]
    fn a_process_that_has_the_node_open_is_named() {
        let _open = std::fs::File::open("/dev/null").unwrap();
        let nobody = DeviceNumber { major: u32::MAX, minor: 0 };
        let holders = holders_of(nobody, Path::new("/dev/null"));
        let own = std::process::id();
        assert!(holders.iter().any(
            |holder| matches!(holder, Holder::Process { process_id, .. } if *process_id == own)
        ));
    }
}
