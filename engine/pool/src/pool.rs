//! The pool as its users see it: made, opened, changed, closed.

use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result, Storage};

use crate::check::{self, CheckReport};
use crate::convert::low_u32;
use crate::core::Core;
use crate::device::Device;
use crate::format::geometry::{
    Geometry, GroupIndex, MAXIMUM_POOL_BLOCKS, MINIMUM_POOL_BLOCKS, SUPERBLOCK_HOMES,
};
use crate::format::pointer::BlockPtr;
use crate::format::record::Record;
use crate::format::superblock::{JournalPosition, Superblock};
use crate::layers::change::{NewLayer, Transaction, device_blocks, unix_ns_now, usage};
use crate::layers::info::{Difference, LayerInfo, Usage};
use crate::layers::table::Table;
use crate::maintenance;
use crate::open;
use crate::room::OnFull;
use crate::scrub::{self, OnProgress, ScrubReport};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::sync::thread::JoinHandle;
use crate::types::{BLOCK_BYTES, Epoch, LayerId, Namespace};

/// How a pool is made.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// 4 MiB to 2 PiB, in whole blocks.
    pub size_bytes: u64,
    /// How much contiguous space is set aside when a part of a device is first written: a power of two,
    /// 4 KiB to 1 MiB.
    pub allocation_run_bytes: u64,
    /// The journal's ring, 256 KiB to 96 MiB; by default a 64th of the pool, 1 MiB to 64 MiB.
    pub journal_bytes: Option<u64>,
    /// The size of a device whose maker gives none.
    pub default_device_size_bytes: u64,
    /// The pool's identity; by default from the system's source of randomness.
    pub uuid: Option<[u8; 16]>,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            size_bytes: 100 << 30,
            allocation_run_bytes: 64 << 10,
            journal_bytes: None,
            default_device_size_bytes: 10 << 30,
            uuid: None,
        }
    }
}

/// How a pool is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Nothing is written, not even what the journal asks for: that is done in memory.
    pub read_only: bool,
    /// Memory for map pages, a part of it for checksums of data.
    pub cache_bytes: u64,
    /// With a thread that takes checkpoints, settles when idle and frees what was removed. Without it,
    /// these happen in the calls that need them.
    pub background: bool,
    /// Does the space of discarded and removed blocks go back to the host?
    pub punch_holes: bool,
    /// Is data of sealed layers held against its checksums when it is read?
    pub verify_reads: bool,
    /// What does a write that finds no room do?
    pub on_full: OnFull,
    /// Blocks that a portion of a walk over a removed layer frees, give or take a leaf of its map: changes
    /// of layers wait for so long.
    pub reclaim_portion_blocks: usize,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            read_only: false,
            cache_bytes: 64 << 20,
            background: true,
            punch_holes: true,
            verify_reads: true,
            on_full: OnFull::Error,
            reclaim_portion_blocks: 16_384,
        }
    }
}

/// Closes the pool when the last that uses it is gone.
pub(crate) struct Owner {
    pub(crate) core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Owner {
    fn stop_thread(&self) {
        if let Some(thread) = self.thread.lock().take() {
            self.core.maintenance.stop();
            // A panic there was printed; the pool's state is guarded by its own checks.
            let _ = thread.join();
        }
    }

    fn close(&self) -> Result<()> {
        self.core.room.end();
        self.stop_thread();
        if self.core.read_only {
            return Ok(());
        }
        self.core.check_latch()?;
        self.core.settle()?;
        self.core.checkpoint_if_changed()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!("closing {}: {error}", self.core.name);
        }
    }
}

/// A pool of thin devices. Cheap to clone; the last clone, and the last open device, closes it.
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

pub(crate) fn random_uuid() -> Result<[u8; 16]> {
    use std::io::Read;
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut uuid))
        .map_err(|source| Error::io("cannot read /dev/urandom", source))?;
    // Version 4, variant 1 (RFC 9562).
    uuid[6] = (uuid[6] & 0x0f) | 0x40;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    Ok(uuid)
}

