//! A store that this process owns.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use thinstore_pool::{OnFull, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{Error, ErrorKind, FileOptions, Result};

use crate::attachments::{Attachments, kernel_can_export};
use crate::catalog::Catalog;
use crate::layout::{Layout, make_private_directory, sync_directory};
use crate::mounts::THIN;
use crate::operations::{Input, Operations, Progress};
use crate::size::format_size;
use crate::takeover::open_pool_file;
use crate::types::{
    AttachOutcome, AttachRequest, BlockRange, CatRequest, CheckSummary, CommitOutcome,
    CommitRequest, ContainerSummary, CopyInRequest, CopyOutRequest, DetachOutcome, DiffRequest,
    ExportRequest, GrowOutcome, GrowRequest, ImageSummary, ImportOutcome, ImportRequest,
    InspectRequest, LayerSummary, MountOutcome, MountRequest, NameRequest, PathChange,
    PrunedVolumes, RemovedImage, ScrubRequest, ScrubSummary, SnapshotRequest, TreeEntry,
    UsageReport, UsageRequest, VolumeCopyRequest, VolumeCreateRequest, VolumePruneRequest,
    VolumeResizeOutcome, VolumeResizeRequest, VolumeSummary,
};
use crate::volumes::Volumes;

/// The largest device: three levels above the data pages of the map.
pub const DEVICE_SIZE_LIMIT_BYTES: u64 = 1 << 50;

/// The largest pool.
pub const POOL_SIZE_LIMIT_BYTES: u64 = 2 << 50;

/// The smallest device that an ext4 fits on with room for anything.
const DEVICE_SIZE_MINIMUM_BYTES: u64 = 1 << 20;

/// What a new store is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// The pool's size; it is sparse and takes from the host what is used.
    pub size_bytes: u64,
    /// How much contiguous space is set aside when a part of a device is first written: a power of two
    /// from 4 KiB to 1 MiB.
    pub allocation_run_bytes: u64,
    /// The size of the devices that images are written to.
    pub device_size_bytes: u64,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            size_bytes: 100 << 30,
            allocation_run_bytes: 64 << 10,
            device_size_bytes: 10 << 30,
        }
    }
}

impl InitOptions {
    fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Usage, message));
        check_pool_size(self.size_bytes)?;
        let run = self.allocation_run_bytes;
        if !run.is_power_of_two() || !(4 << 10..=1 << 20).contains(&run) {
            return refuse(format!(
                "an allocation run of {} bytes is not a power of two from 4K to 1M",
                run
            ));
        }
        check_device_size(self.device_size_bytes)
    }
}

fn check_pool_size(bytes: u64) -> Result<()> {
    check_multiple("the pool's size", bytes)?;
    if bytes > POOL_SIZE_LIMIT_BYTES {
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "a pool of {} is beyond the limit of {}",
                format_size(bytes),
                format_size(POOL_SIZE_LIMIT_BYTES)
            ),
        ));
    }
    Ok(())
}

fn check_multiple(what: &str, bytes: u64) -> Result<()> {
    if bytes == 0 || !bytes.is_multiple_of(4096) {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{what} of {bytes} bytes is not a multiple of 4096 above 0; choose another"),
        ));
    }
    Ok(())
}

/// Refuses a size that no device can have.
pub(crate) fn check_device_size(bytes: u64) -> Result<()> {
    check_multiple("a device's size", bytes)?;
    if !(DEVICE_SIZE_MINIMUM_BYTES..=DEVICE_SIZE_LIMIT_BYTES).contains(&bytes) {
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "a device of {} is outside the limits of {} and {}",
                format_size(bytes),
                format_size(DEVICE_SIZE_MINIMUM_BYTES),
                format_size(DEVICE_SIZE_LIMIT_BYTES)
            ),
        ));
    }
    Ok(())
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To look; several can at once.
    Read,
    /// For one command.
    Write,
    /// To stay.
    Daemon,
}

/// A store that this process owns.
pub struct Store {
    layout: Layout,
    pool: Pool,
    mode: OpenMode,
    attachments: Attachments,
    /// Held by what removes layers, and by what publishes images that stand on layers found before.
    publishing: Mutex<()>,
    /// Held through an import.
    importing: Mutex<()>,
    volumes: Volumes,
}

