//! Docker's data root (`/var/lib/docker`) with the storage driver overlay2, and what [`write_data_root`]
//! made like it: unpacked layers in `overlay2/ID/diff`, and beside them what they are layers of.
//!
//! What an unpacked layer lost of its tar stands in its recipe. Both together give the tar again, so that
//! layers are held against their digests here as everywhere: a folder that somebody changed is refused.
//!
//! [`write_data_root`]: crate::write_data_root

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};

use super::document;
use super::names::{familiar, same};
use super::{Image, ImageParts, LayerPart, SourceOptions};
use crate::digest::{Digest, chain_ids};
use crate::host::HostTree;
use crate::layer::{MEDIA_TYPE_TAR, Source};
use crate::region::Region;
use crate::{printable, refuse};

/// The unpacked layers.
pub(crate) const LAYERS: &str = "overlay2";
/// The images' configurations, each by its digest.
pub(crate) const CONFIGS: &str = "image/overlay2/imagedb/content/sha256";
/// What is known of the layers, each by its chain id.
pub(crate) const LAYER_RECORDS: &str = "image/overlay2/layerdb/sha256";
/// The images' names.
pub(crate) const NAMES: &str = "image/overlay2/repositories.json";
/// A layer's recipe, in its record.
pub(crate) const RECIPE: &str = "tar-split.json.gz";

/// `repositories.json`: for each repository, references and the images' ids.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Repositories {
    pub(crate) repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// An image by its id, and what it is called.
#[derive(Debug)]
struct Known {
    id: Digest,
    names: Vec<String>,
}

/// A data root.
#[derive(Debug)]
pub(crate) struct DataRoot {
    folder: PathBuf,
    name: String,
    images: Vec<Known>,
}

impl DataRoot {
    /// Does a folder look like one?
    pub(crate) fn is_folder(path: &Path) -> bool {
        [LAYERS, CONFIGS, LAYER_RECORDS].iter().all(|name| path.join(name).is_dir())
    }

    /// Reads which images there are. Those without a name, which Docker keeps of the steps of a build,
    /// count only where none has one.
    pub(crate) fn open(folder: &Path, name: String, limit: u64) -> Result<DataRoot> {
        let mut root = DataRoot { folder: folder.to_owned(), name, images: Vec::new() };
        let names = match root.read(NAMES, limit) {
            Ok(bytes) => document::parse(&bytes, &format!("'{NAMES}' of {}", root.name))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Repositories::default(),
            Err(error) => return Err(error),
        };
        let mut known: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (reference, id) in names.repositories.values().flatten() {
            let names = known.entry(id.parse()?).or_default();
            // A reference by digest says nothing beside one by tag.
            if !reference.contains('@') {
                names.push(familiar(reference));
            }
        }
        if known.is_empty() {
            for id in root.configs()? {
                known.insert(id, Vec::new());
            }
        }
        root.images = known.into_iter().map(|(id, names)| Known { id, names }).collect();
        Ok(root)
    }

