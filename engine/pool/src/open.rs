//! Opening a pool: superblocks, tables, journal, in this order, each believed only when it was checked.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use thinstore_storage::{Error, ErrorKind, Result, Storage};

use crate::checkpoint::CheckpointState;
use crate::convert::to_u64;
use crate::core::Core;
use crate::format::batch::pool_tag;
use crate::format::geometry::{Geometry, SUPERBLOCK_HOMES, TABLE_HEIGHT};
use crate::format::layer::{LAYER_RECORD_BYTES, LayerRecord};
use crate::format::pointer::BlockPtr;
use crate::format::superblock::{
    JournalPosition, Superblock, SuperblockFault, UnverifiedSuperblock,
};
use crate::journal::replay::read_journal;
use crate::journal::ring::Ring;
use crate::journal::writer::Writer;
use crate::layers::change::Transaction;
use crate::layers::layer::{Layer, LayerMap, LayerMeta};
use crate::layers::table::Table;
use crate::maintenance::Maintenance;
use crate::map::ownership::Absorption;
use crate::map::page::span;
use crate::map::store::PageStore;
use crate::map::tree::Tree;
use crate::map::walk;
use crate::pool::{OpenOptions, random_uuid};
use crate::room::Room;
use crate::space::Space;
use crate::sums::SumCache;
use crate::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::types::{BLOCK_BYTES, BLOCK_LENGTH, Epoch, LayerId, PoolBlock};

/// The part of the memory for map pages that goes to checksums of data: at 64 MiB, those of 4 GiB.
const SUM_CACHE_SHARE: u64 = 16;

/// Opens a pool: recovers what the journal holds, and removes what was transient.
///
/// Nothing is written before all of it has been read and believed.
pub(crate) fn open(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Arc<Core>> {
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
    let space = load_space(&*storage, &roots.newest)?;
    let core = build_core(storage, &roots, journal.position, options, space)?;
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
    Ok(core)
}

pub(crate) fn read_superblock(
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
pub(crate) struct Roots {
    pub(crate) newest: Superblock,
    pub(crate) home: usize,
    pub(crate) older: Option<Superblock>,
}

pub(crate) fn find_roots(storage: &dyn Storage) -> Result<Roots> {
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

/// Do two superblocks lead to the same pool?
fn same_state(a: &Superblock, b: &Superblock) -> bool {
    let numbered = Superblock { checkpoint: b.checkpoint, ..a.clone() };
    numbered == *b
}

/// A number that no opening of the pool had before.
fn random_number() -> Result<u64> {
    let [a, b, c, d, e, f, g, h, ..] = random_uuid()?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// The space map is read without a page store: that needs what the space map says.
fn load_space(storage: &dyn Storage, superblock: &Superblock) -> Result<Space> {
    let space_map = Tree { root: superblock.space_map, height: TABLE_HEIGHT };
    let geometry = superblock.geometry;
    let saved = read_space_map(storage, &space_map, geometry)?;
    let damaged = |what: String| {
        let name = storage.name();
        Error::new(ErrorKind::Corrupt, format!("{name} is damaged: {what}; run `thinstore check`"))
    };
    Space::new(geometry, |group| {
        saved.get(crate::convert::to_usize(group.get())).copied().unwrap_or(BlockPtr::NULL)
    })
    .map_err(damaged)
}

/// A pool in memory that has read neither layers nor journal yet.
pub(crate) fn build_core(
    storage: Arc<dyn Storage>,
    roots: &Roots,
    position: JournalPosition,
    options: &OpenOptions,
    space: Space,
) -> Result<Core> {
    let newest = &roots.newest;
    let name = storage.name();
    let ring = Ring { blocks: newest.geometry.journal_blocks };
    let space_map = Tree { root: newest.space_map, height: TABLE_HEIGHT };
    let oldest_start = roots.older.as_ref().map_or(newest.journal.head_blocks, |older| {
        older.journal.head_blocks.min(newest.journal.head_blocks)
    });
    let tag = pool_tag(&newest.uuid);
    let mut writer = Writer::new(ring, tag, random_number()?, position, oldest_start);
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
        reclaim_portion_blocks: options.reclaim_portion_blocks.max(1),
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
        pages: PageStore::new(space, options.cache_bytes - options.cache_bytes / SUM_CACHE_SHARE),
        pending: Default::default(),
        group_commit: Default::default(),
        reclaiming: Mutex::new(()),
        summing: Mutex::new(()),
        sums: SumCache::new(options.cache_bytes / SUM_CACHE_SHARE),
        verify_reads: options.verify_reads,
        maintenance: Maintenance::default(),
        room: Room::new(options.on_full),
        releasing: RwLock::new(()),
        stocking: Mutex::new(()),
        syncing: Mutex::new(()),
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
        walk::mapped_blocks(&core.pages, &tree, from, &mut |index, _, pointer| {
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
        if !insert_record(core, &mut table, record) {
            return Err(core.corrupt(format!("the name '{}' stands twice", record.name)));
        }
    }
    resume_absorptions(core, &table)?;
    table.derive_all_sums();
    Ok(())
}

/// Takes a layer into the table; false if its name is taken.
pub(crate) fn insert_record(core: &Core, table: &mut Table, record: &LayerRecord) -> bool {
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
    table.insert(Arc::new(layer), LayerMeta::of(record))
}

/// A child that was taking over its origin goes on from where the origin's cursor stands.
pub(crate) fn resume_absorptions(core: &Core, table: &Table) -> Result<()> {
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
    let mut ordered = Vec::with_capacity(going.len());
    while !going.is_empty() {
        let left: HashSet<LayerId> = going.iter().map(|info| info.id).collect();
        let (needed, free): (Vec<_>, Vec<_>) = going
            .into_iter()
            .partition(|info| info.referenced_by.iter().any(|referrer| left.contains(referrer)));
        if free.is_empty() {
            // They need each other in a circle, so they go together.
            ordered.extend(needed.into_iter().map(|info| info.id));
            break;
        }
        ordered.extend(free.into_iter().map(|info| info.id));
        going = needed;
    }
    // As many at a time as a batch takes, and what needs others before these: should power fail in between,
    // the rest is still transient.
    for some in ordered.chunks(core.most_removals()) {
        let mut transaction = Transaction::default();
        some.iter().for_each(|id| transaction.remove(*id));
        core.commit_transaction(&transaction)?;
    }
    Ok(())
}

impl Core {
    /// Are all roots where a page can be, and all origins what they must be?
    pub(crate) fn check_roots(&self) -> Result<()> {
        let geometry = self.pages.space.geometry();
        let table = self.table.read();
        for (id, entry) in table.iter() {
            let map = entry.layer.map.read();
            let root = map.tree.root;
            if !root.is_null() && !root.is_lost() && !geometry.is_allocatable(map.tree.root.block())
            {
                return Err(self.corrupt(format!(
                    "the map of {id} cannot begin at {}",
                    map.tree.root.block()
                )));
            }
            if map.size_blocks > span(map.tree.height) {
                return Err(self.corrupt(format!("the map of {id} is too low for its size")));
            }
            let meta = &entry.meta;
            if !meta.name.is_empty() && table.find(meta.namespace, &meta.name) != Some(*id) {
                return Err(self.corrupt(format!("the name '{}' stands twice", meta.name)));
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
}
