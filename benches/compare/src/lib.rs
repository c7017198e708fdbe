//! The comparison of drivers: what was measured (`results`), on what (`environment`), with what (`measure`), what
//! may be concluded from it (`statistics`, `analysis`), and how it is shown (`report`). Nothing here knows a
//! driver: it is a name.
//!
//! ```text
//!  measure ──┐
//!            ├── results (JSON lines) ── analysis ── report: terminal, Markdown, page, SVG, PNG
//!  environment                              │
//!                                       statistics
//! ```

#![forbid(unsafe_code)]

pub mod analysis;
pub mod environment;
mod error;
pub mod measure;
mod mounts;
mod number;
pub mod random;
pub mod report;
pub mod results;
pub mod statistics;
pub mod time;

pub use error::{Error, Result};
