//! An open thin device: reads, writes, discards and flushes of a layer's bytes.
//!
//! The engine decides *where*: a request is resolved in memory into contiguous pieces of the pool
//! ([`resolve`]); then the bytes are moved, with no lock held but that on the request's own range; then, if
//! blocks are new, the map is changed and a record appended.

pub(crate) mod gate;
pub(crate) mod overwrites;
pub(crate) mod range_lock;
mod read;
mod resolve;
mod write;

use std::ops::Range;
use std::sync::Arc;

use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::convert::to_u64;
use crate::core::Core;
use crate::layers::change::usage;
use crate::layers::layer::Layer;
use crate::layers::table::Table;
use crate::map::walk;
use crate::pool::Owner;
use crate::sync::atomic::Ordering;
use crate::types::{BLOCK_BYTES, LayerId};

/// A handle on a layer. Cloning it shares the handle; the layer counts as open until the last is gone.
#[derive(Clone)]
pub struct Device {
    handle: Arc<Handle>,
}

/// Counts as one open handle while it lives.
struct Handle {
    layer: Arc<Layer>,
    owner: Arc<Owner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.layer.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.layer.runs.lock().clear(&self.owner.core.pages.space);
        }
    }
}

impl Device {
    pub(crate) fn open(owner: &Arc<Owner>, id: LayerId) -> Result<Device> {
        Device::open_in(owner, &owner.core.table.read(), id)
    }

    /// Opened under the table's lock: a removal either sees the handle or is seen here.
    pub(crate) fn open_in(owner: &Arc<Owner>, table: &Table, id: LayerId) -> Result<Device> {
        let entry = table.get(id)?;
        if entry.meta.is_removed() {
            return Err(Error::new(ErrorKind::NotFound, format!("{id} was removed")));
        }
        entry.layer.handles.fetch_add(1, Ordering::AcqRel);
        let layer = Arc::clone(&entry.layer);
        Ok(Device { handle: Arc::new(Handle { layer, owner: Arc::clone(owner) }) })
    }

    /// Is this a handle on that very layer, and not on another that has its slot?
    pub(crate) fn is_of(&self, layer: &Arc<Layer>) -> bool {
        Arc::ptr_eq(&self.handle.layer, layer)
    }

    fn core(&self) -> &Core {
        &self.handle.owner.core
    }

    fn layer_state(&self) -> &Layer {
        &self.handle.layer
    }

    /// The layer whose bytes these are.
    pub fn layer(&self) -> LayerId {
        self.handle.layer.id
    }

    /// Are writes refused?
    pub fn read_only(&self) -> bool {
        self.core().read_only || self.handle.layer.map.read().sealed
    }

    /// The first bytes at or after `offset_bytes` that are mapped, as far as they are contiguous in the
    /// device; none if there are none.
    pub fn next_mapped(&self, offset_bytes: u64) -> Result<Option<Range<u64>>> {
        let start = offset_bytes / BLOCK_BYTES;
        let mut found: Option<Range<u64>> = None;
        self.core().attempt(|| {
            // A new attempt goes on where the last one stopped.
            let from = found.as_ref().map_or(start, |range| range.end);
            let map = self.handle.layer.map.read();
            walk::mapped_blocks(&self.core().pages, &map.tree, from, &mut |logical, count, _| {
                let start = logical.get();
                // What is lost can reach past the end.
                let end = (start + count).min(map.size_blocks);
                match &mut found {
                    _ if start >= end => return false,
                    None => found = Some(start..end),
                    Some(range) if range.end == start => range.end = end,
                    Some(_) => return false,
                }
                true
            })
        })?;
        Ok(found.map(|range| range.start * BLOCK_BYTES..range.end * BLOCK_BYTES))
    }

    /// Checks that a request lies inside the device.
    fn check_range(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        let size_bytes = self.size_bytes();
        match offset_bytes.checked_add(length_bytes) {
            Some(end) if end <= size_bytes => Ok(()),
            _ => Err(usage(format!(
                "{length_bytes} bytes at {offset_bytes} lie past the end of {}, which has {size_bytes}",
                self.handle.layer.id
            ))),
        }
    }

    fn check_writable(&self) -> Result<()> {
        self.core().check_writable()?;
        if self.handle.layer.map.read().sealed {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("{} is sealed and never changes", self.handle.layer.id),
            ));
        }
        Ok(())
    }
}

impl BlockDevice for Device {
    fn size_bytes(&self) -> u64 {
        self.handle.layer.map.read().size_blocks * BLOCK_BYTES
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.check_range(offset_bytes, to_u64(buffer.len()))?;
        self.read_bytes(offset_bytes, buffer)
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.check_range(offset_bytes, to_u64(data.len()))?;
        self.check_writable()?;
        self.write_bytes(offset_bytes, data, true)
    }

    fn write_at_once(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.check_range(offset_bytes, to_u64(data.len()))?;
        self.check_writable()?;
        self.write_bytes(offset_bytes, data, false)
    }

    fn waits_for_room(&self) -> bool {
        self.core().room.waits() && !self.layer_state().hurried.load(Ordering::Acquire)
    }

    fn hurry(&self, hurried: bool) {
        self.layer_state().hurried.store(hurried, Ordering::Release);
        self.core().room.look_up();
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.check_range(offset_bytes, length_bytes)?;
        self.check_writable()?;
        self.zero_bytes(offset_bytes, length_bytes)
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.check_range(offset_bytes, length_bytes)?;
        self.check_writable()?;
        self.discard_bytes(offset_bytes, length_bytes)
    }

    fn flush(&self) -> Result<()> {
        if self.read_only() {
            return Ok(());
        }
        self.core().flush_overwrites(&self.handle.layer)
    }
}
