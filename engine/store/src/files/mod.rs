//! Single files: `cat` and `cp`.

mod path;
mod put;

use std::io::{BufWriter, Write};
use std::path::Path;

use thinstore_archive::{TarWriter, WhiteoutNames, write_tree};
use thinstore_filesystem::{DirectoryTree, FileContent, Node, TreePath, TreeReader, TreeWriter};
use thinstore_pool::{LayerInfo, NewLayer};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::attachments::Place;
use crate::copy::{CopyTarget, PathState, copy_target};
use crate::detached_mount::DetachedMount;
use crate::kinds::CONTAINER;
use crate::operations::Input;
use crate::store::Store;
use crate::types::{CatRequest, CopyInRequest, CopyOutRequest};
use crate::view::system_is_read_only;

use path::{Found, find};
use put::put_archive;

/// How much is read and written at a time.
const BUFFER_BYTES: usize = 256 << 10;

impl Store {
    pub(crate) fn print_file(&self, request: &CatRequest, output: &mut dyn Write) -> Result<()> {
        self.with_view(&request.name, |view| print_file(view.tree(), request, output))
    }

    pub(crate) fn copy_from_container(
        &self,
        request: &CopyOutRequest,
        output: &mut dyn Write,
    ) -> Result<()> {
        self.with_view(&request.name, |view| write_item(view.tree(), request, output))
    }

    pub(crate) fn copy_into_container(&self, request: &CopyInRequest, input: Input) -> Result<()> {
        let name = self.catalog().container(&request.name)?.name.clone();
        let lock = self.attachments().lock_of(&name);
        let _held = lock.lock();
        let catalog = self.catalog();
        let container = catalog.container(&name)?;
        let place = self.attachments().place_of(&name)?;
        let base = match &place {
            Some(place) => {
                let mount = writable_mount(&name, place)?;
                let mut tree = DirectoryTree::open(&mount.path())?;
                put_item(&mut tree, request, input)?;
                drop(tree);
                return mount.sync();
            }
            None => copy_base(&self.ext4(container.id)?, request)?,
        };
        let write = |writer: &mut dyn TreeWriter| put_archive(writer, &base, request, input);
        if self.kernel_can_write() {
            self.write_through_kernel(&name, container.id, write)
        } else {
            self.write_to_copy(container, write)
        }
    }

    /// Writing in user space keeps no journal: what is interrupted leaves a damaged file system. So a
    /// copy of the container is written, and takes its place when it is complete.
    fn write_to_copy(
        &self,
        container: &LayerInfo,
        write: impl FnOnce(&mut dyn TreeWriter) -> Result<()>,
    ) -> Result<()> {
        let new = NewLayer {
            namespace: CONTAINER,
            transient: true,
            reference: container.reference,
            ..NewLayer::default()
        };
        let copy = self.pool().snapshot(container.id, new)?;
        let replaced = self.write_in_user_space(copy, write).and_then(|()| {
            let mut transaction = self.pool().begin();
            transaction.remove(container.id);
            transaction.publish(copy, Some(&container.name));
            self.pool().commit(transaction).map(drop)
        });
        if let Err(error) = replaced {
            self.abandon(&[copy]);
            return Err(error);
        }
        self.finish_frees()
    }
}

/// Writes the bytes of a file of a tree.
pub(crate) fn print_file(
    tree: &dyn TreeReader,
    request: &CatRequest,
    output: &mut dyn Write,
) -> Result<()> {
    let path = find(tree, &request.path, true)?.existing(&request.name)?;
    match tree.node(&path)?.0 {
        Node::File { size_bytes } => {
            write_content(tree.content(&path)?.as_mut(), size_bytes, output)
        }
        Node::Directory => {
            Err(not_a_file(&request.name, &path, "is a folder; 'thinstore cp' copies folders"))
        }
        _ => Err(not_a_file(&request.name, &path, "is not a regular file")),
    }
}

/// Writes a file or folder of a tree as a tar.
pub(crate) fn write_item(
    tree: &dyn TreeReader,
    request: &CopyOutRequest,
    output: &mut dyn Write,
) -> Result<()> {
    let path = find(tree, &request.path, request.follow)?.existing(&request.name)?;
    let output = BufWriter::with_capacity(BUFFER_BYTES, output);
    let mut writer = TarWriter::new(output, WhiteoutNames::Plain);
    write_tree(tree, &path, &mut writer)?;
    writer.finish()?.flush().map_err(crate::output_failed)
}

