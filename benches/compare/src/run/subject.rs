//! What is compared: a driver, as seen by the comparison.

use std::path::PathBuf;

use crate::results::Parameters;
use crate::workload::{Content, Image};

/// What a subject says went wrong: its own words.
pub type Answer<T> = Result<T, String>;

/// An image, with all parameters in their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOrder {
    /// An image that the runner knows; none for an empty one.
    pub base: Option<String>,
    /// How many layers lie upon the base, one at least: the first has the files, each of the others a small one.
    pub layers: u64,
    /// Paths below the root, and what the files have in them.
    pub files: Vec<(String, Content<u64>)>,
    /// Programs of the host, by name: each is in the image with its libraries, at its own path.
    pub programs: Vec<String>,
}

impl ImageOrder {
    /// Resolves what a workload says.
    pub fn of(image: &Image, parameters: &Parameters) -> Answer<Self> {
        let mut files = Vec::new();
        for file in &image.files {
            let content = match &file.content {
                Content::Noise(size) => Content::Noise(size.number(parameters)?),
                Content::Text(text) => Content::Text(text.clone()),
            };
            let count = file.count.number(parameters)?;
            if count == 1 {
                files.push((file.path.clone(), content));
            } else {
                let path = |number| format!("{}{number}", file.path);
                files.extend((0..count).map(|number| (path(number), content.clone())));
            }
        }
        Ok(Self {
            base: image.base.clone(),
            layers: image.layers.number(parameters)?.max(1),
            files,
            programs: image.programs.clone(),
        })
    }
}

/// What may be mounted over a path of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountedOver {
    /// A volume: an empty one, which is gone after the trial.
    Volume,
    /// A file system in memory.
    Tmpfs,
}

/// A mount over a path of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOrder {
    /// What.
    pub kind: MountedOver,
    /// Where, from the container's root.
    pub path: String,
}

impl MountOrder {
    /// Reads `volume:/path` and `tmpfs:/path`; none of `layer:/path`, which leaves the path to the container's own
    /// layer. So where a workload writes can be a parameter.
    pub fn parse(text: &str) -> Answer<Option<Self>> {
        let wrong = || {
            format!("'{text}': a mount is layer:/path, volume:/path or tmpfs:/path, without '..'")
        };
        let (kind, path) = text.split_once(':').ok_or_else(wrong)?;
        let good =
            path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..");
        let kind = match kind {
            _ if !good => return Err(wrong()),
            "layer" => return Ok(None),
            "volume" => MountedOver::Volume,
            "tmpfs" => MountedOver::Tmpfs,
            _ => return Err(wrong()),
        };
        Ok(Some(Self { kind, path: path.to_owned() }))
    }
}

/// A driver. Containers have names; several threads may work with different ones at the same time.
pub trait Subject: Sync {
    /// Its name in results.
    fn name(&self) -> &str;

    /// A fresh state with this image in it and nothing of any trial before. Not measured; a subject may keep images
    /// from trial to trial as long as that cannot be seen.
    fn begin(&self, image: &ImageOrder) -> Answer<()>;

    /// Makes a container of the image, or of one that [`commit`](Self::commit) made.
    fn create(&self, container: &str, committed: Option<&str>) -> Answer<()>;

    /// Mounts it with these over paths of it, and says where.
    fn mount(&self, container: &str, mounts: &[MountOrder]) -> Answer<PathBuf>;

    /// Unmounts it.
    fn unmount(&self, container: &str) -> Answer<()>;

    /// Makes an image of what it has, mounted or not.
    fn commit(&self, container: &str, image: &str) -> Answer<()>;

    /// How many paths changed in it.
    fn diff(&self, container: &str) -> Answer<u64>;

    /// Removes it.
    fn remove(&self, container: &str) -> Answer<()>;

    /// Takes everything down, whatever a failed step has left. Called after every trial.
    fn end(&self) -> Answer<()>;

    /// The daemons that work for it now.
    fn daemons(&self) -> Vec<u32>;

    /// What its store takes on the disk, when what was given back has arrived there.
    fn space_bytes(&self) -> Answer<u64>;
}
