//! OCI image layouts, as a folder or inside an archive: from the index to the layers, every step checked
//! by digest and size.

use std::path::{Path, PathBuf};

use thinstore_storage::{Error, ErrorKind, Result};

use super::document::{self, Descriptor, Index, LayoutMark, Manifest};
use super::index::MemberIndex;
use super::names::{familiar, same};
use super::{Image, ImageParts, LayerPart, SourceOptions};
use crate::digest::Digest;
use crate::region::Region;
use crate::{printable, refuse};

/// The annotation by which containerd and Docker name an image in full.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation by which the specification names one, most often by its tag alone.
pub(crate) const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes inside indexes.
const MAX_DEPTH: usize = 8;
/// Manifests in all indexes of an image together.
const MAX_MANIFESTS: usize = 10_000;

/// Where the files of a layout are.
#[derive(Debug)]
pub(crate) enum LayoutPlace {
    Folder(PathBuf),
    Archive(Region, MemberIndex),
}

/// An OCI image layout.
#[derive(Debug)]
pub(crate) struct Layout {
    place: LayoutPlace,
    name: String,
    images: Vec<Candidate>,
}

/// One image of a layout: its names, and its manifests, for several platforms perhaps.
#[derive(Debug)]
struct Candidate {
    names: Vec<String>,
    descriptors: Vec<Descriptor>,
}

impl Candidate {
    fn label(&self) -> String {
        match (self.names.first(), self.descriptors.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(descriptor)) => descriptor.digest.clone(),
            (None, None) => String::new(),
        }
    }

    fn answers_to(&self, wanted: &str) -> bool {
        self.names.iter().any(|name| same(name, wanted))
            || self.descriptors.iter().any(|descriptor| descriptor.digest == wanted)
    }
}

impl Layout {
    /// Does a folder look like a layout?
    pub(crate) fn is_folder(path: &Path) -> bool {
        path.join("oci-layout").is_file() && path.join("index.json").is_file()
    }

