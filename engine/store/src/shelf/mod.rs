//! Images and containers of the drivers that the thin one is compared with. A shelf knows what is called how
//! and stands on what; a [`LayerDriver`] keeps the layers.
//!
//! There is no daemon: every command does its work itself, and what it mounts stays. So what matters is
//! on files, and several processes may change a shelf at once:
//!
//!  - A name is given last and taken away first ([`records`]). What the driver has that no record names is
//!    left of a crash; the next one who may be sure that nobody is making it removes it.
//!  - Who makes something holds the lock `making` in common; who cleans up holds it alone.
//!  - Who makes containers holds the lock `publishing` in common, so that no layer disappears below them; who
//!    publishes and removes layers and images holds it alone.
//!  - Before records change of which some mean nothing without the others, it is noted in the file of
//!    `publishing`. Where that was not taken back, the next one removes the layers that nothing needs.
//!  - Who mounts, unmounts, commits or removes a container holds the lock on its record.

mod commit;
mod containers;
mod contents;
mod import;
mod links;
mod lock;
mod place;
mod records;
mod report;
mod trees;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use thinstore_drivers::{DriverName, LayerDriver, LayerId};
use thinstore_storage::{Error, ErrorKind, Result};

use self::contents::Contents;
use self::lock::Lock;
use self::records::{ContainerRecord, LayerRecord, Records};
use crate::layout::Layout;
use crate::mounts::MountRecords;
use crate::operations::{Input, Operations, Progress};
use crate::types::{
    AttachOutcome, AttachRequest, BlockRange, CatRequest, CheckSummary, CommitOutcome,
    CommitRequest, ContainerSummary, CopyInRequest, CopyOutRequest, DetachOutcome, DiffRequest,
    ExportRequest, GrowOutcome, GrowRequest, ImageSummary, ImportOutcome, ImportRequest,
    InspectRequest, LayerSummary, MountOutcome, MountRequest, NameRequest, PathChange,
    PrunedVolumes, RemovedImage, ScrubRequest, ScrubSummary, SnapshotRequest, TreeEntry,
    UsageReport, UsageRequest, VolumeCreateRequest, VolumePruneRequest, VolumeSummary,
};
use crate::volumes::Volumes;

/// The images and containers of one driver.
pub struct Shelf {
    layout: Layout,
    driver: Box<dyn LayerDriver>,
    records: Records,
    volumes: Volumes,
    /// While this shelf is open, nobody takes for left behind what it is making.
    _making: Option<Lock>,
}

impl Shelf {
    /// Opens the shelf of a driver in the store at `root`; with `write`, what killed processes have left of
    /// it is removed.
    ///
    /// # Errors
    /// `NotFound` without a store, `Unsupported` with what this host lacks, `Permission` without root.
    pub fn open(root: &Path, name: DriverName, write: bool) -> Result<Shelf> {
        let root = root.canonicalize().map_err(|error| {
            Error::io(format!("cannot open the store {}", root.display()), error)
        })?;
        if let Some(why) = thinstore_drivers::obstacle(name, &root)? {
            let what = format!("the driver {name} cannot run here: {why}");
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let layout = Layout::new(&root);
        let driver = thinstore_drivers::open(name, &root)?;
        let records = Records::open(layout.shelf(name))?;
        let volumes = Volumes::new(layout.clone());
        let mut shelf = Shelf { layout, driver, records, volumes, _making: None };
        place::clean_up(&shelf.layout, shelf.driver.as_ref())?;
        if write {
            shelf.clean_up()?;
            shelf._making = Some(Lock::shared(&shelf.making_path())?);
        }
        Ok(shelf)
    }

    fn making_path(&self) -> std::path::PathBuf {
        self.records.folder().join("making.lock")
    }

    /// The right to change which layers and images there are.
    fn publishing(&self) -> Result<Lock> {
        Lock::exclusive(&self.publishing_path())
    }

    fn publishing_path(&self) -> std::path::PathBuf {
        self.records.folder().join("publishing.lock")
    }

    /// As long as this is held, no layer goes away.
    fn standing(&self) -> Result<Lock> {
        Lock::shared(&self.publishing_path())
    }

    fn driver_name(&self) -> DriverName {
        self.driver.name()
    }

    fn mount_records(&self) -> MountRecords {
        MountRecords::new(self.layout.clone())
    }

    fn contents(&self) -> Result<Contents> {
        Contents::read(&self.records)
    }

    /// Removes what has no record, unless somebody may be making it. It is only looked for if there are not
    /// as many layers as records.
    fn clean_up(&self) -> Result<()> {
        if Lock::is_begun(&self.publishing_path())
            && let Some(publishing) = Lock::try_exclusive(&self.publishing_path())?
        {
            self.remove_unneeded(&publishing)?;
        }
        let known = || -> Result<usize> {
            let layers = self.records.file_names::<LayerRecord>()?.len();
            Ok(self.records.file_names::<ContainerRecord>()?.len().saturating_add(layers))
        };
        if self.driver.layers()?.len() == known()? {
            return Ok(());
        }
        let Some(_alone) = Lock::try_exclusive(&self.making_path())? else { return Ok(()) };
        self.records.remove_unfinished()?;
        let contents = self.contents()?;
        let is_known = |id: &LayerId| {
            contents.layers.contains_key(id)
                || contents.containers.iter().any(|container| container.id == *id)
        };
        for id in self.driver.layers()? {
            if !is_known(&id) {
                self.driver.release(&id)?;
                self.driver.remove(&id)?;
                self.mount_records().forget(id.as_str())?;
            }
        }
        Ok(())
    }

    /// What this driver does not do, and why.
    fn unsupported<T>(&self, what: &str) -> Result<T> {
        let message = format!("the driver {} {what}; the driver thin does", self.driver_name());
        Err(Error::new(ErrorKind::Unsupported, message))
    }
}

impl Operations for Shelf {
    fn driver(&self) -> DriverName {
        self.driver_name()
    }

