//! A storage that is a base shared by all inputs, and what one input changes over it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_storage::Storage;

pub(crate) const BLOCK: usize = 4096;

pub(crate) type Blocks = HashMap<u64, Box<[u8; BLOCK]>>;

/// A storage in memory. Each completed write counts as durable.
pub(crate) struct Overlay {
    size_bytes: Mutex<u64>,
    base: Arc<Blocks>,
    changed: Mutex<Blocks>,
    read: Mutex<HashSet<u64>>,
}

impl Overlay {
    pub(crate) fn new(size_bytes: u64, base: Arc<Blocks>) -> Overlay {
        let (changed, read) = (Mutex::default(), Mutex::default());
        Overlay { size_bytes: Mutex::new(size_bytes), base, changed, read }
    }

    /// All of it as it is now.
    pub(crate) fn flattened(&self) -> Blocks {
        let mut blocks = (*self.base).clone();
        blocks.extend(self.changed.lock().iter().map(|(block, bytes)| (*block, bytes.clone())));
        blocks
    }

    /// The same again: what is changed in the one is not changed in the other.
    pub(crate) fn copy(&self) -> Overlay {
        let copy = Overlay::new(self.size_bytes(), Arc::clone(&self.base));
        *copy.changed.lock() = self.changed.lock().clone();
        copy
    }

    /// Blocks that were read.
    pub(crate) fn read_blocks(&self) -> Vec<u64> {
        let mut blocks: Vec<u64> = self.read.lock().iter().copied().collect();
        blocks.sort_unstable();
        blocks
    }

    pub(crate) fn block(&self, block: u64) -> [u8; BLOCK] {
        match self.changed.lock().get(&block).or_else(|| self.base.get(&block)) {
            Some(bytes) => **bytes,
            None => [0; BLOCK],
        }
    }

    pub(crate) fn set_block(&self, block: u64, bytes: [u8; BLOCK]) {
        self.changed.lock().insert(block, Box::new(bytes));
    }

    pub(crate) fn change(&self, block: u64, change: impl FnOnce(&mut [u8; BLOCK])) {
        let mut bytes = self.block(block);
        change(&mut bytes);
        self.set_block(block, bytes);
    }

    fn check(&self, offset_bytes: u64, length_bytes: usize) -> io::Result<()> {
        let end = offset_bytes.checked_add(length_bytes as u64);
        match end.is_some_and(|end| end <= self.size_bytes()) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "past the end")),
        }
    }
}

/// The pieces of a range that lie in one block each: block, where in it, and where in the buffer.
fn pieces(offset_bytes: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = offset_bytes + done as u64;
            let inside = (at % BLOCK as u64) as usize;
            let count = (BLOCK - inside).min(length - done);
            let piece = (at / BLOCK as u64, inside, done, count);
            done += count;
            piece
        })
    })
}

impl Storage for Overlay {
    fn size_bytes(&self) -> u64 {
        *self.size_bytes.lock()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(offset_bytes, buffer.len())?;
        for (block, inside, done, count) in pieces(offset_bytes, buffer.len()) {
            self.read.lock().insert(block);
            buffer[done..done + count].copy_from_slice(&self.block(block)[inside..inside + count]);
        }
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset_bytes, data.len())?;
        for (block, inside, done, count) in pieces(offset_bytes, data.len()) {
            self.change(block, |bytes| {
                bytes[inside..inside + count].copy_from_slice(&data[done..done + count]);
            });
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        self.check(offset_bytes, length)?;
        for (block, inside, _, count) in pieces(offset_bytes, length) {
            let is_there =
                self.base.contains_key(&block) || self.changed.lock().contains_key(&block);
            if is_there {
                self.change(block, |bytes| bytes[inside..inside + count].fill(0));
            }
        }
        Ok(())
    }

    fn reserve(&self, _offset_bytes: u64, _length_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        let mut size = self.size_bytes.lock();
        *size = size_bytes.max(*size);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "the fuzzed pool".to_owned()
    }
}
