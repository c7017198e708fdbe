//! The pool: made, opened, closed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use thinstore_storage::{Error, ErrorKind, Result, Storage};

use crate::check::{self, CheckReport};
use crate::checkpoint::CheckpointState;
use crate::convert::{low_u32, to_u64};
use crate::core::Core;
use crate::device::Device;
use crate::format::batch::pool_tag;
use crate::format::geometry::{
    Geometry, JOURNAL_BLOCKS, MAXIMUM_POOL_BLOCKS, MINIMUM_POOL_BLOCKS, SUPERBLOCK_HOMES,
    TABLE_HEIGHT,
};
use crate::format::layer::{LAYER_RECORD_BYTES, LayerRecord};
use crate::format::pointer::BlockPtr;
use crate::format::record::Record;
use crate::format::superblock::{
    JournalPosition, Superblock, SuperblockFault, UnverifiedSuperblock,
};
use crate::journal::replay::read_journal;
use crate::journal::ring::Ring;
use crate::journal::writer::Writer;
use crate::layers::change::{NewLayer, Transaction, device_blocks, unix_ns_now, usage};
use crate::layers::info::{Difference, LayerInfo, Usage};
use crate::layers::layer::{Layer, LayerMap, LayerMeta};
use crate::layers::table::Table;
use crate::maintenance::{self, Maintenance};
use crate::map::ownership::Absorption;
use crate::map::page::span;
use crate::map::store::PageStore;
use crate::map::tree::Tree;
use crate::map::walk;

use crate::space::Space;
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH, Epoch, LayerId, Namespace, PoolBlock};

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
    /// Memory for map pages.
    pub cache_bytes: u64,
    /// With a thread that takes checkpoints, settles when idle and frees what was removed. Without it,
    /// these happen in the calls that need them.
    pub background: bool,
    /// Does the space of discarded and removed blocks go back to the host?
    pub punch_holes: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { read_only: false, cache_bytes: 64 << 20, background: true, punch_holes: true }
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