/// Puts a file or folder into a folder's tree, from its tar.
pub(crate) fn put_item(
    tree: &mut DirectoryTree,
    request: &CopyInRequest,
    input: Input,
) -> Result<()> {
    let base = copy_base(tree, request)?;
    put_archive(tree, &base, request, input)
}

fn not_a_file(name: &str, path: &TreePath, why: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("'{path}' in '{name}' {why}"))
}

/// Another way to the file system of a container that is attached.
fn writable_mount(name: &str, place: &Place) -> Result<DetachedMount> {
    let read_only = place.read_only
        || place
            .mount
            .as_ref()
            .is_some_and(|mount| mount.is_read_only() || system_is_read_only(mount));
    if read_only {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            format!("the container '{name}' is mounted read-only; unmount it first"),
        ));
    }
    DetachedMount::of(&place.device, false, false)
}

/// Where the item goes.
fn copy_base(tree: &dyn TreeReader, request: &CopyInRequest) -> Result<TreePath> {
    let shown = format!("'{}' in '{}'", request.path.display(), request.name);
    let found = find(tree, &request.path, true)?;
    let (path, state) = match found {
        Found::There(path) => match tree.node(&path)?.0 {
            Node::Directory => (path, PathState::Directory),
            _ => (path, PathState::Other),
        },
        Found::MissingIn(path) => (path, PathState::Missing),
        Found::Nowhere(folder) => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the folder '{folder}' is not in '{}'; make it first", request.name),
            ));
        }
    };
    let trailing_slash = has_trailing_slash(&request.path);
    let is_directory = request.item_is_directory;
    let base =
        match copy_target(&shown, state, trailing_slash, is_directory, request.contents_only)? {
            CopyTarget::Itself => return Ok(path),
            CopyTarget::Inside => path.join(&item_name(request)?),
        };
    // what is there already must be of the same kind
    match tree.node(&base) {
        Ok((Node::Directory, _)) if !is_directory => Err(Error::new(
            ErrorKind::Usage,
            format!("'{base}' in '{}' is a folder; a file cannot replace it", request.name),
        )),
        Ok((Node::Directory, _)) => Ok(base),
        Ok(_) if is_directory => Err(Error::new(
            ErrorKind::Usage,
            format!("'{base}' in '{}' is not a folder; a folder cannot replace it", request.name),
        )),
        Ok(_) => Ok(base),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(base),
        Err(error) => Err(error),
    }
}

fn has_trailing_slash(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

fn item_name(request: &CopyInRequest) -> Result<Vec<u8>> {
    let name = request.item_name.as_bytes();
    let good = !matches!(name, b"" | b"." | b"..")
        && name.len() <= 255
        && !name.iter().any(|byte| matches!(byte, b'/' | 0));
    match good {
        true => Ok(name.to_vec()),
        false => Err(Error::new(
            ErrorKind::Usage,
            format!("'{}' is not a file's name", request.item_name.escape_debug()),
        )),
    }
}

/// Writes a file's bytes, holes as zeroes.
fn write_content(
    content: &mut dyn FileContent,
    size_bytes: u64,
    output: &mut dyn Write,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut written: u64 = 0;
    while let Some((offset_bytes, count)) = content.next(&mut buffer)? {
        write_zeroes(output, offset_bytes.saturating_sub(written))?;
        let data = buffer.get(..count).unwrap_or_default();
        output.write_all(data).map_err(crate::output_failed)?;
        let length = u64::try_from(count).unwrap_or(u64::MAX);
        written = offset_bytes.max(written).saturating_add(length);
    }
    write_zeroes(output, size_bytes.saturating_sub(written))?;
    output.flush().map_err(crate::output_failed)
}

fn write_zeroes(output: &mut dyn Write, count: u64) -> Result<()> {
    let mut zeroes = std::io::Read::take(std::io::repeat(0), count);
    std::io::copy(&mut zeroes, output).map(drop).map_err(crate::output_failed)
}
