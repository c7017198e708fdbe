//! Changes to layers: made, described, sealed, resized and removed, one at a time or several at once.
//!
//! Each is checked whole before anything changes, then done in memory and recorded under one lock, then
//! made durable by one flush.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use thinstore_storage::{Error, ErrorKind, Result};

use super::layer::Layer;
use super::table::Table;
use crate::convert::{to_u64, to_usize};
use crate::core::Core;
use crate::format::geometry::MAXIMUM_DEVICE_BLOCKS;
use crate::format::layer::{LayerFlags, LayerRecord, NAME_BYTES};
use crate::format::pointer::BlockPtr;
use crate::format::record::Record;
use crate::journal::writer::batch_limit_bytes;
use crate::types::{BLOCK_BYTES, Epoch, LayerId, LogicalBlock, Namespace};

/// What a new layer is to be.
#[derive(Clone, Debug, Default)]
pub struct NewLayer {
    /// Where its name is unique. `Namespace::INTERNAL` by default.
    pub namespace: Namespace,
    /// Up to 255 bytes without NUL; empty: no name.
    pub name: String,
    /// A multiple of 4096, up to 1 PiB, and not less than the source's; by default the source's, or
    /// the pool's default.
    pub size_bytes: Option<u64>,
    /// Removed at the next open, unless it is published before.
    pub transient: bool,
    /// A layer that this one stands for or needs: that one cannot be removed meanwhile.
    pub reference: Option<LayerId>,
    /// 32 bytes of the caller's, such as a digest.
    pub tag: [u8; 32],
}

/// One change of a transaction.
#[derive(Clone, Debug)]
enum Step {
    Publish { layer: LayerId, name: Option<String> },
    Create { new: NewLayer, sealed: bool, document: Option<LayerId> },
    Rename { layer: LayerId, name: String },
    SetReference { layer: LayerId, reference: Option<LayerId> },
    SetDocument { layer: LayerId, document: Option<LayerId> },
    Remove { layer: LayerId },
}

/// Several changes that become durable together, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    steps: Vec<Step>,
}

impl Transaction {
    /// The layer stays after the next open; with a name, it gets that.
    pub fn publish(&mut self, layer: LayerId, name: Option<&str>) {
        self.steps.push(Step::Publish { layer, name: name.map(str::to_owned) });
    }

    /// A new layer without an origin. `document` was made by [`crate::Pool::store_document`].
    pub fn create(&mut self, new: NewLayer, sealed: bool, document: Option<LayerId>) {
        self.steps.push(Step::Create { new, sealed, document });
    }

    /// The layer gets another name.
    pub fn rename(&mut self, layer: LayerId, name: &str) {
        self.steps.push(Step::Rename { layer, name: name.to_owned() });
    }

    /// The layer stands for another one.
    pub fn set_reference(&mut self, layer: LayerId, reference: Option<LayerId>) {
        self.steps.push(Step::SetReference { layer, reference });
    }

    /// The layer gets another document; the old one is removed.
    pub fn set_document(&mut self, layer: LayerId, document: Option<LayerId>) {
        self.steps.push(Step::SetDocument { layer, document });
    }

    /// The layer is removed, and its document with it.
    pub fn remove(&mut self, layer: LayerId) {
        self.steps.push(Step::Remove { layer });
    }
}

/// Bytes in the journal of what describes a layer, and of what removes one.
const DESCRIBE_RECORD_BYTES: u64 = 516;
const REMOVE_RECORD_BYTES: u64 = 8;

/// What a new layer has beyond what its maker says.
pub(crate) struct Placement {
    pub(crate) origin: Option<LayerId>,
    pub(crate) size_blocks: u64,
    pub(crate) sealed: bool,
    pub(crate) hidden: bool,
    pub(crate) document: Option<LayerId>,
    pub(crate) content_bytes: u64,
}

pub(crate) fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

/// Nanoseconds since 1970; before it, negative.
pub(crate) fn unix_ns_now() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanoseconds| -nanoseconds)
        }
    }
}

