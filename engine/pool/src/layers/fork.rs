//! Snapshots of a device that is being written, and sealing.
//!
//! Order of a fork, and why:
//!  1. The layer's gate closes: writes that have decided what is the layer's own come to their end, and no
//!     new one begins before the layer has its new base.
//!  2. If blocks were overwritten in place since the last flush, the storage is flushed: nothing in the
//!     journal tells of them, and without it the snapshot could come back without a write that an
//!     acknowledged later one depends on.
//!  3. In memory, and in one group of records: the sealed layer takes the tree, the device becomes its
//!     child, and a further child is made where that was asked for.
//!  4. The gate opens, and one flush makes the snapshot durable.

use thinstore_storage::Result;

use super::change::{NewLayer, Placement, device_blocks, usage};
use super::layer::Layer;
use crate::core::Core;
use crate::format::record::Record;
use crate::planted::{Fault, planted};
use crate::sync::atomic::Ordering;
use crate::types::LayerId;

impl Core {
    /// A writable child of `source`. A writable source is forked: a hidden sealed layer takes its blocks.
    pub(crate) fn snapshot(&self, source: LayerId, new: &NewLayer) -> Result<LayerId> {
        let sealed = self.table.read().get(source)?.layer.map.read().sealed;
        if sealed {
            return self.create_child(source, new);
        }
        let wanted = new.size_bytes.map(device_blocks).transpose()?;
        let (_, child) = self.fork(source, &NewLayer::default(), Some(new))?;
        let child = child.unwrap_or(source);
        let now = self.table.read().get(child)?.layer.map.read().size_blocks;
        match (wanted, new.size_bytes) {
            (Some(blocks), Some(size_bytes)) if blocks > now => self.resize(child, size_bytes)?,
            _ => {}
        }
        Ok(child)
    }

    /// A sealed layer `new` that has what the writable `source` has now; `source` goes on as its child.
    pub(crate) fn seal_snapshot(&self, source: LayerId, new: &NewLayer) -> Result<LayerId> {
        if new.size_bytes.is_some() {
            return Err(usage("a sealed copy has the size of its source: give none"));
        }
        self.fork(source, new, None).map(|(sealed, _)| sealed)
    }

    fn fork(
        &self,
        source: LayerId,
        sealed: &NewLayer,
        child: Option<&NewLayer>,
    ) -> Result<(LayerId, Option<LayerId>)> {
        self.check_writable()?;
        self.check_room_for_layer()?;
        let layer = self.writable_layer(source)?;
        let made = {
            let _closed = layer.gate.close();
            if layer.overwrites.wait_for_flush() && !planted(Fault::ForkDoesNotFlush) {
                self.flush_overwrites(&layer)?;
            }
            let _shared = self.cut.read();
            let mut table = self.table.write();
            self.check_still_writable(&table, &layer)?;
            for new in child.into_iter().chain([sealed]) {
                self.check_new_name(&table, new.namespace, &new.name)?;
            }
            self.check_epochs_left()?;
            let size_blocks = table.get(source)?.layer.map.read().size_blocks;
            if let Some(wanted) = child.and_then(|new| new.size_bytes) {
                self.child_placement(&table, source, Some(device_blocks(wanted)?))?;
            }
            let placement = Placement {
                origin: table.get(source)?.meta.origin,
                size_blocks,
                sealed: true,
                // An unnamed in-between layer: removed from the start, and absorbed when one child is left.
                hidden: child.is_some(),
                document: None,
                content_bytes: 0,
            };
            if let Some(new) = child {
                self.check_reference(&table, new)?;
            }
            let sealed_id = table.free_id()?;
            let sealed_record = self.new_record(&table, sealed, &placement, sealed_id)?;
            self.attempt(|| self.apply_fork(&mut table, source, &sealed_record))?;
            let mut records = vec![Record::Fork { source, sealed: Box::new(sealed_record) }];
            let mut child_id = None;
            if let Some(new) = child {
                let placement = Placement {
                    origin: Some(sealed_id),
                    sealed: false,
                    hidden: false,
                    ..placement
                };
                let id = table.free_id()?;
                let record = self.new_record(&table, new, &placement, id)?;
                // Of the same size as its origin, it needs no page of its own: this cannot fail.
                self.attempt(|| self.apply_create(&mut table, &record))?;
                records.push(Record::Create(Box::new(record)));
                child_id = Some(id);
            }
            self.pending.append(&records, &[], &[], false);
            (sealed_id, child_id)
        };
        if !planted(Fault::SnapshotNotFlushed) {
            self.flush()?;
        }
        Ok(made)
    }

    /// A flush, and a note of what it made durable of a layer's overwrites in place.
    pub(crate) fn flush_overwrites(&self, layer: &Layer) -> Result<()> {
        let ended = layer.overwrites.ended();
        self.flush()?;
        layer.overwrites.are_durable(ended);
        Ok(())
    }

    /// The layer itself becomes sealed.
    pub(crate) fn seal(&self, id: LayerId) -> Result<()> {
        self.check_writable()?;
        let layer = self.writable_layer(id)?;
        {
            let _closed = layer.gate.close();
            if layer.overwrites.wait_for_flush() {
                self.flush_overwrites(&layer)?;
            }
            let _shared = self.cut.read();
            let mut table = self.table.write();
            self.check_still_writable(&table, &layer)?;
            if layer.handles.load(Ordering::Acquire) > 0 {
                return Err(thinstore_storage::Error::new(
                    thinstore_storage::ErrorKind::InUse,
                    format!("{id} is open and cannot be sealed: detach or unmount it first"),
                ));
            }
            self.check_epochs_left()?;
            self.attempt(|| self.apply_seal(&mut table, id))?;
            self.pending.append(&[Record::Seal { layer: id }], &[], &[], false);
        }
        layer.runs.lock().clear(&self.pages.space);
        self.flush()
    }
}
