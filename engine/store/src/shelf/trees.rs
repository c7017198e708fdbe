//! The files of containers, images and layers: looked at, compared, taken out and put in.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use thinstore_drivers::{LayerId, Place, Stack, Unchanged};
use thinstore_filesystem::{
    Change, DirectoryTree, Metadata, Node, TreePath, TreeWriter, difference,
};
use thinstore_storage::{Error, ErrorKind, Result};

use super::Shelf;
use super::containers::Held;
use super::contents::{Contents, Target};
use super::place::WorkPlace;
use super::records::LayerRecord;
use crate::diff::path_change;
use crate::document::ImageDocument;
use crate::export::{
    archive_for, config_of_no_image, finish_archive, write_layer_tree, write_whole_tree,
};
use crate::files::{print_file, put_item, write_item};
use crate::layout::make_private_directory;
use crate::names::ImageName;
use crate::operations::Input;
use crate::types::{
    CatRequest, CopyInRequest, CopyOutRequest, DiffRequest, ExportFormat, ExportRequest, PathChange,
};

/// A file system that can be read.
struct View {
    /// Dropped before what it looks at.
    tree: DirectoryTree,
    root: PathBuf,
    stack: Option<Stack>,
    /// When it came to be; what is older was not changed by it.
    created_unix_ns: i64,
    _behind: Behind,
}

/// What a view looks at.
enum Behind {
    /// A layer that was mounted to be looked at, or an empty folder.
    Place { _place: WorkPlace },
    /// A container's own mount, without what is mounted over it. The container is locked.
    Mounted { _root: OwnedFd, _held: Held },
    /// A container that is not mounted, and locked.
    Container { _place: WorkPlace, _held: Held },
}

impl Shelf {
    fn view_layer(&self, stack: Stack, created_unix_ns: i64) -> Result<View> {
        let place = self.shown(&stack)?;
        let root = place.path().to_owned();
        let tree = DirectoryTree::open(&root)?;
        let stack = Some(stack);
        Ok(View { tree, root, stack, created_unix_ns, _behind: Behind::Place { _place: place } })
    }

    fn shown(&self, stack: &Stack) -> Result<WorkPlace> {
        let place = WorkPlace::make(&self.layout, self.driver.as_ref(), &stack.id)?;
        self.driver.view(stack, place.path())?;
        Ok(place)
    }