impl Store {
    /// Makes a store at `root`: the folder, for its owner alone, and an empty pool in it. The pool
    /// appears under its name when it is complete.
    ///
    /// Errors: `Exists` if there is a pool, `Usage` for a folder that holds other things and for sizes
    /// outside the limits.
    pub fn init(root: &Path, options: &InitOptions) -> Result<()> {
        options.check()?;
        let layout = Layout::new(root);
        if layout.pool().symlink_metadata().is_ok() {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("there is a store at {} already", root.display()),
            ));
        }
        refuse_foreign_folder(root)?;
        let made = make_root(root)?;
        let result = create_pool(&layout, options);
        if result.is_err() {
            // only what this call made, and only if it is empty again
            for folder in made.iter().rev() {
                drop(std::fs::remove_dir(folder));
            }
        }
        result
    }

    /// Refuses a root without a pool.
    pub(crate) fn require(layout: &Layout) -> Result<()> {
        match layout.pool().metadata() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no store at {}; make one with 'thinstore init', or name another with --root",
                    layout.root().display()
                ),
            )),
            Err(error) => Err(Error::io(
                format!("cannot look at the store {}", layout.root().display()),
                error,
            )),
        }
    }

    /// Opens the store at `root`. What an import or a daemon that was killed has left is cleaned up,
    /// unless it is opened only to look.
    ///
    /// Errors: `NotFound` without a store, `InUse` with a sentence that names who has it, `Corrupt` and
    /// `Incompatible` for a file that is not a pool, or not one of ours.
    pub fn open(root: &Path, mode: OpenMode) -> Result<Store> {
        Store::open_with(root, mode, OnFull::Error)
    }

    /// As [`Store::open`]; `on_full` says what a write does that finds no room in the pool.
    pub fn open_with(root: &Path, mode: OpenMode, on_full: OnFull) -> Result<Store> {
        // the daemon works elsewhere than where it was started
        let root = std::path::absolute(root).map_err(|error| {
            Error::io(format!("cannot find out where {} is", root.display()), error)
        })?;
        let layout = Layout::new(root);
        Store::require(&layout)?;
        let read_only = mode == OpenMode::Read;
        let storage = open_pool_file(&layout, read_only)?;
        let options =
            OpenOptions { read_only, background: !read_only, on_full, ..OpenOptions::default() };
        let pool = Pool::open(Arc::new(storage), &options)?;
        let attachments = Attachments::new(layout.clone());
        let volumes = Volumes::new(layout.clone());
        let store = Store {
            layout,
            pool,
            mode,
            attachments,
            publishing: Mutex::default(),
            importing: Mutex::default(),
            volumes,
        };
        if !read_only {
            store.clean_up_after_a_crash()?;
        }
        Ok(store)
    }

    /// Thaws, unmounts and detaches what a process that was killed has left. Only root can have left
    /// anything.
    fn clean_up_after_a_crash(&self) -> Result<()> {
        if !is_root() || !self.layout.run().exists() {
            return Ok(());
        }
        self.thaw_what_was_frozen()?;
        self.attachments.recover()?;
        // binds and tmpfs that lay over a dead file system went with it
        self.mount_records().forget_all_of(THIN)
    }

    /// Where its parts are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn mode(&self) -> OpenMode {
        self.mode
    }

    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::read(&self.pool)
    }

    pub(crate) fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    pub(crate) fn publishing(&self) -> &Mutex<()> {
        &self.publishing
    }

    pub(crate) fn importing(&self) -> &Mutex<()> {
        &self.importing
    }

    /// The volumes that need no pool.
    pub(crate) fn folders(&self) -> &Volumes {
        &self.volumes
    }

    /// Only root can make block devices.
    fn serve_devices(&self, what: &str) -> Result<()> {
        if !is_root() {
            let instead =
                "without it, 'thinstore cat' and 'thinstore cp' read and write containers";
            return Err(Error::new(ErrorKind::Permission, format!("{what} needs root; {instead}")));
        }
        self.attachments.start()
    }

    /// Can files be written by mounting?
    pub(crate) fn kernel_can_write(&self) -> bool {
        is_root() && kernel_can_export()
    }

    /// Are there block devices that have to be served?
    pub fn has_attachments(&self) -> bool {
        self.attachments.any()
    }

    /// An error of kind `InUse` that names what is mounted, if something is.
    pub fn refuse_if_mounted(&self) -> Result<()> {
        let mounted: Vec<String> = self
            .containers()?
            .into_iter()
            .filter_map(|container| {
                let mount_point = container.mount_point?;
                Some(format!("'{}' on {mount_point}", container.name))
            })
            .collect();
        if mounted.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InUse,
            format!(
                "the daemon is needed: mounted is {}; unmount first with 'thinstore umount'",
                mounted.join(", ")
            ),
        ))
    }

    /// Takes all block devices away; what is mounted stays, and is an error of kind `InUse`.
    pub fn detach_unmounted(&self) -> Result<()> {
        self.attachments.apart(|| self.release_unused_volumes())?;
        self.attachments.shutdown()
    }

    /// Closes the pool: everything is durable, and the next open has nothing to recover.
    pub fn close(self) -> Result<()> {
        self.detach_unmounted()?;
        let Store { pool, attachments, .. } = self;
        drop(attachments);
        pool.close()
    }
}

