//! A layer of an image: where its tar is, and what it is promised to be.

pub(crate) mod apply;
pub(crate) mod pump;
pub(crate) mod reader;

use std::path::Path;
use std::sync::Arc;

use thinstore_storage::Result;

use crate::compress::Compression;
use crate::digest::{Algorithm, Digest};
use crate::host::HostTree;
use crate::limits::{Budget, Ledger, Limits};
use crate::recipe;
use crate::region::Region;
use crate::tar::members::{Member, Members};
use crate::write::tree::write_host_tree;

use pump::{Piped, Progress, Totals};
use reader::{LayerReader, Stream};

/// The media type of a layer that is a plain tar.
pub const MEDIA_TYPE_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where a layer's bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A tar, perhaps compressed.
    Blob {
        /// The stored bytes.
        region: Region,
        /// By the first bytes, whatever the media type says.
        compression: Compression,
    },
    /// A folder of the host, of which a tar is made while it is read.
    Folder(Arc<HostTree>),
    /// The unpacked files of a layer, and the recipe by which they become its tar again.
    Unpacked {
        /// What is in the tar beside the files' contents.
        recipe: Region,
        /// The files.
        tree: Arc<HostTree>,
    },
}

/// One layer of an image. It may be opened any number of times.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The digest of the uncompressed tar. Of a folder: of the tar that this crate makes of it.
    pub diff_id: Digest,
    /// The digest of the blob as it is stored, where the image promises one: archives of `docker save`
    /// before version 25 do not.
    pub blob_digest: Option<Digest>,
    /// The media type that the image gives, or what stands for it.
    pub media_type: String,
    /// The blob's size as it is stored; of a folder, the size of its tar; of a layer that Docker has
    /// unpacked, that of its files' contents.
    pub compressed_size_bytes: u64,
    pub(crate) source: Source,
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) index: usize,
    /// Nothing lies below this layer, so that whiteouts have nothing to hide.
    pub(crate) lowest: bool,
}

impl Layer {
    /// A layer of its own in a tar file (plain, gzip or zstd), which may lie on others. The file is read
    /// once to find its digest.
    ///
    /// # Errors
    /// `Refused` if it is no tar, or beyond `limits`.
    pub fn from_tar_file(path: &Path, limits: &Limits) -> Result<Layer> {
        let region = Region::at_path(path, format!("'{}'", path.display()))?;
        let totals = scan(&region, limits, None, |_| ())?;
        let compression = Compression::of(&region)?;
        Ok(Layer {
            diff_id: totals.diff,
            blob_digest: totals.blob,
            media_type: media_type(compression),
            compressed_size_bytes: region.length_bytes(),
            name: region.name().to_owned(),
            source: Source::Blob { region, compression },
            limits: limits.clone(),
            ledger: Arc::default(),
            index: 0,
            lowest: false,
        })
    }

    /// Starts to read the layer; a second thread decompresses and hashes. `progress` is told the
    /// compressed bytes consumed and their total.
    ///
    /// # Errors
    /// `Io` if the source cannot be read.
    pub fn open(&self, progress: Option<Progress>) -> Result<LayerReader> {
        let producer = match &self.source {
            Source::Blob { region, compression } => {
                let algorithm = self.blob_digest.as_ref().map(Digest::algorithm);
                pump::decompress(region.clone(), *compression, algorithm, progress)
            }
            Source::Folder(tree) => folder(tree, self.compressed_size_bytes, progress),
            Source::Unpacked { recipe, tree } => {
                let total_bytes = self.compressed_size_bytes;
                recipe::read::assemble(recipe.clone(), Arc::clone(tree), total_bytes, progress)
            }
        };
        let piped = Piped::start(self.diff_id.algorithm(), producer)?;
        Ok(LayerReader::new(self, Stream::Piped(piped)))
    }

    /// Reads the layer once more only for what its entries are: without hashing, and of a plain tar
    /// without reading the content of files.
    pub(crate) fn open_unverified(&self) -> Result<LayerReader> {
        Ok(LayerReader::new(self, self.stream_unverified()?))
    }

    /// The layer's tar, without hashing.
    pub(crate) fn stream_unverified(&self) -> Result<Stream> {
        Ok(match &self.source {
            Source::Blob { region, compression: Compression::None } => {
                Stream::Region(region.reader()?)
            }
            Source::Blob { region, compression } => {
                let producer = pump::decompress(region.clone(), *compression, None, None);
                Stream::Piped(Piped::start(Algorithm::Sha256, producer)?)
            }
            Source::Folder(tree) => {
                Stream::Piped(Piped::start(Algorithm::Sha256, folder(tree, 0, None))?)
            }
            Source::Unpacked { recipe, tree } => {
                let producer = recipe::read::assemble(recipe.clone(), Arc::clone(tree), 0, None);
                Stream::Piped(Piped::start(Algorithm::Sha256, producer)?)
            }
        })
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::new(&self.limits, self.ledger.others(self.index))
    }
}

/// The media type of a tar, compressed or not.
pub(crate) fn media_type(compression: Compression) -> String {
    match compression {
        Compression::None => MEDIA_TYPE_TAR.to_owned(),
        compression => format!("{MEDIA_TYPE_TAR}+{}", compression.name()),
    }
}

/// A producer of the tar of a folder.
pub(crate) fn folder(
    tree: &Arc<HostTree>,
    total_bytes: u64,
    mut progress: Option<Progress>,
) -> pump::Producer {
    let tree = Arc::clone(tree);
    Box::new(move |sink| {
        let mut consumed = 0;
        let counting =
            Counting { inner: sink, consumed: &mut consumed, total_bytes, progress: &mut progress };
        write_host_tree(&tree, counting)?;
        Ok((None, consumed))
    })
}

/// Counts what a folder's tar comes to.
struct Counting<'a> {
    inner: &'a mut pump::Sink,
    consumed: &'a mut u64,
    total_bytes: u64,
    progress: &'a mut Option<Progress>,
}

impl std::io::Write for Counting<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(data)?;
        *self.consumed += crate::to_u64(count);
        if let Some(progress) = self.progress {
            progress(*self.consumed, self.total_bytes.max(*self.consumed));
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Reads a tar from front to back, shows every member, and gives its digests. No digest is promised for
/// such a tar, so it must end with its closing blocks.
pub(crate) fn scan(
    region: &Region,
    limits: &Limits,
    progress: Option<Progress>,
    mut visit: impl FnMut(&Member),
) -> Result<Totals> {
    let compression = Compression::of(region)?;
    let producer = pump::decompress(region.clone(), compression, Some(Algorithm::Sha256), progress);
    let piped = Piped::start(Algorithm::Sha256, producer)?;
    let mut members = Members::new(piped, Budget::new(limits, (0, 0)), false);
    let mut run = || {
        while let Some(member) = members.next()? {
            visit(&member);
        }
        members.drain()
    };
    run().map_err(|error| error.context(region.name()))?;
    match members.stream_mut().totals() {
        Some(totals) => Ok(totals.clone()),
        None => Err(crate::refuse(format!("{} could not be read to its end", region.name()))),
    }
}
