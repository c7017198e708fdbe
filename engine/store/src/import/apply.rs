//! Writing a layer's files: through the kernel as root, else in user space. Both give the same tree.

use thinstore_archive::{Layer, apply_layer};
use thinstore_filesystem::TreeWriter;
use thinstore_pool::LayerId;
use thinstore_storage::Result;

use super::tracker::Tracker;
use crate::store::Store;

/// How a layer's files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// To a mounted file system.
    Kernel,
    /// To the ext4 on the device, by this process.
    UserSpace,
}

impl Method {
    pub(super) fn choose(store: &Store, user_space: bool) -> Method {
        if !user_space && store.kernel_can_write() { Method::Kernel } else { Method::UserSpace }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Kernel => "kernel",
            Method::UserSpace => "user",
        }
    }
}

impl Store {
    /// Applies a layer to the file system of a device, and makes it durable. Afterwards nothing holds
    /// the device.
    pub(super) fn apply(
        &self,
        id: LayerId,
        layer: &Layer,
        method: Method,
        tracker: &Tracker,
    ) -> Result<()> {
        let write = |writer: &mut dyn TreeWriter| {
            let mut reader = layer.open(Some(tracker.source_progress()))?;
            let mut watched = tracker.watch(writer);
            apply_layer(&mut reader, &mut watched)?;
            watched.finish()
        };
        match method {
            // the name cannot be a container's, which begins with a letter or digit
            Method::Kernel => {
                self.write_through_kernel(&format!(".import-{}", id.get()), id, write)
            }
            Method::UserSpace => self.write_in_user_space(id, write),
        }
    }
}
