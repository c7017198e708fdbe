//! Running containers: an OCI bundle (<https://github.com/opencontainers/runtime-spec>) from what an image
//! and a person ask for, and the program (crun or runc) that runs it. Nothing here knows of pools and
//! stores: a root file system is a folder.

#![forbid(unsafe_code)]

mod bundle;
mod image;
mod program;
mod user;

pub use bundle::{FileMount, ProcessOptions, write_bundle};
pub use image::ImageConfig;
pub use program::{Runtime, RuntimeState};
pub use user::{User, resolve_user};
