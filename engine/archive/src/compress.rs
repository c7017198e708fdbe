//! Compression of blobs: told by the first bytes, never by a name or a media type.

use std::io::{BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::region::{Region, RegionReader};

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
}

impl Compression {
    /// Tells the compression from the first bytes; forms that are known but not read are an error.
    pub(crate) fn detect(start: &[u8], name: &str) -> Result<Compression> {
        let unread = |form: &str| {
            Err(Error::new(
                ErrorKind::Incompatible,
                format!("{name} is compressed with {form}, which is not read; use gzip or zstd"),
            ))
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Ok(Compression::Zstd)
            }
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => unread("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unread("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => unread("lz4"),
            [0x5d, 0, 0, _, _, 0xff | 0, ..] => unread("lzma"),
            _ => Ok(Compression::None),
        }
    }

    /// Tells the compression of a region.
    pub(crate) fn of(region: &Region) -> Result<Compression> {
        Compression::detect(&start_of(&mut region.reader()?, 6)?, region.name())
    }

    /// The name of the form.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// A reader of the uncompressed bytes of `source`.
    pub(crate) fn reader<'a>(
        self,
        source: impl BufRead + Send + 'a,
    ) -> std::io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Compression::None => Box::new(source),
            Compression::Gzip => Box::new(MultiGzDecoder::new(source)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        })
    }
}

/// The first bytes of a stream: `count`, or fewer if it ends before.
pub(crate) fn start_of(reader: &mut RegionReader, count: usize) -> Result<Vec<u8>> {
    let mut start = vec![0; count];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..)
        && !rest.is_empty()
    {
        match reader.read_some(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    start.truncate(filled);
    Ok(start)
}