    fn configs(&self) -> Result<Vec<Digest>> {
        let failed =
            |error| Error::io(format!("'{CONFIGS}' of {} cannot be read", self.name), error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.folder.join(CONFIGS)).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            found.extend(format!("sha256:{}", name.to_string_lossy()).parse::<Digest>().ok());
        }
        Ok(found)
    }

    /// The images' names; the id of one that has none.
    pub(crate) fn labels(&self) -> Vec<String> {
        let label = |image: &Known| match image.names.first() {
            Some(name) => name.clone(),
            None => image.id.to_string(),
        };
        self.images.iter().map(label).collect()
    }

    /// Opens one image.
    pub(crate) fn image(&self, wanted: Option<&str>, options: &SourceOptions) -> Result<Image> {
        let position = super::choose(&self.name, &self.labels(), wanted, |index, wanted| {
            self.images.get(index).is_some_and(|image| {
                image.names.iter().any(|name| same(name, wanted))
                    || wanted == image.id.to_string()
                    || wanted == image.id.hex()
            })
        })?;
        let Some(image) = self.images.get(position) else {
            return Err(refuse(format!("{} holds no image", self.name)));
        };
        let limit = options.limits.max_document_bytes;
        let config = self.present(&format!("{CONFIGS}/{}", image.id.hex()), limit)?;
        let config_name = format!("the configuration {} of {}", image.id, self.name);
        image.id.verify(&config, &config_name)?;
        let diff_ids = document::diff_ids(&config, &config_name)?;
        let mut layers = Vec::new();
        let mut below: Option<Digest> = None;
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(&diff_ids)) {
            layers.push(self.layer(diff_id, &chain_id, below.as_ref(), limit)?);
            below = Some(chain_id);
        }
        let by_name = wanted.and_then(|wanted| image.names.iter().find(|name| same(name, wanted)));
        let parts = ImageParts {
            source: self.name.clone(),
            name: by_name.or(image.names.first()).cloned(),
            config,
            manifest: None,
            layers,
        };
        parts.assemble(options)
    }

    /// One layer, what its record says held against what the configuration says.
    fn layer(
        &self,
        diff_id: &Digest,
        chain_id: &Digest,
        below: Option<&Digest>,
        limit: u64,
    ) -> Result<LayerPart> {
        let record = format!("{LAYER_RECORDS}/{}", chain_id.hex());
        let text = |name: &str| self.text(&format!("{record}/{name}"), limit);
        let disagrees = |what: &str| {
            refuse(format!(
                "'{record}' of {} and the image's configuration disagree on {what} of the layer \
                 {diff_id}",
                self.name
            ))
        };
        if text("diff")? != diff_id.to_string() {
            return Err(disagrees("the digest"));
        }
        if let Some(below) = below
            && text("parent")? != below.to_string()
        {
            return Err(disagrees("the parent"));
        }
        let id = text("cache-id")?;
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let id = printable(id.as_bytes());
            return Err(refuse(format!("'{record}' of {} names the folder '{id}'", self.name)));
        }
        let tree = HostTree::open(&self.folder.join(LAYERS).join(&id).join("diff"))
            .map_err(|error| missing(error, &format!("the layer {diff_id} of {}", self.name)))?;
        let path = format!("{record}/{RECIPE}");
        let recipe_name = format!("'{path}' of {}", self.name);
        let recipe = Region::at_path(&self.folder.join(&path), recipe_name.clone())
            .map_err(|error| missing(error, &recipe_name))?;
        Ok(LayerPart {
            source: Source::Unpacked { recipe, tree: Arc::new(tree) },
            size_bytes: text("size")?.parse().map_err(|_| disagrees("the size"))?,
            blob_digest: None,
            media_type: MEDIA_TYPE_TAR.to_owned(),
        })
    }

    fn text(&self, path: &str, limit: u64) -> Result<String> {
        let bytes = self.present(path, limit)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A document that must be there.
    fn present(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        self.read(path, limit)
            .map_err(|error| missing(error, &format!("'{path}' of {}", self.name)))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let name = format!("'{path}' of {}", self.name);
        Region::at_path(&self.folder.join(path), name)?.read_all(limit)
    }
}

