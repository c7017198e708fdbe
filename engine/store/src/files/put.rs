//! Taking the entries of a tar into a container.

use std::collections::BTreeMap;
use std::io::Read;

use tar::{Entry, EntryType};
use thinstore_filesystem::{FileContent, Metadata, Node, Timestamp, TreePath, TreeWriter};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::operations::Input;
use crate::types::CopyInRequest;

const XATTR_PREFIX: &str = "SCHILY.xattr.";

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Refused, format!("the archive to copy from is damaged: {error}"))
}

/// Puts every entry at `base`: of a folder what is in it, else the one entry itself. Nothing can leave
/// `base`.
pub(super) fn put_archive(
    writer: &mut dyn TreeWriter,
    base: &TreePath,
    request: &CopyInRequest,
    input: Input,
) -> Result<()> {
    let mut archive = tar::Archive::new(input);
    let mut put = 0_u64;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if request.item_is_directory {
            let path = TreePath::from_archive(&entry.path_bytes())?;
            if path.is_root() && request.contents_only {
                continue;
            }
            put_entry(writer, &below(base, &path), base, request, &mut entry)?;
        } else if put == 0 {
            put_entry(writer, base, base, request, &mut entry)?;
        } else {
            return Err(Error::new(
                ErrorKind::Refused,
                "the archive to copy from holds more than the one file",
            ));
        }
        put = put.saturating_add(1);
    }
    if put == 0 && !request.contents_only {
        return Err(Error::new(ErrorKind::Refused, "the archive to copy from is empty"));
    }
    writer.finish()
}

fn below(base: &TreePath, path: &TreePath) -> TreePath {
    path.components().fold(base.clone(), |joined, name| joined.join(name))
}

fn put_entry(
    writer: &mut dyn TreeWriter,
    path: &TreePath,
    base: &TreePath,
    request: &CopyInRequest,
    entry: &mut Entry<'_, Input>,
) -> Result<()> {
    let metadata = metadata_of(entry, request.keep_owners)?;
    let link = entry.link_name_bytes().map(|name| name.into_owned());
    let missing_link =
        || Error::new(ErrorKind::Refused, format!("the entry '{path}' has no target"));
    let device = |entry: &Entry<'_, Input>| -> Result<(u32, u32)> {
        let number =
            |result: std::io::Result<Option<u32>>| Ok(result.map_err(broken)?.unwrap_or(0));
        Ok((number(entry.header().device_major())?, number(entry.header().device_minor())?))
    };
    let node = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let size_bytes = entry.size();
            let mut content = EntryContent { entry, offset_bytes: 0, size_bytes };
            return writer.put(path, &Node::File { size_bytes }, &metadata, Some(&mut content));
        }
        EntryType::Link => {
            let target = TreePath::from_archive(&link.ok_or_else(missing_link)?)?;
            return writer.hard_link(path, &below(base, &target));
        }
        EntryType::Directory => Node::Directory,
        EntryType::Symlink => Node::Symlink { target: link.ok_or_else(missing_link)? },
        EntryType::Fifo => Node::Fifo,
        EntryType::Char => {
            let (major, minor) = device(entry)?;
            Node::CharacterDevice { major, minor }
        }
        EntryType::Block => {
            let (major, minor) = device(entry)?;
            Node::BlockDevice { major, minor }
        }
        // global headers and the like carry nothing to put
        _ => return Ok(()),
    };
    writer.put(path, &node, &metadata, None)
}

fn metadata_of(entry: &mut Entry<'_, Input>, keep_owners: bool) -> Result<Metadata> {
    let header = entry.header();
    let owner = |id: std::io::Result<u64>| -> Result<u32> {
        u32::try_from(id.map_err(broken)?)
            .map_err(|_| Error::new(ErrorKind::Refused, "an owner is beyond 4294967295"))
    };
    let mut metadata = Metadata {
        mode: header.mode().map_err(broken)? & 0o7777,
        modified: Timestamp {
            seconds: i64::try_from(header.mtime().map_err(broken)?).unwrap_or(i64::MAX),
            nanoseconds: 0,
        },
        ..Metadata::default()
    };
    if keep_owners {
        metadata.uid = owner(header.uid())?;
        metadata.gid = owner(header.gid())?;
    }
    let Some(extensions) = entry.pax_extensions().map_err(broken)? else { return Ok(metadata) };
    let mut xattrs = BTreeMap::new();
    for extension in extensions {
        let extension = extension.map_err(broken)?;
        let Ok(key) = extension.key() else { continue };
        if key == "mtime"
            && let Some(time) = extension.value().ok().and_then(parse_time)
        {
            metadata.modified = time;
        } else if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            xattrs.insert(name.as_bytes().to_vec(), extension.value_bytes().to_vec());
        }
    }
    metadata.xattrs = xattrs;
    Ok(metadata)
}

/// `SECONDS[.FRACTION]`, also before 1970.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (_, 0) | (false, _) => Some(Timestamp { seconds, nanoseconds }),
        // -1.25 is 0.75 after -2
        (true, _) => Some(Timestamp {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        }),
    }
}

/// The bytes of an entry.
struct EntryContent<'a, 'b> {
    entry: &'a mut Entry<'b, Input>,
    offset_bytes: u64,
    size_bytes: u64,
}

impl FileContent for EntryContent<'_, '_> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let count = self.entry.read(buffer).map_err(broken)?;
        let offset_bytes = self.offset_bytes;
        if count == 0 {
            return match offset_bytes == self.size_bytes {
                true => Ok(None),
                false => Err(Error::new(
                    ErrorKind::Refused,
                    "the archive to copy from ends in the middle of a file",
                )),
            };
        }
        self.offset_bytes = offset_bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(Some((offset_bytes, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let time = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(parse_time("12"), time(12, 0));
        assert_eq!(parse_time("12.5"), time(12, 500_000_000));
        assert_eq!(parse_time("12.0000000019"), time(12, 1));
        assert_eq!(parse_time("-1.25"), time(-2, 750_000_000));
        assert_eq!(parse_time("x"), None);
    }
}
