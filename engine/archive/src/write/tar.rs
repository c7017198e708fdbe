//! A tar that comes out the same for the same tree: POSIX ustar headers, and PAX records for what does
//! not fit them, sorted by key.

use std::collections::BTreeMap;
use std::io::Write;

use thinstore_filesystem::{FileContent, Metadata, Node, Timestamp, TreePath};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::layer::reader::{OPAQUE_MARKER, WHITEOUT_PREFIX};
use crate::region::{CHUNK_BYTES, from_io};
use crate::tar::header::{BLOCK_BYTES, Fields, Piece, ZERO_BLOCK};
use crate::tar::number::format_time;
use crate::tar::{base64, pax, sparse};
use crate::{printable, to_u64};

/// What names that begin with `.wh.` mean where the tar goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhiteoutNames {
    /// A layer: such a name would delete something, so a file of that name is an error.
    Refused,
    /// A plain tar: names like any other.
    Plain,
}

/// Writes a tar, entry by entry. Given the same entries in the same order, the bytes are the same.
pub struct TarWriter<W: Write> {
    output: W,
    names: WhiteoutNames,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// A tar into `output`.
    pub fn new(output: W, names: WhiteoutNames) -> TarWriter<W> {
        TarWriter { output, names, buffer: vec![0; CHUNK_BYTES] }
    }

    /// Writes a node. Sockets have no place in a tar and are left out. Holes of a file are written as
    /// zeroes, which every reader understands.
    ///
    /// # Errors
    /// `Unsupported` for a name that would delete something where names of deletions are refused;
    /// `Corrupt` if the content is longer than the node says; `Io` if the output fails.
    pub fn node(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        self.check_name(path)?;
        let mut entry = Entry::new(path, metadata);
        match node {
            Node::Socket => return Ok(()),
            Node::Directory => {
                entry.kind = b'5';
                entry.name.push(b'/');
            }
            Node::File { size_bytes } => {
                entry.size = *size_bytes;
                self.header(&entry)?;
                return self.full_content(path, *size_bytes, content);
            }
            Node::Symlink { target } => {
                entry.kind = b'2';
                entry.link.clone_from(target);
            }
            Node::CharacterDevice { major, minor } => {
                entry.kind = b'3';
                entry.device = (u64::from(*major), u64::from(*minor));
            }
            Node::BlockDevice { major, minor } => {
                entry.kind = b'4';
                entry.device = (u64::from(*major), u64::from(*minor));
            }
            Node::Fifo => entry.kind = b'6',
        }
        self.header(&entry)
    }

    /// Writes a file as PAX 1.0 sparse: only its data, and a map of where it belongs. `pieces` are where
    /// the data is, ascending; `content` must give just these bytes.
    pub(crate) fn sparse_file(
        &mut self,
        path: &TreePath,
        size_bytes: u64,
        metadata: &Metadata,
        pieces: &[Piece],
        content: &mut dyn FileContent,
    ) -> Result<()> {
        self.check_name(path)?;
        let map = sparse::encode_map(pieces);
        let data: u64 = pieces.iter().map(|piece| piece.1).sum();
        let mut entry = Entry::new(path, metadata);
        entry.size = to_u64(map.len()) + data;
        let name = std::mem::replace(&mut entry.name, placeholder("GNUSparseFile.0", path));
        let records = [
            ("GNU.sparse.major", b"1".to_vec()),
            ("GNU.sparse.minor", b"0".to_vec()),
            ("GNU.sparse.name", name),
            ("GNU.sparse.realsize", size_bytes.to_string().into_bytes()),
        ];
        for (key, value) in records {
            entry.records.insert(key.as_bytes().to_vec(), value);
        }
        self.header(&entry)?;
        self.write(&map)?;
        self.pieces_content(path, pieces, content)?;
        self.pad(data)
    }

    /// Writes another name of a file that this tar has already.
    ///
    /// # Errors
    /// As for [`TarWriter::node`].
    pub fn hard_link(
        &mut self,
        path: &TreePath,
        target: &TreePath,
        metadata: &Metadata,
    ) -> Result<()> {
        self.check_name(path)?;
        // The file's metadata stands with its first name.
        let plain = Metadata { xattrs: BTreeMap::new(), ..metadata.clone() };
        let mut entry = Entry::new(path, &plain);
        entry.kind = b'1';
        entry.link = target.as_bytes().to_vec();
        self.header(&entry)
    }

