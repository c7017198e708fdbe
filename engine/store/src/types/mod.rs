//! What the operations take and give. Every field of these structures is stable: it is the JSON of
//! `--format json` and of the daemon's API. Sizes are bytes, times are RFC 3339 in UTC, ids are 64
//! lower-case hex digits, digests are `sha256:` and 64 hex digits.

mod byte_path;
mod changes;
mod files;
mod listing;
mod mounting;
mod propagation;
mod scrub;
mod usage;
mod volumes;

pub use changes::{
    CommitOutcome, CommitRequest, ImportOutcome, ImportRequest, NameRequest, RemovedImage,
    SnapshotRequest,
};
pub use files::{
    BlockRange, CatRequest, ChangeKind, CopyInRequest, CopyOutRequest, DiffRequest, ExportFormat,
    ExportRequest, PathChange,
};
pub use listing::{
    CheckFinding, CheckSummary, ContainerState, ContainerSummary, ImageSummary, InspectKind,
    InspectRequest, LayerSummary, RepairLoss, RepairSummary, TreeEntry, TreeKind, VersionInfo,
};
pub use mounting::{
    AttachOutcome, AttachRequest, DetachOutcome, MountInfo, MountKind, MountOutcome, MountRequest,
    MountSpecification,
};
pub use propagation::{Propagation, root_propagation};
pub use scrub::{DamageKind, ObjectKind, ObjectName, ScrubFinding, ScrubRequest, ScrubSummary};
pub use usage::{
    ContainerUsage, GrowOutcome, GrowRequest, ImageUsage, UsageReport, UsageRequest, UsageSummary,
    UsageTotals, VolumeUsage,
};
pub use volumes::{
    PrunedVolumes, VolumeCopyRequest, VolumeCreateRequest, VolumeDriver, VolumePruneRequest,
    VolumeResizeOutcome, VolumeResizeRequest, VolumeSummary,
};
