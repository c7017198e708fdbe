//! What `scrub` takes and gives.

use serde::{Deserialize, Serialize};

/// What to scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRequest {
    /// Containers, images and layers, with all that they stand on; empty: everything.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DamageKind {
    /// It has another checksum than is recorded.
    Mismatch,
    /// It cannot be read.
    Unreadable,
}

/// What kind of object something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// An image.
    Image,
    /// A container.
    Container,
    /// A layer of images.
    Layer,
    /// An empty file system, made once for each device size.
    Template,
    /// A volume that is a device.
    Volume,
}

impl ObjectKind {
    /// The kind as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            ObjectKind::Image => "image",
            ObjectKind::Container => "container",
            ObjectKind::Layer => "layer",
            ObjectKind::Template => "template",
            ObjectKind::Volume => "volume",
        }
    }
}

/// An object of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
}

/// A block that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubFinding {
    /// Which structure: "data", "map", "layer table", "space map", "bitmap" or "superblock".
    pub structure: String,
    /// The device in the pool whose block it is, where it is one's.
    pub layer_id: Option<u32>,
    /// What people know it as; none for documents of images, and for states that only those above still
    /// need.
    pub owner: Option<ObjectName>,
    /// The first block (of 4096 bytes) of the device that is lost with it.
    pub first_block: Option<u64>,
    /// How many are: one of data, or all that a page of the map leads to.
    pub block_count: Option<u64>,
    /// The block of the pool.
    pub pool_block: u64,
    /// What is wrong.
    pub damage: DamageKind,
    /// The CRC-32 of what was read, as 8 hex digits.
    pub found_crc: Option<String>,
    /// The CRC-32 that is recorded, as 8 hex digits.
    pub recorded_crc: Option<String>,
    /// The same in words.
    pub message: String,
    /// Everything that sees the damage.
    pub affected: Vec<ObjectName>,
}

/// What `scrub` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubSummary {
    /// Is all that has a checksum as it was written?
    pub clean: bool,
    /// Layers looked at.
    pub layers: u64,
    /// Data that was read and held against its checksums.
    pub data_bytes: u64,
    /// The same in blocks.
    pub data_blocks: u64,
    /// Pages of maps and tables, bitmaps and superblocks that were read.
    pub metadata_bytes: u64,
    /// The same in blocks.
    pub metadata_blocks: u64,
    /// Data that has no checksum (yet): nothing can be said of it.
    pub unsummed_bytes: u64,
    /// The same in blocks.
    pub unsummed_blocks: u64,
    /// What is damaged, in the order found.
    pub findings: Vec<ScrubFinding>,
    /// Findings beyond those listed.
    pub more_findings: u64,
    /// How long it took.
    pub elapsed_ms: u64,
}