    /// Writes that lower layers' `path` is gone.
    ///
    /// # Errors
    /// `Usage` for the root; `Io` if the output fails.
    pub fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        let Some(name) = path.name() else {
            return Err(Error::new(ErrorKind::Usage, "the root of a tree cannot be deleted"));
        };
        self.check_name(path)?;
        let marker = [WHITEOUT_PREFIX, name].concat();
        if marker.len() > 255 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the deletion of '{path}' cannot be written: its name is too long to be marked"
                ),
            ));
        }
        self.header(&Entry::new(&path.parent().join(&marker), &Metadata::default()))
    }

    /// Writes that all that lower layers have in the folder `path` is gone.
    ///
    /// # Errors
    /// `Io` if the output fails.
    pub fn opaque(&mut self, path: &TreePath) -> Result<()> {
        self.header(&Entry::new(&path.join(OPAQUE_MARKER), &Metadata::default()))
    }

    /// A file given as bytes, for the documents of an archive: mode 0644, root's, of 1970.
    pub(crate) fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.document_header(name, to_u64(bytes.len()))?;
        self.write(bytes)?;
        self.pad(to_u64(bytes.len()))
    }

    /// The header of a document whose content follows through [`TarWriter::raw`].
    pub(crate) fn document_header(&mut self, name: &str, size_bytes: u64) -> Result<()> {
        let path = TreePath::from_archive(name.as_bytes())?;
        let mut entry = Entry::new(&path, &Metadata { mode: 0o644, ..Metadata::default() });
        entry.size = size_bytes;
        self.header(&entry)
    }

    /// Bytes of a document's content.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)
    }

    /// Fills the last block of a content of `length_bytes`.
    pub(crate) fn pad(&mut self, length_bytes: u64) -> Result<()> {
        let padding = length_bytes.next_multiple_of(to_u64(BLOCK_BYTES)) - length_bytes;
        self.zeroes(padding)
    }

    /// Closes the archive and gives the output back.
    ///
    /// # Errors
    /// `Io` if the output fails.
    pub fn finish(mut self) -> Result<W> {
        self.write(&ZERO_BLOCK)?;
        self.write(&ZERO_BLOCK)?;
        self.output
            .flush()
            .map_err(|error| from_io(error, |error| Error::io("a tar cannot be written", error)))?;
        Ok(self.output)
    }

    fn check_name(&self, path: &TreePath) -> Result<()> {
        let marked = path.components().any(|name| name.starts_with(WHITEOUT_PREFIX));
        if self.names == WhiteoutNames::Plain || !marked {
            return Ok(());
        }
        let path = printable(path.to_string().as_bytes());
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "'{path}' cannot be put into an image layer: there a name that begins with '.wh.' marks \
                 a deletion; rename it"
            ),
        ))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output
            .write_all(bytes)
            .map_err(|error| from_io(error, |error| Error::io("a tar cannot be written", error)))
    }

    fn zeroes(&mut self, mut count: u64) -> Result<()> {
        const ZEROES: [u8; 4096] = [0; 4096];
        while count > 0 {
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROES.len());
            self.write(ZEROES.get(..step).unwrap_or_default())?;
            count -= to_u64(step);
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let (fields, records) = entry.split();
        if !records.is_empty() {
            let mut body = Vec::new();
            for (key, value) in &records {
                pax::push_record(&mut body, key, value);
            }
            let name = placeholder("PaxHeaders.0", &entry.path);
            let header = Fields {
                kind: b'x',
                name: &name,
                mode: 0o644,
                size: to_u64(body.len()),
                ..Fields::default()
            };
            self.write(&header.encode())?;
            self.write(&body)?;
            self.pad(to_u64(body.len()))?;
        }
        self.write(&fields.encode())
    }

    /// The content of a file with its holes as zeroes, exactly as long as its header says.
    fn full_content(
        &mut self,
        path: &TreePath,
        size_bytes: u64,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        let mut position = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(content) = content {
            while let Some((offset, count)) = content.next(&mut buffer)? {
                let end = offset.saturating_add(to_u64(count));
                let data = buffer.get(..count);
                let (Some(data), true) = (data, offset >= position && end <= size_bytes) else {
                    return Err(wrong_content(path));
                };
                self.zeroes(offset - position)?;
                self.write(data)?;
                position = end;
            }
        }
        self.buffer = buffer;
        self.zeroes(size_bytes - position)?;
        self.pad(size_bytes)
    }

    fn pieces_content(
        &mut self,
        path: &TreePath,
        pieces: &[Piece],
        content: &mut dyn FileContent,
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut expected = pieces.iter().copied().filter(|piece| piece.1 > 0);
        let mut current: Option<Piece> = expected.next();
        while let Some((mut offset, count)) = content.next(&mut buffer)? {
            let mut data = buffer.get(..count).unwrap_or_default();
            while !data.is_empty() {
                let Some((place, length)) = current.filter(|piece| piece.0 == offset) else {
                    return Err(wrong_content(path));
                };
                let step = data.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                let (part, rest) = data.split_at(step);
                self.write(part)?;
                data = rest;
                offset += to_u64(step);
                current = match length - to_u64(step) {
                    0 => expected.next(),
                    left => Some((place + to_u64(step), left)),
                };
            }
        }
        self.buffer = buffer;
        if current.is_some() {
            return Err(wrong_content(path));
        }
        Ok(())
    }
}

