//! What a block device was asked, and when: recorded, kept in a file, and turned into what other programs read.
//!
//! A [`recorder()`] takes notes without ever making a request wait. A [`TraceWriter`] writes them in the format of
//! docs/format.md, which [`Trace::parse`] reads. [`blktrace`], [`iolog`] and [`csv`] are the forms of others;
//! [`Trace::folded`] takes out the space that nothing touched, so that a trace of a large device can be replayed
//! on a small file.

#![forbid(unsafe_code)]

mod any;
pub mod blktrace;
pub mod csv;
mod fold;
mod format;
pub mod iolog;
mod recorder;
mod request;
mod summary;
mod varint;

pub use fold::FOLD_UNIT_BYTES;
pub use format::{Header, Trace, TraceWriter};
pub use recorder::{Recorder, Recording, recorder};
pub use request::{Operation, Request};
pub use summary::{OperationSummary, Summary};
