//! File trees: what a layer's archive says, and the places it can be written to and read from: a
//! directory of a mounted file system (by the kernel), or an ext4 on a block device (in user space,
//! without root).

#![deny(unsafe_code)]

mod acl;
mod attributes;
mod difference;
pub mod ext4;
mod hash;
mod kernel;
mod resolve;
mod sealed;
pub mod template;
mod tree;

pub use difference::{Change, ChangeKind, SameContent, difference};
pub use ext4::{Ext4Reader, Ext4Writer, FileExtent, InodeStamp};
pub use hash::{TreeHash, manifest, tree_hash};
pub use kernel::DirectoryTree;
pub use tree::{FileContent, Metadata, Node, Timestamp, TreePath, TreeReader, TreeWriter};
