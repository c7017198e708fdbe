//! Everything that can be asked of a store, in one trait. [`crate::Store`] answers in this process,
//! [`crate::Client`] through the daemon that owns the pool; a command does not see which.

use std::io::{Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thinstore_drivers::DriverName;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::types::{
    AttachOutcome, AttachRequest, BlockRange, CatRequest, CheckSummary, CommitOutcome,
    CommitRequest, ContainerSummary, CopyInRequest, CopyOutRequest, DetachOutcome, DiffRequest,
    ExportRequest, GrowOutcome, GrowRequest, ImageSummary, ImportOutcome, ImportRequest,
    InspectRequest, LayerSummary, MountOutcome, MountRequest, NameRequest, PathChange,
    PrunedVolumes, RemovedImage, ScrubRequest, ScrubSummary, SnapshotRequest, TreeEntry,
    UsageReport, UsageRequest, VolumeCopyRequest, VolumeCreateRequest, VolumePruneRequest,
    VolumeResizeOutcome, VolumeResizeRequest, VolumeSummary,
};

/// How far a long operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProgressEvent {
    /// So much has been read that the layers are known.
    Start {
        /// The image's name, or that of the operation.
        name: String,
        /// How many layers there are.
        layers: u64,
        /// Their bytes together, where that is known.
        total_bytes: Option<u64>,
    },
    /// A layer that the store has already.
    Reused {
        /// Which one, from 1.
        layer: u64,
        /// Its diff id.
        digest: String,
    },
    /// A layer begins.
    Layer {
        /// Which one, from 1.
        layer: u64,
        /// Its diff id.
        digest: String,
        /// Its bytes in the source, where that is known.
        size_bytes: Option<u64>,
    },
    /// So many more bytes have been read.
    Advanced {
        /// How many.
        bytes: u64,
    },
    /// All of a layer is written and sealed.
    Sealed {
        /// Which one, from 1.
        layer: u64,
        /// What it holds of its own.
        own_bytes: u64,
    },
}

/// Who wants to know how far a long operation is, and may end it.
pub trait Progress: Send + Sync {
    /// Takes note. Must not block for long.
    fn report(&self, event: &ProgressEvent);

    /// Asked between the steps: shall it end, with the store as it was before?
    fn cancelled(&self) -> bool;
}

/// Nobody wants to know.
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _event: &ProgressEvent) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// Bytes that come with a request. Owned, because a reader that blocks may outlive the request.
pub type Input = Box<dyn Read + Send>;

/// The refusal of what needs a device.
pub(crate) fn only_thin(name: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the volume '{}' is a folder of the host; only volumes that were made with '--driver thin' can be copied and resized",
            name.escape_debug()
        ),
    )
}

/// The refusal to trace what no device of ours is below.
fn no_device(name: &str, driver: DriverName) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the container '{}' of the driver {driver} cannot be traced: only those of the driver thin have a device that takes notes",
            name.escape_debug()
        ),
    )
}

/// What can be asked of a store.
///
/// Errors have the kinds of the exit code table: `NotFound` for an object that is not there, `Exists`
/// for a name that is taken, `InUse` for what is mounted, attached or needed, `Usage` for names, sizes
/// and paths that make no sense, `Permission` where root is needed. After an error the store is as it
/// was before.
pub trait Operations: Send + Sync {
    /// How what it has is kept.
    fn driver(&self) -> DriverName {
        DriverName::Thin
    }

    /// All images, by name.
    fn images(&self) -> Result<Vec<ImageSummary>>;

    /// All sealed layers of images, parents before children.
    fn layers(&self) -> Result<Vec<LayerSummary>>;

    /// All devices of the pool, each followed by what stands on it.
    fn tree(&self) -> Result<Vec<TreeEntry>>;

    /// All containers, by name.
    fn containers(&self) -> Result<Vec<ContainerSummary>>;

