//! Images, in every form in which people hand them around.

pub(crate) mod data_root;
pub(crate) mod docker;
pub(crate) mod document;
pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod names;

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinstore_storage::{Error, ErrorKind, Result};

use crate::compress::{Compression, start_of};
use crate::digest::{Algorithm, Digest};
use crate::host::HostTree;
use crate::layer::pump::{Piped, Progress, Totals};
use crate::layer::{self, Layer, Source};
use crate::limits::Budget;
use crate::limits::{Ledger, Limits};
use crate::refuse;
use crate::region::{self, CHUNK_BYTES, Region, from_io};
use crate::tar::header::{BLOCK_BYTES, Block, Header, ZERO_BLOCK};
use crate::tar::members::TarStream;

pub use names::Platform;

use data_root::DataRoot;
use docker::SavedArchive;
use index::MemberIndex;
use layout::{Layout, LayoutPlace};

/// Told how many bytes of a source have been gone through while it is opened, and the total (zero when
/// it is not known).
pub type OpenProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How sources are opened.
#[derive(Clone)]
pub struct SourceOptions {
    /// Where unnamed temporary files go, for standard input and for compressed image archives.
    pub temporary_folder: PathBuf,
    /// What an image may ask for.
    pub limits: Limits,
    /// Which of the images for several platforms is wanted.
    pub platform: Platform,
    /// Told of the passes that opening needs.
    pub progress: Option<OpenProgress>,
}

impl SourceOptions {
    /// The host's platform, the default limits, no progress.
    pub fn new(temporary_folder: &Path) -> SourceOptions {
        SourceOptions {
            temporary_folder: temporary_folder.to_owned(),
            limits: Limits::default(),
            platform: Platform::host(),
            progress: None,
        }
    }

    fn pass_progress(&self) -> Option<Progress> {
        let progress = Arc::clone(self.progress.as_ref()?);
        Some(Box::new(move |done, total| progress(done, total)))
    }
}

/// What kind of thing a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder with `oci-layout` and `index.json`.
    OciLayout,
    /// An archive of such a folder.
    OciArchive,
    /// An archive of `docker save`.
    DockerArchive,
    /// Docker's data root, with the storage driver overlay2.
    DataRoot,
    /// A tar of a root file system.
    RootFileSystem,
    /// A folder that is a root file system.
    Folder,
}

/// A source of one or more images.
#[derive(Debug)]
pub struct ImageSource {
    kind: SourceKind,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Layout(Layout),
    Saved(SavedArchive),
    DataRoot(DataRoot),
    /// With what a pass over it found, if there has been one.
    RootFileSystem(Region, Option<Totals>),
    Folder(Arc<HostTree>, String),
}

/// One image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name that the source gives it.
    pub name: Option<String>,
    /// The configuration, as it stands in the source; for a tar or a folder, one that was made for it.
    pub config: Vec<u8>,
    /// The configuration's digest, which is the image's id.
    pub config_digest: Digest,
    /// The manifest, as it stands in the source, where it has one.
    pub manifest: Option<Vec<u8>>,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// The layers' diff ids, lowest first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// The layers' chain ids, lowest first: what identifies each together with all below it.
    pub fn chain_ids(&self) -> Vec<Digest> {
        crate::digest::chain_ids(&self.diff_ids())
    }
}