    fn images(&self) -> Result<Vec<ImageSummary>> {
        Ok(self.list_images(&self.contents()?))
    }

    fn layers(&self) -> Result<Vec<LayerSummary>> {
        Ok(self.list_layers(&self.contents()?))
    }

    fn tree(&self) -> Result<Vec<TreeEntry>> {
        self.list_tree(&self.contents()?)
    }

    fn containers(&self) -> Result<Vec<ContainerSummary>> {
        self.list_containers()
    }

    fn import(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome> {
        self.import_image(request, input, progress)
    }

    fn snapshot(&self, request: &SnapshotRequest) -> Result<ContainerSummary> {
        self.make_container(request)
    }

    fn remove_container(&self, request: &NameRequest) -> Result<()> {
        self.remove_one_container(&request.name)
    }

    fn remove_image(&self, request: &NameRequest) -> Result<RemovedImage> {
        self.remove_one_image(&request.name)
    }

    fn inspect(&self, request: &InspectRequest) -> Result<serde_json::Value> {
        self.describe(request)
    }

    fn usage(&self, request: &UsageRequest) -> Result<UsageReport> {
        match request.pool_only {
            true => Ok(UsageReport::default()),
            false => self.report_usage(),
        }
    }

    fn grow(&self, _request: &GrowRequest) -> Result<GrowOutcome> {
        self.unsupported("has no pool that could grow")
    }

    fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        self.commit_container(request)
    }

    fn differences(&self, request: &DiffRequest) -> Result<Vec<PathChange>> {
        self.compare_trees(request)
    }

    fn block_differences(&self, _request: &DiffRequest) -> Result<Vec<BlockRange>> {
        self.unsupported("does not know which blocks differ")
    }

    fn cat(&self, request: &CatRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.print_file(request, output)
    }

    fn copy_out(&self, request: &CopyOutRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.copy_from_container(request, output)
    }

    fn copy_in(&self, request: &CopyInRequest, input: Input) -> Result<()> {
        self.copy_into_container(request, input)
    }

    fn export(&self, request: &ExportRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.write_export(request, output)
    }

    fn attach(&self, _request: &AttachRequest) -> Result<AttachOutcome> {
        self.unsupported("gives containers no device without a mount")
    }

    fn detach(&self, request: &NameRequest) -> Result<DetachOutcome> {
        let container = self.container(&request.name)?;
        Ok(DetachOutcome { name: container.name, was_attached: false })
    }

    fn mount(&self, request: &MountRequest) -> Result<MountOutcome> {
        self.mount_container(request)
    }

    fn unmount(&self, request: &NameRequest) -> Result<DetachOutcome> {
        self.unmount_container(&request.name)
    }

    fn volumes(&self) -> Result<Vec<VolumeSummary>> {
        self.volumes.list()
    }

    fn create_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        self.volumes.create(request)
    }

    fn remove_volume(&self, request: &NameRequest) -> Result<()> {
        self.volumes.remove(&request.name)
    }

    fn prune_volumes(&self, request: &VolumePruneRequest) -> Result<PrunedVolumes> {
        self.volumes.prune(*request)
    }

    fn check(&self) -> Result<CheckSummary> {
        self.compare_with_records()
    }

    fn scrub(&self, _request: &ScrubRequest, _progress: Arc<dyn Progress>) -> Result<ScrubSummary> {
        self.unsupported("keeps no checksums that could be compared")
    }
}
