//! The members of a tar stream: headers with their extensions applied, and the content behind them.
//!
//! Invariant: `position` is the offset in the uncompressed stream; after a member has been given out,
//! `content_left + padding` bytes stand between the position and the next header.

use std::collections::BTreeMap;

use thinstore_filesystem::Timestamp;
use thinstore_storage::Result;

use super::extensions::{Before, Extensions, PaxSparse};
use super::header::{Block, Header, Piece, ZERO_BLOCK, more_gnu_pieces};
use super::sparse::{self, MapReader};
use crate::limits::Budget;
use crate::{printable, refuse, to_u64};

/// Uncompressed bytes of an archive, from front to back.
pub(crate) trait TarStream: Send {
    /// Fills some of `buffer`; zero at the end.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Passes over `count` bytes; how many there were.
    fn skip(&mut self, count: u64) -> Result<u64>;
}

impl TarStream for crate::region::RegionReader {
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        crate::region::RegionReader::read_some(self, buffer)
    }

    fn skip(&mut self, count: u64) -> Result<u64> {
        Ok(crate::region::RegionReader::skip(self, count))
    }
}

impl<T: TarStream + ?Sized> TarStream for Box<T> {
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        (**self).read_some(buffer)
    }

    fn skip(&mut self, count: u64) -> Result<u64> {
        (**self).skip(count)
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member of an archive, its extensions applied.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) kind: Kind,
    /// As it stands in the archive: not yet a safe path.
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Timestamp,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The file's length, holes counted.
    pub(crate) size_bytes: u64,
    /// Where the stored bytes belong in the file, in the order in which they stand.
    pub(crate) pieces: Vec<Piece>,
    /// Where the content starts in the stream.
    pub(crate) content_at: u64,
    /// How many bytes of content the stream holds.
    pub(crate) stored_bytes: u64,
}

/// Reads members one after another.
pub(crate) struct Members<S> {
    stream: S,
    budget: Budget,
    position: u64,
    content_left: u64,
    padding: u64,
    /// The name of the entry whose content stands at the position.
    content_of: Vec<u8>,
    defaults: Extensions,
    /// May the archive end without its closing blocks? Where a digest proves that nothing is missing.
    lenient_end: bool,
    ended: bool,
}

impl<S: TarStream> Members<S> {
    /// Reads `stream`. `lenient_end` accepts an archive that lacks the closing blocks of zeroes.
    pub(crate) fn new(stream: S, budget: Budget, lenient_end: bool) -> Members<S> {
        Members {
            stream,
            budget,
            position: 0,
            content_left: 0,
            padding: 0,
            content_of: Vec::new(),
            defaults: Extensions::default(),
            lenient_end,
            ended: false,
        }
    }

