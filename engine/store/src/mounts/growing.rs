//! A container may have a larger device than its image: its file system grows into it before it is
//! mounted for writing.
//!
//! It grows while it is not mounted: growing a mounted ext4 needs a privilege (CAP_SYS_RESOURCE) that
//! root of a container has not.

use std::path::Path;
use std::process::Command;

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
    /// Lets the file system of a container that is attached, and not mounted, fill its device.
    pub(super) fn grow_file_system(&self, device: &Path, name: &str) -> Result<()> {
        let catalog = self.catalog();
        let container = catalog.container(name)?;
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        self.pool().device(container.id)?.read(SUPERBLOCK_AT, &mut superblock)?;
        let Some(found) = parse(&superblock) else { return Ok(()) };
        if found.size_bytes >= container.size_bytes {
            return Ok(());
        }
        if found.needs_recovery {
            // mounting replays the journal, unmounting leaves it empty
            DetachedMount::of(device, false, false)?.sync()?;
        }
        // forced: it asks for a full check of a file system that has been mounted since the last one
        let output = Command::new("resize2fs").arg("-f").arg(device).output().map_err(|error| {
            Error::io("cannot run resize2fs, which grows the file system; install e2fsprogs", error)
        })?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            format!(
                "resize2fs could not grow the file system of '{name}': {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        ))
    }
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
