//! Work in memory that finds something missing says what it needs, and changes nothing: the caller
//! lets its locks go, brings it, and tries again. So no lock is held while a page is read.

use crate::format::geometry::GroupIndex;
use crate::format::pointer::BlockPtr;

/// What an attempt lacked.
#[derive(Debug)]
pub(crate) enum Need {
    /// A page that is not in the cache.
    Page(BlockPtr),
    /// A group's bitmap that is not in memory.
    Group(GroupIndex),
    /// Space in the pool.
    Room,
    /// A run of blocks for pages, with the host's space for it: one more than had been set aside by then.
    PageRun { stocked_before: u64 },
    /// The host's space for a group's head: the group is used for the first time.
    Head(GroupIndex),
    /// A layer that is not there.
    Missing(thinstore_storage::Error),
    /// Nothing will help: something on the disk is wrong.
    Corrupt {
        /// What, in words that end a sentence.
        what: String,
    },
}

/// What is to be read from the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Page(BlockPtr),
    Group(GroupIndex),
}

impl Need {
    /// What must be read for it, if anything.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Need::Page(pointer) => Some(Place::Page(*pointer)),
            Need::Group(group) => Some(Place::Group(*group)),
            _ => None,
        }
    }
}

/// The outcome of work in memory.
pub(crate) type Attempt<T> = Result<T, Need>;