fn random_uuid() -> Result<[u8; 16]> {
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

fn read_superblock(
    storage: &dyn Storage,
    home: PoolBlock,
) -> Result<std::result::Result<Superblock, SuperblockFault>> {
    let mut bytes = [0; BLOCK_LENGTH];
    if storage.size_bytes() < home.offset_bytes() + BLOCK_BYTES {
        return Ok(Err(SuperblockFault::Magic));
    }
    storage.read_at(home.offset_bytes(), &mut bytes).map_err(|source| {
        Error::io(format!("cannot read the superblock of {}", storage.name()), source)
    })?;
    Ok(UnverifiedSuperblock(&bytes).verify())
}

/// The newest superblock and its home, and where the older one, if it is valid, starts its replay.
struct Roots {
    newest: Superblock,
    home: usize,
    older: Option<Superblock>,
}

fn find_roots(storage: &dyn Storage) -> Result<Roots> {
    let name = storage.name();
    let [first, second] = SUPERBLOCK_HOMES;
    let found = [read_superblock(storage, first)?, read_superblock(storage, second)?];
    for fault in found.iter().filter_map(|result| result.as_ref().err()) {
        match fault {
            SuperblockFault::Version(version) => {
                return Err(Error::new(
                    ErrorKind::Incompatible,
                    format!("{name} has format version {version}: use a newer thinstore"),
                ));
            }
            SuperblockFault::Features(bits) => {
                return Err(Error::new(
                    ErrorKind::Incompatible,
                    format!(
                        "{name} uses features that are not known here ({bits:#x}): use a newer thinstore"
                    ),
                ));
            }
            _ => {}
        }
    }
    let roots = match found {
        [Ok(a), Ok(b)] if b.checkpoint > a.checkpoint => {
            Roots { newest: b, home: 1, older: Some(a) }
        }
        [Ok(a), b] => Roots { newest: a, home: 0, older: b.ok() },
        [Err(_), Ok(b)] => Roots { newest: b, home: 1, older: None },
        [Err(a), Err(b)] => {
            let not_a_pool = a == SuperblockFault::Magic && b == SuperblockFault::Magic;
            return Err(if not_a_pool {
                Error::new(
                    ErrorKind::Incompatible,
                    format!("{name} is not a thinstore pool: make one with `thinstore init`"),
                )
            } else {
                Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "both superblocks of {name} are damaged ({a:?}, {b:?}); run `thinstore check`"
                    ),
                )
            });
        }
    };
    let expected_bytes = roots.newest.geometry.pool_blocks * BLOCK_BYTES;
    if storage.size_bytes() < expected_bytes {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{name} is cut off: {} bytes of {expected_bytes}", storage.size_bytes()),
        ));
    }
    Ok(roots)
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
        if !JOURNAL_BLOCKS.contains(&journal_blocks) || storage.size_bytes() < options.size_bytes {
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
        // The journal has its space from the start: a full host disk must not stop a flush.
        let journal_bytes = journal_blocks * BLOCK_BYTES;
        storage
            .reserve(crate::format::geometry::JOURNAL_START.offset_bytes(), journal_bytes)
            .map_err(failed)?;
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
        // After a failed flush the cache may show what never reached the disk.
        storage.drop_cache().map_err(|source| {
            Error::io(format!("cannot drop the cache of {}", storage.name()), source)
        })?;
        let roots = find_roots(&*storage)?;
        let ring = Ring { blocks: roots.newest.geometry.journal_blocks };
        let tag = pool_tag(&roots.newest.uuid);
        let journal = read_journal(&*storage, ring, tag, roots.newest.journal)?;
        let clean = journal.records.is_empty()
            && journal.position == roots.newest.journal
            && roots.older.as_ref().is_some_and(|older| same_state(older, &roots.newest));
        let core = build_core(storage, &roots, ring, journal.position, options)?;
        load_layers(&core)?;
        core.check_roots()?;
        let replayed = core.replay(&journal.records)?;
        core.check_roots()?;
        let core = Arc::new(core);
        if !core.read_only {
            let is_new = roots.newest.space_map.is_null();
            if is_new {
                core.attempt(|| core.pages.space.mark_first_group_dirty())?;
            }
            if !clean || is_new {
                core.checkpoint_twice()?;
            }
        }
        for extent in replayed {
            core.pages.space.release(extent);
        }
        core.pages.space.end_recovery();
        if !core.read_only {
            remove_transient(&core)?;
        }
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
        core.flush()
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

    /// Looks at every structure of the pool and at how they agree. Never writes.
    pub fn check(&self) -> Result<CheckReport> {
        check::check(self.core())
    }
}

/// Do two superblocks lead to the same pool?
fn same_state(a: &Superblock, b: &Superblock) -> bool {
    let numbered = Superblock { checkpoint: b.checkpoint, ..a.clone() };
    numbered == *b
}

fn build_core(
    storage: Arc<dyn Storage>,
    roots: &Roots,
    ring: Ring,
    position: JournalPosition,
    options: &OpenOptions,
) -> Result<Core> {
    let newest = &roots.newest;
    let name = storage.name();
    let space_map = Tree { root: newest.space_map, height: TABLE_HEIGHT };
    // The space map is read through a page store of its own: the real one needs what it says.
    let geometry = newest.geometry;
    let saved = read_space_map(&*storage, &space_map, geometry)?;
    let damaged = |what: String| {
        Error::new(ErrorKind::Corrupt, format!("{name} is damaged: {what}; run `thinstore check`"))
    };
    let space = Space::new(geometry, |group| {
        saved.get(crate::convert::to_usize(group.get())).copied().unwrap_or(BlockPtr::NULL)
    })
    .map_err(damaged)?;
    let oldest_start = roots.older.as_ref().map_or(newest.journal.head_blocks, |older| {
        older.journal.head_blocks.min(newest.journal.head_blocks)
    });
    let tag = pool_tag(&newest.uuid);
    let mut writer = Writer::new(ring, tag, position, oldest_start);
    writer.newest_start_blocks = newest.journal.head_blocks;
    Ok(Core {
        name,
        uuid: newest.uuid,
        created_unix_ns: newest.created_unix_ns,
        allocation_run_blocks: newest.allocation_run_blocks,
        default_device_blocks: newest.default_device_blocks,
        read_only: options.read_only,
        background: options.background && !options.read_only,
        punch_holes: options.punch_holes,
        ring,
        checkpoints: Mutex::new(CheckpointState {
            newest: newest.clone(),
            newest_home: roots.home,
            layer_table: Tree { root: newest.layer_table, height: TABLE_HEIGHT },
            space_map,
            held: std::collections::VecDeque::new(),
        }),
        writer: Mutex::new(writer),
        cut: RwLock::new(()),
        table: RwLock::new(Table::new(newest.next_serial)),
        pages: PageStore::new(space, options.cache_bytes),
        pending: Default::default(),
        group_commit: Default::default(),
        reclaiming: Mutex::new(()),
        maintenance: Maintenance::default(),
        epoch: AtomicU32::new(newest.epoch.get()),
        data_blocks: AtomicI64::new(newest.data_blocks.cast_signed()),
        unreleased_blocks: AtomicI64::new(0),
        latched: OnceLock::new(),
        storage,
    })
}