impl Pool {
    /// Makes a pool on a storage, over whatever was there. The storage must be as large as the pool.
    pub fn create(storage: &dyn Storage, options: &PoolOptions) -> Result<()> {
        let pool_blocks = options.size_bytes / BLOCK_BYTES;
        if !options.size_bytes.is_multiple_of(BLOCK_BYTES)
            || !(MINIMUM_POOL_BLOCKS..=MAXIMUM_POOL_BLOCKS).contains(&pool_blocks)
        {
            return Err(usage(format!(
                "a pool of {} bytes cannot be made: it has 4 MiB to 2 PiB, in multiples of 4096",
                options.size_bytes
            )));
        }
        let run = options.allocation_run_bytes;
        if !run.is_power_of_two() || !(BLOCK_BYTES..=1 << 20).contains(&run) {
            return Err(usage(format!(
                "an allocation run of {run} bytes cannot be used: it is a power of two, 4 KiB to 1 MiB"
            )));
        }
        let journal_blocks = match options.journal_bytes {
            Some(bytes) => bytes / BLOCK_BYTES,
            None => (pool_blocks / 64).clamp(256, 16_384),
        };
        let geometry = Geometry { pool_blocks, journal_blocks };
        geometry.validate().map_err(usage)?;
        if storage.size_bytes() < options.size_bytes {
            return Err(usage(format!(
                "{} has {} bytes, too few for a pool of {}",
                storage.name(),
                storage.size_bytes(),
                options.size_bytes
            )));
        }
        let superblock = Superblock {
            uuid: options.uuid.map_or_else(random_uuid, Ok)?,
            geometry,
            allocation_run_blocks: low_u32(run / BLOCK_BYTES),
            default_device_blocks: device_blocks(options.default_device_size_bytes)?,
            checkpoint: 1,
            epoch: Epoch::FIRST,
            next_serial: 1,
            journal: JournalPosition { sequence: 0, head_blocks: 0, chain_crc: 0 },
            used_blocks: 0,
            data_blocks: 0,
            layer_table: BlockPtr::NULL,
            space_map: BlockPtr::NULL,
            created_unix_ns: unix_ns_now(),
        };
        let failed =
            |source| Error::io(format!("cannot make a pool in {}", storage.name()), source);
        // What has a fixed place in group 0 has its space from the start: a full host disk must not stop
        // a flush.
        let head_bytes = geometry.fixed_in(GroupIndex::new(0)) * BLOCK_BYTES;
        storage.reserve(0, head_bytes).map_err(failed)?;
        // Both superblocks at once, the older first: whatever was here before is no pool any more.
        let [first, second] = SUPERBLOCK_HOMES;
        let newer = Superblock { checkpoint: 2, ..superblock.clone() };
        storage.write_at(first.offset_bytes(), &superblock.encode()).map_err(failed)?;
        storage.write_at(second.offset_bytes(), &newer.encode()).map_err(failed)?;
        storage.sync().map_err(failed)
    }

