//! The entries of a layer, one after another, as the tree's words say them.

use thinstore_filesystem::{FileContent, Metadata, Node, TreePath};
use thinstore_storage::{Error, ErrorKind, Result};

use super::Layer;
use super::pump::{Piped, Totals};
use crate::region::RegionReader;
use crate::tar::acl;
use crate::tar::header::Piece;
use crate::tar::members::{Kind, Member, Members, TarStream};
use crate::{printable, refuse, to_u64};

/// The prefix of a name that hides what a lower layer has under the rest of the name.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The name that hides all that lower layers have in its folder.
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Other names of this beginning were aufs's own notes and mean nothing.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerItem {
    /// A node; the content of a file is read with [`LayerReader::content`].
    Node {
        /// Where it goes.
        path: TreePath,
        /// What it is.
        node: Node,
        /// Its mode, owner, time and extended attributes.
        metadata: Metadata,
    },
    /// Another name of a file of this layer or of one below.
    HardLink {
        /// The new name.
        path: TreePath,
        /// The file.
        target: TreePath,
    },
    /// What lower layers have here is gone.
    Whiteout {
        /// The name that is gone.
        path: TreePath,
    },
    /// What lower layers have in this folder is gone.
    Opaque {
        /// The folder.
        path: TreePath,
    },
}

/// What a layer came to, once it has been read to its end and its digests hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerTotals {
    /// Tar headers, those of extensions counted too.
    pub entries: u64,
    /// Bytes of the blob as it is stored.
    pub compressed_bytes: u64,
    /// Bytes of the tar.
    pub uncompressed_bytes: u64,
}

/// Where the uncompressed tar comes from.
pub(crate) enum Stream {
    Piped(Piped),
    Region(RegionReader),
}

impl TarStream for Stream {
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Stream::Piped(piped) => piped.read_some(buffer),
            Stream::Region(reader) => reader.read_some(buffer),
        }
    }

    fn skip(&mut self, count: u64) -> Result<u64> {
        match self {
            Stream::Piped(piped) => piped.skip(count),
            Stream::Region(reader) => Ok(reader.skip(count)),
        }
    }
}

/// Streams the entries of a layer. What it gave out is verified only once [`LayerReader::finish`] has
/// returned without an error.
pub struct LayerReader {
    members: Members<Stream>,
    layer: Layer,
    pieces: Vec<Piece>,
    next_piece: usize,
    piece_done: u64,
    /// Did reading the content of the current entry fail? The error names the entry then.
    content_failed: bool,
    totals: Option<LayerTotals>,
}

impl LayerReader {
    pub(crate) fn new(layer: &Layer, stream: Stream) -> LayerReader {
        LayerReader {
            // The digest of the layer proves that nothing is missing at its end.
            members: Members::new(stream, layer.budget(), true),
            layer: layer.clone(),
            pieces: Vec::new(),
            next_piece: 0,
            piece_done: 0,
            content_failed: false,
            totals: None,
        }
    }

    /// The layer that is read.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// The next entry; none at the end. Content of the last entry that was not read is passed over.
    ///
    /// # Errors
    /// `Refused`, naming the entry, for whatever an archive should not contain.
    pub fn next_item(&mut self) -> Result<Option<LayerItem>> {
        loop {
            self.pieces.clear();
            let Some(mut member) = self.members.next().map_err(|error| self.named(error))? else {
                return Ok(None);
            };
            self.pieces = std::mem::take(&mut member.pieces);
            self.next_piece = 0;
            self.piece_done = 0;
            self.content_failed = false;
            if let Some(item) = item_of(member).map_err(|error| self.named(error))? {
                return Ok(Some(item));
            }
        }
    }

    /// The content of the file that was given out last.
    pub fn content(&mut self) -> LayerContent<'_> {
        LayerContent { reader: self }
    }

    /// Reads to the end of the blob and checks what was promised: the digest and size of the blob, and
    /// the diff id. May be called again.
    ///
    /// # Errors
    /// `Refused`, naming the layer, if a digest or a size is not the promised one.
    pub fn finish(&mut self) -> Result<LayerTotals> {
        if let Some(totals) = self.totals {
            return Ok(totals);
        }
        let totals = self.verify().map_err(|error| self.named(error))?;
        self.totals = Some(totals);
        Ok(totals)
    }

    fn verify(&mut self) -> Result<LayerTotals> {
        while self.members.next()?.is_some() {}
        self.members.drain()?;
        let (entries, uncompressed_bytes) = self.members.used();
        self.layer.ledger.note(self.layer.index, entries, uncompressed_bytes);
        let Stream::Piped(piped) = self.members.stream_mut() else {
            return Err(Error::new(ErrorKind::Usage, "the layer was opened without verification"));
        };
        let Some(Totals { blob, diff, compressed_bytes, uncompressed_bytes }) =
            piped.totals().cloned()
        else {
            return Err(refuse("it could not be read to its end"));
        };
        if let (Some(promised), Some(found)) = (&self.layer.blob_digest, &blob) {
            promised.expect(found, "the blob")?;
        }
        let is_folder = matches!(self.layer.source, super::Source::Folder(_));
        if is_folder && diff != self.layer.diff_id {
            return Err(refuse("the folder was changed while it was read; try again"));
        }
        self.layer.diff_id.expect(&diff, "the uncompressed layer")?;
        let is_unpacked = matches!(self.layer.source, super::Source::Unpacked { .. });
        if !is_unpacked && compressed_bytes != self.layer.compressed_size_bytes {
            return Err(refuse(format!(
                "the blob has {compressed_bytes} bytes where {} are promised",
                self.layer.compressed_size_bytes
            )));
        }
        Ok(LayerTotals { entries, compressed_bytes, uncompressed_bytes })
    }

    fn named(&self, error: Error) -> Error {
        error.context(&self.layer.name)
    }

    /// An error of applying the entry at `path` to a tree, with the entry's name where it lacks it.
    pub(crate) fn at_entry(&self, error: Error, path: &TreePath) -> Error {
        // A tree names paths in this way.
        if self.content_failed || error.to_string().contains(&format!("'{path}'")) {
            return error;
        }
        error.context(format_args!("the entry '{}'", printable(path.as_bytes())))
    }

    fn read_piece(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let Some((offset, length)) = self.pieces.get(self.next_piece).copied() else {
            return Ok(None);
        };
        let left = usize::try_from(length - self.piece_done).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let count = self.members.read_content(buffer.get_mut(..want).unwrap_or_default())?;
        if count == 0 {
            return Err(refuse("the content of a file is shorter than declared"));
        }
        let place = offset + self.piece_done;
        self.piece_done += to_u64(count);
        if self.piece_done == length {
            self.next_piece += 1;
            self.piece_done = 0;
        }
        Ok(Some((place, count)))
    }
}

