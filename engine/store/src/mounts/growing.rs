//! A container may have a larger device than its image: its file system grows into it before it is
//! mounted for writing.
//!
//! It grows while it is not mounted: growing a mounted ext4 needs a privilege (CAP_SYS_RESOURCE) that
//! root of a container has not. Of a volume that is mounted it is tried.

use std::path::Path;
use std::process::Command;

use thinstore_pool::LayerInfo;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::detached_mount::DetachedMount;
use crate::store::Store;

/// Fields of the superblock, which begins 1024 bytes into the device (the kernel's
/// Documentation/filesystems/ext4/super.rst).
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const BLOCKS_LOW: usize = 0x4;
const LOG_BLOCK_SIZE: usize = 0x18;
const MAGIC: usize = 0x38;
const INCOMPATIBLE_FEATURES: usize = 0x60;
const BLOCKS_HIGH: usize = 0x150;
const MAGIC_VALUE: u32 = 0xef53;
/// The journal holds changes that are not in their places yet.
const NEEDS_RECOVERY: u32 = 0x4;

struct FileSystem {
    size_bytes: u64,
    needs_recovery: bool,
}

/// What a superblock says; none if it is not one of ext4.
fn parse(superblock: &[u8]) -> Option<FileSystem> {
    let field = |at: usize| {
        let bytes = superblock.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if field(MAGIC)? & 0xffff != MAGIC_VALUE {
        return None;
    }
    let blocks = u64::from(field(BLOCKS_HIGH)?) << 32 | u64::from(field(BLOCKS_LOW)?);
    let block_bytes = 1024_u64.checked_shl(field(LOG_BLOCK_SIZE)?)?;
    Some(FileSystem {
        size_bytes: blocks.checked_mul(block_bytes)?,
        needs_recovery: field(INCOMPATIBLE_FEATURES)? & NEEDS_RECOVERY != 0,
    })
}

impl Store {
    /// Lets the file system of a device that is attached, and not mounted, fill it.
    pub(crate) fn grow_file_system(&self, device: &Path, layer: &LayerInfo) -> Result<()> {
        let Some(found) = self.superblock_of(layer)? else { return Ok(()) };
        if found.size_bytes >= layer.size_bytes {
            return Ok(());
        }
        if found.needs_recovery {
            // mounting replays the journal, unmounting leaves it empty
            DetachedMount::of(device, false, false)?.sync()?;
        }
        run_resize2fs(device, &layer.name)
    }

    /// Lets the file system of a device that is mounted fill it; false if that takes a privilege which this
    /// process has not.
    pub(crate) fn grow_mounted_file_system(&self, device: &Path, name: &str) -> Result<bool> {
        match run_resize2fs(device, name) {
            Err(error) if error.kind() == ErrorKind::Permission => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn superblock_of(&self, layer: &LayerInfo) -> Result<Option<FileSystem>> {
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        self.pool().device(layer.id)?.read(SUPERBLOCK_AT, &mut superblock)?;
        Ok(parse(&superblock))
    }

    /// Does the journal of a device that is not mounted hold changes that are not in their places yet?
    pub(crate) fn needs_recovery(&self, layer: &LayerInfo) -> Result<bool> {
        Ok(self.superblock_of(layer)?.is_some_and(|found| found.needs_recovery))
    }
}

fn run_resize2fs(device: &Path, name: &str) -> Result<()> {
    // forced: it asks for a full check of a file system that has been mounted since the last one
    let mut command = Command::new("resize2fs");
    let output = command.env("LC_ALL", "C").arg("-f").arg(device).output().map_err(|error| {
        Error::io("cannot run resize2fs, which grows the file system; install e2fsprogs", error)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = match said.contains("Permission denied") {
        true => ErrorKind::Permission,
        false => ErrorKind::Io,
    };
    let message = format!("resize2fs could not grow the file system of '{name}': {}", said.trim());
    Err(Error::new(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_is_told_from_other_bytes() {
        assert!(parse(&[0; SUPERBLOCK_BYTES]).is_none());
        assert!(parse(&[]).is_none());
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        superblock[BLOCKS_LOW + 1] = 1;
        superblock[BLOCKS_HIGH] = 1;
        superblock[LOG_BLOCK_SIZE] = 2;
        superblock[MAGIC..MAGIC + 2].copy_from_slice(&[0x53, 0xef]);
        superblock[INCOMPATIBLE_FEATURES] = 4;
        let found = parse(&superblock).expect("a superblock");
        assert_eq!(found.size_bytes, ((1 << 32) + 256) * 4096);
        assert!(found.needs_recovery);
        superblock[LOG_BLOCK_SIZE + 3] = 1;
        assert!(parse(&superblock).is_none(), "a block size beyond all bounds");
    }
}