    /// The next member; none at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut before = Before::default();
        loop {
            let Some(header) = self.next_header(before.any)? else {
                return Ok(None);
            };
            self.budget.take_entry()?;
            let entry = format!("the entry '{}'", printable(&header.name()));
            match header.kind() {
                b'x' | b'X' => {
                    let mut records = self.extension(&header, &entry)?;
                    // Some writers pad with NULs; a record itself ends with a newline.
                    while records.last() == Some(&0) {
                        records.pop();
                    }
                    before.any = true;
                    before.records.append(&mut records);
                    if to_u64(before.records.len()) > self.budget.limits.max_extension_bytes {
                        return Err(self.extension_refusal(&entry));
                    }
                }
                b'g' => {
                    let records = self.extension(&header, &entry)?;
                    self.defaults.apply_global(&records, &self.budget.limits)?;
                }
                b'L' => {
                    before.any = true;
                    before.name = Some(self.long_name(&header, &entry)?);
                }
                b'K' => {
                    before.any = true;
                    before.link = Some(self.long_name(&header, &entry)?);
                }
                // A volume label: no content, and about the tape.
                b'V' => {}
                _ => {
                    let limits = &self.budget.limits;
                    let extensions = self.defaults.with(before, limits, &entry)?;
                    return self.member(&header, extensions).map(Some);
                }
            }
        }
    }

    /// Fills some of `buffer` from the current member's stored bytes; zero at their end.
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(target) = buffer.get_mut(..want) else {
            return Ok(0);
        };
        if target.is_empty() {
            return Ok(0);
        }
        let count = self.stream.read_some(target)?;
        if count == 0 {
            return Err(self.truncated_content());
        }
        self.advance(to_u64(count))?;
        self.content_left -= to_u64(count);
        Ok(count)
    }

    /// Reads what follows the end of the archive to the end of the stream, so that digests cover it.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.pass_content()?;
        loop {
            let count = self.stream.skip(1 << 30)?;
            if count == 0 {
                return Ok(());
            }
            self.advance(count)?;
        }
    }

    /// Entries and uncompressed bytes so far.
    pub(crate) fn used(&self) -> (u64, u64) {
        self.budget.used()
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn advance(&mut self, count: u64) -> Result<()> {
        self.position += count;
        self.budget.take_bytes(count)
    }

    fn truncated(&self, place: &str) -> thinstore_storage::Error {
        refuse(format!("the archive is truncated: it ends {place}, after {} bytes", self.position))
    }

    fn truncated_content(&self) -> thinstore_storage::Error {
        let name = printable(&self.content_of);
        self.truncated(&format!("inside the content of the entry '{name}'"))
    }

    fn pass_content(&mut self) -> Result<()> {
        let count = self.content_left + self.padding;
        let skipped = if count > 0 { self.stream.skip(count)? } else { 0 };
        self.advance(skipped)?;
        if skipped < count {
            return Err(self.truncated_content());
        }
        self.content_left = 0;
        self.padding = 0;
        Ok(())
    }

    /// A whole block; none at the end of the stream.
    fn block(&mut self) -> Result<Option<Block>> {
        let mut block = ZERO_BLOCK;
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..)
            && !rest.is_empty()
        {
            let count = self.stream.read_some(rest)?;
            if count == 0 {
                break;
            }
            self.advance(to_u64(count))?;
            filled += count;
        }
        match filled {
            0 => Ok(None),
            _ if filled == block.len() => Ok(Some(block)),
            _ => Err(self.truncated("inside a header")),
        }
    }

    fn next_header(&mut self, extended: bool) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        self.pass_content()?;
        let place = self.position;
        let block = self.block()?;
        if let Some(block) = block
            && block != ZERO_BLOCK
        {
            return Header::verified(block, place).map(Some);
        }
        if extended {
            return Err(self.truncated("behind an extended header that lacks its entry"));
        }
        if block.is_none() && !self.lenient_end {
            return Err(self.truncated("without the blocks that close an archive"));
        }
        if block.is_some() && self.block()?.is_some_and(|second| second != ZERO_BLOCK) {
            return Err(refuse(format!(
                "the archive is damaged: at byte {place} a single block of zeroes stands between entries"
            )));
        }
        self.ended = true;
        Ok(None)
    }

    /// The content of an extension header, within its limit.
    fn extension(&mut self, header: &Header, entry: &str) -> Result<Vec<u8>> {
        let limit = self.budget.limits.max_extension_bytes;
        let size = header.size().and_then(|size| u64::try_from(size).ok());
        let Some(size) = size.filter(|size| *size <= limit) else {
            return Err(self.extension_refusal(entry));
        };
        self.set_content(size, &header.name());
        // Grown as it is read: a declared size alone reserves nothing.
        let mut raw = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = self.read_content(&mut chunk)?;
            if count == 0 {
                return Ok(raw);
            }
            raw.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    fn extension_refusal(&self, entry: &str) -> thinstore_storage::Error {
        let limit = self.budget.limits.max_extension_bytes;
        refuse(format!(
            "{entry} has extended headers of a bad size; at most {limit} bytes are allowed"
        ))
    }

    fn set_content(&mut self, size: u64, name: &[u8]) {
        self.content_of.clear();
        self.content_of.extend_from_slice(name);
        self.content_left = size;
        self.padding = size.next_multiple_of(512) - size;
    }

    /// A GNU long name: text up to a NUL.
    fn long_name(&mut self, header: &Header, entry: &str) -> Result<Vec<u8>> {
        let mut name = self.extension(header, entry)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// Puts a header and what was said before it together, and stands before its content.
    fn member(&mut self, header: &Header, mut extensions: Extensions) -> Result<Member> {
        let plain_name = extensions.name.take().unwrap_or_else(|| header.name());
        let name = extensions.sparse.name.take().unwrap_or(plain_name);
        let limit = self.budget.limits.max_path_bytes;
        if name.len() > limit {
            let start = printable(name.get(..64).unwrap_or_default());
            return Err(refuse(format!(
                "the entry '{start}...' has a path of {} bytes; at most {limit} are allowed",
                name.len()
            )));
        }
        let entry = format!("the entry '{}'", printable(&name));
        let kind = kind_of(header.kind(), &name, &entry)?;
        let fields = Fields { header, extensions: &extensions, entry: &entry };
        let mut member = Member {
            kind,
            mode: fields.mode()?,
            uid: fields.id("owner", extensions.uid, Header::uid)?,
            gid: fields.id("group", extensions.gid, Header::gid)?,
            modified: fields.modified()?,
            device: fields.device(kind)?,
            link: extensions.link.take().unwrap_or_else(|| header.link()),
            xattrs: std::mem::take(&mut extensions.xattrs),
            size_bytes: 0,
            pieces: Vec::new(),
            content_at: 0,
            stored_bytes: 0,
            name,
        };
        // Whatever the size field of the other kinds says, no content follows them.
        let declared = declared_size(header, &extensions, &entry, self.budget.bytes_left())?;
        let stored = if kind == Kind::File { declared } else { 0 };
        self.set_content(stored, &member.name);
        member.size_bytes = stored;
        if header.kind() == b'S' {
            self.gnu_sparse(header, &mut member, &entry)?;
        } else if kind == Kind::File {
            self.pax_sparse(extensions.sparse, &mut member, &entry)?;
        }
        if member.size_bytes > self.budget.limits.max_file_bytes {
            return Err(refuse(format!(
                "{entry} declares {} bytes, more than the {} that a file may have",
                member.size_bytes, self.budget.limits.max_file_bytes
            )));
        }
        if name_is_folder(&member.name) && kind == Kind::File {
            return Err(refuse(format!("{entry} is a file with the name of a folder")));
        }
        member.content_at = self.position;
        member.stored_bytes = self.content_left;
        Ok(member)
    }

    /// Blocks of further pieces stand between the header and the content.
    fn gnu_sparse(&mut self, header: &Header, member: &mut Member, entry: &str) -> Result<()> {
        let bad = || refuse(format!("the sparse file of {entry} has a malformed header"));
        let (size, mut pieces, mut more) = header.gnu_sparse().ok_or_else(bad)?;
        let size = u64::try_from(size).map_err(|_| bad())?;
        while more {
            let Some(block) = self.block()? else {
                return Err(self.truncated(&format!("inside the sparse map of {entry}")));
            };
            let (further, next) = more_gnu_pieces(&block).ok_or_else(bad)?;
            for piece in further {
                sparse::push(&mut pieces, piece, self.budget.limits.max_sparse_pieces, entry)?;
            }
            more = next;
        }
        member.pieces = sparse::checked(pieces, size, member.size_bytes, entry)?;
        member.size_bytes = size;
        Ok(())
    }

    fn pax_sparse(&mut self, said: PaxSparse, member: &mut Member, entry: &str) -> Result<()> {
        let mut stored = member.size_bytes;
        let pieces = match (said.major, said.minor, said.pieces) {
            (Some(1), Some(0) | None, None) => {
                let pieces = self.map_before_content(entry)?;
                stored = self.content_left;
                pieces
            }
            (None | Some(0), _, Some(pieces)) => pieces,
            (None, None, None) if said.size.is_none() => {
                member.pieces = if stored > 0 { vec![(0, stored)] } else { Vec::new() };
                return Ok(());
            }
            (None | Some(0), _, None) if said.size.is_some() => Vec::new(),
            _ => {
                return Err(refuse(format!(
                    "the sparse file of {entry} is of a form that is not known"
                )));
            }
        };
        let Some(size) = said.size else {
            return Err(refuse(format!("the sparse file of {entry} does not say its length")));
        };
        member.pieces = sparse::checked(pieces, size, stored, entry)?;
        member.size_bytes = size;
        Ok(())
    }

    /// The map of a PAX 1.0 sparse file, which is part of the stored content.
    fn map_before_content(&mut self, entry: &str) -> Result<Vec<Piece>> {
        let mut reader = MapReader::default();
        loop {
            let mut block = ZERO_BLOCK;
            let mut filled = 0;
            while let Some(rest) = block.get_mut(filled..)
                && !rest.is_empty()
            {
                let count = self.read_content(rest)?;
                if count == 0 {
                    return Err(refuse(format!("the sparse file of {entry} ends inside its map")));
                }
                filled += count;
            }
            if reader.feed(&block, self.budget.limits.max_sparse_pieces, entry)? {
                return Ok(reader.into_pieces());
            }
        }
    }
}

fn name_is_folder(name: &[u8]) -> bool {
    name.last() == Some(&b'/')
}

/// What the type flag says. Old writers mark folders by a slash at the end alone.
fn kind_of(flag: u8, name: &[u8], entry: &str) -> Result<Kind> {
    Ok(match flag {
        0 | b'0' if name_is_folder(name) => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharacterDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => {
            let flag = printable(&[flag]);
            return Err(refuse(format!("{entry} is of the type '{flag}', which is not known")));
        }
    })
}

/// The length in the header, or the record that stands in for it: not negative, and no more than may
/// still come.
fn declared_size(
    header: &Header,
    extensions: &Extensions,
    entry: &str,
    bytes_left: u64,
) -> Result<u64> {
    let size = extensions.size.map(i128::from).or_else(|| header.size());
    match size.map(u64::try_from) {
        Some(Ok(size)) if size <= bytes_left => Ok(size),
        Some(Ok(size)) => Err(refuse(format!(
            "{entry} declares {size} bytes, more than the limit for an image leaves"
        ))),
        Some(Err(_)) => Err(refuse(format!("{entry} declares an impossible size"))),
        None => Err(refuse(format!("{entry} has a size that is not a number"))),
    }
}

/// The fields of one entry, from its extensions or its header.
struct Fields<'a> {
    header: &'a Header,
    extensions: &'a Extensions,
    entry: &'a str,
}

