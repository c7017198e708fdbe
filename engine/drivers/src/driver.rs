//! What every driver can do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::name::DriverName;

/// What a layer is called by its driver: 64 hex digits, never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(String);

impl LayerId {
    /// Takes an id as it is written.
    ///
    /// # Errors
    /// `Corrupt` if it is none.
    pub fn parse(text: &str) -> Result<LayerId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(LayerId(text.to_owned()));
        }
        Err(Error::new(ErrorKind::Corrupt, format!("'{}' is no layer's id", text.escape_debug())))
    }

    /// An id that nothing else has.
    ///
    /// # Errors
    /// If the host has no random numbers.
    pub fn random() -> Result<LayerId> {
        let mut bytes = [0_u8; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes))
            .map_err(|error| Error::io("cannot read /dev/urandom", error))?;
        Ok(LayerId(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for LayerId {
    type Error = Error;

    fn try_from(text: String) -> Result<LayerId> {
        LayerId::parse(&text)
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> String {
        id.0
    }
}

/// A layer and all that it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The layer.
    pub id: LayerId,
    /// What it stands on, the nearest first. All of them are sealed.
    pub below: Vec<LayerId>,
}

/// Where a layer is mounted, and how.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// An empty folder.
    pub directory: &'a Path,
    /// No writing.
    pub read_only: bool,
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// How long the container's file system was frozen; 0 if it was not.
    pub frozen_us: u64,
}

/// How files that are the same in an old and a new layer can be told without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// They cannot.
    Unknown,
    /// What is at a path in none of these folders is as it was.
    NotIn(Vec<PathBuf>),
    /// The new one is a snapshot of the old one, or of a snapshot: what has the same inode and the same time of
    /// the last change (ctime) as before is as it was.
    ChangeTime,
}

/// How layers are kept, and how they become a directory.
///
/// Ids come from outside; a driver makes no other state than what stands below its own folder, and what is
/// mounted. After an error nothing of the new layer is left, or `layers` lists it and `remove` takes
/// it away. Calls for different layers may come from several threads and processes at once.
pub trait LayerDriver: Send + Sync {
    /// Which one it is.
    fn name(&self) -> DriverName;

    /// Makes an empty writable layer; on nothing, an empty file system (root's, mode 0755, time 0).
    fn create(&self, layer: &Stack) -> Result<()>;

    /// Makes a layer durable; nobody writes to it any more. It is not mounted.
    fn seal(&self, layer: &Stack) -> Result<()>;

    /// Removes a layer that is not mounted and that nothing stands on, also one that is half made.
    fn remove(&self, id: &LayerId) -> Result<()>;

    /// All layers that there are, half made ones too.
    fn layers(&self) -> Result<Vec<LayerId>>;

    /// Shows a writable layer at a directory. It is mounted nowhere else.
    fn mount(&self, layer: &Stack, place: Place<'_>) -> Result<()>;

    /// Shows a layer that is being made at a directory, for its files to be written.
    fn fill(&self, layer: &Stack, directory: &Path) -> Result<()> {
        self.mount(layer, Place { directory, read_only: false })
    }

    /// Shows a layer, sealed or not, that is not mounted, to be looked at: read-only, at any number of
    /// directories at once. Nothing of the layer changes by it.
    fn view(&self, layer: &Stack, directory: &Path) -> Result<()>;

    /// Takes away what stands behind a mount of [`LayerDriver::mount`] whose directory shows it no more: it
    /// was unmounted, or a crash has left it. Nothing there is no error; `InUse` while somebody works in it.
    fn release(&self, id: &LayerId) -> Result<()>;

    /// Makes `to` a sealed layer on what `from` stands on, with what `from` has now. `mounted` says where
    /// that is, if it is.
    fn commit(&self, from: &Stack, mounted: Option<&Path>, to: &LayerId) -> Result<Commit>;

    /// Does a new name for a file of a layer below part it from its other names?
    fn parts_hard_links(&self) -> bool {
        false
    }

    /// How files that are the same in two layers can be told without reading them.
    fn unchanged(&self, _old: &Stack, _new: &Stack) -> Unchanged {
        Unchanged::Unknown
    }

    /// What removing the layer would give back.
    fn own_bytes(&self, id: &LayerId) -> Result<u64>;

    /// The device below a mounted layer, where it has one of its own.
    fn device(&self, _id: &LayerId) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    /// What Docker shows as `GraphDriver.Data`.
    fn facts(&self, layer: &Stack) -> BTreeMap<String, String>;
}
