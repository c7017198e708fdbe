//! What an archive may ask for before it is refused, and the account of what an image has used.

use std::sync::Mutex;

use thinstore_storage::Result;

use crate::refuse;

/// Bounds on what one image may contain. Whatever exceeds one is refused with a sentence that names
/// the entry and the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tar headers in all layers of an image together, extension headers counted too.
    pub max_entries: u64,
    /// The longest path of an entry; a path longer than 4095 bytes is refused whatever stands here.
    pub max_path_bytes: usize,
    /// The largest PAX extended header, and the largest GNU long name, of one entry.
    pub max_extension_bytes: u64,
    /// Names and values of one entry's extended attributes together.
    pub max_xattr_bytes: usize,
    /// Pieces of one sparse file.
    pub max_sparse_pieces: usize,
    /// The length that one file may claim, holes counted.
    pub max_file_bytes: u64,
    /// Uncompressed bytes of all layers of an image together. This is also the guard against archives
    /// that are small only while compressed.
    pub max_uncompressed_bytes: u64,
    /// The largest JSON document (index, manifest, configuration).
    pub max_document_bytes: u64,
    /// Layers of one image.
    pub max_layers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_entries: 10_000_000,
            max_path_bytes: 4095,
            max_extension_bytes: 1 << 20,
            max_xattr_bytes: 1 << 20,
            max_sparse_pieces: 1 << 20,
            max_file_bytes: 1 << 44,
            max_uncompressed_bytes: 1 << 40,
            max_document_bytes: 8 << 20,
            max_layers: 4096,
        }
    }
}

/// What the layers of one image have used so far. A layer that is read again replaces its own row, so
/// that reading twice does not count twice.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: Mutex<Vec<(u64, u64)>>,
}

impl Ledger {
    /// Entries and uncompressed bytes of every layer but `layer`.
    pub(crate) fn others(&self, layer: usize) -> (u64, u64) {
        let rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rows.iter()
            .enumerate()
            .filter(|(index, _)| *index != layer)
            .fold((0, 0), |sum, (_, row)| (sum.0 + row.0, sum.1 + row.1))
    }

    /// Notes what `layer` has used in a pass over it.
    pub(crate) fn note(&self, layer: usize, entries: u64, uncompressed_bytes: u64) {
        let mut rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if rows.len() <= layer {
            rows.resize(layer + 1, (0, 0));
        }
        if let Some(row) = rows.get_mut(layer) {
            *row = (row.0.max(entries), row.1.max(uncompressed_bytes));
        }
    }
}

/// The part of an image's limits that is left to one pass over one layer.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) limits: Limits,
    entries: u64,
    uncompressed_bytes: u64,
    used_entries: u64,
    used_uncompressed_bytes: u64,
}

impl Budget {
    /// The budget of a pass, when the image's other layers have used `others`.
    pub(crate) fn new(limits: &Limits, others: (u64, u64)) -> Budget {
        Budget {
            limits: limits.clone(),
            entries: limits.max_entries.saturating_sub(others.0),
            uncompressed_bytes: limits.max_uncompressed_bytes.saturating_sub(others.1),
            used_entries: 0,
            used_uncompressed_bytes: 0,
        }
    }

    /// Takes one entry.
    pub(crate) fn take_entry(&mut self) -> Result<()> {
        self.used_entries += 1;
        if self.used_entries > self.entries {
            return Err(refuse(format!(
                "the archive has more than {} entries, which is the limit for an image",
                self.limits.max_entries
            )));
        }
        Ok(())
    }

    /// Takes uncompressed bytes.
    pub(crate) fn take_bytes(&mut self, count: u64) -> Result<()> {
        self.used_uncompressed_bytes = self.used_uncompressed_bytes.saturating_add(count);
        if self.used_uncompressed_bytes > self.uncompressed_bytes {
            return Err(refuse(format!(
                "the archive expands to more than {} bytes, which is the limit for an image",
                self.limits.max_uncompressed_bytes
            )));
        }
        Ok(())
    }

    /// Entries and uncompressed bytes taken.
    pub(crate) fn used(&self) -> (u64, u64) {
        (self.used_entries, self.used_uncompressed_bytes)
    }

    /// Uncompressed bytes that may still come.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.uncompressed_bytes.saturating_sub(self.used_uncompressed_bytes)
    }
}