/// The saved bitmap pointer of every group.
fn read_space_map(storage: &dyn Storage, tree: &Tree, geometry: Geometry) -> Result<Vec<BlockPtr>> {
    let groups = geometry.group_count();
    let mut pointers = vec![BlockPtr::NULL; crate::convert::to_usize(groups)];
    let mut visit =
        |group: u64, pointer: BlockPtr| match pointers.get_mut(crate::convert::to_usize(group)) {
            Some(place) => {
                *place = pointer;
                true
            }
            None => false,
        };
    read_table(storage, tree.root, tree.height, 0, geometry, &mut visit)?;
    Ok(pointers)
}

/// Reads a whole table before there is a cache: depth is that of the table, 3.
fn read_table(
    storage: &dyn Storage,
    pointer: BlockPtr,
    level: u8,
    start: u64,
    geometry: Geometry,
    visit: &mut dyn FnMut(u64, BlockPtr) -> bool,
) -> Result<()> {
    let damaged = |what: String| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{} is damaged: {what}; run `thinstore check`", storage.name()),
        )
    };
    if pointer.is_null() {
        return Ok(());
    }
    if level == 0 {
        return if visit(start, pointer) {
            Ok(())
        } else {
            Err(damaged(format!("a table has an entry {start}, past its end")))
        };
    }
    if !geometry.is_allocatable(pointer.block()) {
        return Err(damaged(format!("a table's page cannot lie at {}", pointer.block())));
    }
    let mut bytes = [0; BLOCK_LENGTH];
    storage.read_at(pointer.block().offset_bytes(), &mut bytes).map_err(|source| {
        Error::io(format!("cannot read {} of {}", pointer.block(), storage.name()), source)
    })?;
    if crc32fast::hash(&bytes) != pointer.crc() {
        return Err(damaged(format!(
            "the space map's page at {} has a wrong checksum",
            pointer.block()
        )));
    }
    let page = crate::map::page::Page::from_disk(pointer.block(), pointer.crc(), &bytes);
    for (index, below) in page.pointers().enumerate() {
        let inside = start + to_u64(index) * span(level - 1);
        read_table(storage, below, level - 1, inside, geometry, visit)?;
    }
    Ok(())
}

