//! Making containers.

use thinstore_pool::NewLayer;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::catalog::Target;
use crate::kinds::CONTAINER;
use crate::listing::container_summary;
use crate::names::ContainerName;
use crate::size::format_size;
use crate::store::{Store, check_device_size};
use crate::types::{ContainerSummary, SnapshotRequest};

impl Store {
    /// A container of an image, a layer or another container (of what that one has now).
    pub(crate) fn make_container(&self, request: &SnapshotRequest) -> Result<ContainerSummary> {
        let name = ContainerName::parse(&request.name)?;
        let catalog = self.catalog();
        if self.pool().find(CONTAINER, name.as_str()).is_some() {
            return Err(container_exists(&name));
        }
        let target = catalog.resolve(&request.source, None)?;
        let source = catalog.layer(catalog.device_of(target)?)?;
        if let Some(size_bytes) = request.size_bytes {
            check_device_size(size_bytes)?;
            if size_bytes < source.size_bytes {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!(
                        "a device of {} cannot hold '{}', whose file system has {}; choose at least that",
                        format_size(size_bytes),
                        request.source,
                        format_size(source.size_bytes)
                    ),
                ));
            }
        }
        let image = match target {
            Target::Image(id) => Some(id),
            Target::Container(id) => catalog.layer(id)?.reference,
            Target::Layer(_) => None,
        };
        let new = NewLayer {
            namespace: CONTAINER,
            name: name.as_str().to_owned(),
            size_bytes: request.size_bytes,
            reference: image,
            ..NewLayer::default()
        };
        let id = match target {
            // what is written but not yet on the device belongs to what the container has now
            Target::Container(_) => {
                let lock = self.attachments().lock_of(&source.name);
                let _held = lock.lock();
                self.held_still(source, || self.pool().snapshot(source.id, new))?.value
            }
            Target::Image(_) | Target::Layer(_) => self.pool().snapshot(source.id, new)?,
        };
        let catalog = self.catalog();
        Ok(container_summary(&catalog, catalog.layer(id)?, None))
    }
}

pub(crate) fn container_exists(name: &ContainerName) -> Error {
    Error::new(
        ErrorKind::Exists,
        format!("there is a container '{name}' already; remove it first, or choose another name"),
    )
}
