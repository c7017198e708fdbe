//! Volumes of the driver `thin`: devices of the pool, limited in size, that can be copied at no cost. Their
//! names, labels and contents are in the pool; `volumes/NAME/_data` is where one is mounted, once, while
//! containers use it, each of which has a bind mount of that.
//!
//! Order of locks: a volume's own (by the key of its device), then that of all volumes' names.

mod copies;
mod document;
mod mounting;

use thinstore_export::mounted_at;
use thinstore_pool::{LayerId, LayerInfo, NewLayer};
use thinstore_storage::{Error, ErrorKind, Result};

use self::document::VolumeDocument;
use crate::attachments::Place;
use crate::catalog::{Catalog, uid_text};
use crate::kinds::{TEMPLATE, VOLUME, template_name};
use crate::listing::own_bytes;
use crate::mounts::THIN;
use crate::names::VolumeName;
use crate::size::format_size;
use crate::store::{Store, check_device_size};
use crate::time::rfc3339;
use crate::types::{
    PrunedVolumes, VolumeCreateRequest, VolumeDriver, VolumePruneRequest, VolumeSummary,
};
use crate::volumes::{DeviceFolder, Uses, is_anonymous, no_volume};

/// What a volume's device is attached as: no container can have such a name, and any volume's is short
/// enough.
fn device_key(volume: &LayerInfo) -> String {
    format!("volume:{}", uid_text(volume))
}