/// Blocks of a device of so many bytes, if there can be one.
pub(crate) fn device_blocks(size_bytes: u64) -> Result<u64> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(usage(format!(
            "a device of {size_bytes} bytes cannot be made: its size must be a multiple of 4096, and not 0"
        )));
    }
    let blocks = size_bytes / BLOCK_BYTES;
    if blocks > MAXIMUM_DEVICE_BLOCKS {
        return Err(usage(format!(
            "a device of {size_bytes} bytes cannot be made: the largest has 1 PiB"
        )));
    }
    Ok(blocks)
}

fn check_name(name: &str) -> Result<()> {
    if name.len() > NAME_BYTES || name.contains('\0') {
        return Err(usage(format!(
            "the name '{}' cannot be used: it may have up to {NAME_BYTES} bytes, none of them NUL",
            name.escape_default()
        )));
    }
    Ok(())
}

fn name_taken(name: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("'{name}' exists already: choose another name"))
}

impl Core {
    pub(crate) fn check_new_name(
        &self,
        table: &Table,
        namespace: Namespace,
        name: &str,
    ) -> Result<()> {
        check_name(name)?;
        if !name.is_empty() && table.find(namespace, name).is_some() {
            return Err(name_taken(name));
        }
        Ok(())
    }

    /// Is the layer there that a new one is to reference?
    pub(crate) fn check_reference(&self, table: &Table, new: &NewLayer) -> Result<()> {
        if let Some(reference) = new.reference
            && table.get(reference)?.meta.is_removed()
        {
            return Err(Error::new(ErrorKind::NotFound, format!("{reference} was removed")));
        }
        Ok(())
    }

    /// The record of a new layer. Its id and serial are free until the table changes.
    pub(crate) fn new_record(
        &self,
        table: &Table,
        new: &NewLayer,
        placement: &Placement,
        id: LayerId,
    ) -> Result<LayerRecord> {
        self.check_reference(table, new)?;
        Ok(LayerRecord {
            id,
            flags: LayerFlags {
                sealed: placement.sealed,
                transient: new.transient,
                hidden: placement.hidden,
                ..LayerFlags::default()
            },
            namespace: new.namespace,
            height: 0,
            name: new.name.clone(),
            origin: placement.origin,
            reference: new.reference,
            document: placement.document,
            base_epoch: Epoch::ZERO,
            seal_epoch: Epoch::ZERO,
            size_blocks: placement.size_blocks,
            root: BlockPtr::NULL,
            own_data_blocks: 0,
            own_page_blocks: 0,
            cursor: LogicalBlock::new(0),
            serial: table.next_serial,
            created_unix_ns: unix_ns_now(),
            content_bytes: placement.content_bytes,
            tag: new.tag,
            summed_blocks: LogicalBlock::new(0),
        })
    }

    pub(crate) fn check_epochs_left(&self) -> Result<()> {
        match self.epoch().next() {
            Some(_) => Ok(()),
            None => self.advance_epoch().map(|_| ()),
        }
    }

    /// A new layer without an origin.
    pub(crate) fn create_layer(&self, new: &NewLayer, content_bytes: u64) -> Result<LayerId> {
        self.check_writable()?;
        self.check_room_for_layer()?;
        let size_blocks = new.size_bytes.map_or(Ok(self.default_device_blocks), device_blocks)?;
        let placement = Placement {
            origin: None,
            size_blocks,
            sealed: false,
            hidden: false,
            document: None,
            content_bytes,
        };
        let id = {
            let _shared = self.cut.read();
            let mut table = self.table.write();
            self.check_new_name(&table, new.namespace, &new.name)?;
            let id = table.free_id()?;
            let record = self.new_record(&table, new, &placement, id)?;
            self.attempt(|| self.apply_create(&mut table, &record))?;
            self.pending.append(&[Record::Create(Box::new(record))], &[], &[], false);
            id
        };
        self.flush()?;
        Ok(id)
    }

