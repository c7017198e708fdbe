//! Documents: bytes that belong to a layer, such as an image's configuration, kept as a small sealed
//! device that the layer's record names. So they stand under the same journal, checksums and rules of
//! deletion as everything else.

use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use super::change::{NewLayer, usage, whole_blocks_bytes};
use crate::convert::{to_u64, to_usize};
use crate::device::Device;
use crate::pool::Pool;
use crate::types::{BLOCK_LENGTH, LayerId, Namespace};

/// The longest document: 64 MiB.
pub(crate) const DOCUMENT_BYTES: usize = 64 << 20;

impl Pool {
    /// Stores bytes (up to 64 MiB) as a small sealed device, to be named in a transaction; it is gone at
    /// the next open unless that happens.
    pub fn store_document(&self, bytes: &[u8]) -> Result<LayerId> {
        if bytes.len() > DOCUMENT_BYTES {
            return Err(usage(format!(
                "a document of {} bytes cannot be stored: the longest has {DOCUMENT_BYTES}",
                bytes.len()
            )));
        }
        let new = NewLayer {
            namespace: Namespace::INTERNAL,
            size_bytes: Some(whole_blocks_bytes(bytes.len())),
            transient: true,
            ..NewLayer::default()
        };
        let id = self.core().create_layer(&new, to_u64(bytes.len()))?;
        let stored = (|| {
            let device = self.device(id)?;
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().max(1).next_multiple_of(BLOCK_LENGTH), 0);
            device.write(0, &padded)?;
            drop(device);
            self.seal(id)
        })();
        if let Err(error) = stored {
            // The error above says more than one from here; and what stays is transient.
            let _ = self.remove(id);
            return Err(error);
        }
        Ok(id)
    }

    /// A layer's document, if it has one.
    pub fn document(&self, id: LayerId) -> Result<Option<Vec<u8>>> {
        loop {
            let Some((device, length)) = self.open_document(id)? else { return Ok(None) };
            let mut bytes = vec![0; length];
            let read = device.read(0, &mut bytes);
            // A document goes with its layer, or with a change of it, whoever reads it: then its blocks may
            // have been another's before they were read.
            if self.is_document(id, &device)? {
                return read.map(|()| Some(bytes));
            }
        }
    }

    /// A handle on a layer's document, taken under the lock under which it was found, and its length.
    fn open_document(&self, id: LayerId) -> Result<Option<(Device, usize)>> {
        let table = self.core().table.read();
        let Some(document) = table.get(id)?.meta.document else { return Ok(None) };
        let length = to_usize(table.get(document)?.meta.content_bytes);
        if length > DOCUMENT_BYTES {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the document of {id} says that it has {length} bytes"),
            ));
        }
        self.device_in(&table, document).map(|device| Some((device, length)))
    }

    /// Is this still the document of the layer?
    fn is_document(&self, id: LayerId, device: &Device) -> Result<bool> {
        let table = self.core().table.read();
        let Some(document) = table.get(id)?.meta.document else { return Ok(false) };
        let entry = table.get(document)?;
        Ok(!entry.meta.is_removed() && device.is_of(&entry.layer))
    }
}