    /// A container as it is now. One that is mounted may change while it is looked at.
    fn view_container(&self, held: Held) -> Result<View> {
        let stack = self.stack_of(&held.record)?;
        let created_unix_ns = held.record.created_unix_ns;
        let Some((mount, _)) = self.mount_of(&held.record)? else {
            let place = self.shown(&stack)?;
            let root = place.path().to_owned();
            let tree = DirectoryTree::open(&root)?;
            let behind = Behind::Container { _place: place, _held: held };
            return Ok(View { tree, root, stack: Some(stack), created_unix_ns, _behind: behind });
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root_fd = open_tree(CWD, &mount.directory, flags).map_err(|errno| {
            Error::io(format!("cannot look into {}", mount.directory.display()), errno.into())
        })?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", root_fd.as_raw_fd()));
        let tree = DirectoryTree::open(&root)?;
        let behind = Behind::Mounted { _root: root_fd, _held: held };
        Ok(View { tree, root, stack: Some(stack), created_unix_ns, _behind: behind })
    }

    fn view_nothing(&self) -> Result<View> {
        let place = WorkPlace::make(&self.layout, self.driver.as_ref(), &LayerId::random()?)?;
        let root = place.path().to_owned();
        let mut tree = DirectoryTree::open(&root)?;
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        tree.put(&TreePath::root(), &Node::Directory, &metadata, None)?;
        tree.set_folder_times()?;
        let behind = Behind::Place { _place: place };
        Ok(View { tree, root, stack: None, created_unix_ns: 0, _behind: behind })
    }

    fn view_layer_or_nothing(
        &self,
        contents: &Contents,
        layer: Option<&LayerRecord>,
    ) -> Result<View> {
        match layer {
            Some(layer) => self.view_layer(contents.stack(layer), layer.created_unix_ns),
            None => self.view_nothing(),
        }
    }

    fn view(&self, contents: &Contents, target: Target<'_>) -> Result<View> {
        match target {
            Target::Container(container) => self.view_container(self.hold(&container.name)?),
            Target::Image(image) => {
                let top = image.top.as_ref().and_then(|top| contents.layers.get(top));
                self.view_layer_or_nothing(contents, top)
            }
            Target::Layer(layer) => self.view_layer_or_nothing(contents, Some(layer)),
        }
    }

    fn view_named(&self, name: &str) -> Result<View> {
        let contents = self.contents()?;
        self.view(&contents, contents.resolve(name, None)?)
    }

    /// What a target is compared with when nothing else is named.
    fn view_base(&self, contents: &Contents, target: Target<'_>) -> Result<View> {
        let below = match target {
            Target::Container(container) => match contents.image_of(container) {
                Some(image) => image.top.as_ref(),
                None => container.parent.as_ref(),
            },
            Target::Image(image) => {
                let top = image.top.as_ref().and_then(|top| contents.layers.get(top));
                top.and_then(|top| top.parent.as_ref())
            }
            Target::Layer(layer) => layer.parent.as_ref(),
        };
        self.view_layer_or_nothing(contents, below.and_then(|id| contents.layers.get(id)))
    }

    fn changes(&self, old: &View, new: &View) -> Result<Vec<Change>> {
        let unchanged = match (&old.stack, &new.stack) {
            (Some(old), Some(new)) => self.driver.unchanged(old, new),
            _ => Unchanged::Unknown,
        };
        let same = |path: &TreePath| match &unchanged {
            Unchanged::Unknown => Ok(false),
            Unchanged::NotIn(folders) => Ok(folders.iter().all(|folder| {
                let found = std::fs::symlink_metadata(folder.join(relative(path)));
                found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            })),
            Unchanged::ChangeTime => Ok(has_change_time_of(old, new, path)),
        };
        difference(&old.tree, &new.tree, Some(Box::new(same)))
    }

    pub(super) fn compare_trees(&self, request: &DiffRequest) -> Result<Vec<PathChange>> {
        let contents = self.contents()?;
        let from = contents.resolve(&request.from, None)?;
        let (old, new) = match &request.to {
            // the first of the two may be locked: both are one container only by mistake
            Some(to) if *to == request.from => return Ok(Vec::new()),
            Some(to) => {
                (self.view(&contents, from)?, self.view(&contents, contents.resolve(to, None)?)?)
            }
            None => (self.view_base(&contents, from)?, self.view(&contents, from)?),
        };
        Ok(self.changes(&old, &new)?.into_iter().map(path_change).collect())
    }

    pub(super) fn print_file(&self, request: &CatRequest, output: &mut dyn Write) -> Result<()> {
        print_file(&self.view_named(&request.name)?.tree, request, output)
    }

    pub(super) fn copy_from_container(
        &self,
        request: &CopyOutRequest,
        output: &mut dyn Write,
    ) -> Result<()> {
        write_item(&self.view_named(&request.name)?.tree, request, output)
    }

    pub(super) fn copy_into_container(&self, request: &CopyInRequest, input: Input) -> Result<()> {
        let held = self.hold(&request.name)?;
        let mounted = self.mount_of(&held.record)?;
        if let Some((mount, _)) = &mounted {
            if mount.read_only {
                return Err(Error::new(
                    ErrorKind::ReadOnly,
                    format!(
                        "the container '{}' is mounted read-only; unmount it first",
                        held.record.name
                    ),
                ));
            }
            let view = self.view_container(held)?;
            let mut tree = view.tree;
            put_item(&mut tree, request, input)?;
            return tree.finish();
        }
        let stack = self.stack_of(&held.record)?;
        let place = WorkPlace::make(&self.layout, self.driver.as_ref(), &stack.id)?;
        self.driver.release(&stack.id)?;
        self.driver.mount(&stack, Place { directory: place.path(), read_only: false })?;
        let written = DirectoryTree::open(place.path()).and_then(|mut tree| {
            put_item(&mut tree, request, input)?;
            tree.finish()
        });
        let released = place.unmount().and_then(|()| self.driver.release(&stack.id));
        written.and(released)
    }

    pub(super) fn write_export(
        &self,
        request: &ExportRequest,
        output: &mut dyn Write,
    ) -> Result<()> {
        let contents = self.contents()?;
        let target = contents.resolve(&request.name, None)?;
        match request.format {
            ExportFormat::Tar => write_whole_tree(&self.view(&contents, target)?.tree, output),
            ExportFormat::Oci | ExportFormat::Layers => {
                self.write_layers_of(&contents, target, request.format, output)
            }
        }
    }

    /// A container gets one more layer than its image: what it has changed.
    fn write_layers_of(
        &self,
        contents: &Contents,
        target: Target<'_>,
        format: ExportFormat,
        output: &mut dyn Write,
    ) -> Result<()> {
        make_private_directory(&self.layout.run())?;
        let for_overlay = format == ExportFormat::Layers;
        let mut archive = archive_for(&self.layout, format);
        let (top, container) = match target {
            Target::Container(container) => (container.parent.as_ref(), Some(container)),
            Target::Image(image) => (image.top.as_ref(), None),
            Target::Layer(layer) => (Some(&layer.id), None),
        };
        let mut below = self.view_nothing()?;
        let mut add = |layer: View, below: &mut View| {
            let changes = self.changes(below, &layer)?;
            archive.add_layer(|output| {
                write_layer_tree(&below.tree, &layer.tree, changes, for_overlay, output)
            })?;
            *below = layer;
            Ok::<(), Error>(())
        };
        for layer in contents.ancestry(top).into_iter().rev() {
            add(self.view_layer(contents.stack(layer), layer.created_unix_ns)?, &mut below)?;
        }
        if let Some(container) = container {
            add(self.view_container(self.hold(&container.name)?)?, &mut below)?;
        }
        let (config, name) = exported_config(contents, target);
        finish_archive(archive, &config, name.as_deref(), output)
    }
}

fn relative(path: &TreePath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// How much the kernel's clock of times of files may be behind: a tick, and much more.
const CLOCK_LAG_NS: i64 = 1_000_000_000;

/// Is a file the same inode, and was it not changed since the new file system parted from the old one?
fn has_change_time_of(old: &View, new: &View, path: &TreePath) -> bool {
    let stat = |view: &View| std::fs::symlink_metadata(view.root.join(relative(path)));
    let (Ok(old), Ok(now)) = (stat(old), stat(new)) else { return false };
    let time = |metadata: &std::fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
    let changed_ns = now.ctime().saturating_mul(1_000_000_000).saturating_add(now.ctime_nsec());
    old.ino() == now.ino()
        && time(&old) == time(&now)
        && changed_ns < new.created_unix_ns.saturating_sub(CLOCK_LAG_NS)
}

fn exported_config(contents: &Contents, target: Target<'_>) -> (String, Option<String>) {
    let config = |document: Option<&ImageDocument>| {
        document.map_or_else(config_of_no_image, |document| document.config.clone())
    };
    match target {
        Target::Image(image) => (config(Some(&image.document)), Some(image.name.clone())),
        Target::Container(container) => {
            let image = contents.image_of(container);
            let name = ImageName::from_text(&container.name).to_string();
            (config(image.map(|image| &image.document)), Some(name))
        }
        Target::Layer(_) => (config(None), None),
    }
}