    /// A writable child of a layer that is sealed.
    pub(crate) fn create_child(&self, origin: LayerId, new: &NewLayer) -> Result<LayerId> {
        self.check_writable()?;
        self.check_room_for_layer()?;
        let wanted = new.size_bytes.map(device_blocks).transpose()?;
        let id = loop {
            // Raising a tree may need pages: these are brought with no lock held.
            let need = {
                let _shared = self.cut.read();
                let mut table = self.table.write();
                self.check_new_name(&table, new.namespace, &new.name)?;
                let placement = self.child_placement(&table, origin, wanted)?;
                let id = table.free_id()?;
                let record = self.new_record(&table, new, &placement, id)?;
                match self.apply_create(&mut table, &record) {
                    Ok(()) => {
                        self.pending.append(&[Record::Create(Box::new(record))], &[], &[], false);
                        break id;
                    }
                    Err(need) => need,
                }
            };
            self.satisfy(need)?;
        };
        self.flush()?;
        Ok(id)
    }

    pub(crate) fn child_placement(
        &self,
        table: &Table,
        origin: LayerId,
        wanted_blocks: Option<u64>,
    ) -> Result<Placement> {
        let entry = table.get(origin)?;
        if entry.meta.is_removed() {
            return Err(Error::new(ErrorKind::NotFound, format!("{origin} was removed")));
        }
        let origin_blocks = entry.layer.map.read().size_blocks;
        let size_blocks = wanted_blocks.unwrap_or(origin_blocks);
        if size_blocks < origin_blocks {
            return Err(usage(format!(
                "a snapshot of {} bytes cannot be made of a device of {}: it can be larger, not smaller",
                size_blocks * BLOCK_BYTES,
                origin_blocks * BLOCK_BYTES
            )));
        }
        Ok(Placement {
            origin: Some(origin),
            size_blocks,
            sealed: false,
            hidden: false,
            document: None,
            content_bytes: 0,
        })
    }

    /// Makes a device larger.
    pub(crate) fn resize(&self, id: LayerId, size_bytes: u64) -> Result<()> {
        self.check_writable()?;
        let size_blocks = device_blocks(size_bytes)?;
        let layer = self.writable_layer(id)?;
        let _closed = layer.gate.close();
        loop {
            let need = {
                let _shared = self.cut.read();
                let table = self.table.write();
                self.check_still_writable(&table, &layer)?;
                let now = table.get(id)?.layer.map.read().size_blocks;
                if size_blocks < now {
                    return Err(usage(format!(
                        "{id} has {} bytes and cannot become smaller",
                        now * BLOCK_BYTES
                    )));
                }
                match self.apply_resize(&table, id, size_blocks) {
                    Ok(()) => {
                        let record = Record::Resize { layer: id, size_blocks };
                        self.pending.append(&[record], &[], &[], false);
                        break;
                    }
                    Err(need) => need,
                }
            };
            self.satisfy(need)?;
        }
        self.flush()
    }

    /// The layer, if it can be written.
    pub(crate) fn writable_layer(&self, id: LayerId) -> Result<Arc<Layer>> {
        let table = self.table.read();
        let layer = Arc::clone(&table.get(id)?.layer);
        self.check_still_writable(&table, &layer)?;
        Ok(layer)
    }

    /// Asked again under the table's lock, after a gate was closed: the layer may have been removed or
    /// sealed meanwhile, and its slot may be another one's.
    pub(crate) fn check_still_writable(&self, table: &Table, layer: &Arc<Layer>) -> Result<()> {
        let id = layer.id;
        let entry = table.get(id)?;
        if entry.meta.is_removed() || !Arc::ptr_eq(&entry.layer, layer) {
            return Err(Error::new(ErrorKind::NotFound, format!("{id} was removed")));
        }
        if layer.map.read().sealed {
            return Err(usage(format!("{id} is sealed and never changes: take a snapshot of it")));
        }
        Ok(())
    }

