//! Whether a path lies on a device that this process itself serves.
//!
//! A pool on a file system of its own devices waits for itself sooner or later. The way from a path to
//! the devices below it leads through file systems, loop devices, partitions and stacked devices.

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use thinstore_storage::Result;

use crate::error::io_error;
use crate::exporter::Exporter;
use crate::isolation::isolated;
use crate::loop_device::LoopDevice;
use crate::mount_table::{DeviceNumber, MountEntry, covering, mounts};

/// More than any real stack of devices has.
const STEPS_MAXIMUM: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Path(PathBuf),
    Device(DeviceNumber),
}

/// Whether a path, which need not exist, or the device that it is, lies on a device of `exporter`,
/// through whatever stands between: file systems, overlays, loop devices, partitions, device-mapper.
///
/// # Errors
/// When the path, `/proc` or `/sys` cannot be read.
pub fn lies_on(path: &Path, exporter: &Exporter) -> Result<bool> {
    let own_loops = exporter.loop_devices();
    isolated(|| lies_on_here(path, exporter, &own_loops))
}

fn lies_on_here(path: &Path, exporter: &Exporter, own_loops: &[LoopDevice]) -> Result<bool> {
    let entries = mounts()?;
    let mut open = vec![Place::Path(existing(path)?)];
    let mut seen = HashSet::new();
    while let Some(place) = open.pop() {
        if !seen.insert(place.clone()) || seen.len() > STEPS_MAXIMUM {
            continue;
        }
        match place {
            Place::Path(path) => {
                if path.starts_with(exporter.directory()) {
                    return Ok(true);
                }
                open.extend(below_path(&path, &entries));
            }
            Place::Device(device) => {
                let is_own_loop = LoopDevice::from_device_number(device)
                    .is_some_and(|device| own_loops.contains(&device));
                if is_own_loop || device == exporter.device_number() {
                    return Ok(true);
                }
                open.extend(below_device(device)?);
            }
        }
    }
    Ok(false)
}

/// The path without links, or that of the nearest directory above which is there.
fn existing(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path)
        .map_err(|error| io_error(format!("resolving {} failed", path.display()), error))?;
    for above in absolute.ancestors() {
        match above.canonicalize() {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(io_error(format!("resolving {} failed", path.display()), error));
            }
        }
    }
    Ok(PathBuf::from("/"))
}

/// What a path lies on: the devices of its file system, and itself if it is one.
fn below_path(path: &Path, entries: &[MountEntry]) -> Vec<Place> {
    let mut below = Vec::new();
    if let Ok(metadata) = std::fs::metadata(path) {
        below.push(Place::Device(DeviceNumber::from_raw(metadata.dev())));
        if metadata.file_type().is_block_device() {
            below.push(Place::Device(DeviceNumber::from_raw(metadata.rdev())));
        }
    }
    let Some(entry) = covering(entries, path) else {
        return below;
    };
    below.push(Place::Device(entry.device));
    // A file system without a block device of its own names what it lies on in other ways.
    if entry.device.major == 0 {
        if entry.source.is_absolute() {
            below.push(Place::Path(entry.source.clone()));
        }
        if entry.file_system_type == "overlay" {
            below.extend(overlay_layers(&entry.super_options).into_iter().map(Place::Path));
        }
    }
    below
}

/// The directories of an overlay mount, of its options.
fn overlay_layers(options: &str) -> Vec<PathBuf> {
    options
        .split(',')
        .filter_map(|option| option.split_once('='))
        .filter(|(key, _)| matches!(*key, "lowerdir" | "lowerdir+" | "datadir+" | "upperdir"))
        .flat_map(|(_, directories)| directories.split(':'))
        .filter(|directory| !directory.is_empty())
        .map(PathBuf::from)
        .collect()
}

/// What a block device lies on, as sysfs shows it.
fn below_device(device: DeviceNumber) -> Result<Vec<Place>> {
    let mut below = Vec::new();
    if let Some(loop_device) = LoopDevice::from_device_number(device)
        && let Some(bound) = loop_device.bound()?
    {
        below.push(Place::Path(bound.backing_file));
    }
    let directory = PathBuf::from(format!("/sys/dev/block/{device}"));
    // A partition's directory lies in that of its disk.
    if directory.join("partition").exists() {
        below.extend(number_in(&directory.join("../dev")).map(Place::Device));
    }
    let slaves = std::fs::read_dir(directory.join("slaves")).into_iter().flatten().flatten();
    below
        .extend(slaves.filter_map(|slave| number_in(&slave.path().join("dev"))).map(Place::Device));
    Ok(below)
}

fn number_in(file: &Path) -> Option<DeviceNumber> {
    let text = std::fs::read_to_string(file).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_of_an_overlay_are_read_from_its_options() {
        let layers = overlay_layers("rw,lowerdir=/a:/b,upperdir=/c,workdir=/w,lowerdir+=/d");
        assert_eq!(layers, ["/a", "/b", "/c", "/d"].map(PathBuf::from));
    }

    #[test]
    fn a_path_that_is_not_there_is_judged_by_what_is_above_it() {
        assert_eq!(existing(Path::new("/proc/nothing/here")).unwrap(), Path::new("/proc"));
    }
}
