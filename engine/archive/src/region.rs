//! Where bytes of an archive lie on the host: a file or a range of one, read by position, so that many
//! readers share one descriptor and nothing is unpacked to be read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result};

use crate::{refuse, to_u64};

/// How much is read or decompressed at a time.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Clone, Debug)]
enum Place {
    /// A range of an open file.
    Open(Arc<File>),
    /// A file that is opened when it is read: an image may have more blobs than a process may have
    /// descriptors.
    Path(PathBuf),
}

/// A range of bytes on the host, with the name it has in messages.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    place: Place,
    offset_bytes: u64,
    length_bytes: u64,
    name: String,
}

impl Region {
    /// All of an open regular file.
    pub(crate) fn whole(file: File, name: String) -> Result<Region> {
        let metadata = file
            .metadata()
            .map_err(|error| Error::io(format!("the size of {name} cannot be read"), error))?;
        let place = Place::Open(Arc::new(file));
        Ok(Region { place, offset_bytes: 0, length_bytes: metadata.len(), name })
    }

    /// All of the regular file at `path`, opened when it is read.
    pub(crate) fn at_path(path: &Path, name: String) -> Result<Region> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| Error::io(format!("{name} cannot be read"), error))?;
        if !metadata.is_file() {
            return Err(refuse(format!("{name} is not a regular file")));
        }
        let place = Place::Path(path.to_owned());
        Ok(Region { place, offset_bytes: 0, length_bytes: metadata.len(), name })
    }

    /// A part of this region; refused if it is not inside.
    pub(crate) fn part(&self, offset: u64, length_bytes: u64, name: String) -> Result<Region> {
        let inside = offset.checked_add(length_bytes).is_some_and(|end| end <= self.length_bytes);
        if !inside {
            return Err(refuse(format!("{name} reaches beyond the end of {}", self.name)));
        }
        let offset_bytes = self.offset_bytes + offset;
        Ok(Region { place: self.place.clone(), offset_bytes, length_bytes, name })
    }

    pub(crate) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub(crate) fn renamed(mut self, name: String) -> Region {
        self.name = name;
        self
    }

    /// A reader from the start of the region.
    pub(crate) fn reader(&self) -> Result<RegionReader> {
        let file = match &self.place {
            Place::Open(file) => Arc::clone(file),
            Place::Path(path) => Arc::new(
                File::open(path)
                    .map_err(|error| Error::io(format!("{} cannot be opened", self.name), error))?,
            ),
        };
        Ok(RegionReader { file, region: self.clone(), position: 0 })
    }

    /// Everything, if it is no longer than `limit_bytes`.
    pub(crate) fn read_all(&self, limit_bytes: u64) -> Result<Vec<u8>> {
        if self.length_bytes > limit_bytes {
            return Err(refuse(format!(
                "{} has {} bytes, more than the {limit_bytes} that such a document may have",
                self.name, self.length_bytes
            )));
        }
        let mut bytes = Vec::new();
        let mut reader = self.reader()?;
        let mut chunk = vec![0; CHUNK_BYTES.min(to_usize_or_max(self.length_bytes).max(1))];
        loop {
            let count = reader.read_some(&mut chunk)?;
            if count == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }
}

fn to_usize_or_max(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Reads a [`Region`] from front to back; can skip.
#[derive(Debug)]
pub(crate) struct RegionReader {
    file: Arc<File>,
    region: Region,
    position: u64,
}

impl RegionReader {
    /// Fills some of `buffer`; zero at the end of the region. A file that has become shorter than it
    /// was is an error, not an end.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = to_usize_or_max(self.region.length_bytes - self.position);
        let want = left.min(buffer.len());
        let Some(target) = buffer.get_mut(..want) else {
            return Ok(0);
        };
        if target.is_empty() {
            return Ok(0);
        }
        let place = self.region.offset_bytes + self.position;
        loop {
            match self.file.read_at(target, place) {
                Ok(0) => {
                    return Err(Error::new(
                        ErrorKind::Io,
                        format!("{} became shorter while it was read", self.region.name),
                    ));
                }
                Ok(count) => {
                    self.position += to_u64(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io(format!("{} cannot be read", self.region.name), error));
                }
            }
        }
    }

    /// Passes over up to `count` bytes, without reading them; how many there were.
    pub(crate) fn skip(&mut self, count: u64) -> u64 {
        let skipped = count.min(self.region.length_bytes - self.position);
        self.position += skipped;
        skipped
    }
}

impl Read for RegionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::from)
    }
}

/// Turns an `io::Error` back into the engine's error where it was one, and else makes one of it.
pub(crate) fn from_io(error: io::Error, otherwise: impl FnOnce(io::Error) -> Error) -> Error {
    if !error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return otherwise(error);
    }
    let kind = error.kind();
    match error.into_inner().map(|inner| inner.downcast::<Error>()) {
        Some(Ok(ours)) => *ours,
        Some(Err(other)) => otherwise(io::Error::new(kind, other)),
        None => otherwise(io::Error::from(kind)),
    }
}

/// A temporary file in `directory` that has no name: it is gone when the last descriptor closes,
/// however the process ends.
pub(crate) fn unnamed_file(directory: &Path) -> Result<File> {
    tempfile::tempfile_in(directory).map_err(|error| {
        Error::io(format!("no temporary file can be made in '{}'", directory.display()), error)
    })
}

/// Copies all of `source` into an unnamed temporary file, for what must be read by position.
pub(crate) fn spool(
    mut source: impl Read,
    directory: &Path,
    name: &str,
    limit_bytes: u64,
    mut progress: impl FnMut(u64),
) -> Result<Region> {
    let mut file = unnamed_file(directory)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total: u64 = 0;
    loop {
        let count = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(from_io(error, |error| {
                    Error::io(format!("{name} cannot be read"), error)
                }));
            }
        };
        total += to_u64(count);
        if total > limit_bytes {
            return Err(refuse(format!(
                "{name} has more than {limit_bytes} bytes, which is the limit for an image"
            )));
        }
        file.write_all(chunk.get(..count).unwrap_or_default()).map_err(|error| {
            let place = directory.display();
            Error::io(format!("{name} cannot be kept in a temporary file in '{place}'"), error)
        })?;
        progress(total);
    }
    Region::whole(file, name.to_owned())
}
