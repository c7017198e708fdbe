//! The pool in memory: what its parts share, and the order of its locks.
//!
//! Locks are taken in this order, and none of them is held across a flush but the first two:
//! checkpoint, journal writer, releasing, cut, table, maps (origins before their children), runs, then the inner
//! locks of space, pages and pending records. That of stocking pages comes right before these: it is held while the
//! host is asked for space. A layer's gate and range locks, and those that let one thread at a time
//! reclaim or sum, come before all of them; these two are held across flushes as well.

use std::sync::{Arc, OnceLock};

use thinstore_storage::{Error, ErrorKind, Result, Storage};

use crate::checkpoint::CheckpointState;
use crate::format::geometry::GroupIndex;
use crate::format::pointer::BlockPtr;
use crate::journal::commit::GroupCommit;
use crate::journal::pending::Pending;
use crate::journal::ring::Ring;
use crate::journal::writer::Writer;
use crate::layers::table::Table;
use crate::maintenance::Maintenance;
use crate::map::page::Page;
use crate::map::store::PageStore;
use crate::need::{Attempt, Need};
use crate::planted::{Fault, planted};
use crate::room::Room;
use crate::sums::SumCache;
use crate::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::types::{BLOCK_LENGTH, Epoch};

/// What the error of damage ends with.
const CHECK_ADVICE: &str = "; run `thinstore check`";

/// All of an open pool.
pub(crate) struct Core {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) name: String,
    pub(crate) uuid: [u8; 16],
    pub(crate) created_unix_ns: i64,
    pub(crate) allocation_run_blocks: u32,
    pub(crate) default_device_blocks: u64,
    pub(crate) read_only: bool,
    pub(crate) background: bool,
    pub(crate) punch_holes: bool,
    pub(crate) reclaim_portion_blocks: usize,
    pub(crate) ring: Ring,

    pub(crate) checkpoints: Mutex<CheckpointState>,
    pub(crate) writer: Mutex<Writer>,
    /// Held shared by whoever changes maps and appends the records of it; held alone to cut between two
    /// batches.
    pub(crate) cut: RwLock<()>,
    pub(crate) table: RwLock<Table>,
    pub(crate) pages: PageStore,
    pub(crate) pending: Pending,
    pub(crate) group_commit: GroupCommit,
    /// One walk over removed layers at a time.
    pub(crate) reclaiming: Mutex<()>,
    /// One pass over the data of sealed layers at a time: nobody else writes checksums of data.
    pub(crate) summing: Mutex<()>,
    pub(crate) sums: SumCache,
    pub(crate) verify_reads: bool,
    pub(crate) maintenance: Maintenance,
    pub(crate) room: Room,
    /// Held shared from before freed blocks are no longer outstanding until they are free.
    pub(crate) releasing: RwLock<()>,
    /// One run at a time is set aside for pages.
    pub(crate) stocking: Mutex<()>,
    /// Held while the storage is flushed.
    pub(crate) syncing: Mutex<()>,

    pub(crate) epoch: AtomicU32,
    pub(crate) data_blocks: AtomicI64,
    /// Data blocks that were freed and are not reusable yet.
    pub(crate) unreleased_blocks: AtomicI64,
    pub(crate) latched: OnceLock<String>,
}

