//! A file in memory that can never change again, seen as a slice.
//!
//! The one `unsafe` of this crate stands here: a map of a file is a slice only as long as nobody shortens
//! or writes the file, and the kernel's seals see to that (memfd_create(2), fcntl(2) F_ADD_SEALS).

#![allow(unsafe_code)]

use std::fs::File;

use memmap2::Mmap;
use rustix::fs::{SealFlags, fcntl_add_seals};
use thinstore_storage::{Error, Result};

/// Seals a file that was made with `MFD_ALLOW_SEALING`, and maps it for reading.
///
/// Errors: `Io` if the file cannot be sealed, such as when somebody has it mapped for writing.
pub(crate) fn seal_and_map(file: &File) -> Result<Mmap> {
    let failed = |error: std::io::Error| Error::io("cannot read a file in memory", error);
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)
        .map_err(|errno| failed(errno.into()))?;
    // SAFETY: the seals, which nobody can take off again, keep the file from being written or shortened
    // by anyone, this process included, so what the map shows never changes and never ends early.
    unsafe { Mmap::map(file) }.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::MemfdFlags;

    use super::*;

    #[test]
    fn a_mapped_file_can_neither_be_written_nor_shortened() {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(fd);
        file.write_all(b"contents").unwrap();
        let map = seal_and_map(&file).unwrap();
        assert_eq!(&map[..], b"contents");
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(1).is_err());
        assert_eq!(&map[..], b"contents");
    }
}
