//! Copying a sparse file: what nothing was ever written to takes no place in the copy either.

use std::io;
use std::ops::Range;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::{FileOptions, FileStorage};
use crate::aligned::AlignedBuffer;
use crate::{Error, Result, Storage};

const PIECE_BYTES: usize = 1 << 20;

impl FileStorage {
    /// Copies everything to a new file at `path`, which is durable on return, and opens that. A copy that
    /// could not be completed is removed.
    ///
    /// # Errors
    ///
    /// As [`FileOptions::create_new`], and `Io`.
    pub fn copy_to(&self, path: impl AsRef<Path>) -> Result<FileStorage> {
        let path = path.as_ref();
        let size_bytes = self.size_bytes().next_multiple_of(4096);
        let copy = FileOptions::new().direct(self.direct).create_new(path, size_bytes)?;
        let copied = self.copy_data(&copy).and_then(|()| copy.sync());
        match copied {
            Ok(()) => Ok(copy),
            Err(error) => {
                // The first error is the one to tell.
                let _ = std::fs::remove_file(path);
                let what = format!("cannot copy {} to {}", self.path.display(), path.display());
                Err(Error::io(what, error))
            }
        }
    }

    fn copy_data(&self, copy: &FileStorage) -> io::Result<()> {
        let mut buffer = AlignedBuffer::new(PIECE_BYTES);
        let mut at = 0;
        while let Some(data) = self.next_data(at)? {
            at = data.start;
            while at < data.end {
                let piece = usize::try_from(data.end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let Some(bytes) = buffer.get_mut(..piece) else { break };
                self.read_at(at, bytes)?;
                copy.write_at(at, bytes)?;
                at += u64::try_from(piece).unwrap_or(u64::MAX);
            }
        }
        Ok(())
    }

    /// The first bytes at or after `from` that were written, and perhaps some around them (lseek(2),
    /// SEEK_DATA). A block device has no holes.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size_bytes = self.size_bytes();
        if from >= size_bytes {
            return Ok(None);
        }
        let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let position = |bytes: u64| i64::try_from(bytes).map_err(out_of_range);
        let found = |bytes: i64| u64::try_from(bytes).map_err(out_of_range);
        let start = match lseek(&self.file, position(from)?, Whence::SeekData) {
            Ok(start) => found(start)?,
            Err(Errno::ENXIO) => return Ok(None),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some(from..size_bytes)),
            Err(errno) => return Err(errno.into()),
        };
        let end = found(lseek(&self.file, position(start)?, Whence::SeekHole)?)?;
        Ok(Some(start.max(from)..end.min(size_bytes)).filter(|data| !data.is_empty()))
    }
}
