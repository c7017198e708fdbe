//! Archives: what a tar or an image says, brought into a file system.

pub(crate) mod oci;
pub(crate) mod tar;
pub(crate) mod tar_builder;
mod tree;

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;

use thinstore_storage::{Error, ErrorKind};

/// How an archive is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Plain,
    Gzip,
    Zstd,
}

pub(crate) fn stored(bytes: Vec<u8>, how: Stored) -> Vec<u8> {
    match how {
        Stored::Plain => bytes,
        Stored::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        }
        Stored::Zstd => zstd::stream::encode_all(&bytes[..], 1).unwrap(),
    }
}

/// Shows bytes to something that takes a path. The file is this thread's, and has no name anywhere.
fn with_file<T>(bytes: &[u8], use_it: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FILE: RefCell<Option<std::fs::File>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            rustix::fs::memfd_create("fuzzed", flags).expect("a file in memory").into()
        });
        file.set_len(0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file, bytes, 0).unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(file);
        use_it(Path::new(&format!("/proc/self/fd/{descriptor}")))
    })
}

/// Asserts that an error is one of those that an archive may come to.
fn is_refusal(error: &Error) {
    let kind = error.kind();
    let good = matches!(
        kind,
        ErrorKind::Refused
            | ErrorKind::Incompatible
            | ErrorKind::Usage
            | ErrorKind::NotFound
            | ErrorKind::Full
    );
    assert!(good, "{kind:?}: {error}");
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "a terminal would obey: {text:?}");
}
