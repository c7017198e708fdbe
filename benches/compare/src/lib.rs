//! The comparison of drivers: what is done (`workload`), in which order (`plan`), how (`run`), what came of it
//! (`results`), on what (`environment`), counted how (`measure`), what may be concluded (`statistics`, `analysis`),
//! and how it is shown (`report`). Nothing here knows a driver: it is a name, and something that does what
//! [`run::Subject`] asks for.
//!
//! ```text
//!  workload ── plan ── run ── results (JSON lines) ── analysis ── report: terminal, Markdown, page, SVG, PNG
//!                       │        │                       │
//!                    measure  environment            statistics
//! ```

#![forbid(unsafe_code)]

pub mod analysis;
pub mod environment;
mod error;
pub mod measure;
mod mounts;
mod number;
pub mod plan;
pub mod random;
pub mod report;
pub mod results;
pub mod run;
pub mod statistics;
pub mod time;
pub mod workload;

pub use error::{Error, Result};