impl ImageSource {
    /// Opens what stands at `path`: an OCI layout folder, an OCI archive, an archive of `docker save`, a
    /// data root of Docker, a tar of a root file system (plain, gzip or zstd), a folder, or `-` for standard
    /// input. What it is is
    /// told from its content.
    ///
    /// # Errors
    /// `NotFound` or `Permission` as the host says; `Refused` for what is no image or is damaged;
    /// `Incompatible` for forms that are known and not read.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<ImageSource> {
        if path == Path::new("-") {
            return ImageSource::from_reader(std::io::stdin().lock(), options);
        }
        let name = format!("'{}'", path.display());
        let status = std::fs::metadata(path)
            .map_err(|error| Error::io(format!("{name} cannot be opened"), error))?;
        if status.is_dir() {
            return ImageSource::from_folder(path, name, options);
        }
        let kind = status.file_type();
        if kind.is_block_device() || kind.is_socket() {
            return Err(refuse(format!("{name} is neither a file, a folder nor a pipe")));
        }
        let file = File::open(path)
            .map_err(|error| Error::io(format!("{name} cannot be opened"), error))?;
        if status.is_file() {
            return ImageSource::from_region(Region::whole(file, name)?, options);
        }
        ImageSource::from_stream(file, &name, options)
    }

    /// Opens an archive of any kind that comes through a pipe. It is kept in an unnamed temporary file.
    ///
    /// # Errors
    /// As for [`ImageSource::open`].
    pub fn from_reader(reader: impl Read, options: &SourceOptions) -> Result<ImageSource> {
        ImageSource::from_stream(reader, "standard input", options)
    }

    fn from_stream(reader: impl Read, name: &str, options: &SourceOptions) -> Result<ImageSource> {
        let tell = |done| {
            if let Some(progress) = &options.progress {
                progress(done, 0);
            }
        };
        let folder = &options.temporary_folder;
        let limit = options.limits.max_uncompressed_bytes;
        let region = region::spool(reader, folder, name, limit, tell)?;
        ImageSource::from_region(region, options)
    }

    fn from_folder(path: &Path, name: String, options: &SourceOptions) -> Result<ImageSource> {
        if Layout::is_folder(path) {
            let place = LayoutPlace::Folder(path.to_owned());
            let layout = Layout::open(place, name, options.limits.max_document_bytes)?;
            return Ok(ImageSource {
                kind: SourceKind::OciLayout,
                content: Content::Layout(layout),
            });
        }
        if DataRoot::is_folder(path) {
            let data_root = DataRoot::open(path, name, options.limits.max_document_bytes)?;
            let content = Content::DataRoot(data_root);
            return Ok(ImageSource { kind: SourceKind::DataRoot, content });
        }
        let content = Content::Folder(Arc::new(HostTree::open(path)?), name);
        Ok(ImageSource { kind: SourceKind::Folder, content })
    }

    fn from_region(region: Region, options: &SourceOptions) -> Result<ImageSource> {
        let compression = Compression::of(&region)?;
        if compression == Compression::None {
            check_is_tar(&region)?;
            let index = MemberIndex::of(&region, &options.limits)?;
            return ImageSource::from_archive(region, index, None, options);
        }
        // The documents that make an image archive may stand at its end: only a whole pass tells.
        let mut index = MemberIndex::default();
        let progress = options.pass_progress();
        let totals = layer::scan(&region, &options.limits, progress, |member| index.note(member))?;
        if !is_image_archive(&index) {
            return ImageSource::from_archive(region, index, Some(totals), options);
        }
        // Blobs are read by position, which the compressed form does not allow.
        let name = region.name().to_owned();
        let damaged = |error| refuse(format!("{name} cannot be decompressed: {error}"));
        let buffered = BufReader::with_capacity(CHUNK_BYTES, region.reader()?);
        let plain = compression.reader(buffered).map_err(|error| from_io(error, damaged))?;
        let limit = options.limits.max_uncompressed_bytes;
        let spooled = region::spool(plain, &options.temporary_folder, &name, limit, |_| ())?;
        ImageSource::from_archive(spooled, index, None, options)
    }

    fn from_archive(
        region: Region,
        index: MemberIndex,
        totals: Option<Totals>,
        options: &SourceOptions,
    ) -> Result<ImageSource> {
        let limit = options.limits.max_document_bytes;
        let (kind, content) = if is_layout(&index) {
            let name = region.name().to_owned();
            let layout = Layout::open(LayoutPlace::Archive(region, index), name, limit)?;
            (SourceKind::OciArchive, Content::Layout(layout))
        } else if is_image_archive(&index) {
            let saved = SavedArchive::open(region, index, limit)?;
            (SourceKind::DockerArchive, Content::Saved(saved))
        } else if index.has("repositories") && index.count < 10_000 {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "{} was saved by a Docker before version 1.10; load and save it again",
                    region.name()
                ),
            ));
        } else if index.count == 0 {
            return Err(refuse(format!("{} is an archive without entries", region.name())));
        } else {
            (SourceKind::RootFileSystem, Content::RootFileSystem(region, totals))
        };
        Ok(ImageSource { kind, content })
    }

    /// What the source is.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The names of the images in the source, or for one without a name what it can be chosen by. A tar of
    /// a root file system and a folder have one image without a name.
    pub fn image_names(&self) -> Vec<String> {
        match &self.content {
            Content::Layout(layout) => layout.labels(),
            Content::Saved(saved) => saved.labels(),
            Content::DataRoot(data_root) => data_root.labels(),
            Content::RootFileSystem(..) | Content::Folder(..) => Vec::new(),
        }
    }

    /// Opens the image of a name, or the only one there is. Reads a root file system or a folder once, to
    /// find its digest.
    ///
    /// # Errors
    /// `Usage` if there are several and no name is given; `NotFound` if none has the name, or none is for
    /// the platform; `Refused` if a digest or a size is not the promised one, or a blob is missing.
    pub fn image(&self, name: Option<&str>, options: &SourceOptions) -> Result<Image> {
        match &self.content {
            Content::Layout(layout) => layout.image(name, options),
            Content::Saved(saved) => saved.image(name, options),
            Content::DataRoot(data_root) => data_root.image(name, options),
            Content::RootFileSystem(region, totals) => {
                let totals = match totals {
                    Some(totals) => totals.clone(),
                    None => layer::scan(region, &options.limits, options.pass_progress(), |_| ())?,
                };
                let compression = Compression::of(region)?;
                let source = Source::Blob { region: region.clone(), compression };
                Ok(single(region.name(), totals, source, layer::media_type(compression), options))
            }
            Content::Folder(tree, name) => {
                let totals = scan_folder(tree, name, options)?;
                let source = Source::Folder(Arc::clone(tree));
                Ok(single(name, totals, source, layer::MEDIA_TYPE_TAR.to_owned(), options))
            }
        }
    }
}

