//! What a [`FileStorage`] does on real files, real locks and a real loop device.

mod creating;
mod devices;
mod opening;
mod owning;
mod space;
mod transferring;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{FileOptions, FileStorage};
use crate::simulated::Random;
use crate::{AlignedBuffer, Error, ErrorKind, Storage};

const MIB: u64 = 1 << 20;

fn new_file(size_bytes: u64, options: FileOptions) -> (TempDir, FileStorage) {
    let folder = tempfile::tempdir().unwrap();
    let storage = options.create_new(folder.path().join("pool"), size_bytes).unwrap();
    (folder, storage)
}

fn buffered() -> FileOptions {
    FileOptions::new().direct(false)
}

fn reading() -> FileOptions {
    FileOptions::new().read_only(true)
}

fn read(storage: &FileStorage, offset_bytes: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0xee; length];
    storage.read_at(offset_bytes, &mut buffer).unwrap();
    buffer
}

/// Runs a program to its end and gives its output; a failure ends the test.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("this test needs the program {program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed: {complaint}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn assert_refused(result: crate::Result<FileStorage>, kind: ErrorKind, words: &[&str]) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is missing in: {error}");
    }
}