/// What an image needs and has not is the image's fault: it is not the image that is not there.
fn missing(error: Error, what: &str) -> Error {
    match error.kind() {
        ErrorKind::NotFound => refuse(format!("{what} is missing")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::layer::Layer;
    use crate::layer::reader::LayerItem;
    use crate::limits::Limits;
    use crate::recipe::write::write_recipe;
    use crate::write::tar::{TarWriter, WhiteoutNames};

    const CONTENT: &[u8] = b"what stands in the file";

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A data root with one image for each name, all of the same single layer; its record.
    fn data_root(folder: &Path, names: &[&str]) -> PathBuf {
        let mut tar = TarWriter::new(Vec::new(), WhiteoutNames::Plain);
        tar.document("a-file", CONTENT).unwrap();
        tar.document("folder/\u{e9}", b"").unwrap();
        let tar_path = folder.join("layer.tar");
        fs::write(&tar_path, tar.finish().unwrap()).unwrap();
        let layer = Layer::from_tar_file(&tar_path, &Limits::default()).unwrap();
        let record = folder.join(LAYER_RECORDS).join(layer.diff_id.hex());
        write(&record.join("cache-id"), b"abc");
        write(&record.join("diff"), layer.diff_id.to_string().as_bytes());
        let size = write_recipe(&layer, &record.join(RECIPE)).unwrap();
        assert_eq!(size, u64::try_from(CONTENT.len()).unwrap());
        write(&record.join("size"), size.to_string().as_bytes());
        write(&folder.join(LAYERS).join("abc/diff/a-file"), CONTENT);
        let mut repositories = Repositories::default();
        for name in names {
            let config = serde_json::json!({
                "of": name,
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.to_string()]},
            });
            let config = config.to_string().into_bytes();
            let id = Digest::of(&config);
            write(&folder.join(CONFIGS).join(id.hex()), &config);
            let references = BTreeMap::from([(format!("{name}:1"), id.to_string())]);
            repositories.repositories.insert((*name).to_owned(), references);
        }
        write(&folder.join(NAMES), &serde_json::to_vec(&repositories).unwrap());
        record
    }

    fn open(folder: &Path, name: Option<&str>) -> Result<Image> {
        assert!(DataRoot::is_folder(folder));
        let root = DataRoot::open(folder, "the data root".to_owned(), 1 << 20)?;
        root.image(name, &SourceOptions::new(folder))
    }

    fn read(image: &Image) -> Result<Vec<String>> {
        let mut reader = image.layers.first().unwrap().open(None)?;
        let mut found = Vec::new();
        while let Some(item) = reader.next_item()? {
            if let LayerItem::Node { path, .. } = item {
                found.push(path.to_string());
            }
        }
        reader.finish()?;
        Ok(found)
    }

    fn refused(folder: &Path, part: &str) {
        let error = open(folder, None).and_then(|image| read(&image)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn an_unpacked_layer_and_its_recipe_give_the_tar_that_its_digest_promises() {
        let folder = tempfile::tempdir().unwrap();
        data_root(folder.path(), &["one"]);
        let image = open(folder.path(), None).unwrap();
        assert_eq!(image.name.as_deref(), Some("one:1"));
        assert_eq!(read(&image).unwrap(), ["/a-file", "/folder/\u{e9}"]);
        // once more, without hashing
        let layer = image.layers.first().unwrap();
        let mut reader = layer.open_unverified().unwrap();
        assert!(reader.next_item().unwrap().is_some());
    }

    #[test]
    fn of_several_images_one_is_chosen_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        data_root(folder.path(), &["one", "two"]);
        let error = open(folder.path(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("one:1") && error.to_string().contains("two:1"));
        let image = open(folder.path(), Some("two:1")).unwrap();
        assert_eq!(image.name.as_deref(), Some("two:1"));
        let id = image.config_digest.to_string();
        assert_eq!(open(folder.path(), Some(&id)).unwrap().config_digest, image.config_digest);
        assert_eq!(open(folder.path(), Some("3")).unwrap_err().kind(), ErrorKind::NotFound);
        // Without names there are the images that nobody named.
        fs::remove_file(folder.path().join(NAMES)).unwrap();
        let image = open(folder.path(), Some(&id)).unwrap();
        assert_eq!((image.name, image.config_digest.to_string()), (None, id));
    }

    #[test]
    fn records_that_are_missing_or_say_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let record = data_root(folder.path(), &["one"]);
        for (name, wrong, part) in [
            ("cache-id", "../abc", "names the folder"),
            ("cache-id", "", "names the folder"),
            ("cache-id", "other", "is missing"),
            ("diff", "sha256:00", "disagree on the digest"),
            ("size", "many", "disagree on the size"),
        ] {
            let right = fs::read(record.join(name)).unwrap();
            fs::write(record.join(name), wrong).unwrap();
            refused(folder.path(), part);
            fs::write(record.join(name), right).unwrap();
        }
        for name in ["cache-id", "diff", "size", RECIPE] {
            let right = fs::read(record.join(name)).unwrap();
            fs::remove_file(record.join(name)).unwrap();
            refused(folder.path(), "is missing");
            fs::write(record.join(name), right).unwrap();
        }
        read(&open(folder.path(), None).unwrap()).unwrap();
    }

    #[test]
    fn files_and_recipes_that_are_not_those_of_the_layer_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let record = data_root(folder.path(), &["one"]);
        let file = folder.path().join(LAYERS).join("abc/diff/a-file");
        for wrong in
            [&b"What stands in the file"[..], b"less", b"what stands in the file, and more"]
        {
            fs::write(&file, wrong).unwrap();
            refused(folder.path(), "'a-file'");
        }
        fs::remove_file(&file).unwrap();
        refused(folder.path(), "'a-file'");
        std::os::unix::fs::symlink(record.join("diff"), &file).unwrap();
        refused(folder.path(), "'a-file'");
        fs::remove_file(&file).unwrap();
        fs::write(&file, CONTENT).unwrap();
        read(&open(folder.path(), None).unwrap()).unwrap();
        let right = fs::read(record.join(RECIPE)).unwrap();
        for wrong in [&b"nothing of the kind"[..], right.get(..60).unwrap()] {
            fs::write(record.join(RECIPE), wrong).unwrap();
            refused(folder.path(), "");
        }
        for line in [
            r#"{"type":2,"payload":"AAAA","position":0}"#,
            r#"{"type":3,"payload":null,"position":0}"#,
            r#"{"type":2,"payload":"!","position":0}"#,
            r#"{"type":1,"name":"../../cache-id","size":3,"payload":"","position":0}"#,
        ] {
            fs::write(record.join(RECIPE), line).unwrap();
            refused(folder.path(), "");
        }
    }
}