impl Store {
    /// Volumes of both drivers, by name.
    pub(crate) fn list_volumes(&self) -> Result<Vec<VolumeSummary>> {
        let uses = self.folders().uses()?;
        let places = self.attachments().places()?;
        let mut found = self.folders().list()?;
        for volume in self.catalog().volumes() {
            match self.thin_summary(volume, &uses, places.get(&device_key(volume))) {
                // removed meanwhile
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                summary => found.push(summary?),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn thin_summary(
        &self,
        volume: &LayerInfo,
        uses: &Uses,
        place: Option<&Place>,
    ) -> Result<VolumeSummary> {
        let name = VolumeName::parse(&volume.name)?;
        let document = VolumeDocument::of(self, volume)?;
        Ok(VolumeSummary {
            name: volume.name.clone(),
            driver: THIN.to_owned(),
            mount_point: self.folders().data_of(&volume.name).display().to_string(),
            created: rfc3339(volume.created_unix_ns),
            created_unix_ns: volume.created_unix_ns,
            anonymous: is_anonymous(&name),
            labels: document.labels,
            used_by: uses.names_of(&name),
            size_bytes: Some(volume.size_bytes),
            own_bytes: Some(own_bytes(volume).saturating_add(volume.document_bytes)),
            device: place.map(|place| place.device.display().to_string()),
            read_only: volume.sealed,
            copy_of: document.copy_of,
        })
    }

    /// Where a volume's device is. Containers may have it mounted read-only; what counts is the mount that
    /// theirs are made of.
    fn place_of_volume(&self, volume: &LayerInfo) -> Result<Option<Place>> {
        let Some(mut place) = self.attachments().place_of(&device_key(volume))? else {
            return Ok(None);
        };
        let own = mounted_at(&self.folders().data_of(&volume.name))?;
        if let Some(own) = own.filter(|own| own.source == place.device) {
            place.mount = Some(own);
        }
        Ok(Some(place))
    }

    fn summary_of(&self, name: &VolumeName) -> Result<VolumeSummary> {
        let catalog = self.catalog();
        let volume = catalog.volume(name.as_str()).ok_or_else(|| no_volume(name))?;
        let place = self.attachments().place_of(&device_key(volume))?;
        self.thin_summary(volume, &self.folders().uses()?, place.as_ref())
    }

    pub(crate) fn make_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        if request.driver == VolumeDriver::Thin {
            return self.make_thin_volume(request);
        }
        if request.size_bytes.is_some() {
            return Err(Error::new(
                ErrorKind::Usage,
                "a folder of the host has no size of its own; --size goes with '--driver thin'",
            ));
        }
        if let Some(name) = &request.name {
            let name = VolumeName::parse(name)?;
            if self.catalog().volume(name.as_str()).is_some() {
                return Err(another_driver(&name, THIN));
            }
            self.forget_device_folder(&name)?;
        }
        self.folders().create(request)
    }

    /// The folder of a device that is gone is nobody's.
    fn forget_device_folder(&self, name: &VolumeName) -> Result<()> {
        if self.folders().stands_under(name) != DeviceFolder::Device {
            return Ok(());
        }
        let _held = self.folders().lock()?;
        match self.catalog().volume(name.as_str()) {
            Some(_) => Ok(()),
            None => self.folders().remove_device_folder(name),
        }
    }

    fn make_thin_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        let name = match &request.name {
            Some(name) => VolumeName::parse(name)?,
            None => VolumeName::anonymous()?,
        };
        if self.is_there_as_wanted(&name, request)? {
            return self.summary_of(&name);
        }
        let size_bytes =
            request.size_bytes.unwrap_or_else(|| self.pool().default_device_size_bytes());
        check_device_size(size_bytes)?;
        let device = self.fresh_device(size_bytes)?;
        let document = VolumeDocument::new(&request.labels, None);
        match self.publish_volume(&name, device, &document) {
            // somebody made it meanwhile
            Err(error) if error.kind() == ErrorKind::Exists => {
                if !self.is_there_as_wanted(&name, request)? {
                    return Err(error);
                }
            }
            other => other?,
        }
        self.summary_of(&name)
    }

    /// Is a volume of this name there, and the one that is asked for? An error if it is another one.
    fn is_there_as_wanted(&self, name: &VolumeName, request: &VolumeCreateRequest) -> Result<bool> {
        let catalog = self.catalog();
        let Some(there) = catalog.volume(name.as_str()) else { return Ok(false) };
        let exists = |what: String| {
            let message =
                format!("there is a volume '{name}' already, {what}; choose another name");
            Err(Error::new(ErrorKind::Exists, message))
        };
        let labels = VolumeDocument::of(self, there)?.labels;
        if !request.labels.is_empty() && labels != request.labels {
            return exists("with other labels".to_owned());
        }
        if request.size_bytes.is_some_and(|wanted| wanted != there.size_bytes) {
            return exists(format!("of {}", format_size(there.size_bytes)));
        }
        Ok(true)
    }

    /// A transient device with an empty file system.
    fn fresh_device(&self, size_bytes: u64) -> Result<LayerId> {
        let new = || NewLayer { namespace: VOLUME, transient: true, ..NewLayer::default() };
        if let Some(template) = self.pool().find(TEMPLATE, &template_name(size_bytes)) {
            match self.pool().snapshot(template, new()) {
                // it has just gone with the last volume of that size
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                made => return made,
            }
        }
        let _importing = self.importing().lock();
        self.pool().snapshot(self.template(size_bytes)?, new())
    }

    /// Gives a transient device its name and document, in one transaction. On an error it is gone.
    fn publish_volume(
        &self,
        name: &VolumeName,
        device: LayerId,
        document: &VolumeDocument,
    ) -> Result<()> {
        let published = self.folders().lock().and_then(|_held| {
            if self.catalog().volume(name.as_str()).is_some() {
                return Err(exists(name));
            }
            if self.folders().stands_under(name) == DeviceFolder::Local {
                return Err(another_driver(name, "local"));
            }
            let stored = self.pool().store_document(&document.to_bytes()?)?;
            let mut transaction = self.pool().begin();
            transaction.publish(device, Some(name.as_str()));
            transaction.set_document(device, Some(stored));
            if let Err(error) = self.pool().commit(transaction) {
                self.abandon(&[stored]);
                return Err(error);
            }
            self.folders().require_device_folder(name).map(drop)
        });
        if published.is_err() {
            self.abandon(&[device]);
        }
        published
    }

    pub(crate) fn remove_one_volume(&self, name: &str) -> Result<()> {
        let name = VolumeName::parse(name)?;
        match self.catalog().volume(name.as_str()) {
            Some(_) => {
                self.remove_thin_volume(&name)?;
                self.finish_frees()
            }
            None => self.folders().remove(name.as_str()),
        }
    }

    /// The device goes first: a folder without one means nothing.
    fn remove_thin_volume(&self, name: &VolumeName) -> Result<()> {
        let catalog = self.catalog();
        let volume = catalog.volume(name.as_str()).ok_or_else(|| no_volume(name))?;
        let lock = self.attachments().lock_of(&device_key(volume));
        let _held = lock.lock();
        let catalog = self.catalog();
        let volume = catalog.volume(name.as_str()).ok_or_else(|| no_volume(name))?;
        self.folders().uses()?.refuse(name)?;
        self.release(volume)?;
        let _names = self.folders().lock()?;
        // a container may have been told to use it meanwhile, though none has got it
        self.folders().uses()?.refuse(name)?;
        // no import takes the template meanwhile; one that runs keeps it
        let importing = self.importing().try_lock();
        let mut transaction = self.pool().begin();
        transaction.remove(volume.id);
        if importing.is_some()
            && let Some(template) = lonely_template(&self.catalog(), volume)
            && template.size_bytes != self.pool().default_device_size_bytes()
        {
            transaction.remove(template.id);
        }
        self.pool().commit(transaction)?;
        drop(importing);
        self.folders().remove_device_folder(name)
    }

    pub(crate) fn remove_unused_volumes(
        &self,
        request: VolumePruneRequest,
    ) -> Result<PrunedVolumes> {
        let mut pruned = self.folders().prune(request)?;
        let catalog = self.catalog();
        for volume in catalog.volumes() {
            let name = VolumeName::parse(&volume.name)?;
            if !(request.all || is_anonymous(&name)) {
                continue;
            }
            let bytes = self.pool().unique_bytes(volume.id).unwrap_or_default();
            let bytes = bytes.saturating_add(volume.document_bytes);
            match self.remove_thin_volume(&name) {
                Ok(()) => {
                    pruned.volumes.push(volume.name.clone());
                    pruned.reclaimed_bytes = pruned.reclaimed_bytes.saturating_add(bytes);
                }
                // used, or gone meanwhile
                Err(error) if matches!(error.kind(), ErrorKind::InUse | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        pruned.volumes.sort();
        self.finish_frees()?;
        Ok(pruned)
    }
}

/// The empty file system that only this volume stands on.
fn lonely_template(catalog: &Catalog, volume: &LayerInfo) -> Option<LayerInfo> {
    let origin = catalog.get(catalog.get(volume.id)?.origin?)?;
    let is_lonely = origin.children == [volume.id] && volume.children.is_empty();
    (origin.namespace == TEMPLATE && is_lonely).then(|| origin.clone())
}

fn exists(name: &VolumeName) -> Error {
    Error::new(
        ErrorKind::Exists,
        format!("there is a volume '{name}' already; remove it first, or choose another name"),
    )
}

fn another_driver(name: &VolumeName, driver: &str) -> Error {
    Error::new(
        ErrorKind::Exists,
        format!(
            "there is a volume '{name}' already, of the driver '{driver}'; choose another name"
        ),
    )
}