/// Reads the layer table.
fn load_layers(core: &Core) -> Result<()> {
    let tree = core.checkpoints.lock().layer_table;
    let mut records = Vec::new();
    let mut from = 0;
    let mut pages = Vec::new();
    core.attempt(|| {
        walk::mapped_blocks(&core.pages, &tree, from, &mut |index, pointer| {
            pages.push((index.get(), pointer));
            from = index.get() + 1;
            true
        })
        .map(|_| ())
    })?;
    for (index, pointer) in pages {
        let page = core.attempt(|| core.pages.get(pointer))?;
        for (place, bytes) in page.bytes().chunks_exact(LAYER_RECORD_BYTES).enumerate() {
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let slot = index * 8 + to_u64(place);
            let record = LayerRecord::decode(bytes)
                .filter(|record| u64::from(record.id.get()) == slot && record.height > 0)
                .ok_or_else(|| {
                    core.corrupt(format!("the record of layer {slot} cannot be read"))
                })?;
            records.push(record);
        }
    }
    let mut table = core.table.write();
    for record in &records {
        let map = LayerMap {
            tree: Tree { root: record.root, height: record.height },
            size_blocks: record.size_blocks,
            base: record.base_epoch,
            sealed: record.flags.sealed,
            seal_epoch: record.seal_epoch,
            absorption: None,
        };
        let layer = Layer::new(record.id, map, core.allocation_run_blocks);
        layer.set_own_blocks(record.own_data_blocks, record.own_page_blocks);
        layer.changed.store(false, Ordering::Release);
        if !table.insert(Arc::new(layer), LayerMeta::of(record)) {
            return Err(core.corrupt(format!("the name '{}' stands twice", record.name)));
        }
    }
    resume_absorptions(core, &table)
}

/// A child that was taking over its origin goes on from where the origin's cursor stands.
fn resume_absorptions(core: &Core, table: &Table) -> Result<()> {
    for (id, entry) in table.iter().filter(|(_, entry)| entry.meta.absorbing) {
        let Some(child) = table.children(*id).next() else { continue };
        let base = entry.layer.map.read().base;
        let absorption = Absorption { cursor: entry.meta.cursor, base };
        let child = table.get(child).map_err(|error| core.corrupt(error))?;
        child.layer.map.write().absorption = Some((absorption, Arc::clone(&entry.layer)));
    }
    Ok(())
}

/// Can a layer of this base epoch stand on `origin`? The text ends a sentence.
fn check_origin(table: &Table, origin: LayerId, base: Epoch) -> std::result::Result<(), String> {
    let Ok(entry) = table.get(origin) else { return Err("which is not there".to_owned()) };
    // Nobody else uses the pool yet: to read what is being read already waits for nobody.
    let map = entry.layer.map.read();
    if map.sealed && map.seal_epoch == base {
        return Ok(());
    }
    Err(format!("which was not sealed in epoch {}", base.get()))
}

fn remove_transient(core: &Core) -> Result<()> {
    // A transient layer may reference another: they go together.
    let mut going = core.layer_infos();
    going.retain(|info| info.transient && !info.hidden);
    loop {
        // What a layer that stays needs stays as well, until that one goes.
        let ids: HashSet<LayerId> = going.iter().map(|info| info.id).collect();
        let before = going.len();
        going.retain(|info| info.referenced_by.iter().all(|referrer| ids.contains(referrer)));
        if going.len() == before {
            break;
        }
    }
    if going.is_empty() {
        return Ok(());
    }
    let mut transaction = Transaction::default();
    for info in going {
        transaction.remove(info.id);
    }
    core.commit_transaction(&transaction).map(|_| ())
}

impl Core {
    /// Are all roots where a page can be, and all origins what they must be?
    fn check_roots(&self) -> Result<()> {
        let geometry = self.pages.space.geometry();
        let table = self.table.read();
        for (id, entry) in table.iter() {
            let map = entry.layer.map.read();
            if !map.tree.root.is_null() && !geometry.is_allocatable(map.tree.root.block()) {
                return Err(self.corrupt(format!(
                    "the map of {id} cannot begin at {}",
                    map.tree.root.block()
                )));
            }
            if map.size_blocks > span(map.tree.height) {
                return Err(self.corrupt(format!("the map of {id} is too low for its size")));
            }
            // Seal epochs fall from layer to origin, so that no chain of origins comes back to itself.
            if map.sealed && map.seal_epoch <= map.base {
                return Err(self.corrupt(format!("{id} was sealed before its origin")));
            }
            if let Some(origin) = entry.meta.origin {
                check_origin(&table, origin, map.base)
                    .map_err(|what| self.corrupt(format!("{id} stands on {origin}, {what}")))?;
            }
        }
        Ok(())
    }

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