fn wrong_content(path: &TreePath) -> Error {
    let path = printable(path.to_string().as_bytes());
    Error::new(
        ErrorKind::Corrupt,
        format!("the content of '{path}' is not what its length says; was it changed meanwhile?"),
    )
}

/// A name that shows what an extension header belongs to when a reader takes it for a file.
fn placeholder(folder: &str, path: &TreePath) -> Vec<u8> {
    let name = path.name().unwrap_or(b"root");
    let mut text = [folder.as_bytes(), b"/", name].concat();
    text.retain(u8::is_ascii);
    text.truncate(Fields::MAX_NAME_BYTES);
    text
}

/// An entry with nothing cut yet.
struct Entry {
    path: TreePath,
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    modified: Timestamp,
    device: (u64, u64),
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    fn new(path: &TreePath, metadata: &Metadata) -> Entry {
        let mut records = BTreeMap::new();
        for (name, value) in &metadata.xattrs {
            // A key ends at the first '=', so that such a name needs libarchive's form.
            if name.contains(&b'=') {
                let key = [b"LIBARCHIVE.xattr.", pax::percent_encoded(name).as_slice()].concat();
                records.insert(key, base64::encode(value));
            } else {
                records.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
            }
        }
        Entry {
            kind: b'0',
            name: if path.is_root() { b".".to_vec() } else { path.as_bytes().to_vec() },
            path: path.clone(),
            link: Vec::new(),
            mode: metadata.mode & 0o7777,
            uid: u64::from(metadata.uid),
            gid: u64::from(metadata.gid),
            size: 0,
            modified: metadata.modified,
            device: (0, 0),
            records,
        }
    }

    /// What goes into the header, and the records for what does not fit.
    fn split(&self) -> (Fields<'_>, BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut records = self.records.clone();
        let mut record = |key: &str, value: Vec<u8>| records.insert(key.as_bytes().to_vec(), value);
        for (key, text) in [("path", &self.name), ("linkpath", &self.link)] {
            // Bytes that are no UTF-8 stand in the header as they are while they fit: readers differ in
            // what they make of them in records, which are UTF-8 by definition.
            let unicode = !text.is_ascii() && std::str::from_utf8(text).is_ok();
            if text.len() > Fields::MAX_NAME_BYTES || unicode {
                record(key, text.clone());
            }
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id > Fields::MAX_ID {
                record(key, id.to_string().into_bytes());
            }
        }
        if self.size > Fields::MAX_LONG {
            record("size", self.size.to_string().into_bytes());
        }
        let seconds = u64::try_from(self.modified.seconds).ok();
        let seconds = seconds.filter(|seconds| *seconds <= Fields::MAX_LONG);
        if seconds.is_none() || self.modified.nanoseconds != 0 {
            record("mtime", format_time(self.modified).into_bytes());
        }
        let fields = Fields {
            kind: self.kind,
            name: self.name.get(..Fields::MAX_NAME_BYTES).unwrap_or(&self.name),
            link: self.link.get(..Fields::MAX_NAME_BYTES).unwrap_or(&self.link),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            modified: seconds.unwrap_or(0),
            major: self.device.0,
            minor: self.device.1,
        };
        (fields, records)
    }
}