    /// Opens a layout and reads its index.
    pub(crate) fn open(place: LayoutPlace, name: String, limit: u64) -> Result<Layout> {
        let mut layout = Layout { place, name, images: Vec::new() };
        let mark: LayoutMark =
            document::parse(&layout.document("oci-layout", limit)?, "oci-layout")?;
        if !mark.image_layout_version.starts_with("1.") {
            let version = printable(mark.image_layout_version.as_bytes());
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!("{} is an OCI layout of version '{version}', not 1", layout.name),
            ));
        }
        let index: Index = document::parse(&layout.document("index.json", limit)?, "index.json")?;
        if index.schema_version != 2 {
            return Err(refuse(format!(
                "index.json of {} is not of schema version 2",
                layout.name
            )));
        }
        layout.images = candidates(index.manifests.unwrap_or_default());
        Ok(layout)
    }

    /// The names of the images; the digest of one that has none.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.images.iter().map(Candidate::label).collect()
    }

    /// Opens one image.
    pub(crate) fn image(&self, wanted: Option<&str>, options: &SourceOptions) -> Result<Image> {
        let position = super::choose(&self.name, &self.labels(), wanted, |index, wanted| {
            self.images.get(index).is_some_and(|image| image.answers_to(wanted))
        })?;
        let Some(candidate) = self.images.get(position) else {
            return Err(refuse(format!("{} holds no image", self.name)));
        };
        let by_name =
            wanted.and_then(|wanted| candidate.names.iter().find(|name| same(name, wanted)));
        let name = by_name.or(candidate.names.first());
        let descriptor = self.resolve(candidate, options)?;
        self.load(name.cloned(), &descriptor, options)
    }

    /// The manifest for the wanted platform, behind however many indexes.
    fn resolve(&self, candidate: &Candidate, options: &SourceOptions) -> Result<Descriptor> {
        let mut waiting: Vec<(usize, Descriptor)> =
            candidate.descriptors.iter().rev().map(|descriptor| (0, descriptor.clone())).collect();
        let mut manifests: Vec<Descriptor> = Vec::new();
        let mut seen = 0;
        while let Some((depth, descriptor)) = waiting.pop() {
            seen += 1;
            if depth > MAX_DEPTH || seen > MAX_MANIFESTS {
                return Err(refuse(format!("{} has too many indexes in indexes", self.name)));
            }
            if descriptor.is_attestation() {
                continue;
            }
            if !is_index(descriptor.media_type()) {
                manifests.push(descriptor);
                continue;
            }
            let bytes = self.checked_blob(&descriptor, options)?.1;
            let index: Index =
                document::parse(&bytes, &format!("the index {}", descriptor.digest))?;
            for inner in index.manifests.unwrap_or_default().into_iter().rev() {
                waiting.push((depth + 1, inner));
            }
        }
        let platform = &options.platform;
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|field| platform.matches(field))
        };
        let chosen = manifests
            .iter()
            .find(fits)
            .or_else(|| manifests.iter().find(|descriptor| descriptor.platform.is_none()))
            .or(if manifests.len() == 1 { manifests.first() } else { None });
        chosen.cloned().ok_or_else(|| {
            let found: Vec<String> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .map(|field| printable(format!("{}/{}", field.os, field.architecture).as_bytes()))
                .collect();
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            Error::new(
                ErrorKind::NotFound,
                format!("{} has no image for {platform}; it has {found}", self.name),
            )
        })
    }

    fn load(
        &self,
        name: Option<String>,
        descriptor: &Descriptor,
        options: &SourceOptions,
    ) -> Result<Image> {
        check_media_type(descriptor, &MANIFEST_TYPES, "an image manifest")?;
        let (_, manifest_bytes) = self.checked_blob(descriptor, options)?;
        let what = format!("the manifest {}", descriptor.digest);
        let manifest: Manifest = document::parse(&manifest_bytes, &what)?;
        let Some(config) = manifest.config.filter(|_| manifest.schema_version == 2) else {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!("{what} is not an image manifest of schema version 2"),
            ));
        };
        check_media_type(&config, &CONFIG_TYPES, "an image configuration")?;
        let (_, config_bytes) = self.checked_blob(&config, options)?;
        let mut layers = Vec::new();
        for layer in manifest.layers.unwrap_or_default() {
            layers.push(self.layer(&layer)?);
        }
        let parts = ImageParts {
            source: self.name.clone(),
            name,
            config: config_bytes,
            manifest: Some(manifest_bytes),
            layers,
        };
        parts.assemble(options)
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<LayerPart> {
        let digest = descriptor.digest()?;
        if descriptor.media_type().contains("encrypted") {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the layer {digest} of {} is encrypted; decrypt the image first",
                    self.name
                ),
            ));
        }
        let region = self.blob(&digest)?;
        check_size(&region, descriptor.size)?;
        let media_type = descriptor.media_type().to_owned();
        LayerPart::blob(region, Some(digest), Some(media_type))
    }

    /// A small blob with its bytes, checked.
    fn checked_blob(
        &self,
        descriptor: &Descriptor,
        options: &SourceOptions,
    ) -> Result<(Region, Vec<u8>)> {
        let digest = descriptor.digest()?;
        let region = self.blob(&digest)?;
        check_size(&region, descriptor.size)?;
        let bytes = region.read_all(options.limits.max_document_bytes)?;
        digest.verify(&bytes, region.name())?;
        Ok((region, bytes))
    }

    fn blob(&self, digest: &Digest) -> Result<Region> {
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        match self.find(&path)? {
            Some(region) => Ok(region.renamed(format!("the blob {digest} of {}", self.name))),
            None => Err(refuse(format!("the blob {digest} is missing from {}", self.name))),
        }
    }

    fn document(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        match self.find(name)? {
            Some(region) => region.read_all(limit_bytes),
            None => Err(refuse(format!("'{name}' is missing from {}", self.name))),
        }
    }

    fn find(&self, path: &str) -> Result<Option<Region>> {
        match &self.place {
            LayoutPlace::Archive(region, index) => index.find(region, path),
            LayoutPlace::Folder(folder) => {
                let name = format!("'{path}' of {}", self.name);
                match Region::at_path(&folder.join(path), name) {
                    Ok(region) => Ok(Some(region)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// The types under which image manifests go; none at all is taken for one.
const MANIFEST_TYPES: [&str; 3] = [
    "",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The types under which image configurations go.
const CONFIG_TYPES: [&str; 3] = [
    "",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn check_media_type(descriptor: &Descriptor, known: &[&str], what: &str) -> Result<()> {
    let media_type = descriptor.media_type();
    if known.contains(&media_type) {
        return Ok(());
    }
    let media_type = printable(media_type.as_bytes());
    let digest = printable(descriptor.digest.as_bytes());
    Err(Error::new(
        ErrorKind::Incompatible,
        format!("the blob {digest} has the media type '{media_type}', which is not {what}"),
    ))
}

fn check_size(region: &Region, promised: u64) -> Result<()> {
    if region.length_bytes() == promised {
        return Ok(());
    }
    Err(refuse(format!(
        "{} has {} bytes where {promised} are promised",
        region.name(),
        region.length_bytes()
    )))
}

/// Sorts the manifests of an index into images: those of the same name, or the same digest, are one; so
/// are those without names that are for different platforms.
fn candidates(manifests: Vec<Descriptor>) -> Vec<Candidate> {
    let mut images: Vec<Candidate> = Vec::new();
    for descriptor in manifests.into_iter().filter(|descriptor| !descriptor.is_attestation()) {
        let mut names: Vec<String> = Vec::new();
        for key in [CONTAINERD_NAME, REFERENCE_NAME] {
            if let Some(name) = descriptor.annotation(key) {
                names.push(familiar(name));
            }
        }
        // Beside a full name, the tag alone says nothing more.
        if descriptor.annotation(CONTAINERD_NAME).is_some() {
            names.truncate(1);
        }
        let home = images.iter_mut().find(|image| {
            let same_digest =
                image.descriptors.iter().any(|other| other.digest == descriptor.digest);
            let same_name = names.iter().any(|name| image.names.contains(name));
            let both_nameless = names.is_empty()
                && image.names.is_empty()
                && descriptor.platform.is_some()
                && image.descriptors.iter().all(|other| other.platform.is_some());
            same_digest || same_name || both_nameless
        });
        match home {
            Some(image) => {
                for name in names {
                    if !image.names.contains(&name) {
                        image.names.push(name);
                    }
                }
                image.descriptors.push(descriptor);
            }
            None => images.push(Candidate { names, descriptors: vec![descriptor] }),
        }
    }
    images
}
