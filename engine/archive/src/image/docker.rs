//! Archives of `docker save` (and `podman save`): `manifest.json` names a configuration and layers by
//! their paths in the archive. Up to Docker 24 layers stand as `ID/layer.tar`, since 25 as blobs.

use thinstore_storage::Result;

use super::document::{self, SavedImage};
use super::index::MemberIndex;
use super::names::{familiar, same};
use super::{Image, ImageParts, LayerPart, SourceOptions};
use crate::digest::Digest;
use crate::region::Region;
use crate::{printable, refuse};

/// The document that makes an archive one of `docker save`.
pub(crate) const MANIFEST: &str = "manifest.json";

/// An archive of `docker save`.
#[derive(Debug)]
pub(crate) struct SavedArchive {
    region: Region,
    index: MemberIndex,
    images: Vec<SavedImage>,
}

impl SavedArchive {
    /// Reads the manifest.
    pub(crate) fn open(region: Region, index: MemberIndex, limit: u64) -> Result<SavedArchive> {
        let Some(manifest) = index.find(&region, MANIFEST)? else {
            return Err(refuse(format!("'{MANIFEST}' is missing from {}", region.name())));
        };
        let images = document::parse(&manifest.read_all(limit)?, manifest.name())?;
        Ok(SavedArchive { region, index, images })
    }

    /// The first name of every image, or its configuration's path.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.images
            .iter()
            .map(|image| match tags(image).next() {
                Some(name) => name,
                None => image.config.clone(),
            })
            .collect()
    }

    /// Opens one image.
    pub(crate) fn image(&self, wanted: Option<&str>, options: &SourceOptions) -> Result<Image> {
        let source = self.region.name();
        let position = super::choose(source, &self.labels(), wanted, |index, wanted| {
            self.images.get(index).is_some_and(|image| answers_to(image, wanted))
        })?;
        let Some(image) = self.images.get(position) else {
            return Err(refuse(format!("{source} holds no image")));
        };
        let config = self.member(&image.config)?;
        let config_bytes = config.read_all(options.limits.max_document_bytes)?;
        if let Some(promised) = digest_in_path(&image.config) {
            promised.verify(&config_bytes, config.name())?;
        }
        let mut layers = Vec::new();
        for path in image.layers.iter().flatten() {
            let blob_digest = path.starts_with("blobs/").then(|| digest_in_path(path)).flatten();
            layers.push(LayerPart::blob(self.member(path)?, blob_digest, None)?);
        }
        let by_name = wanted.and_then(|wanted| tags(image).find(|name| same(name, wanted)));
        let parts = ImageParts {
            source: source.to_owned(),
            name: by_name.or(tags(image).next()),
            config: config_bytes,
            manifest: None,
            layers,
        };
        parts.assemble(options)
    }

    fn member(&self, path: &str) -> Result<Region> {
        self.index.find(&self.region, path)?.ok_or_else(|| {
            let path = printable(path.as_bytes());
            refuse(format!("'{path}' is missing from {}", self.region.name()))
        })
    }
}

fn tags(image: &SavedImage) -> impl Iterator<Item = String> + '_ {
    image.repo_tags.iter().flatten().map(|name| familiar(name))
}

fn answers_to(image: &SavedImage, wanted: &str) -> bool {
    let by_digest = digest_in_path(&image.config)
        .is_some_and(|digest| wanted == digest.to_string() || wanted == digest.hex());
    by_digest || tags(image).any(|name| same(&name, wanted))
}

/// The digest that a path's last name is, as `HEX`, `HEX.json` or `HEX.tar`.
fn digest_in_path(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    let hex = name.strip_suffix(".json").or_else(|| name.strip_suffix(".tar")).unwrap_or(name);
    format!("sha256:{hex}").parse().ok()
}
