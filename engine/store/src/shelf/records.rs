//! What a shelf remembers: a small file for each layer, image and container, in
//! `ROOT/shelves/DRIVER/{layers,images,containers}/`.
//!
//! A name is given by one rename, which fails if the name is taken, and taken away by one removal; both are
//! durable before anybody is told. What the driver has that no file names is left of a crash.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thinstore_drivers::LayerId;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::document::ImageDocument;
use crate::layout::{make_private_directory, remove_durably, sync_directory};

/// Temporary files begin so; no name does.
const TEMPORARY: &str = ".new-";

/// A sealed layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) id: LayerId,
    /// Its chain id, or `DRIVER:ID` for one that a commit made; empty if only containers stand on it.
    pub(super) name: String,
    pub(super) diff_id: Option<String>,
    pub(super) parent: Option<LayerId>,
    /// What it held of its own when it was sealed.
    pub(super) own_bytes: u64,
    pub(super) created_unix_ns: i64,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) name: String,
    /// None of an image without layers.
    pub(super) top: Option<LayerId>,
    pub(super) document: ImageDocument,
    pub(super) created_unix_ns: i64,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: LayerId,
    pub(super) name: String,
    /// The image's name; none if it was made from a bare layer.
    pub(super) image: Option<String>,
    /// What it stands on.
    pub(super) parent: Option<LayerId>,
    pub(super) created_unix_ns: i64,
}

/// What has a file of its own.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// The folder of its kind.
    const FOLDER: &'static str;
    /// What it is called in a sentence.
    const KIND: &'static str;

    /// The name of its file.
    fn file_name(&self) -> String;
}

impl Record for LayerRecord {
    const FOLDER: &'static str = "layers";
    const KIND: &'static str = "layer";

    fn file_name(&self) -> String {
        self.id.to_string()
    }
}

impl Record for ImageRecord {
    const FOLDER: &'static str = "images";
    const KIND: &'static str = "image";

    /// A file's name has no slashes, an image's no exclamation marks.
    fn file_name(&self) -> String {
        image_file_name(&self.name)
    }
}

pub(super) fn image_file_name(name: &str) -> String {
    name.replace('/', "!")
}

impl Record for ContainerRecord {
    const FOLDER: &'static str = "containers";
    const KIND: &'static str = "container";

    fn file_name(&self) -> String {
        self.name.clone()
    }
}

/// The folder of all records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    folder: PathBuf,
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| Error::io(format!("cannot {what} {}", path.display()), error)
}

impl Records {
    /// Makes the folders that are not there.
    pub(super) fn open(folder: PathBuf) -> Result<Records> {
        make_private_directory(folder.parent().unwrap_or(Path::new("/")))?;
        make_private_directory(&folder)?;
        for kind in [LayerRecord::FOLDER, ImageRecord::FOLDER, ContainerRecord::FOLDER] {
            make_private_directory(&folder.join(kind))?;
        }
        Ok(Records { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path<R: Record>(&self, file_name: &str) -> PathBuf {
        self.folder.join(R::FOLDER).join(file_name)
    }

    /// Gives something its name; false if the name is taken.
    pub(super) fn publish<R: Record>(&self, record: &R) -> Result<bool> {
        let path = self.path::<R>(&record.file_name());
        let folder = self.folder.join(R::FOLDER);
        let failed = failed("write", &path);
        let text = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        let mut file =
            tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&folder).map_err(&failed)?;
        file.write_all(&text).map_err(&failed)?;
        file.as_file().sync_all().map_err(&failed)?;
        match renameat_with(CWD, file.path(), CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(failed(errno.into())),
        }
        // it has another name now, which is not to be removed
        drop(file.into_temp_path().keep());
        // nobody may rely on a name that power can take away
        sync_directory(&folder).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        Ok(true)
    }

    /// Takes its name away.
    pub(super) fn forget<R: Record>(&self, record: &R) -> Result<()> {
        remove_durably(&self.path::<R>(&record.file_name()))
    }

    /// What has a file of this name; none if there is none.
    pub(super) fn read<R: Record>(&self, file_name: &str) -> Result<Option<R>> {
        let path = self.path::<R>(file_name);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                let what = format!(
                    "the record {} of a {} is damaged ({error}); remove it",
                    path.display(),
                    R::KIND
                );
                Error::new(ErrorKind::Corrupt, what)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// The names of the files of a kind.
    pub(super) fn file_names<R: Record>(&self) -> Result<Vec<String>> {
        let folder = self.folder.join(R::FOLDER);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed("look into", &folder))? {
            let name = entry.map_err(failed("look into", &folder))?.file_name();
            names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
        }
        names.sort();
        Ok(names)
    }

    /// All of a kind.
    pub(super) fn all<R: Record>(&self) -> Result<Vec<R>> {
        let mut all = Vec::new();
        for name in self.file_names::<R>()? {
            // one that is gone meanwhile is none
            all.extend(self.read(&name)?);
        }
        Ok(all)
    }

    /// Removes what a crash has left while something got its name.
    pub(super) fn remove_unfinished(&self) -> Result<()> {
        for kind in [LayerRecord::FOLDER, ImageRecord::FOLDER, ContainerRecord::FOLDER] {
            let folder = self.folder.join(kind);
            let entries = std::fs::read_dir(&folder).map_err(failed("look into", &folder))?;
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    remove_durably(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> ContainerRecord {
        ContainerRecord {
            id: LayerId::random().expect("an id"),
            name: name.to_owned(),
            image: None,
            parent: None,
            created_unix_ns: 1,
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::open(folder.path().join("shelves/vfs")).expect("records");
        let (first, second) = (container("web"), container("web"));
        assert!(records.publish(&first).expect("published"));
        assert!(!records.publish(&second).expect("taken"));
        assert_eq!(records.all::<ContainerRecord>().expect("all"), std::slice::from_ref(&first));
        records.forget(&first).expect("forgotten");
        assert!(records.publish(&second).expect("free again"));
        assert_eq!(records.read("web").expect("there"), Some(second));
        let files = std::fs::read_dir(records.folder().join("containers")).expect("a folder");
        assert_eq!(files.count(), 1);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::open(folder.path().join("shelves/vfs")).expect("records");
        std::fs::write(records.path::<ContainerRecord>("web"), "{").expect("written");
        let error = records.read::<ContainerRecord>("web").expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("containers/web"), "{error}");
    }
}