    /// Opens a pool: recovers what the journal holds, and removes what was transient.
    ///
    /// Nothing is written before all of it has been read and believed.
    pub fn open(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Pool> {
        let core = open::open(storage, options)?;
        let thread = if core.background {
            Some(maintenance::start(&core).map_err(|source| {
                Error::io("cannot start the pool's maintenance thread", source)
            })?)
        } else {
            None
        };
        if core.background {
            core.maintenance.wake();
        } else if !core.read_only {
            match core.reclaim_all() {
                // In a pool so full that it cannot be done now, it is done when there is space.
                Err(error) if error.kind() == ErrorKind::Full => {
                    tracing::warn!("{}: removed layers are not freed yet: {error}", core.name);
                }
                other => other?,
            }
        }
        Ok(Pool { owner: Arc::new(Owner { core, thread: Mutex::new(thread) }) })
    }

    /// Flushes, settles, and brings both superblocks to the present state. Fails while devices are open.
    pub fn close(self) -> Result<()> {
        let open = self
            .core()
            .table
            .read()
            .iter()
            .any(|(_, entry)| entry.layer.handles.load(Ordering::Acquire) > 0);
        if open {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} has open devices: detach them first", self.core().name),
            ));
        }
        self.owner.close()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.owner.core
    }

    /// All layers, the pool's own and removed ones included.
    pub fn layers(&self) -> Vec<LayerInfo> {
        self.core().layer_infos()
    }

    /// One layer.
    pub fn layer(&self, id: LayerId) -> Result<LayerInfo> {
        self.core().layer_info(id)
    }

    /// The layer of a name.
    pub fn find(&self, namespace: Namespace, name: &str) -> Option<LayerId> {
        self.core().table.read().find(namespace, name)
    }

    /// The size of a device whose maker gives none.
    pub fn default_device_size_bytes(&self) -> u64 {
        self.core().default_device_blocks * BLOCK_BYTES
    }

    /// How much contiguous space is set aside at a first write.
    pub fn allocation_run_bytes(&self) -> u64 {
        u64::from(self.core().allocation_run_blocks) * BLOCK_BYTES
    }

    /// The pool's identity.
    pub fn uuid(&self) -> [u8; 16] {
        self.core().uuid
    }

    /// When the pool was made.
    pub fn created_unix_ns(&self) -> i64 {
        self.core().created_unix_ns
    }

    /// A new empty writable device. Durable on return, as every change of layers is.
    pub fn create_layer(&self, new: NewLayer) -> Result<LayerId> {
        self.core().create_layer(&new, 0)
    }

    /// A writable child of `source`. A writable source is forked: a hidden sealed layer takes its blocks,
    /// and both go on from there.
    pub fn snapshot(&self, source: LayerId, new: NewLayer) -> Result<LayerId> {
        self.core().snapshot(source, &new)
    }

    /// A sealed layer that has what the writable `source` has now; `source` becomes its child and stays
    /// writable, also while it is open.
    pub fn seal_snapshot(&self, source: LayerId, new: NewLayer) -> Result<LayerId> {
        self.core().seal_snapshot(source, &new)
    }

    /// A writable layer becomes sealed. No handle may be open.
    pub fn seal(&self, id: LayerId) -> Result<()> {
        self.core().seal(id)
    }

    /// Removes a layer, any layer: its space comes back as far as no child sees it. No handle may be open,
    /// and no other layer may reference it.
    pub fn remove(&self, id: LayerId) -> Result<()> {
        let mut transaction = Transaction::default();
        transaction.remove(id);
        self.commit(transaction).map(|_| ())
    }

    /// Makes a device larger.
    pub fn resize(&self, id: LayerId, size_bytes: u64) -> Result<()> {
        self.core().resize(id, size_bytes)
    }

    /// Makes the pool larger.
    pub fn grow(&self, size_bytes: u64) -> Result<()> {
        let core = self.core();
        core.check_writable()?;
        let pool_blocks = size_bytes / BLOCK_BYTES;
        let now = core.pages.space.geometry().pool_blocks;
        if pool_blocks <= now || pool_blocks > MAXIMUM_POOL_BLOCKS {
            return Err(usage(format!(
                "a pool of {} bytes cannot be made {size_bytes} bytes large: it can grow, up to 2 PiB",
                now * BLOCK_BYTES
            )));
        }
        core.storage
            .grow(pool_blocks * BLOCK_BYTES)
            .map_err(|source| Error::io(format!("cannot make {} larger", core.name), source))?;
        // The storage is larger for good before anything says so.
        core.sync_storage()?;
        {
            let _shared = core.cut.read();
            core.grow_space(pool_blocks)?;
            core.pending.append(&[Record::Grow { pool_blocks }], &[], &[], false);
        }
        core.room.has_come();
        core.flush()
    }

    /// Writes that wait for room fail now, and none waits any more: for whoever wants to close the pool.
    pub fn stop_waiting(&self) {
        self.core().room.end();
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Transaction {
        Transaction::default()
    }

    /// Carries a transaction out, whole or not at all. Gives the ids of the layers that it made.
    pub fn commit(&self, transaction: Transaction) -> Result<Vec<LayerId>> {
        self.core().commit_transaction(&transaction)
    }

    /// A handle on a layer's bytes; writing to a sealed layer fails.
    pub fn device(&self, id: LayerId) -> Result<Device> {
        Device::open(&self.owner, id)
    }

    pub(crate) fn device_in(&self, table: &Table, id: LayerId) -> Result<Device> {
        Device::open_in(&self.owner, table, id)
    }

    /// What differs between two layers; the cost is that of the difference.
    pub fn differences(&self, from: LayerId, to: LayerId) -> Result<Vec<Difference>> {
        self.core().differences(from, to)
    }

    /// What removing a layer now would give back: a walk over what it owns.
    pub fn unique_bytes(&self, id: LayerId) -> Result<u64> {
        self.core().unique_bytes(id)
    }

    /// Data of a layer that is mapped at all, own or not: a walk over its map.
    pub fn mapped_bytes(&self, id: LayerId) -> Result<u64> {
        self.core().mapped_bytes(id)
    }

    /// The pool's space.
    pub fn usage(&self) -> Usage {
        self.core().usage()
    }

    /// Takes the checksums of all data of sealed layers that has none yet, as the pool's thread does by and
    /// by. Durable on return.
    pub fn sum_sealed(&self) -> Result<()> {
        self.core().sum_all()
    }

    /// Returns when nothing that was removed or freed before is pending.
    pub fn wait_for_frees(&self) -> Result<()> {
        self.core().wait_for_frees()
    }

    /// Makes everything durable.
    pub fn flush(&self) -> Result<()> {
        self.core().flush()
    }

    /// Writes the maps out, so that the next open need not replay.
    pub fn checkpoint(&self) -> Result<()> {
        self.core().checkpoint()
    }

    /// Lists what is wrong with a pool that cannot be opened, which `error` said. Never writes.
    pub fn survey(storage: &dyn Storage, error: &Error) -> Result<CheckReport> {
        crate::repair::survey(storage, error)
    }

    /// Looks at every structure of the pool and at how they agree. Never writes.
    pub fn check(&self) -> Result<CheckReport> {
        check::check(self.core())
    }

    /// Reads all that has a checksum, and holds it against it: metadata, and the data of sealed layers. Never
    /// writes, and everything else goes on meanwhile. With `only`, of layers only these and all that they
    /// stand on and need.
    pub fn scrub(&self, only: &[LayerId], on_progress: OnProgress<'_>) -> ScrubReport {
        scrub::scrub(self.core(), only, on_progress)
    }
}