fn is_layout(index: &MemberIndex) -> bool {
    index.has("oci-layout") && index.has("index.json")
}

fn is_image_archive(index: &MemberIndex) -> bool {
    is_layout(index) || index.has(docker::MANIFEST)
}

/// Refuses a file whose beginning is neither a tar header nor the end of an empty tar.
fn check_is_tar(region: &Region) -> Result<()> {
    let start = start_of(&mut region.reader()?, BLOCK_BYTES)?;
    let block = Block::try_from(start.as_slice()).ok();
    if block.is_some_and(|block| block == ZERO_BLOCK || Header::plausible(&block)) {
        return Ok(());
    }
    Err(refuse(format!(
        "{} is no image: expected an OCI layout or archive, an archive of docker save, a tar of a root \
         file system, or a folder",
        region.name()
    )))
}

/// Reads a folder once for the digest and the size of its tar.
fn scan_folder(tree: &Arc<HostTree>, name: &str, options: &SourceOptions) -> Result<Totals> {
    let producer = layer::folder(tree, 0, options.pass_progress());
    let mut piped = Piped::start(Algorithm::Sha256, producer)?;
    let mut budget = Budget::new(&options.limits, (0, 0));
    loop {
        let count = piped.skip(1 << 30).map_err(|error| error.context(name))?;
        if count == 0 {
            break;
        }
        budget.take_bytes(count).map_err(|error| error.context(name))?;
    }
    let totals = piped.totals().cloned();
    totals.ok_or_else(|| refuse(format!("{name} could not be read to its end")))
}

