//! Who takes how much.
//!
//! Of an object, `size_bytes` is everything it needs (data and map), and the sum of `unique_bytes`,
//! what removing it now would give back, and `shared_bytes`, what others need as well. `own_bytes` is
//! what it holds itself: for a container, what it wrote since it was made; for an image, the sum of its
//! layers.

use serde::{Deserialize, Serialize};

/// What to report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRequest {
    /// First wait until nothing that was removed is still pending.
    #[serde(default)]
    pub wait: bool,
    /// Only the pool's own figures: no sums, no images, containers and volumes.
    #[serde(default)]
    pub pool_only: bool,
}

/// How large the pool is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowRequest {
    /// Larger than it is.
    pub size_bytes: u64,
}

/// How large the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowOutcome {
    /// The pool's size.
    pub pool_size_bytes: u64,
}

/// An image's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUsage {
    /// The name with its tag.
    pub name: String,
    /// The digest of its configuration.
    pub id: String,
    /// When it came into the store.
    pub created: String,
    /// The same, in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// Everything its layers take.
    pub size_bytes: u64,
    /// The sum of its layers.
    pub own_bytes: u64,
    /// What only this image needs.
    pub unique_bytes: u64,
    /// What other images or containers need as well.
    pub shared_bytes: u64,
    /// How many containers were made from it.
    pub containers: u64,
}

/// A container's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// The name.
    pub name: String,
    /// The id.
    pub id: String,
    /// The image it was made from.
    pub image: Option<String>,
    /// Is it attached or mounted?
    pub in_use: bool,
    /// When it was made.
    pub created: String,
    /// The same, in nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// Everything it sees: own blocks and those of its image.
    pub size_bytes: u64,
    /// What it holds itself.
    pub own_bytes: u64,
    /// What removing it gives back.
    pub unique_bytes: u64,
    /// What belongs to layers that others see as well.
    pub shared_bytes: u64,
}

/// A volume's share: of the pool if its driver is `thin`, else of the host's file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUsage {
    /// The name.
    pub name: String,
    /// `local` or `thin`.
    #[serde(default)]
    pub driver: String,
    /// How many containers use it.
    pub links: u64,
    /// Everything in it.
    pub size_bytes: u64,
    /// What it holds itself: what was written to it since it was made, or last copied.
    pub own_bytes: u64,
    /// What removing it gives back.
    pub unique_bytes: u64,
    /// What copies of it, or an empty file system of its size, have in common with it; 0 of a folder.
    pub shared_bytes: u64,
}

/// A line of `docker system df`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageTotals {
    /// How many there are.
    pub total: u64,
    /// How many are in use: images with containers, attached containers, volumes that containers use.
    pub active: u64,
    /// What they take together, shared parts once.
    pub size_bytes: u64,
    /// What removing those that are not active would give back at least.
    pub reclaimable_bytes: u64,
}

/// The lines of `docker system df`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSummary {
    /// Images.
    pub images: UsageTotals,
    /// Containers.
    pub containers: UsageTotals,
    /// Volumes.
    pub volumes: UsageTotals,
}

/// Who takes how much of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// The pool's size.
    pub pool_size_bytes: u64,
    /// Everything that is not free: data, metadata and what is pending.
    pub pool_used_bytes: u64,
    /// What was removed and is not yet free again.
    pub pending_free_bytes: u64,
    /// Blocks that hold data of devices.
    pub data_bytes: u64,
    /// Map pages, layer table and space map.
    pub metadata_bytes: u64,
    /// Superblocks, journal and group heads: taken when the pool was made.
    pub fixed_bytes: u64,
    /// Kept back so that a full pool can still remove.
    pub reserved_bytes: u64,
    /// How much of what data can take is taken, 0 to 100: at 100, writes to new blocks fail or wait.
    #[serde(default)]
    pub pool_full_percent: u8,
    /// 80 or 95 when the pool has become that full, and until it is 5 percent below.
    #[serde(default)]
    pub pool_full_warning_percent: Option<u8>,
    /// What the pool's file takes on the host (its holes left out).
    pub host_bytes: u64,
    /// Sums by kind.
    pub summary: UsageSummary,
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Each container.
    pub containers: Vec<ContainerUsage>,
    /// Each volume.
    pub volumes: Vec<VolumeUsage>,
}
