//! Space on the file system.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::{Error, Result};

/// What is in use on the file system of a path, all of it.
pub fn used_bytes(path: &Path) -> Result<u64> {
    let space = statvfs(path).map_err(|error| Error::io("look at", path)(error.into()))?;
    Ok(space.f_blocks.saturating_sub(space.f_bfree).saturating_mul(space.f_frsize))
}

/// What the files below a folder take, each once, holes not counted, on this file system alone. What goes away while
/// it is being looked at is not there.
pub fn allocated_bytes(folder: &Path) -> Result<u64> {
    let root = std::fs::symlink_metadata(folder).map_err(Error::io("look at", folder))?;
    let mut sum = root.blocks();
    let mut seen = HashSet::from([root.ino()]);
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io("list", &folder))?,
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev() {
                continue;
            }
            // A second name, or what a bind mount shows once more.
            if !seen.insert(metadata.ino()) {
                continue;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            sum = sum.saturating_add(metadata.blocks());
        }
    }
    Ok(sum.saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_second_names_take_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let before = allocated_bytes(folder.path()).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(&file, folder.path().join("again")).unwrap();
        let sparse = std::fs::File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        let grown = allocated_bytes(folder.path()).unwrap() - before;
        assert!((1 << 20..(1 << 20) + 65536).contains(&grown), "{grown}");
        assert!(used_bytes(folder.path()).unwrap() > 1 << 20);
        assert!(allocated_bytes(&folder.path().join("nothing")).is_err());
    }
}
