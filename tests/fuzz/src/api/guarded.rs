//! A store that is asked only what leaves the machine as it is.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::types::{
    AttachOutcome, AttachRequest, BlockRange, CatRequest, CheckSummary, CommitOutcome,
    CommitRequest, ContainerSummary, CopyInRequest, CopyOutRequest, DetachOutcome, DiffRequest,
    ExportRequest, GrowOutcome, GrowRequest, ImageSummary, ImportOutcome, ImportRequest,
    InspectRequest, LayerSummary, MountOutcome, MountRequest, NameRequest, PathChange,
    PrunedVolumes, RemovedImage, ScrubRequest, ScrubSummary, SnapshotRequest, TreeEntry,
    UsageReport, UsageRequest, VolumeCreateRequest, VolumePruneRequest, VolumeSummary,
};
use thinstore_store::{Input, Operations, Progress, Store};

/// Devices and mounts are refused, and so is what reads from the host.
pub(super) struct Guarded(pub(super) Arc<Store>);

fn refuse<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "not while requests are fuzzed"))
}

impl Operations for Guarded {
    fn images(&self) -> Result<Vec<ImageSummary>> {
        self.0.images()
    }

    fn layers(&self) -> Result<Vec<LayerSummary>> {
        self.0.layers()
    }

    fn tree(&self) -> Result<Vec<TreeEntry>> {
        self.0.tree()
    }

    fn containers(&self) -> Result<Vec<ContainerSummary>> {
        self.0.containers()
    }

    fn import(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome> {
        if request.source != Path::new("-") {
            return refuse();
        }
        let request = ImportRequest { user_space: true, ..request.clone() };
        self.0.import(&request, input, progress)
    }

    fn snapshot(&self, request: &SnapshotRequest) -> Result<ContainerSummary> {
        self.0.snapshot(request)
    }

    fn remove_container(&self, request: &NameRequest) -> Result<()> {
        self.0.remove_container(request)
    }

    fn remove_image(&self, request: &NameRequest) -> Result<RemovedImage> {
        self.0.remove_image(request)
    }

    fn inspect(&self, request: &InspectRequest) -> Result<serde_json::Value> {
        self.0.inspect(request)
    }

    fn usage(&self, request: &UsageRequest) -> Result<UsageReport> {
        self.0.usage(request)
    }

    fn grow(&self, _request: &GrowRequest) -> Result<GrowOutcome> {
        refuse()
    }

    fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        self.0.commit(request)
    }

    fn differences(&self, request: &DiffRequest) -> Result<Vec<PathChange>> {
        self.0.differences(request)
    }

    fn block_differences(&self, request: &DiffRequest) -> Result<Vec<BlockRange>> {
        self.0.block_differences(request)
    }

    fn cat(&self, request: &CatRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.0.cat(request, output)
    }

    fn copy_out(&self, request: &CopyOutRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.0.copy_out(request, output)
    }

    fn copy_in(&self, request: &CopyInRequest, input: Input) -> Result<()> {
        // Root writes through the kernel.
        if rustix::process::geteuid().is_root() {
            return refuse();
        }
        self.0.copy_in(request, input)
    }

    fn export(&self, request: &ExportRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.0.export(request, output)
    }

    fn attach(&self, _request: &AttachRequest) -> Result<AttachOutcome> {
        refuse()
    }

    fn detach(&self, _request: &NameRequest) -> Result<DetachOutcome> {
        refuse()
    }

    fn mount(&self, _request: &MountRequest) -> Result<MountOutcome> {
        refuse()
    }

    fn unmount(&self, _request: &NameRequest) -> Result<DetachOutcome> {
        refuse()
    }

    fn volumes(&self) -> Result<Vec<VolumeSummary>> {
        self.0.volumes()
    }

    fn create_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        self.0.create_volume(request)
    }

    fn remove_volume(&self, request: &NameRequest) -> Result<()> {
        self.0.remove_volume(request)
    }

    fn prune_volumes(&self, request: &VolumePruneRequest) -> Result<PrunedVolumes> {
        self.0.prune_volumes(request)
    }

    fn check(&self) -> Result<CheckSummary> {
        self.0.check()
    }

    fn scrub(&self, request: &ScrubRequest, progress: Arc<dyn Progress>) -> Result<ScrubSummary> {
        self.0.scrub(request, progress)
    }

    fn trace(&self, request: &NameRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.0.trace(request, output)
    }

    fn end_trace(&self, request: &NameRequest) -> Result<()> {
        self.0.end_trace(request)
    }
}
