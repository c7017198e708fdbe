//! The layer record: 512 bytes, eight to a record page of the layer table.

use super::pointer::BlockPtr;
use super::{Fields, PutFields};
use crate::types::{Epoch, LayerId, LogicalBlock, Namespace};

/// Bytes of an encoded layer record.
pub(crate) const LAYER_RECORD_BYTES: usize = 512;
/// Records in a record page.
pub(crate) const LAYER_RECORDS_PER_PAGE: u64 = 8;
/// The longest name.
pub(crate) const NAME_BYTES: usize = 255;

const NAME_AT: usize = 256;

/// What state a layer is in. Several may hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerFlags {
    /// It never changes any more.
    pub(crate) sealed: bool,
    /// It is removed at the next open, unless it was published before.
    pub(crate) transient: bool,
    /// It was removed, but children still see its blocks.
    pub(crate) hidden: bool,
    /// It is being freed, from block 0 up to the cursor so far.
    pub(crate) deleting: bool,
    /// Its one child is taking over its blocks, from block 0 up to the cursor so far.
    pub(crate) absorbing: bool,
    /// What no child sees has been freed since its children last changed.
    pub(crate) trimmed: bool,
}

impl LayerFlags {
    const KNOWN: u32 = 0x3f;

    fn encode(self) -> u32 {
        u32::from(self.sealed)
            | u32::from(self.transient) << 1
            | u32::from(self.hidden) << 2
            | u32::from(self.deleting) << 3
            | u32::from(self.absorbing) << 4
            | u32::from(self.trimmed) << 5
    }

    fn decode(bits: u32) -> Option<LayerFlags> {
        (bits & !Self::KNOWN == 0).then_some(LayerFlags {
            sealed: bits & 1 != 0,
            transient: bits & 2 != 0,
            hidden: bits & 4 != 0,
            deleting: bits & 8 != 0,
            absorbing: bits & 16 != 0,
            trimmed: bits & 32 != 0,
        })
    }
}

/// One layer, as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerRecord {
    pub(crate) id: LayerId,
    pub(crate) flags: LayerFlags,
    pub(crate) namespace: Namespace,
    /// Levels of pages between the root pointer and the data.
    pub(crate) height: u8,
    pub(crate) name: String,
    pub(crate) origin: Option<LayerId>,
    pub(crate) reference: Option<LayerId>,
    pub(crate) document: Option<LayerId>,
    /// A pointer is the layer's own if its birth is later than this.
    pub(crate) base_epoch: Epoch,
    /// For a sealed layer: its children's base.
    pub(crate) seal_epoch: Epoch,
    pub(crate) size_blocks: u64,
    pub(crate) root: BlockPtr,
    pub(crate) own_data_blocks: u64,
    pub(crate) own_page_blocks: u64,
    /// How far a walk over the layer has come.
    pub(crate) cursor: LogicalBlock,
    pub(crate) serial: u64,
    pub(crate) created_unix_ns: i64,
    /// Length of a document's content; its device is rounded up to whole blocks.
    pub(crate) content_bytes: u64,
    pub(crate) tag: [u8; 32],
    /// How far the checksums of a sealed layer's own data have come.
    pub(crate) summed_blocks: LogicalBlock,
}

fn id_of(raw: Option<LayerId>) -> u32 {
    raw.map_or(0, LayerId::get)
}

