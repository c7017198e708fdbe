//! Writing to the file system of a device that nobody has mounted.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thinstore_filesystem::{DirectoryTree, Ext4Writer, TreeWriter};
use thinstore_pool::LayerId;
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};

use crate::detached_mount::DetachedMount;
use crate::store::Store;

/// How long somebody who looks at a new block device (udev, blkid) may hold it after we are done.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

impl Store {
    /// Writes through the kernel, which must be served already: the device is attached as `name`, mounted where only this process
    /// can reach it, and both are undone whatever happens.
    pub(crate) fn write_through_kernel(
        &self,
        name: &str,
        id: LayerId,
        write: impl FnOnce(&mut dyn TreeWriter) -> Result<()> + Send,
    ) -> Result<()> {
        self.attachments().apart(|| self.write_attached(name, id, write))
    }

    fn write_attached(
        &self,
        name: &str,
        id: LayerId,
        write: impl FnOnce(&mut dyn TreeWriter) -> Result<()>,
    ) -> Result<()> {
        let device = self.attachments().attach(name, false, || {
            let device: Arc<dyn BlockDevice> = Arc::new(self.pool().device(id)?);
            Ok(device)
        })?;
        let written = write_mounted(&device, write);
        let released = self.attachments().detach(name).and_then(|_| self.wait_until_released(name));
        written.and(released)
    }

    fn wait_until_released(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while let Some(place) = self.attachments().place_of(name)? {
            if Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!(
                        "somebody holds the device {}; find them with 'fuser -v {}'",
                        place.device.display(),
                        place.device.display()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Writes to the ext4 on the device by this process, without the kernel and without root.
    pub(crate) fn write_in_user_space(
        &self,
        id: LayerId,
        write: impl FnOnce(&mut dyn TreeWriter) -> Result<()>,
    ) -> Result<()> {
        let device: Arc<dyn BlockDevice> = Arc::new(self.pool().device(id)?);
        let mut writer = Ext4Writer::open(device.clone())?;
        write(&mut writer)?;
        drop(writer);
        device.flush()
    }
}

fn write_mounted(
    device: &Path,
    write: impl FnOnce(&mut dyn TreeWriter) -> Result<()>,
) -> Result<()> {
    let mount = DetachedMount::of(device, false, false)?;
    let mut tree = DirectoryTree::open(&mount.path())?;
    let written = write(&mut tree);
    // its open folders would keep the file system mounted
    drop(tree);
    written.and_then(|()| mount.sync())
}
