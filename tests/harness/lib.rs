//! The harness of the whole-program tests: it runs the built `thinstore` as a person would, in a
//! store of its own that is taken down whatever happens, and judges what it did by means that are
//! not the program's own.
//!
//! The program must be built before the tests run (`cargo build -p thinstore`, as `tools/test` does);
//! `THINSTORE_BINARY` names another one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness reports by panicking: that is how a test fails"
)]

pub mod attack;
pub mod command;
pub mod conformance;
pub mod drivers;
pub mod host;
pub mod images;
pub mod layout;
pub mod pool_file;
pub mod program;
pub mod store;
pub mod tar;
pub mod tree;

pub use command::{Outcome, run_tool};
pub use layout::{Layout, LayoutImage};
pub use program::Identity;
pub use store::TempStore;
pub use tar::TarWriter;
pub use tree::Tree;
