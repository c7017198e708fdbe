//! The empty file system that every chain of layers begins with, made once for each device size.

use thinstore_filesystem::template::{TemplateIdentity, make_ext4};
use thinstore_pool::{LayerId, NewLayer};
use thinstore_storage::{BlockDevice, Result};

use crate::kinds::{TEMPLATE, template_name};
use crate::store::Store;

impl Store {
    /// The template of a device size. The caller holds the lock of imports.
    pub(crate) fn template(&self, size_bytes: u64) -> Result<LayerId> {
        let name = template_name(size_bytes);
        if let Some(found) = self.pool().find(TEMPLATE, &name) {
            return Ok(found);
        }
        let new = NewLayer {
            namespace: TEMPLATE,
            size_bytes: Some(size_bytes),
            transient: true,
            ..NewLayer::default()
        };
        let id = self.pool().create_layer(new)?;
        let made = self.fill_template(id).and_then(|()| {
            let mut transaction = self.pool().begin();
            transaction.publish(id, Some(&name));
            self.pool().commit(transaction).map(drop)
        });
        if let Err(error) = made {
            self.abandon(&[id]);
            return Err(error);
        }
        Ok(id)
    }

    fn fill_template(&self, id: LayerId) -> Result<()> {
        let device = self.pool().device(id)?;
        let uuid = self.pool().uuid();
        // any fixed value will do: it only keeps names from being hashed the same way everywhere
        let mut hash_seed = uuid;
        hash_seed.reverse();
        make_ext4(&device, &TemplateIdentity { uuid, hash_seed })?;
        device.flush()?;
        drop(device);
        self.pool().seal(id)
    }
}
