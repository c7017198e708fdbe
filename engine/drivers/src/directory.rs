//! Folders of the host: made, copied, measured and removed.

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use thinstore_archive::copy_tree;
use thinstore_export::{BindOptions, MountFlags, mount_bind};
use thinstore_filesystem::{
    DirectoryTree, FileContent, Metadata, Node, TreePath, TreeReader, TreeWriter,
};
use thinstore_storage::{Error, Result};

use crate::driver::LayerId;
use crate::ioctl;

/// Makes a folder and those above it, if they are not there; only root can enter them.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

/// The name that a folder has in a space of names that is the whole host's; it is kept in the folder.
pub(crate) fn own_name(folder: &Path) -> Result<Option<String>> {
    let path = folder.join("name");
    match std::fs::read_to_string(&path) {
        Ok(name) => Ok(Some(name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// The same, and gives it one if it has none; by one process at a time.
pub(crate) fn make_own_name(folder: &Path) -> Result<String> {
    if let Some(name) = own_name(folder)? {
        return Ok(name);
    }
    let random = LayerId::random()?;
    let short: String = random.as_str().chars().take(16).collect();
    let name = format!("thinstore-{short}");
    let (new, path) = (folder.join("name.new"), folder.join("name"));
    std::fs::write(&new, &name).map_err(failed("write", &new))?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(failed("write", &new))?;
    std::fs::rename(&new, &path).map_err(failed("write", &path))?;
    sync(folder)?;
    Ok(name)
}

/// Makes a folder that must not be there.
pub(crate) fn make(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().mode(mode).create(path).map_err(failed("make", path))?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    // a process's mask takes from the mode of what it makes
    std::fs::set_permissions(path, permissions).map_err(failed("make", path))
}

pub(crate) fn failed<'a>(what: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| Error::io(format!("cannot {what} {}", path.display()), error)
}

/// Removes a folder and all in it. Nothing there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file. Nothing there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The layers that have a folder (or, with an ending, a file) in `folder`.
pub(crate) fn ids_in(folder: &Path, ending: &str) -> Result<Vec<LayerId>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("look into", folder))?.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(ending)).map(LayerId::parse);
        ids.extend(id.and_then(Result::ok));
    }
    Ok(ids)
}

/// Shows a folder at another place, without what is mounted below it.
pub(crate) fn show(folder: &Path, directory: &Path, read_only: bool) -> Result<()> {
    let flags = MountFlags { read_only, ..MountFlags::default() };
    mount_bind(folder, directory, &BindOptions { flags, ..BindOptions::default() })
}

/// Makes what is written below a folder durable: the whole file system that it is on.
pub(crate) fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| rustix::fs::syncfs(&folder).map_err(Into::into))
        .map_err(failed("make durable", folder))
}

/// What an empty file system's root is: root's, mode 0755, time 0.
pub(crate) fn settle_root(folder: &Path) -> Result<()> {
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    put_root(folder, &metadata)
}

fn put_root(folder: &Path, metadata: &Metadata) -> Result<()> {
    let mut tree = DirectoryTree::open(folder)?;
    tree.put(&TreePath::root(), &Node::Directory, metadata, None)?;
    tree.set_folder_times()
}

/// Gives a folder the owner, mode, time and attributes of another; of the attributes those that `keep` wants.
pub(crate) fn copy_root(from: &Path, to: &Path, keep: fn(&[u8]) -> bool) -> Result<()> {
    let mut metadata = DirectoryTree::open(from)?.node(&TreePath::root())?.1;
    metadata.xattrs.retain(|name, _| keep(name));
    put_root(to, &metadata)
}

/// Copies everything that is in one folder into another, and makes it durable; of attributes those that `keep`
/// wants.
pub(crate) fn copy(from: &Path, to: &Path, keep: fn(&[u8]) -> bool) -> Result<()> {
    let source = Kept { tree: DirectoryTree::open(from)?, keep };
    copy_tree(&source, &mut DirectoryTree::open(to)?)
}

/// A tree without some of its attributes.
struct Kept {
    tree: DirectoryTree,
    keep: fn(&[u8]) -> bool,
}

impl TreeReader for Kept {
    fn node(&self, path: &TreePath) -> Result<(Node, Metadata)> {
        let (node, mut metadata) = self.tree.node(path)?;
        metadata.xattrs.retain(|name, _| (self.keep)(name));
        Ok((node, metadata))
    }

    fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        self.tree.names(path)
    }

    fn content(&self, path: &TreePath) -> Result<Box<dyn FileContent + '_>> {
        self.tree.content(path)
    }

    fn identity(&self, path: &TreePath) -> Result<(u64, u64)> {
        self.tree.identity(path)
    }
}

/// What a folder and everything in it takes, hard links once; what cannot be read counts nothing.
pub fn folder_bytes(folder: &Path) -> u64 {
    let mut waiting = vec![folder.to_owned()];
    let mut linked = HashSet::new();
    let mut bytes: u64 = 0;
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            let counts = metadata.nlink() < 2
                || metadata.is_dir()
                || linked.insert((metadata.dev(), metadata.ino()));
            if counts {
                // st_blocks counts 512 bytes: stat(2)
                bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
    }
    bytes
}

/// What the files below a folder hold that nothing else shares, on file systems that share.
pub(crate) fn unshared_bytes(folder: &Path) -> Result<u64> {
    let mut waiting = vec![folder.to_owned()];
    let mut bytes: u64 = 0;
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                bytes = bytes.saturating_add(unshared_bytes_of(&entry.path())?);
            }
        }
    }
    Ok(bytes)
}

/// What one file holds that nothing else shares.
pub(crate) fn unshared_bytes_of(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(failed("open", path))?;
    ioctl::unshared_bytes(&file)
        .map_err(|errno| failed("look at the blocks of", path)(errno.into()))
}
