//! Journal records: what happened, in the order in which it happened.
//!
//! A record is `{ kind: u8, reserved: u8, length: u16 }` and its fields; `length` counts the whole
//! record. Replay applies the same operations to the same state, so a record says what was asked, not
//! what followed from it: the pages that were touched and the blocks that were freed come out again.

use super::layer::{LAYER_RECORD_BYTES, LayerRecord};
use super::{Fields, PutFields};
use crate::types::{Epoch, LayerId, LogicalBlock, PoolBlock};

const RECORD_HEADER_BYTES: usize = 4;
/// The most blocks that one [`Record::Map`] names: with their CRCs it stays within a `u16` length.
pub(crate) const MAP_RECORD_BLOCKS: usize = 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Contiguous blocks of a device were written to new, contiguous blocks of the pool. Each block's
    /// CRC is that of its data.
    Map { layer: LayerId, logical: LogicalBlock, block: PoolBlock, birth: Epoch, crcs: Vec<u32> },
    /// Blocks of a device read as zeroes from here on.
    Unmap { layer: LayerId, logical: LogicalBlock, count: u64 },
    /// A new layer: an empty one, or a child of the sealed layer that is its origin. Root and own
    /// counts in the record are not used.
    Create(Box<LayerRecord>),
    /// The writable `source` is forked: the new sealed layer takes its tree, and it goes on as a child.
    Fork { source: LayerId, sealed: Box<LayerRecord> },
    /// A writable layer is sealed.
    Seal { layer: LayerId },
    /// Name, namespace, reference, document, tag and the transient flag change.
    Describe(Box<LayerRecord>),
    /// A device grows.
    Resize { layer: LayerId, size_blocks: u64 },
    /// A layer is removed: hidden if it has children, else its walk begins.
    Remove { layer: LayerId },
    /// The walk that frees a removed layer has come to `cursor`; the end of the device ends the layer.
    DeleteWalk { layer: LayerId, cursor: LogicalBlock },
    /// The only child of a hidden layer has taken over what lies before `cursor`.
    AbsorbWalk { layer: LayerId, cursor: LogicalBlock },
    /// What no child of a hidden layer sees has been freed.
    Trimmed { layer: LayerId },
    /// The pool grows.
    Grow { pool_blocks: u64 },
    /// The checksums of a sealed layer's own data before `cursor` are on the disk.
    Summed { layer: LayerId, cursor: LogicalBlock },
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Map { .. } => 1,
            Record::Unmap { .. } => 2,
            Record::Create(_) => 3,
            Record::Fork { .. } => 4,
            Record::Seal { .. } => 5,
            Record::Describe(_) => 6,
            Record::Resize { .. } => 7,
            Record::Remove { .. } => 8,
            Record::DeleteWalk { .. } => 9,
            Record::AbsorbWalk { .. } => 10,
            Record::Trimmed { .. } => 11,
            Record::Grow { .. } => 12,
            Record::Summed { .. } => 13,
        }
    }

    /// Appends the record to a batch in the making.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u8(self.kind());
        out.put_u8(0);
        out.put_u16(0);
        match self {
            Record::Map { layer, logical, block, birth, crcs } => {
                debug_assert!(!crcs.is_empty() && crcs.len() <= MAP_RECORD_BLOCKS);
                out.put_u32(layer.get());
                out.put_u64(logical.get());
                out.put_u64(block.get());
                out.put_u32(birth.get());
                for crc in crcs {
                    out.put_u32(*crc);
                }
            }
            Record::Unmap { layer, logical, count } => {
                out.put_u32(layer.get());
                out.put_u64(logical.get());
                out.put_u64(*count);
            }
            Record::Create(record) | Record::Describe(record) => {
                out.extend_from_slice(&record.encode());
            }
            Record::Fork { source, sealed } => {
                out.put_u32(source.get());
                out.extend_from_slice(&sealed.encode());
            }
            Record::Seal { layer } | Record::Remove { layer } | Record::Trimmed { layer } => {
                out.put_u32(layer.get());
            }
            Record::Resize { layer, size_blocks } => {
                out.put_u32(layer.get());
                out.put_u64(*size_blocks);
            }
            Record::DeleteWalk { layer, cursor }
            | Record::AbsorbWalk { layer, cursor }
            | Record::Summed { layer, cursor } => {
                out.put_u32(layer.get());
                out.put_u64(cursor.get());
            }
            Record::Grow { pool_blocks } => out.put_u64(*pool_blocks),
        }
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = out.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Reads all records of a batch; `None` if they are not what an encoder writes.
    pub(crate) fn decode_all(bytes: &[u8]) -> Option<Vec<Record>> {
        let mut fields = Fields::new(bytes);
        let mut records = Vec::new();
        while !fields.is_empty() {
            let kind = fields.u8()?;
            fields.reserved(1)?;
            let length = usize::from(fields.u16()?).checked_sub(RECORD_HEADER_BYTES)?;
            records.push(Self::decode(kind, fields.take(length)?)?);
        }
        Some(records)
    }

    fn decode(kind: u8, bytes: &[u8]) -> Option<Record> {
        let mut fields = Fields::new(bytes);
        let record = match kind {
            1 => Record::Map {
                layer: LayerId::new(fields.u32()?)?,
                logical: LogicalBlock::new(fields.u64()?),
                block: PoolBlock::new(fields.u64().filter(|block| *block < PoolBlock::LIMIT)?),
                birth: Epoch::new(fields.u32()?),
                crcs: {
                    let mut crcs = Vec::with_capacity(fields.remaining() / 4);
                    while !fields.is_empty() {
                        crcs.push(fields.u32()?);
                    }
                    (!crcs.is_empty() && crcs.len() <= MAP_RECORD_BLOCKS).then_some(crcs)?
                },
            },
            2 => Record::Unmap {
                layer: LayerId::new(fields.u32()?)?,
                logical: LogicalBlock::new(fields.u64()?),
                count: fields.u64()?,
            },
            3 | 6 => {
                let record = Box::new(LayerRecord::decode(fields.take(LAYER_RECORD_BYTES)?)?);
                if kind == 3 { Record::Create(record) } else { Record::Describe(record) }
            }
            4 => Record::Fork {
                source: LayerId::new(fields.u32()?)?,
                sealed: Box::new(LayerRecord::decode(fields.take(LAYER_RECORD_BYTES)?)?),
            },
            5 => Record::Seal { layer: LayerId::new(fields.u32()?)? },
            7 => Record::Resize { layer: LayerId::new(fields.u32()?)?, size_blocks: fields.u64()? },
            8 => Record::Remove { layer: LayerId::new(fields.u32()?)? },
            9 | 10 | 13 => {
                let layer = LayerId::new(fields.u32()?)?;
                let cursor = LogicalBlock::new(fields.u64()?);
                match kind {
                    9 => Record::DeleteWalk { layer, cursor },
                    10 => Record::AbsorbWalk { layer, cursor },
                    _ => Record::Summed { layer, cursor },
                }
            }
            11 => Record::Trimmed { layer: LayerId::new(fields.u32()?)? },
            12 => Record::Grow { pool_blocks: fields.u64()? },
            _ => return None,
        };
        fields.is_empty().then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::layer::LayerFlags;
    use crate::format::pointer::BlockPtr;
    use crate::types::Namespace;

    fn layer_record() -> Box<LayerRecord> {
        Box::new(LayerRecord {
            id: LayerId::new(3).unwrap(),
            flags: LayerFlags::default(),
            namespace: Namespace(1),
            height: 2,
            name: "web".to_owned(),
            origin: LayerId::new(2),
            reference: None,
            document: None,
            base_epoch: Epoch::new(4),
            seal_epoch: Epoch::ZERO,
            size_blocks: 65_536,
            root: BlockPtr::NULL,
            own_data_blocks: 0,
            own_page_blocks: 0,
            cursor: LogicalBlock::new(0),
            serial: 6,
            created_unix_ns: 7,
            content_bytes: 0,
            tag: [0; 32],
            summed_blocks: LogicalBlock::new(0),
        })
    }

    fn one_of_each() -> Vec<Record> {
        let layer = LayerId::new(3).unwrap();
        vec![
            Record::Map {
                layer,
                logical: LogicalBlock::new(10),
                block: PoolBlock::new(20),
                birth: Epoch::new(5),
                crcs: vec![1, 2, 3],
            },
            Record::Unmap { layer, logical: LogicalBlock::new(10), count: 1 << 38 },
            Record::Create(layer_record()),
            Record::Fork { source: layer, sealed: layer_record() },
            Record::Seal { layer },
            Record::Describe(layer_record()),
            Record::Resize { layer, size_blocks: 9 },
            Record::Remove { layer },
            Record::DeleteWalk { layer, cursor: LogicalBlock::new(8) },
            Record::AbsorbWalk { layer, cursor: LogicalBlock::new(8) },
            Record::Trimmed { layer },
            Record::Grow { pool_blocks: 1 << 30 },
            Record::Summed { layer, cursor: LogicalBlock::new(8) },
        ]
    }

    #[test]
    fn every_kind_of_record_is_read_back() {
        let records = one_of_each();
        let mut bytes = Vec::new();
        for record in &records {
            record.encode_into(&mut bytes);
        }
        assert_eq!(Record::decode_all(&bytes), Some(records));
    }

    #[test]
    fn a_record_cut_short_is_refused() {
        for record in one_of_each() {
            let mut bytes = Vec::new();
            record.encode_into(&mut bytes);
            for end in 1..bytes.len() {
                assert_eq!(Record::decode_all(&bytes[..end]), None, "{record:?} cut at {end}");
            }
        }
    }
}
