//! The file system and the disk below a folder.

use std::path::Path;

use super::{Disk, line_of};
use crate::mounts::{disk_of, mount_of};

pub fn disk(store: &Path) -> Disk {
    let Ok(mount) = mount_of(store) else { return Disk::default() };
    let mut disk = Disk {
        file_system: mount.file_system,
        mount_options: mount.options,
        source: mount.source,
        ..Disk::default()
    };
    let Ok(Some(name)) = disk_of(store) else { return disk };
    let folder = Path::new("/sys/block").join(&name);
    let sectors: u64 = line_of(folder.join("size")).parse().unwrap_or(0);
    disk.size_bytes = sectors.saturating_mul(512);
    disk.model = line_of(folder.join("device/model"));
    disk.scheduler = chosen(&line_of(folder.join("queue/scheduler")));
    disk.write_cache = line_of(folder.join("queue/write_cache"));
    disk.rotational = match line_of(folder.join("queue/rotational")).as_str() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    disk.device = name;
    disk
}

/// Of `mq-deadline [none]` the one in brackets.
fn chosen(list: &str) -> String {
    let inside = list.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(list, |(chosen, _)| chosen).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_in_use_stands_in_brackets() {
        assert_eq!(chosen("mq-deadline [none]"), "none");
        assert_eq!(chosen("[none] mq-deadline kyber"), "none");
        assert_eq!(chosen("none"), "none");
    }
}
