//! File systems that were not unmounted: a crashed container's, or a snapshot of a mounted one. What
//! their journal holds is committed and must be seen. The replay itself is the ext4 crate's; here it
//! is given either the device, or for readers a copy-on-write view of it that lives in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use fs_ext4::Filesystem;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::cache::{BLOCK_BYTES, BLOCK_BYTES_U64, Block};
use super::fields::{index, put_bytes, wide};
use super::volume::{Volume, from_crate, incompatible};

/// A device whose writes stay in memory: what a journal replay would change.
struct Overlay {
    below: Arc<dyn BlockDevice>,
    blocks: Mutex<HashMap<u64, Box<Block>>>,
}

impl Overlay {
    /// The parts of a range, block by block: block, offset in it, range of the buffer.
    fn parts(offset_bytes: u64, length: usize) -> Vec<(u64, usize, std::ops::Range<usize>)> {
        let mut parts = Vec::new();
        let mut done = 0;
        while done < length {
            let at = offset_bytes + wide(done);
            let inside = index(at % BLOCK_BYTES_U64);
            let count = (BLOCK_BYTES - inside).min(length - done);
            parts.push((at / BLOCK_BYTES_U64, inside, done..done + count));
            done += count;
        }
        parts
    }
}

impl BlockDevice for Overlay {
    fn size_bytes(&self) -> u64 {
        self.below.size_bytes()
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.below.read(offset_bytes, buffer)?;
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.is_empty() {
            return Ok(());
        }
        for (block, inside, range) in Self::parts(offset_bytes, buffer.len()) {
            let changed = blocks.get(&block).and_then(|bytes| bytes.get(inside..));
            if let (Some(changed), Some(target)) = (changed, buffer.get_mut(range)) {
                let count = target.len();
                target.copy_from_slice(changed.get(..count).unwrap_or(&[]));
            }
        }
        Ok(())
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, inside, range) in Self::parts(offset_bytes, data.len()) {
            let bytes = match blocks.entry(block) {
                Entry::Occupied(changed) => changed.into_mut(),
                Entry::Vacant(slot) => {
                    let mut bytes = Box::new([0; BLOCK_BYTES]);
                    self.below.read(block * BLOCK_BYTES_U64, bytes.as_mut_slice())?;
                    slot.insert(bytes)
                }
            };
            put_bytes(bytes.as_mut_slice(), inside, data.get(range).unwrap_or(&[]));
        }
        Ok(())
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let mut at = offset_bytes;
        let end = offset_bytes.saturating_add(length_bytes);
        while at < end {
            let count = (BLOCK_BYTES_U64 - at % BLOCK_BYTES_U64).min(end - at);
            self.write(at, [0; BLOCK_BYTES].get(..index(count)).unwrap_or(&[]))?;
            at += count;
        }
        Ok(())
    }

    fn discard(&self, _offset_bytes: u64, _length_bytes: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A device in the terms of the ext4 crate.
struct Adapter(Arc<dyn BlockDevice>);

impl fs_ext4::block_io::BlockDevice for Adapter {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> fs_ext4::Result<()> {
        Ok(self.0.read(offset, buffer).map_err(std::io::Error::from)?)
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> fs_ext4::Result<()> {
        Ok(self.0.write(offset, data).map_err(std::io::Error::from)?)
    }

    fn flush(&self) -> fs_ext4::Result<()> {
        Ok(self.0.flush().map_err(std::io::Error::from)?)
    }

    fn is_writable(&self) -> bool {
        true
    }
}

/// Was the file system left by a crash, or copied while it was mounted?
pub(crate) fn is_needed(volume: &Volume) -> bool {
    volume.superblock.feature_incompat & incompatible::RECOVER != 0
        || volume.superblock.last_orphan != 0
}

/// Replays the journal onto `device` and frees what was deleted while it was open.
pub(crate) fn recover(device: &Arc<dyn BlockDevice>) -> Result<()> {
    let what = "cannot replay the journal of the file system";
    let adapter: Arc<dyn fs_ext4::block_io::BlockDevice> = Arc::new(Adapter(device.clone()));
    // The journal of a damaged file system is the one place where foreign code reads it.
    let outcome = catch_unwind(AssertUnwindSafe(|| Filesystem::mount(adapter)?.finish()));
    match outcome {
        Ok(result) => result.map_err(|error| from_crate(what, error)),
        Err(_) => {
            Err(Error::new(ErrorKind::Corrupt, format!("{what}: it is damaged; run e2fsck on it")))
        }
    }
}

/// A view of `device` on which the journal is replayed; the device itself stays as it is.
pub(crate) fn recovered_view(device: Arc<dyn BlockDevice>) -> Result<Arc<dyn BlockDevice>> {
    let overlay = Overlay { below: device, blocks: Mutex::new(HashMap::new()) };
    let view: Arc<dyn BlockDevice> = Arc::new(overlay);
    recover(&view)?;
    Ok(view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinstore_storage::MemoryDevice;

    #[test]
    fn an_overlay_shows_its_writes_and_leaves_the_device_alone() {
        let device = Arc::new(MemoryDevice::new(1 << 16));
        device.write(4000, &[1; 200]).expect("write");
        let overlay = Overlay { below: device.clone(), blocks: Mutex::default() };
        overlay.write(4090, &[2; 10]).expect("write");
        overlay.write_zeroes(4000, 10).expect("zeroes");
        let mut seen = [9; 200];
        overlay.read(4000, &mut seen).expect("read");
        let mut want = [1; 200];
        want[..10].fill(0);
        want[90..100].fill(2);
        assert_eq!(seen, want);
        device.read(4000, &mut seen).expect("read");
        assert_eq!(seen, [1; 200]);
    }
}
