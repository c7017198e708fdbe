//! An image as Docker's data root with the storage driver overlay2: the layers unpacked, each a lower
//! folder of the kernel's overlay, and the documents by which Docker finds its way in them.
//!
//! In a folder of the overlay a deletion is a character device 0:0, and a folder that hides what lies below
//! it has the attribute `trusted.overlay.opaque`. So neither may be among what a layer brings. The names of
//! the folders are made of the layers' chain ids: the same image becomes the same folders.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use thinstore_filesystem::{DirectoryTree, Metadata, Node, TreePath, TreeWriter};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::digest::Digest;
use crate::image::Image;
use crate::image::data_root::{CONFIGS, LAYER_RECORDS, LAYERS, NAMES, RECIPE, Repositories};
use crate::image::names::{familiar, tagged};
use crate::layer::Layer;
use crate::layer::reader::LayerItem;
use crate::recipe::write::write_recipe;

/// The prefix of the overlay's own attributes.
const OVERLAY_ATTRIBUTES: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// As many letters as Docker takes, so that 128 of the names fit into the options of a mount.
const LINK_LETTERS: usize = 26;

/// Writes an image into an empty folder, and makes it durable. Needs root: for devices, for `trusted`
/// attributes, and for the files' owners.
///
/// # Errors
/// `Unsupported`, naming the path, for what cannot be said in an overlay; `Refused` for a layer that is
/// damaged; `Permission`, `Full` and `Io` as the host says. The folder then holds a part.
pub fn write_data_root(image: &Image, folder: &Path) -> Result<()> {
    let root = Root { folder };
    for path in [LAYERS, &format!("{LAYERS}/l"), CONFIGS, LAYER_RECORDS] {
        root.folders(path)?;
    }
    root.mode(LAYERS, 0o710)?;
    let config = format!("{CONFIGS}/{}", image.config_digest.hex());
    root.file(&config, &image.config, 0o600)?;
    let mut names = Repositories::default();
    if let Some(name) = &image.name {
        let name = familiar(&tagged(name));
        let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
        let id = image.config_digest.to_string();
        let references = BTreeMap::from([(name.clone(), id)]);
        names.repositories.insert(repository.to_owned(), references);
    }
    let names = serde_json::to_vec(&names)
        .map_err(|error| Error::new(ErrorKind::Io, format!("'{NAMES}' cannot be made: {error}")))?;
    root.file(NAMES, &names, 0o600)?;
    let mut below: Option<Below> = None;
    for (layer, chain_id) in image.layers.iter().zip(image.chain_ids()) {
        below = Some(root.layer(layer, chain_id, below)?);
    }
    let failed = |error| Error::io(format!("'{}' cannot be made durable", folder.display()), error);
    let whole = File::open(folder).map_err(failed)?;
    rustix::fs::syncfs(&whole).map_err(|error| failed(error.into()))
}

/// What a layer has to know of the one below it.
struct Below {
    chain_id: Digest,
    /// The lower folders of a layer above: this one, and those below it, the nearest first.
    folders: String,
}

struct Root<'a> {
    folder: &'a Path,
}

impl Root<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn failed(&self, name: &str, error: std::io::Error) -> Error {
        Error::io(format!("'{}' cannot be written", self.path(name).display()), error)
    }

    fn folders(&self, name: &str) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.path(name));
        made.map_err(|error| self.failed(name, error))
    }

    fn mode(&self, name: &str, mode: u32) -> Result<()> {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions)
            .map_err(|error| self.failed(name, error))
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(self.path(name));
        file.and_then(|mut file| file.write_all(bytes)).map_err(|error| self.failed(name, error))
    }

    fn layer(&self, layer: &Layer, chain_id: Digest, below: Option<Below>) -> Result<Below> {
        let id = Digest::of(format!("folder of {chain_id}").as_bytes()).hex().to_owned();
        let link = link_name(&chain_id);
        let folder = format!("{LAYERS}/{id}");
        self.folders(&folder)?;
        self.mode(&folder, 0o710)?;
        self.folders(&format!("{folder}/diff"))?;
        self.mode(&format!("{folder}/diff"), 0o755)?;
        let link_path = format!("{LAYERS}/l/{link}");
        symlink(format!("../{id}/diff"), self.path(&link_path))
            .map_err(|error| self.failed(&link_path, error))?;
        self.file(&format!("{folder}/link"), link.as_bytes(), 0o644)?;
        self.file(&format!("{folder}/committed"), b"", 0o600)?;
        let record = format!("{LAYER_RECORDS}/{}", chain_id.hex());
        self.folders(&record)?;
        let mut folders = format!("l/{link}");
        if let Some(below) = below {
            self.folders(&format!("{folder}/work"))?;
            self.file(&format!("{folder}/lower"), below.folders.as_bytes(), 0o644)?;
            let parent = below.chain_id.to_string();
            self.file(&format!("{record}/parent"), parent.as_bytes(), 0o644)?;
            folders = format!("{folders}:{}", below.folders);
        }
        let mut reader = layer.open(None)?;
        let mut tree = DirectoryTree::open(&self.path(&format!("{folder}/diff")))?;
        let mut unpacking = Unpacking::new(&mut tree, &layer.name);
        while let Some(item) = reader.next_item()? {
            unpacking.take(item, |path, node, metadata, tree| match node {
                Node::File { .. } => tree.put(path, node, metadata, Some(&mut reader.content())),
                _ => tree.put(path, node, metadata, None),
            })?;
        }
        reader.finish()?;
        tree.set_folder_times()?;
        let size = write_recipe(layer, &self.path(&format!("{record}/{RECIPE}")))?;
        let facts =
            [("cache-id", id), ("diff", layer.diff_id.to_string()), ("size", size.to_string())];
        for (name, text) in facts {
            self.file(&format!("{record}/{name}"), text.as_bytes(), 0o644)?;
        }
        Ok(Below { chain_id, folders })
    }
}

