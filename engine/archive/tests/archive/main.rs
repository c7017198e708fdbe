//! The archive room as its users see it: archives made by hand, by the code itself and by the real tools.

#![allow(clippy::as_conversions, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod formats;
mod hostile;
mod random;
mod raw;
mod sources;
mod tools;
mod tree;
mod whiteouts;
mod writing;

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;
use thinstore_archive::{Layer, LayerStats, Limits, apply_layer};
use thinstore_storage::{Error, ErrorKind, Result};
use tree::MemoryTree;

/// Bytes in a file of their own.
fn file_of(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Applies a tar to a tree.
fn apply(bytes: &[u8], tree: &mut MemoryTree) -> Result<LayerStats> {
    apply_with(bytes, tree, &Limits::default())
}

fn apply_with(bytes: &[u8], tree: &mut MemoryTree, limits: &Limits) -> Result<LayerStats> {
    let file = file_of(bytes);
    apply_file(file.path(), tree, limits)
}

fn apply_file(path: &Path, tree: &mut MemoryTree, limits: &Limits) -> Result<LayerStats> {
    let layer = Layer::from_tar_file(path, limits)?;
    apply_layer(&mut layer.open(None)?, tree)
}

/// The tree of one tar.
fn tree_of(bytes: &[u8]) -> MemoryTree {
    let mut tree = MemoryTree::new();
    apply(bytes, &mut tree).unwrap();
    tree
}

/// What is said when a tar is refused; fails if it is not.
fn refusal(bytes: &[u8]) -> String {
    refused(apply(bytes, &mut MemoryTree::new()))
}

fn refused<T>(outcome: Result<T>) -> String {
    match outcome {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => refused_error(error),
    }
}

fn refused_error(error: Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    error.to_string()
}
