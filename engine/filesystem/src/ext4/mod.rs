//! Ext4 in user space: reading and writing a file system on a block device without mounting it.
//!
//! The formats are those of the kernel's Documentation/filesystems/ext4. Checksums, name hashes, the
//! superblock's decoder and the journal's replay come from the crate `rust-fs-ext4`; allocation,
//! folders, extents, attributes and inodes are written here, since thousands of files must be written
//! at the pace of tar, with every detail of their metadata, and each group of blocks only once.
//!
//! Blocks are 4096 bytes, inodes 256: what [`crate::template`] makes. Other shapes are refused.

mod cache;
mod directory;
mod extents;
pub(crate) mod fields;
mod folders;
mod groups;
mod hash_index;
mod inode;
mod reader;
mod recovery;
mod volume;
mod writer;
mod xattr;

pub(crate) use inode::storable;
pub use reader::{Ext4Reader, FileExtent, InodeStamp};
pub use writer::Ext4Writer;