    /// Carries a transaction out. Gives the ids of the layers it made, in order.
    pub(crate) fn commit_transaction(&self, transaction: &Transaction) -> Result<Vec<LayerId>> {
        self.check_writable()?;
        let mut created = Vec::new();
        let removes = transaction
            .steps
            .iter()
            .any(|step| matches!(step, Step::Remove { .. } | Step::SetDocument { .. }));
        if transaction.steps.iter().any(|step| matches!(step, Step::Create { .. })) {
            self.check_room_for_layer()?;
        }
        {
            let _shared = self.cut.read();
            let mut table = self.table.write();
            self.check_transaction(&table, transaction)?;
            let mut records = Vec::new();
            // Removals first: a name goes over from a layer that is removed, whatever the order of steps.
            let is_removal = |step: &&Step| matches!(step, Step::Remove { .. });
            let (removals, others): (Vec<_>, Vec<_>) =
                transaction.steps.iter().partition(is_removal);
            for step in removals.into_iter().chain(others) {
                // All was looked at above. Should a step fail all the same, memory has what no record
                // tells of: nothing may build on that.
                self.carry_out(&mut table, step, &mut records, &mut created)
                    .map_err(|error| self.latch(error))?;
            }
            self.pending.append(&records, &[], &[], false);
        }
        self.flush()?;
        if removes {
            self.reclaim_soon()?;
        }
        Ok(created)
    }

    /// How many layers one transaction can remove.
    pub(crate) fn most_removals(&self) -> usize {
        to_usize(batch_limit_bytes(self.ring) / (2 * REMOVE_RECORD_BYTES))
    }

    /// Records of a transaction are not divided between batches: all must fit in one.
    fn check_length(&self, transaction: &Transaction) -> Result<()> {
        let bytes = |step: &Step| match step {
            Step::Remove { .. } => 2 * REMOVE_RECORD_BYTES,
            Step::Create { .. } => 2 * DESCRIBE_RECORD_BYTES,
            Step::SetDocument { .. } => 2 * DESCRIBE_RECORD_BYTES + REMOVE_RECORD_BYTES,
            _ => DESCRIBE_RECORD_BYTES,
        };
        let needed: u64 = transaction.steps.iter().map(bytes).sum();
        let most = batch_limit_bytes(self.ring);
        if needed <= most {
            return Ok(());
        }
        Err(usage(format!(
            "{} changes at once need {needed} bytes of journal, and {} takes {most}: make fewer at a time",
            transaction.steps.len(),
            self.name
        )))
    }