/// The content of one file of a layer.
pub struct LayerContent<'a> {
    reader: &'a mut LayerReader,
}

impl FileContent for LayerContent<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        if buffer.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                "content cannot be read into an empty buffer",
            ));
        }
        self.reader.read_piece(buffer).map_err(|error| {
            self.reader.content_failed = true;
            self.reader.named(error)
        })
    }
}

/// What a member means; none if it means nothing.
fn item_of(member: Member) -> Result<Option<LayerItem>> {
    let entry = format!("the entry '{}'", printable(&member.name));
    let path = path_of(&member.name, &entry)?;
    let components: Vec<&[u8]> = path.components().collect();
    let (name, folders) = match components.split_last() {
        Some((name, folders)) => (*name, folders),
        None => (&b""[..], &[][..]),
    };
    if name == OPAQUE_MARKER && !folders.iter().any(|name| name.starts_with(WHITEOUT_PREFIX)) {
        return Ok(Some(LayerItem::Opaque { path: path.parent() }));
    }
    if components.iter().any(|name| name.starts_with(AUFS_PREFIX)) {
        return Ok(None);
    }
    if folders.iter().any(|name| name.starts_with(WHITEOUT_PREFIX)) {
        return Err(refuse(format!("{entry} stands in a folder whose name marks a deletion")));
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(format!("{entry} marks the deletion of no name inside its folder")));
        }
        return Ok(Some(LayerItem::Whiteout { path: path.parent().join(hidden) }));
    }
    if path.is_root() && member.kind != Kind::Directory {
        return Err(refuse(format!("{entry} puts something other than a folder at the root")));
    }
    if member.kind == Kind::HardLink {
        let target = link_target(&member.link, &path, &entry)?;
        return Ok(Some(LayerItem::HardLink { path, target }));
    }
    node_of(member, path, &entry).map(Some)
}

/// A path as an archive writes it. A lone `/` is the root; any other absolute path is refused.
fn path_of(raw: &[u8], entry: &str) -> Result<TreePath> {
    if raw.is_empty() {
        return Err(refuse(format!("{entry} has no name")));
    }
    if raw.iter().all(|byte| *byte == b'/') {
        return Ok(TreePath::root());
    }
    TreePath::from_archive(raw)
        .map_err(|error| refuse(format!("{entry} is refused: {}", printable_error(&error))))
}

fn link_target(raw: &[u8], path: &TreePath, entry: &str) -> Result<TreePath> {
    let target = TreePath::from_archive(raw).map_err(|error| {
        refuse(format!("{entry} is a hard link out of the tree: {}", printable_error(&error)))
    })?;
    if target.is_root() || target == *path {
        return Err(refuse(format!("{entry} is a hard link to itself or to the root")));
    }
    if target.components().any(|name| name.starts_with(WHITEOUT_PREFIX)) {
        return Err(refuse(format!("{entry} is a hard link to a mark of a deletion")));
    }
    Ok(target)
}

fn printable_error(error: &Error) -> String {
    printable(error.to_string().as_bytes())
}

fn node_of(member: Member, path: TreePath, entry: &str) -> Result<LayerItem> {
    let node = match member.kind {
        Kind::File | Kind::HardLink => Node::File { size_bytes: member.size_bytes },
        Kind::Directory => Node::Directory,
        Kind::Fifo => Node::Fifo,
        Kind::CharacterDevice => {
            Node::CharacterDevice { major: member.device.0, minor: member.device.1 }
        }
        Kind::BlockDevice => Node::BlockDevice { major: member.device.0, minor: member.device.1 },
        Kind::Symlink => {
            // Never followed here, so that any target is harmless; but it must be one that Linux keeps.
            if member.link.is_empty() || member.link.len() > 4095 || member.link.contains(&0) {
                return Err(refuse(format!(
                    "{entry} is a symbolic link with an impossible target"
                )));
            }
            Node::Symlink { target: member.link }
        }
    };
    let mut metadata = Metadata {
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        modified: member.modified,
        xattrs: member.xattrs,
    };
    let is_symlink = matches!(node, Node::Symlink { .. });
    acl::normalise(&mut metadata, node == Node::Directory, is_symlink, entry)?;
    Ok(LayerItem::Node { path, node, metadata })
}
