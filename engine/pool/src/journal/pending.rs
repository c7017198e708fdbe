//! Records that are not in a batch yet. What they tell of has happened in memory already.

use crate::convert::to_u64;
use crate::format::record::Record;
use crate::planted::{Fault, planted};
use crate::space::Extent;
use crate::sync::Mutex;
use crate::types::LayerId;

/// Blocks that go out of use with a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freed {
    pub(crate) extent: Extent,
    /// Is their space to go back to the host?
    pub(crate) punch: bool,
}

/// An [`Record::Unmap`] at the end of the pending records that can still be made longer.
#[derive(Clone, Copy, Debug)]
struct OpenUnmap {
    layer: LayerId,
    end: u64,
    /// Where its count stands in the bytes.
    count_at: usize,
}

/// Records in the making, and the blocks that hang on them.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    /// Ends of groups of records that must not be divided between batches.
    pub(crate) boundaries: Vec<usize>,
    /// New blocks of data: not to be overwritten in place until the batch is settled.
    pub(crate) named: Vec<Extent>,
    pub(crate) freed: Vec<Freed>,
    open_unmap: Option<OpenUnmap>,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// For [`Fault::RecordOutOfOrder`].
    fn exchange_last_two(&mut self) {
        let [.., before, middle, end] = [&[0], self.boundaries.as_slice()].concat()[..] else {
            return;
        };
        if let Some(two) = self.bytes.get_mut(before..end) {
            two.rotate_left(middle - before);
            self.boundaries.pop();
            self.boundaries.pop();
            self.boundaries.extend([before + end - middle, end]);
        }
    }
}

/// The pending records of a pool.
#[derive(Default)]
pub(crate) struct Pending {
    records: Mutex<Records>,
}

impl Pending {
    /// Adds records that belong together. The caller holds the lock of what they changed, so that the
    /// records of a layer stand in the order of its changes.
    pub(crate) fn append(&self, new: &[Record], named: &[Extent], freed: &[Extent], punch: bool) {
        let mut records = self.records.lock();
        let records = &mut *records;
        for extent in named {
            Extent::push_joined(&mut records.named, *extent);
        }
        records.freed.extend(freed.iter().map(|extent| Freed { extent: *extent, punch }));
        if let [Record::Unmap { layer, logical, count }] = new {
            if let Some(open) = &mut records.open_unmap
                && open.layer == *layer
                && open.end == logical.get()
                && let Some(field) = records.bytes.get_mut(open.count_at..open.count_at + 8)
            {
                open.end += count;
                let mut total = [0; 8];
                total.copy_from_slice(field);
                field.copy_from_slice(&(u64::from_le_bytes(total) + count).to_le_bytes());
                return;
            }
            new.iter().for_each(|record| record.encode_into(&mut records.bytes));
            records.open_unmap = Some(OpenUnmap {
                layer: *layer,
                end: logical.get() + count,
                count_at: records.bytes.len() - 8,
            });
        } else {
            new.iter().for_each(|record| record.encode_into(&mut records.bytes));
            records.open_unmap = None;
        }
        records.boundaries.push(records.bytes.len());
        if planted(Fault::RecordOutOfOrder) && matches!(new, [Record::Map { .. }]) {
            records.exchange_last_two();
        }
    }

    /// Takes all that is pending.
    pub(crate) fn take(&self) -> Records {
        std::mem::take(&mut *self.records.lock())
    }

    /// Bytes of records that wait.
    pub(crate) fn length_bytes(&self) -> u64 {
        to_u64(self.records.lock().bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogicalBlock;

    #[test]
    fn adjacent_discards_become_one_record() {
        let pending = Pending::default();
        let layer = LayerId::new(1).unwrap();
        for logical in 0..1000 {
            let logical = LogicalBlock::new(logical * 256);
            pending.append(&[Record::Unmap { layer, logical, count: 256 }], &[], &[], true);
        }
        pending.append(&[Record::Seal { layer }], &[], &[], false);
        let taken = pending.take();
        assert_eq!(
            Record::decode_all(&taken.bytes),
            Some(vec![
                Record::Unmap { layer, logical: LogicalBlock::new(0), count: 256_000 },
                Record::Seal { layer },
            ])
        );
        assert!(pending.take().is_empty());
    }
}