    /// Brings an image in. `input` goes with the source `-`.
    fn import(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome>;

    /// Makes a container.
    fn snapshot(&self, request: &SnapshotRequest) -> Result<ContainerSummary>;

    /// Removes a container that is not in use.
    fn remove_container(&self, request: &NameRequest) -> Result<()>;

    /// Removes an image that has no containers, and the layers that nothing else needs.
    fn remove_image(&self, request: &NameRequest) -> Result<RemovedImage>;

    /// Describes one object in Docker's shape.
    fn inspect(&self, request: &InspectRequest) -> Result<serde_json::Value>;

    /// Who takes how much.
    fn usage(&self, request: &UsageRequest) -> Result<UsageReport>;

    /// Makes the pool larger, also while containers are mounted.
    fn grow(&self, request: &GrowRequest) -> Result<GrowOutcome>;

    /// Makes an image of what a container has now.
    fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome>;

    /// The paths that differ.
    fn differences(&self, request: &DiffRequest) -> Result<Vec<PathChange>>;

    /// The block ranges that differ.
    fn block_differences(&self, request: &DiffRequest) -> Result<Vec<BlockRange>>;

    /// Writes a file's bytes.
    fn cat(&self, request: &CatRequest, output: &mut (dyn Write + Send)) -> Result<()>;

    /// Writes a file or folder as a tar: of a folder all that is in it, with an entry for itself first;
    /// of anything else one entry.
    fn copy_out(&self, request: &CopyOutRequest, output: &mut (dyn Write + Send)) -> Result<()>;

    /// Takes a file or folder from such a tar.
    fn copy_in(&self, request: &CopyInRequest, input: Input) -> Result<()>;

    /// Writes a whole file system.
    fn export(&self, request: &ExportRequest, output: &mut (dyn Write + Send)) -> Result<()>;

    /// Gives a container a block device. Once it has one, this only says which.
    fn attach(&self, request: &AttachRequest) -> Result<AttachOutcome>;

    /// Takes the block device away. Nothing attached is no error.
    fn detach(&self, request: &NameRequest) -> Result<DetachOutcome>;

    /// Mounts a container. Mounted there already is no error.
    fn mount(&self, request: &MountRequest) -> Result<MountOutcome>;

    /// Unmounts a container and detaches it. Not mounted is no error.
    fn unmount(&self, request: &NameRequest) -> Result<DetachOutcome>;

    /// All volumes, by name.
    fn volumes(&self) -> Result<Vec<VolumeSummary>>;

    /// Makes a volume. One of that name, with the same labels, is there already: no error.
    fn create_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary>;

    /// Copies a volume of driver `thin` as it is now, also while containers write to it.
    fn copy_volume(&self, request: &VolumeCopyRequest) -> Result<VolumeSummary> {
        Err(only_thin(&request.source))
    }

    /// Makes a volume of driver `thin` larger, also while containers have it mounted.
    fn resize_volume(&self, request: &VolumeResizeRequest) -> Result<VolumeResizeOutcome> {
        Err(only_thin(&request.name))
    }

    /// Removes a volume that no container uses: none that is mounted, and none that was run with it.
    fn remove_volume(&self, request: &NameRequest) -> Result<()>;

    /// Removes all volumes that no container uses.
    fn prune_volumes(&self, request: &VolumePruneRequest) -> Result<PrunedVolumes>;

    /// Looks at every structure of the pool; writes nothing.
    fn check(&self) -> Result<CheckSummary>;

    /// Reads all that has a checksum from the disk, and says what is damaged; writes nothing, and is in
    /// nobody's way.
    fn scrub(&self, request: &ScrubRequest, progress: Arc<dyn Progress>) -> Result<ScrubSummary>;

    /// Writes what an attached container's device is asked, as `thinstore_trace` has it, until
    /// [`Operations::end_trace`] or until the device is taken away. One trace of a container at a time.
    fn trace(&self, request: &NameRequest, _output: &mut (dyn Write + Send)) -> Result<()> {
        Err(no_device(&request.name, self.driver()))
    }

    /// Ends a trace. All that was asked until now is in it.
    fn end_trace(&self, request: &NameRequest) -> Result<()> {
        Err(no_device(&request.name, self.driver()))
    }
}