/// The short name of a layer's folder: letters and digits of base 32.
fn link_name(chain_id: &Digest) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = Digest::of(format!("link of {chain_id}").as_bytes());
    // Five bits of each byte of the hash.
    let bytes = hash.hex().as_bytes().chunks(2).map(|pair| {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        usize::from_str_radix(text, 16).unwrap_or(0)
    });
    let letter = |value: usize| LETTERS.get(value & 31).copied().map_or('A', char::from);
    bytes.take(LINK_LETTERS).map(letter).collect()
}

/// A layer on its way into a folder of an overlay.
struct Unpacking<'a> {
    tree: &'a mut DirectoryTree,
    layer: &'a str,
    /// The folders of this layer: one that turns out to be opaque is written once more.
    folders: HashMap<TreePath, Metadata>,
    /// The folders that hide what is below them.
    opaque: HashSet<TreePath>,
}

impl<'a> Unpacking<'a> {
    fn new(tree: &'a mut DirectoryTree, layer: &'a str) -> Unpacking<'a> {
        Unpacking { tree, layer, folders: HashMap::new(), opaque: HashSet::new() }
    }

    fn take(
        &mut self,
        item: LayerItem,
        put: impl FnOnce(&TreePath, &Node, &Metadata, &mut DirectoryTree) -> Result<()>,
    ) -> Result<()> {
        match item {
            LayerItem::Whiteout { path } => {
                // Of something that this layer puts at the same place, only what is below it is hidden.
                self.opaque.insert(path.clone());
                let deletion = Node::CharacterDevice { major: 0, minor: 0 };
                self.tree.put(&path, &deletion, &Metadata::default(), None)
            }
            LayerItem::Opaque { path } if path.is_root() => Err(self.unsupported(
                &path,
                "hides all that is below it, which the root of an overlay cannot",
            )),
            LayerItem::Opaque { path } => {
                self.opaque.insert(path.clone());
                match self.folders.get(&path).cloned() {
                    Some(metadata) => self.folder(&path, metadata),
                    None => Ok(()),
                }
            }
            LayerItem::HardLink { path, target } => self.tree.hard_link(&path, &target),
            LayerItem::Node { path, node, metadata } => {
                if node == (Node::CharacterDevice { major: 0, minor: 0 }) {
                    return Err(self.unsupported(
                        &path,
                        "is a character device 0:0, which marks a deletion there",
                    ));
                }
                if metadata.xattrs.keys().any(|name| name.starts_with(OVERLAY_ATTRIBUTES)) {
                    return Err(self.unsupported(
                        &path,
                        "has an attribute trusted.overlay.*, which is the overlay's own",
                    ));
                }
                if node == Node::Directory {
                    self.folders.insert(path.clone(), metadata.clone());
                    return self.folder(&path, metadata);
                }
                put(&path, &node, &metadata, self.tree)
            }
        }
    }

    fn folder(&mut self, path: &TreePath, mut metadata: Metadata) -> Result<()> {
        if self.opaque.contains(path) {
            metadata.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
        }
        self.tree.put(path, &Node::Directory, &metadata, None)
    }

    fn unsupported(&self, path: &TreePath, why: &str) -> Error {
        let message =
            format!("{}: '{path}' {why}; it cannot be put into overlay2 folders", self.layer);
        Error::new(ErrorKind::Unsupported, message)
    }
}