impl LayerRecord {
    pub(crate) fn encode(&self) -> [u8; LAYER_RECORD_BYTES] {
        let mut fields = Vec::with_capacity(LAYER_RECORD_BYTES);
        fields.put_u32(self.id.get());
        fields.put_u32(self.flags.encode());
        fields.put_u8(self.namespace.0);
        fields.put_u8(self.height);
        fields.put_u8(u8::try_from(self.name.len()).unwrap_or(u8::MAX));
        fields.put_u8(0);
        fields.put_u32(id_of(self.origin));
        fields.put_u32(id_of(self.reference));
        fields.put_u32(id_of(self.document));
        fields.put_u32(self.base_epoch.get());
        fields.put_u32(self.seal_epoch.get());
        fields.put_u64(self.size_blocks);
        let (address, check) = self.root.words();
        fields.put_u64(address);
        fields.put_u64(check);
        fields.put_u64(self.own_data_blocks);
        fields.put_u64(self.own_page_blocks);
        fields.put_u64(self.cursor.get());
        fields.put_u64(self.serial);
        fields.put_u64(self.created_unix_ns.cast_unsigned());
        fields.put_u64(self.content_bytes);
        fields.extend_from_slice(&self.tag);
        fields.put_u64(self.summed_blocks.get());
        fields.pad_to(NAME_AT);
        fields.extend_from_slice(
            self.name.as_bytes().get(..NAME_BYTES).unwrap_or(self.name.as_bytes()),
        );
        fields.pad_to(LAYER_RECORD_BYTES);
        let mut record = [0; LAYER_RECORD_BYTES];
        record.copy_from_slice(&fields);
        record
    }

    /// `None` for bytes that no encoder wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<LayerRecord> {
        let mut fields = Fields::new(bytes.get(..LAYER_RECORD_BYTES)?);
        let id = LayerId::new(fields.u32()?)?;
        let flags = LayerFlags::decode(fields.u32()?)?;
        let namespace = Namespace(fields.u8()?);
        let height = fields.u8()?;
        let name_length = usize::from(fields.u8()?);
        fields.reserved(1)?;
        let record = LayerRecord {
            id,
            flags,
            namespace,
            height,
            name: {
                let raw = bytes.get(NAME_AT..NAME_AT + name_length)?;
                String::from_utf8(raw.to_vec()).ok()?
            },
            origin: LayerId::new(fields.u32()?),
            reference: LayerId::new(fields.u32()?),
            document: LayerId::new(fields.u32()?),
            base_epoch: Epoch::new(fields.u32()?),
            seal_epoch: Epoch::new(fields.u32()?),
            size_blocks: fields.u64()?,
            root: BlockPtr::from_words(fields.u64()?, fields.u64()?),
            own_data_blocks: fields.u64()?,
            own_page_blocks: fields.u64()?,
            cursor: LogicalBlock::new(fields.u64()?),
            serial: fields.u64()?,
            created_unix_ns: fields.u64()?.cast_signed(),
            content_bytes: fields.u64()?,
            tag: fields.take(32)?.try_into().ok()?,
            summed_blocks: LogicalBlock::new(fields.u64()?),
        };
        let rest = bytes.get(NAME_AT - fields_gap()..NAME_AT)?;
        let tail = bytes.get(NAME_AT + name_length..LAYER_RECORD_BYTES)?;
        let clean = rest.iter().chain(tail).all(|byte| *byte == 0);
        (clean && record.height <= 5).then_some(record)
    }
}

/// Reserved bytes between the last field and the name.
const fn fields_gap() -> usize {
    NAME_AT - 144
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pointer::PointerKind;
    use crate::types::PoolBlock;

    pub(crate) fn example() -> LayerRecord {
        LayerRecord {
            id: LayerId::new(9).unwrap(),
            flags: LayerFlags { sealed: true, trimmed: true, ..LayerFlags::default() },
            namespace: Namespace(3),
            height: 3,
            name: "n".repeat(255),
            origin: LayerId::new(8),
            reference: None,
            document: LayerId::new(4),
            base_epoch: Epoch::new(10),
            seal_epoch: Epoch::new(11),
            size_blocks: 12,
            root: BlockPtr::new(PointerKind::Page, PoolBlock::new(13), Epoch::new(14), 15),
            own_data_blocks: 16,
            own_page_blocks: 17,
            cursor: LogicalBlock::new(18),
            serial: 19,
            created_unix_ns: 20,
            content_bytes: 21,
            tag: [22; 32],
            summed_blocks: LogicalBlock::new(23),
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let record = example();
        assert_eq!(LayerRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn unknown_flags_and_dirty_reserved_bytes_are_refused() {
        for at in [6, 11, 144, 255] {
            let mut record = example();
            record.name = "short".to_owned();
            let mut bytes = record.encode();
            bytes[at] = 0x80;
            assert_eq!(LayerRecord::decode(&bytes), None, "byte {at}");
        }
    }
}