    /// Everything that could stop a step is looked at before the first one is done.
    fn check_transaction(&self, table: &Table, transaction: &Transaction) -> Result<()> {
        self.check_length(transaction)?;
        let removed: HashSet<LayerId> = transaction
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Remove { layer } => Some(*layer),
                _ => None,
            })
            .collect();
        let mut new_names = HashSet::new();
        let mut claim = |namespace: Namespace, name: &str, owner: Option<LayerId>| {
            check_name(name)?;
            let held = table
                .find(namespace, name)
                .filter(|holder| Some(*holder) != owner && !removed.contains(holder));
            if !name.is_empty()
                && (held.is_some() || !new_names.insert((namespace, name.to_owned())))
            {
                return Err(name_taken(name));
            }
            Ok(())
        };
        let present = |id: LayerId| {
            let entry = table.get(id)?;
            if entry.meta.is_removed() {
                return Err(Error::new(ErrorKind::NotFound, format!("{id} was removed")));
            }
            Ok(entry)
        };
        let stays = |id: LayerId| {
            if removed.contains(&id) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{id} is removed in the same transaction"),
                ));
            }
            present(id).map(|_| ())
        };
        for step in &transaction.steps {
            match step {
                Step::Publish { layer, name } => {
                    let entry = present(*layer)?;
                    if let Some(name) = name {
                        claim(entry.meta.namespace, name, Some(*layer))?;
                    }
                }
                Step::Rename { layer, name } => {
                    claim(present(*layer)?.meta.namespace, name, Some(*layer))?;
                }
                Step::Create { new, sealed, document } => {
                    claim(new.namespace, &new.name, None)?;
                    new.size_bytes.map(device_blocks).transpose()?;
                    for id in new.reference.iter().chain(document) {
                        stays(*id)?;
                    }
                    if *sealed {
                        self.check_epochs_left()?;
                    }
                }
                Step::SetReference { layer, reference: other }
                | Step::SetDocument { layer, document: other } => {
                    present(*layer)?;
                    other.map(stays).transpose()?;
                }
                Step::Remove { layer } => self.check_removable(table, *layer, &removed)?,
            }
        }
        Ok(())
    }

    fn check_removable(
        &self,
        table: &Table,
        id: LayerId,
        removed: &HashSet<LayerId>,
    ) -> Result<()> {
        let entry = table.get(id)?;
        let called = if entry.meta.name.is_empty() {
            id.to_string()
        } else {
            format!("'{}'", entry.meta.name)
        };
        if entry.meta.is_removed() {
            return Err(Error::new(ErrorKind::NotFound, format!("{called} was removed")));
        }
        if entry.layer.handles.load(std::sync::atomic::Ordering::Acquire) > 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{called} is open: detach or unmount it first"),
            ));
        }
        let referrer = table.referrers(id).find(|referrer| !removed.contains(referrer));
        if let Some(referrer) = referrer {
            let name = &table.get(referrer)?.meta.name;
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{called} is needed by '{name}': remove that first"),
            ));
        }
        Ok(())
    }

    fn carry_out(
        &self,
        table: &mut Table,
        step: &Step,
        records: &mut Vec<Record>,
        created: &mut Vec<LayerId>,
    ) -> Result<()> {
        match step {
            Step::Publish { layer, name } => self.describe(table, *layer, records, |record| {
                record.flags.transient = false;
                if let Some(name) = name {
                    record.name.clone_from(name);
                }
            }),
            Step::Rename { layer, name } => {
                self.describe(table, *layer, records, |record| record.name.clone_from(name))
            }
            Step::SetReference { layer, reference } => {
                self.describe(table, *layer, records, |record| record.reference = *reference)
            }
            Step::SetDocument { layer, document } => {
                let old = table.get(*layer)?.meta.document;
                if let Some(document) = document {
                    self.describe(table, *document, records, |record| {
                        record.flags.transient = false
                    })?;
                }
                self.describe(table, *layer, records, |record| record.document = *document)?;
                match old.filter(|old| Some(*old) != *document) {
                    Some(old) => self.remove_recorded(table, old, records),
                    None => Ok(()),
                }
            }
            Step::Create { new, sealed, document } => {
                if let Some(document) = document {
                    self.describe(table, *document, records, |record| {
                        record.flags.transient = false
                    })?;
                }
                let size_blocks =
                    new.size_bytes.map_or(Ok(self.default_device_blocks), device_blocks)?;
                let placement = Placement {
                    origin: None,
                    size_blocks,
                    sealed: *sealed,
                    hidden: false,
                    document: *document,
                    content_bytes: 0,
                };
                let id = table.free_id()?;
                let record = self.new_record(table, new, &placement, id)?;
                self.attempt(|| self.apply_create(table, &record))?;
                records.push(Record::Create(Box::new(record)));
                created.push(id);
                Ok(())
            }
            Step::Remove { layer } => {
                let document = table.get(*layer)?.meta.document;
                self.remove_recorded(table, *layer, records)?;
                match document {
                    Some(document) => self.remove_recorded(table, document, records),
                    None => Ok(()),
                }
            }
        }
    }

    fn remove_recorded(
        &self,
        table: &mut Table,
        id: LayerId,
        records: &mut Vec<Record>,
    ) -> Result<()> {
        self.attempt(|| self.apply_remove(table, id))?;
        records.push(Record::Remove { layer: id });
        Ok(())
    }

    fn describe(
        &self,
        table: &mut Table,
        id: LayerId,
        records: &mut Vec<Record>,
        change: impl FnOnce(&mut LayerRecord),
    ) -> Result<()> {
        let mut record = {
            let entry = table.get(id)?;
            entry.meta.record(&entry.layer, &entry.layer.map.read())
        };
        change(&mut record);
        self.attempt(|| self.apply_describe(table, &record))?;
        records.push(Record::Describe(Box::new(record)));
        Ok(())
    }
}

/// Bytes rounded up to whole blocks, at least one.
pub(crate) fn whole_blocks_bytes(length: usize) -> u64 {
    to_u64(length).max(1).next_multiple_of(BLOCK_BYTES)
}
