//! What is imported: the source opened and named, and what is kept of the image.

use std::path::Path;
use std::sync::Arc;

use thinstore_archive::{Image, ImageSource, SourceOptions};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::document::{ImageDocument, ImageLayer};
use crate::layout::{Layout, make_private_directory};
use crate::names::ImageName;
use crate::operations::{Input, Progress};
use crate::types::ImportRequest;

pub(crate) fn open_source(
    layout: &Layout,
    request: &ImportRequest,
    input: Option<Input>,
    wanted: Option<&ImageName>,
    progress: &Arc<dyn Progress>,
) -> Result<Image> {
    make_private_directory(&layout.run())?;
    let options = SourceOptions::new(&layout.run());
    let source = match input {
        Some(input) if request.source == Path::new("-") => {
            ImageSource::from_reader(input, &options)
        }
        _ if request.source == Path::new("-") => Err(Error::new(
            ErrorKind::Usage,
            "an import from '-' comes without input; send the archive with it",
        )),
        _ => ImageSource::open(&request.source, &options),
    };
    let opened = source.and_then(|source| {
        let names = source.image_names();
        // with several images in the source, the wanted name also says which
        let chosen = names.iter().find(|name| {
            names.len() > 1 && wanted.is_some() && ImageName::parse(name).ok().as_ref() == wanted
        });
        source.image(chosen.map(String::as_str), &options)
    });
    match opened {
        // whatever was said of a source that broke off: it was on purpose
        Err(_) if progress.cancelled() => Err(crate::interrupted("the import")),
        other => other,
    }
}

/// Says which layer it was, and of a full file system which one.
pub(crate) fn explained(error: Error, number: u64, layers: usize) -> Error {
    match error.kind() {
        ErrorKind::Full => error.context(format!(
            "layer {number} of {layers} does not fit (the device or the pool is full; see 'thinstore df')"
        )),
        _ => error,
    }
}

/// What is kept of an image whose layers, the lowest first, have these chain ids and diff ids.
pub(crate) fn document_of<'a>(
    request: &ImportRequest,
    image: &Image,
    layers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<ImageDocument> {
    let text = |bytes: &[u8], what: &str| {
        String::from_utf8(bytes.to_vec()).map_err(|_| {
            Error::new(ErrorKind::Refused, format!("the image's {what} is not UTF-8 text"))
        })
    };
    let source = match request.source == Path::new("-") {
        true => "standard input".to_owned(),
        false => request.source.display().to_string(),
    };
    let layers = layers
        .map(|(chain_id, diff_id)| ImageLayer {
            name: chain_id.to_owned(),
            diff_id: Some(diff_id.to_owned()),
        })
        .collect();
    let manifest = image.manifest.as_deref().map(|bytes| text(bytes, "manifest")).transpose()?;
    Ok(ImageDocument::new(text(&image.config, "configuration")?, manifest, source, layers))
}

/// What an image is called when nobody says: as its source calls it, or as the file or folder is called.
pub(crate) fn name_of(source: &Path, image: &Image) -> Result<ImageName> {
    if let Some(name) = &image.name {
        return Ok(ImageName::from_text(name));
    }
    if source == Path::new("-") {
        return Err(Error::new(
            ErrorKind::Usage,
            "what comes from standard input does not say its name; give it one with --name",
        ));
    }
    let file = source.file_name().map(|name| name.to_string_lossy().into_owned());
    let file = file.unwrap_or_default();
    let endings = [".tar.gz", ".tar.zst", ".tar.zstd", ".tgz", ".tar", ".oci"];
    let stem = endings.iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(&file);
    Ok(ImageName::from_text(stem))
}
