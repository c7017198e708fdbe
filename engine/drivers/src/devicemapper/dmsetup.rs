//! The kernel's device-mapper: changed through dmsetup, looked at in `/sys/block/dm-*`, which costs no process.

use std::path::{Path, PathBuf};

use thinstore_export::{DeviceNumber, mounts_of};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::directory::failed;
use crate::program::Program;

pub(super) const PROGRAM: Program = Program { name: "dmsetup", package: "dmsetup" };

const MODULE: &str = "dm_thin_pool";

const MODPROBE: Program = Program { name: "modprobe", package: "kmod" };

/// Has the kernel dm-thin, or would it have it if it was asked to load it?
pub(super) fn is_in_kernel() -> bool {
    is_loaded() || MODPROBE.run(&["--quiet", "--dry-run", MODULE]).is_ok()
}

fn is_loaded() -> bool {
    Path::new("/sys/module").join(MODULE).exists()
}

/// Loads dm-thin if it is not there.
pub(super) fn load() -> Result<()> {
    match is_loaded() {
        true => Ok(()),
        false => MODPROBE.run(&[MODULE]).map(drop),
    }
}

/// Runs dmsetup; what it printed.
pub(super) fn setup(arguments: &[&str]) -> Result<String> {
    let name = PROGRAM.name;
    let mut command = PROGRAM.command()?;
    command.args(arguments).env("LC_ALL", "C");
    if !Path::new("/run/udev/control").exists() {
        // nobody would answer for it, nor make the nodes in /dev
        command.env("DM_DISABLE_UDEV", "1");
    }
    let output = command.output();
    let output = output.map_err(|error| Error::io(format!("cannot run {name}"), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    // as strerror(3) says them
    let kinds = [
        ("resource busy", ErrorKind::InUse),
        ("No data available", ErrorKind::NotFound),
        ("No space left", ErrorKind::Full),
    ];
    let kind = kinds.into_iter().find(|(text, _)| said.contains(text));
    let kind = kind.map_or(ErrorKind::Io, |(_, kind)| kind);
    Err(Error::new(kind, format!("{name} {} failed: {said}", arguments.join(" "))))
}

/// A device that there is.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) number: DeviceNumber,
    /// A killed dmsetup may have made it without.
    pub(super) has_table: bool,
}

impl Device {
    /// `/dev/mapper/NAME`
    pub(super) fn node(name: &str) -> PathBuf {
        Path::new("/dev/mapper").join(name)
    }

    /// Is it mounted where this process can see it?
    pub(super) fn is_mounted(&self) -> Result<bool> {
        Ok(!mounts_of(self.number)?.is_empty())
    }
}

/// All whose names begin so.
pub(super) fn devices(prefix: &str) -> Result<Vec<Device>> {
    let folder = Path::new("/sys/block");
    let entries = std::fs::read_dir(folder).map_err(failed("look into", folder))?;
    // one that goes meanwhile is not there
    Ok(entries.flatten().filter_map(|entry| device(&entry.path(), prefix)).collect())
}

fn device(entry: &Path, prefix: &str) -> Option<Device> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(entry.join(name)).ok()?;
        Some(text.trim_end().to_owned())
    };
    let name = read("dm/name").filter(|name| name.starts_with(prefix))?;
    let text = read("dev")?;
    let (major, minor) = text.split_once(':')?;
    let number = DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? };
    Some(Device { name, number, has_table: read("size")? != "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_the_kernel_shows_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        assert!(device(folder.path(), "").is_none(), "no device of device-mapper");
        std::fs::create_dir(folder.path().join("dm")).expect("made");
        write("dm/name", "ours-pool\n");
        write("dev", "253:3\n");
        write("size", "0\n");
        assert!(device(folder.path(), "theirs-").is_none());
        assert!(!device(folder.path(), "ours-").expect("a device").has_table);
        write("size", "2048\n");
        let found = device(folder.path(), "ours-").expect("a device");
        assert_eq!(found.name, "ours-pool");
        assert!(found.has_table);
        assert_eq!(found.number.to_string(), "253:3");
    }
}