impl Core {
    /// A checkpoint on closing, unless both superblocks say all there is to say.
    fn checkpoint_if_changed(&self) -> Result<()> {
        let unchanged = {
            let state = self.checkpoints.lock();
            let position = self.writer.lock().position();
            position == state.newest.journal
                && self.pages.dirty_count() == 0
                && self.pages.space.dirty_groups().is_empty()
                && self.pages.held_blocks() == 0
                && state.held.iter().all(Vec::is_empty)
        };
        if unchanged { Ok(()) } else { self.checkpoint_twice() }
    }
}

#[cfg(test)]
mod tests {
    use thinstore_storage::MemoryStorage;

    use super::*;

    #[test]
    fn a_layer_that_stands_on_itself_is_damage_and_no_deadlock() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(4 << 20));
        let pool_options = PoolOptions { size_bytes: 4 << 20, ..PoolOptions::default() };
        Pool::create(&*storage, &pool_options).unwrap();
        let options = OpenOptions { background: false, ..OpenOptions::default() };
        let pool = Pool::open(Arc::clone(&storage), &options).unwrap();
        let id = pool.create_layer(NewLayer::default()).unwrap();
        pool.seal(id).unwrap();
        pool.core().check_roots().unwrap();
        {
            let mut table = pool.core().table.write();
            table.update(id, |meta| {
                meta.origin = Some(id);
                meta.hidden = true;
            });
        }
        assert!(pool.core().check_roots().is_err());
        pool.close().unwrap();
        let error = Pool::open(storage, &options).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