impl Fields<'_> {
    fn bad(&self, what: &str) -> thinstore_storage::Error {
        refuse(format!("{} has {what} that is out of range or not a number", self.entry))
    }

    fn mode(&self) -> Result<u32> {
        let mode = self.header.mode().filter(|mode| *mode >= 0);
        mode.and_then(|mode| u32::try_from(mode & 0o7777).ok()).ok_or_else(|| self.bad("a mode"))
    }

    /// The id 4,294,967,295 means "no change" to chown(2) and is nobody's.
    fn id(
        &self,
        what: &str,
        extended: Option<i64>,
        field: impl Fn(&Header) -> Option<i128>,
    ) -> Result<u32> {
        let id = extended.map(i128::from).or_else(|| field(self.header));
        id.and_then(|id| u32::try_from(id).ok())
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| self.bad(&format!("an {what} id").replace("an group", "a group")))
    }

    fn modified(&self) -> Result<Timestamp> {
        if let Some(modified) = self.extensions.modified {
            return Ok(modified);
        }
        let seconds = self.header.modified().and_then(|seconds| i64::try_from(seconds).ok());
        let seconds = seconds.ok_or_else(|| self.bad("a time"))?;
        Ok(Timestamp { seconds, nanoseconds: 0 })
    }

    fn device(&self, kind: Kind) -> Result<(u32, u32)> {
        if !matches!(kind, Kind::CharacterDevice | Kind::BlockDevice) {
            return Ok((0, 0));
        }
        let field = self.header.device();
        let major = self.extensions.major.map(i128::from).or(field.map(|device| device.0));
        let minor = self.extensions.minor.map(i128::from).or(field.map(|device| device.1));
        let in_range = |value: Option<i128>, limit: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value <= limit)
        };
        match (in_range(major, 4095), in_range(minor, 1_048_575)) {
            (Some(major), Some(minor)) => Ok((major, minor)),
            _ => Err(self.bad("a device number")),
        }
    }
}