/// The image of a source that is one layer and has no configuration.
fn single(
    name: &str,
    totals: Totals,
    source: Source,
    media_type: String,
    options: &SourceOptions,
) -> Image {
    let config = document::bare_config(&options.platform, &totals.diff);
    let layer = Layer {
        diff_id: totals.diff,
        blob_digest: totals.blob,
        media_type,
        compressed_size_bytes: totals.compressed_bytes,
        source,
        name: name.to_owned(),
        limits: options.limits.clone(),
        ledger: Arc::default(),
        index: 0,
        lowest: true,
    };
    Image {
        name: None,
        config_digest: Digest::of(&config),
        config,
        manifest: None,
        layers: vec![layer],
    }
}

/// A layer as a source finds it.
struct LayerPart {
    source: Source,
    size_bytes: u64,
    blob_digest: Option<Digest>,
    media_type: String,
}

impl LayerPart {
    fn blob(
        region: Region,
        blob_digest: Option<Digest>,
        media_type: Option<String>,
    ) -> Result<LayerPart> {
        let compression = Compression::of(&region)?;
        let media_type = media_type.unwrap_or_else(|| layer::media_type(compression));
        Ok(LayerPart {
            size_bytes: region.length_bytes(),
            source: Source::Blob { region, compression },
            blob_digest,
            media_type,
        })
    }
}

/// An image as a source finds it, its documents checked.
struct ImageParts {
    source: String,
    name: Option<String>,
    config: Vec<u8>,
    manifest: Option<Vec<u8>>,
    layers: Vec<LayerPart>,
}

impl ImageParts {
    /// Puts the layers and what the configuration promises of them together.
    fn assemble(self, options: &SourceOptions) -> Result<Image> {
        let config_digest = Digest::of(&self.config);
        let config_name = format!("the configuration {config_digest} of {}", self.source);
        let diff_ids = document::diff_ids(&self.config, &config_name)?;
        if diff_ids.len() != self.layers.len() {
            return Err(refuse(format!(
                "{config_name} names {} layers where the manifest has {}",
                diff_ids.len(),
                self.layers.len()
            )));
        }
        if diff_ids.len() > options.limits.max_layers {
            return Err(refuse(format!(
                "{config_name} names {} layers; at most {} are allowed",
                diff_ids.len(),
                options.limits.max_layers
            )));
        }
        let ledger: Arc<Ledger> = Arc::default();
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (index, (diff_id, part)) in diff_ids.into_iter().zip(self.layers).enumerate() {
            let known = part.blob_digest.as_ref().unwrap_or(&diff_id);
            layers.push(Layer {
                name: format!("the layer {known} of {}", self.source),
                diff_id,
                blob_digest: part.blob_digest,
                media_type: part.media_type,
                compressed_size_bytes: part.size_bytes,
                source: part.source,
                limits: options.limits.clone(),
                ledger: Arc::clone(&ledger),
                index,
                lowest: index == 0,
            });
        }
        Ok(Image {
            name: self.name,
            config: self.config,
            config_digest,
            manifest: self.manifest,
            layers,
        })
    }
}

/// Which of the images is meant: the one that answers to the name, or the only one.
fn choose(
    source: &str,
    labels: &[String],
    wanted: Option<&str>,
    answers: impl Fn(usize, &str) -> bool,
) -> Result<usize> {
    let list = || {
        let labels: Vec<String> =
            labels.iter().map(|label| crate::printable(label.as_bytes())).collect();
        labels.join(", ")
    };
    let Some(wanted) = wanted else {
        return match labels.len() {
            0 => Err(refuse(format!("{source} holds no image"))),
            1 => Ok(0),
            _ => Err(Error::new(
                ErrorKind::Usage,
                format!("{source} holds several images: {}; say which one by its name", list()),
            )),
        };
    };
    (0..labels.len()).find(|index| answers(*index, wanted)).ok_or_else(|| {
        let wanted = crate::printable(wanted.as_bytes());
        Error::new(
            ErrorKind::NotFound,
            format!("{source} holds no image '{wanted}'; it holds: {}", list()),
        )
    })
}