/// Does this process run as root?
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A folder that is there must be empty, or hold only what belongs to a store.
fn refuse_foreign_folder(root: &Path) -> Result<()> {
    const OWN: [&str; 8] = [
        "containers",
        "volumes",
        "overlay2",
        "run",
        "daemon.json",
        "daemon.log",
        "daemon.sock",
        "lost+found",
    ];
    let failed = |error| Error::io(format!("cannot look into {}", root.display()), error);
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{} is not a folder; choose another --root", root.display()),
            ));
        }
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if !OWN.contains(&name.as_ref()) && !name.starts_with(".new-") {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "{} holds '{}', which is not a store's; choose an empty folder",
                    root.display(),
                    name.escape_debug()
                ),
            ));
        }
    }
    Ok(())
}

/// Makes the root and the folders above it; the answer is what was made, outermost first.
fn make_root(root: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<&Path> = root
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    let mut made = Vec::new();
    for folder in missing.into_iter().rev() {
        let result = if folder == root {
            make_private_directory(folder)
        } else {
            std::fs::create_dir(folder).map_err(|error| {
                Error::io(format!("cannot make the folder {}", folder.display()), error)
            })
        };
        if let Err(error) = result {
            for folder in made.iter().rev() {
                drop(std::fs::remove_dir(folder));
            }
            return Err(error);
        }
        made.push(folder.to_owned());
    }
    if made.is_empty() {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).map_err(
            |error| {
                Error::io(format!("cannot close the folder {} to others", root.display()), error)
            },
        )?;
    }
    Ok(made)
}

/// Makes the pool under a temporary name, then gives it its own.
fn create_pool(layout: &Layout, options: &InitOptions) -> Result<()> {
    let fresh = layout.root().join(format!(".new-pool-{}", std::process::id()));
    let pool_options = PoolOptions {
        size_bytes: options.size_bytes,
        allocation_run_bytes: options.allocation_run_bytes,
        default_device_size_bytes: options.device_size_bytes,
        ..PoolOptions::default()
    };
    let storage = FileOptions::new().create_new(&fresh, options.size_bytes)?;
    let made = Pool::create(&storage, &pool_options).and_then(|()| {
        // unlike a rename, a link does not replace what another process has made meanwhile
        std::fs::hard_link(&fresh, layout.pool()).map_err(|error| {
            Error::io(format!("cannot make the pool {}", layout.pool().display()), error)
        })
    });
    drop(storage);
    drop(std::fs::remove_file(&fresh));
    made?;
    sync_directory(layout.root())
}

impl Operations for Store {
    fn images(&self) -> Result<Vec<ImageSummary>> {
        self.list_images()
    }

    fn layers(&self) -> Result<Vec<LayerSummary>> {
        Ok(self.list_layers())
    }

    fn tree(&self) -> Result<Vec<TreeEntry>> {
        Ok(self.list_tree())
    }

    fn containers(&self) -> Result<Vec<ContainerSummary>> {
        self.list_containers()
    }

    fn import(
        &self,
        request: &ImportRequest,
        input: Option<Input>,
        progress: Arc<dyn Progress>,
    ) -> Result<ImportOutcome> {
        self.import_image(request, input, progress)
    }

