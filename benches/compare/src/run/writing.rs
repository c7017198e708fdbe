//! What steps write into a container's files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::Answer;

/// The bytes that are written: no two trials write the same, and none writes zeros.
fn pattern(size: u64) -> Vec<u8> {
    let mut random = crate::random::Random::new(u64::from(std::process::id()) ^ size);
    let words = usize::try_from(size.div_ceil(8)).unwrap_or(0);
    let mut bytes: Vec<u8> = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(usize::try_from(size).unwrap_or(0));
    bytes
}

/// Writes are done in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// Opens a file of a container for writing. Whatever links the image has, and whatever the workload says, it lies in
/// the container: the root that runs this is the host's.
fn open_within(root: &Path, path: &str, flags: OFlags) -> std::io::Result<File> {
    let folder = File::open(root)?;
    let creates = flags.contains(OFlags::CREATE);
    let mode = if creates { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    Ok(openat2(&folder, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT)?.into())
}

/// Opens a file of a container for direct I/O, or for buffered where the file system has no other (tmpfs).
pub fn open_direct(root: &Path, path: &str) -> std::io::Result<File> {
    match open_within(root, path, OFlags::RDWR | OFlags::DIRECT) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => open_buffered(root, path),
        opened => opened,
    }
}

/// Opens a file of a container for reading and writing through the page cache.
pub fn open_buffered(root: &Path, path: &str) -> std::io::Result<File> {
    open_within(root, path, OFlags::RDWR)
}

/// Overwrites a part of a file of a container, and makes it durable if that is wanted.
pub fn write(root: &Path, path: &str, offset: u64, size: u64, sync: bool) -> Answer<()> {
    let said = |error: std::io::Error| format!("{path}: {error}");
    let file = open_within(root, path, OFlags::WRONLY | OFlags::CREATE).map_err(said)?;
    let bytes = pattern(size.min(PIECE_BYTES));
    let mut written = 0;
    while written < size {
        let piece =
            bytes.get(..usize::try_from(size - written).unwrap_or(usize::MAX)).unwrap_or(&bytes);
        file.write_all_at(piece, offset + written).map_err(said)?;
        written += u64::try_from(piece.len()).unwrap_or(size);
    }
    if sync { file.sync_all().map_err(said) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_stays_in_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(&outside, "untouched").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        // A link to where the container has nothing.
        assert!(write(&root, "link", 0, 3, true).is_err());
        write(&root, "../outside", 1 << 20, (1 << 20) + 5, true).unwrap();
        write(&root, "/outside", 0, 1, false).unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"untouched");
        let written = std::fs::read(root.join("outside")).unwrap();
        assert_eq!(written.len(), (2 << 20) + 5);
        let (hole, data) = written[1..].split_at((1 << 20) - 1);
        assert!(hole.iter().all(|byte| *byte == 0));
        assert!(data.iter().filter(|byte| **byte == 0).count() < data.len() / 100);
    }
}