impl Core {
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.load(Ordering::Acquire))
    }

    /// Moves the clock on; refused at its end.
    pub(crate) fn advance_epoch(&self) -> Result<Epoch> {
        let sealed = self.epoch();
        let next = sealed.next().ok_or_else(|| {
            Error::new(
                ErrorKind::Full,
                format!("{} has used up its epochs: copy its images to a new pool", self.name),
            )
        })?;
        self.epoch.store(next.get(), Ordering::Release);
        Ok(sealed)
    }

    /// The pool takes no more changes: a failed write or flush leaves unknown what is on the disk.
    /// Opening it again recovers.
    pub(crate) fn latch(&self, error: Error) -> Error {
        let _ = self.latched.set(error.to_string());
        tracing::error!("{error}: the pool is read-only from here on");
        self.room.look_up();
        error
    }

    pub(crate) fn check_latch(&self) -> Result<()> {
        match self.latched.get() {
            None => Ok(()),
            Some(_) if planted(Fault::LatchIgnored) => Ok(()),
            Some(why) => Err(Error::new(
                ErrorKind::ReadOnly,
                format!("{} takes no changes since an error ({why}): open it again", self.name),
            )),
        }
    }

    pub(crate) fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{} is damaged: {what}{CHECK_ADVICE}", self.name))
    }

    /// What is damaged, for a check: whoever reads it knows the pool, and need not be told to check it.
    pub(crate) fn without_advice(&self, error: &Error) -> String {
        let message = error.to_string();
        let what = message.strip_prefix(&format!("{} is damaged: ", self.name)).unwrap_or(&message);
        what.strip_suffix(CHECK_ADVICE).unwrap_or(what).to_owned()
    }

    /// Tries work in memory until it has all that it needs. No lock is held while a page or a bitmap is
    /// read, unless the caller holds one.
    pub(crate) fn attempt<T>(&self, mut work: impl FnMut() -> Attempt<T>) -> Result<T> {
        let mut failed = None;
        loop {
            let need = match work() {
                Ok(value) => return Ok(value),
                Err(need) => need,
            };
            let place = need.place();
            match self.satisfy(need) {
                Ok(()) => {}
                // While it was read, it may have gone out of use and its place to somebody else: then the work
                // asks for another. It is damaged if it is asked for again.
                Err(error)
                    if error.kind() == ErrorKind::Corrupt && place.is_some() && place != failed =>
                {
                    failed = place;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn satisfy(&self, need: Need) -> Result<()> {
        match need {
            Need::Page(pointer) => self.load_page(pointer),
            Need::Group(group) => self.load_group(group),
            Need::Room => Err(self.full()),
            Need::PageRun { stocked_before } => self.stock_pages(stocked_before),
            Need::Head(group) => self.reserve_head(group),
            Need::Missing(error) => Err(error),
            Need::Corrupt { what } => Err(self.corrupt(what)),
        }
    }

    pub(crate) fn full(&self) -> Error {
        Error::new(
            ErrorKind::Full,
            format!(
                "{} is full: remove containers or images, or make the pool larger with `thinstore grow`",
                self.name
            ),
        )
    }

    fn read_verified(&self, pointer: BlockPtr, what: &str) -> Result<Box<[u8; BLOCK_LENGTH]>> {
        let mut bytes = Box::new([0; BLOCK_LENGTH]);
        let block = pointer.block();
        if block.get() >= self.pages.space.geometry().pool_blocks {
            return Err(self.corrupt(format!("a pointer to {block}, past the end of the pool")));
        }
        self.storage.read_at(block.offset_bytes(), &mut bytes[..]).map_err(|source| {
            Error::io(format!("cannot read {what} at {block} of {}", self.name), source)
        })?;
        let crc = crc32fast::hash(&bytes[..]);
        if crc != pointer.crc() {
            return Err(self.corrupt(format!(
                "{what} at {block} has checksum {crc:08x}, its parent says {:08x}",
                pointer.crc()
            )));
        }
        Ok(bytes)
    }

    fn load_page(&self, pointer: BlockPtr) -> Result<()> {
        let bytes = self.read_verified(pointer, "the map page")?;
        let page = Page::from_disk(pointer.block(), pointer.crc(), &bytes[..]);
        self.pages.cache.insert(Arc::new(page));
        Ok(())
    }

    fn load_group(&self, group: GroupIndex) -> Result<()> {
        let pointer = self.pages.space.saved_pointer(group);
        let loaded = if pointer.is_null() {
            self.pages.space.load(group, None)
        } else {
            let bytes = self.read_verified(pointer, "the bitmap")?;
            self.pages.space.load(group, Some(&bytes[..]))
        };
        loaded.map_err(|what| self.corrupt(what))
    }

    pub(crate) fn has_too_many_dirty_pages(&self) -> bool {
        self.pages.dirty_count() * 2 > self.pages.cache.capacity_pages()
    }

    pub(crate) fn note_freed(&self, blocks: u64) {
        self.unreleased_blocks.fetch_add(blocks.cast_signed(), Ordering::Relaxed);
    }

    pub(crate) fn note_released(&self, blocks: u64) {
        self.unreleased_blocks.fetch_sub(blocks.cast_signed(), Ordering::Relaxed);
    }
}
