//! What differs between two file systems: by paths, and by blocks.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use thinstore_filesystem::{
    Change, ChangeKind as TreeChangeKind, Ext4Reader, TreePath, difference,
};
use thinstore_pool::LayerId;
use thinstore_storage::Result;

use crate::catalog::{Catalog, Target};
use crate::names::hex;
use crate::store::Store;
use crate::types::{BlockRange, ChangeKind, DiffRequest, PathChange};

impl Store {
    /// The two devices that a request names, the older one first.
    fn with_pair<T>(
        &self,
        request: &DiffRequest,
        action: impl FnOnce(LayerId, LayerId) -> Result<T>,
    ) -> Result<T> {
        let catalog = self.catalog();
        let first = catalog.resolve(&request.from, None)?;
        let targets: Vec<Target> = match &request.to {
            Some(second) => vec![first, catalog.resolve(second, None)?],
            None => vec![first],
        };
        self.with_still_devices(&targets, |catalog: &Catalog, devices: &[LayerId]| match devices {
            [old, new] => action(*old, *new),
            [new] => action(Store::base_of(catalog, first)?, *new),
            _ => Ok(action(Store::base_of(catalog, first)?, catalog.device_of(first)?)?),
        })
    }

    pub(crate) fn compare_trees(&self, request: &DiffRequest) -> Result<Vec<PathChange>> {
        self.with_pair(request, |old, new| {
            Ok(self.tree_changes(old, new)?.into_iter().map(path_change).collect())
        })
    }

    pub(crate) fn compare_blocks(&self, request: &DiffRequest) -> Result<Vec<BlockRange>> {
        self.with_pair(request, |old, new| {
            let ranges = self.pool().differences(old, new)?.into_iter().map(|difference| {
                let Range { start, end } = difference.range_bytes;
                BlockRange {
                    offset_bytes: start,
                    length_bytes: end.saturating_sub(start),
                    mapped: difference.mapped,
                }
            });
            Ok(ranges.collect())
        })
    }

    /// The paths that differ between two devices. Files whose blocks are the same at the same places
    /// are not read.
    pub(crate) fn tree_changes(&self, old: LayerId, new: LayerId) -> Result<Vec<Change>> {
        let changed: Vec<Range<u64>> = self
            .pool()
            .differences(old, new)?
            .into_iter()
            .map(|difference| difference.range_bytes)
            .collect();
        let (old, new) = (self.ext4(old)?, self.ext4(new)?);
        let same = |path: &TreePath| same_blocks(&old, &new, &changed, path);
        difference(&old, &new, Some(Box::new(same)))
    }
}

/// Does a file lie in the same blocks in both, none of them changed?
fn same_blocks(
    old: &Ext4Reader,
    new: &Ext4Reader,
    changed: &[Range<u64>],
    path: &TreePath,
) -> Result<bool> {
    let extents = new.extents(path)?;
    if old.extents(path)? != extents {
        return Ok(false);
    }
    Ok(extents.iter().all(|extent| {
        let start = extent.device_offset_bytes;
        let end = start.saturating_add(extent.length_bytes);
        // the ranges ascend and do not overlap: the first that ends beyond the start decides
        let next = changed.partition_point(|range| range.end <= start);
        changed.get(next).is_none_or(|range| range.start >= end)
    }))
}

/// A change as it is answered.
pub(crate) fn path_change(change: Change) -> PathChange {
    let mut bytes = vec![b'/'];
    bytes.extend_from_slice(change.path.as_bytes());
    let text = std::ffi::OsStr::from_bytes(&bytes);
    PathChange {
        kind: match change.kind {
            TreeChangeKind::Added => ChangeKind::Added,
            TreeChangeKind::Changed => ChangeKind::Changed,
            TreeChangeKind::Deleted => ChangeKind::Deleted,
        },
        path_hex: text.to_str().is_none().then(|| hex(&bytes)),
        path: text.to_string_lossy().into_owned(),
    }
}