    fn snapshot(&self, request: &SnapshotRequest) -> Result<ContainerSummary> {
        self.attachments.apart(|| self.make_container(request))
    }

    fn remove_container(&self, request: &NameRequest) -> Result<()> {
        self.attachments.apart(|| self.remove_one_container(&request.name))
    }

    fn remove_image(&self, request: &NameRequest) -> Result<RemovedImage> {
        self.remove_one_image(&request.name)
    }

    fn inspect(&self, request: &InspectRequest) -> Result<serde_json::Value> {
        self.describe(request)
    }

    fn usage(&self, request: &UsageRequest) -> Result<UsageReport> {
        if request.wait {
            self.pool.wait_for_frees()?;
        }
        Ok(if request.pool_only { self.report_pool() } else { self.report_usage()? })
    }

    fn grow(&self, request: &GrowRequest) -> Result<GrowOutcome> {
        check_pool_size(request.size_bytes)?;
        self.pool.grow(request.size_bytes)?;
        Ok(GrowOutcome { pool_size_bytes: self.pool.usage().size_bytes })
    }

    fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        self.attachments.apart(|| self.commit_container(request))
    }

    fn differences(&self, request: &DiffRequest) -> Result<Vec<PathChange>> {
        self.attachments.apart(|| self.compare_trees(request))
    }

    fn block_differences(&self, request: &DiffRequest) -> Result<Vec<BlockRange>> {
        self.attachments.apart(|| self.compare_blocks(request))
    }

    fn cat(&self, request: &CatRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.attachments.apart(|| self.print_file(request, output))
    }

    fn copy_out(&self, request: &CopyOutRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.attachments.apart(|| self.copy_from_container(request, output))
    }

    fn copy_in(&self, request: &CopyInRequest, input: Input) -> Result<()> {
        if self.kernel_can_write() {
            self.attachments.start()?;
        }
        self.attachments.apart(|| self.copy_into_container(request, input))
    }

    fn export(&self, request: &ExportRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.attachments.apart(|| self.write_export(request, output))
    }

    fn attach(&self, request: &AttachRequest) -> Result<AttachOutcome> {
        self.serve_devices("attaching a device")?;
        self.attachments.apart(|| self.attach_container(request))
    }

    fn detach(&self, request: &NameRequest) -> Result<DetachOutcome> {
        self.attachments.apart(|| self.detach_container(&request.name))
    }

    fn mount(&self, request: &MountRequest) -> Result<MountOutcome> {
        self.serve_devices("mounting a container")?;
        self.attachments.apart(|| self.mount_container(request))
    }

    fn unmount(&self, request: &NameRequest) -> Result<DetachOutcome> {
        self.attachments.apart(|| self.unmount_container(&request.name))
    }

    fn volumes(&self) -> Result<Vec<VolumeSummary>> {
        self.list_volumes()
    }

    fn create_volume(&self, request: &VolumeCreateRequest) -> Result<VolumeSummary> {
        self.make_volume(request)
    }

    fn copy_volume(&self, request: &VolumeCopyRequest) -> Result<VolumeSummary> {
        self.attachments.apart(|| self.copy_one_volume(request))
    }

    fn resize_volume(&self, request: &VolumeResizeRequest) -> Result<VolumeResizeOutcome> {
        self.attachments.apart(|| self.resize_one_volume(request))
    }

    fn remove_volume(&self, request: &NameRequest) -> Result<()> {
        self.attachments.apart(|| self.remove_one_volume(&request.name))
    }

    fn prune_volumes(&self, request: &VolumePruneRequest) -> Result<PrunedVolumes> {
        self.attachments.apart(|| self.remove_unused_volumes(*request))
    }

    fn check(&self) -> Result<CheckSummary> {
        let started = Instant::now();
        let report = self.pool.check()?;
        Ok(crate::check::summary(report, started.elapsed()))
    }

    fn scrub(&self, request: &ScrubRequest, progress: Arc<dyn Progress>) -> Result<ScrubSummary> {
        self.scrub_pool(request, progress.as_ref())
    }

    fn trace(&self, request: &NameRequest, output: &mut (dyn Write + Send)) -> Result<()> {
        self.trace_container(&request.name, output)
    }

    fn end_trace(&self, request: &NameRequest) -> Result<()> {
        self.end_trace_of(&request.name)
    }
}
