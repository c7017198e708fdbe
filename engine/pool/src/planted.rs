//! Faults planted on purpose: the search for what a loss of power can do must find each of them, or its
//! silence means nothing.
//!
//! Without the feature `planted-faults`, which is for tests alone, `planted` is a constant `false` and nothing
//! of this is compiled in.

/// A fault that can be planted. Each breaks one rule of docs/design.md, sections 2 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The superblock is written without a flush of what it leads to.
    NoFlushBeforeSuperblock,
    /// Both superblocks in turn have the same home: the newest one is overwritten.
    SuperblockOverNewest,
    /// A block of data that was replaced is free at once.
    FreedBlockReusedAtOnce,
    /// Blocks are free, and may be overwritten, when their batch is durable, not when it is settled.
    ReleasedBeforeSettled,
    /// A hole is punched when the freeing batch is written.
    HolePunchedEarly,
    /// Replay believes an unsettled batch without looking at its data.
    DataNotChecked,
    /// Replay takes a batch that does not continue the one before.
    ChainNotChecked,
    /// A block that an unsettled batch names is overwritten in place.
    UnsettledOverwritten,
    /// A fork does not wait for writes that are under way.
    ForkDoesNotDrain,
    /// A fork does not flush what was overwritten in place.
    ForkDoesNotFlush,
    /// A snapshot is acknowledged before it is durable.
    SnapshotNotFlushed,
    /// A checkpoint gives roots of maps a new birth.
    RootRestamped,
    /// A mapping is recorded before the record that came before it.
    RecordOutOfOrder,
    /// A checkpoint leaves out a bitmap.
    BitmapLeftOut,
    /// What was born in the epoch of the base counts as the layer's own.
    OwnOffByOne,
    /// A layer that takes over its origin frees what it shares with it.
    AbsorbFreesShared,
    /// A walk over a removed layer is recorded without how far it came.
    WalkWithoutCursor,
    /// The pool goes on after a failed flush or write.
    LatchIgnored,
    /// A batch says that one more than the durable ones is durable: itself.
    SettledTooHigh,
    /// Replay keeps a named block from other use when its record comes, not before all records.
    NamedNotMarkedFirst,
    /// Blocks of pages are free as soon as the newest superblock does not reach them.
    PageReusedEarly,
    /// A record says that checksums of data are there before they are durable.
    SummedBeforeFlush,
    /// A writable layer takes over an origin whose checksums still count.
    SumsNotForgotten,
}

#[cfg(feature = "planted-faults")]
mod selection {
    use std::cell::Cell;

    use super::Fault;

    std::thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    impl Fault {
        /// All of them.
        pub const ALL: [Fault; 23] = [
            Fault::NoFlushBeforeSuperblock,
            Fault::SuperblockOverNewest,
            Fault::FreedBlockReusedAtOnce,
            Fault::ReleasedBeforeSettled,
            Fault::HolePunchedEarly,
            Fault::DataNotChecked,
            Fault::ChainNotChecked,
            Fault::UnsettledOverwritten,
            Fault::ForkDoesNotDrain,
            Fault::ForkDoesNotFlush,
            Fault::SnapshotNotFlushed,
            Fault::RootRestamped,
            Fault::RecordOutOfOrder,
            Fault::BitmapLeftOut,
            Fault::OwnOffByOne,
            Fault::AbsorbFreesShared,
            Fault::WalkWithoutCursor,
            Fault::LatchIgnored,
            Fault::SettledTooHigh,
            Fault::NamedNotMarkedFirst,
            Fault::PageReusedEarly,
            Fault::SummedBeforeFlush,
            Fault::SumsNotForgotten,
        ];
    }

    /// The fault is there until this is dropped.
    #[derive(Debug)]
    pub struct Planted(());

    /// Plants a fault in all pools, as far as this thread works on them: tests run beside each other. Pools
    /// are to be opened without a thread of their own.
    #[must_use]
    pub fn plant(fault: Fault) -> Planted {
        PLANTED.set(Some(fault));
        Planted(())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    /// The fault that this thread works with: those that it starts are to plant it as well.
    pub fn current() -> Option<Fault> {
        PLANTED.get()
    }

    /// Is this fault planted?
    pub(crate) fn planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}

#[cfg(feature = "planted-faults")]
pub(crate) use selection::planted;
#[cfg(feature = "planted-faults")]
pub use selection::{Planted, current, plant};

/// Is this fault planted?
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}
