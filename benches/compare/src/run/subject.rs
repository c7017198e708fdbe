//! What is compared: a driver, as seen by the comparison.

use std::path::PathBuf;

use crate::results::Parameters;
use crate::workload::Image;

/// What a subject says went wrong: its own words.
pub type Answer<T> = Result<T, String>;

/// An image, with all parameters in their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOrder {
    /// An image that the runner knows; none for an empty one.
    pub base: Option<String>,
    /// How many layers lie upon the base, one at least: the first has the files, each of the others a small one.
    pub layers: u64,
    /// Paths below the root, and their sizes in bytes.
    pub files: Vec<(String, u64)>,
}

impl ImageOrder {
    /// Resolves what a workload says.
    pub fn of(image: &Image, parameters: &Parameters) -> Answer<Self> {
        let mut files = Vec::new();
        for file in &image.files {
            let (size, count) = (file.size.number(parameters)?, file.count.number(parameters)?);
            if count == 1 {
                files.push((file.path.clone(), size));
            } else {
                files.extend((0..count).map(|number| (format!("{}{number}", file.path), size)));
            }
        }
        Ok(Self {
            base: image.base.clone(),
            layers: image.layers.number(parameters)?.max(1),
            files,
        })
    }
}

/// A driver. Containers have names; several threads may work with different ones at the same time.
pub trait Subject: Sync {
    /// Its name in results.
    fn name(&self) -> &str;

    /// A fresh state with this image in it and nothing of any trial before. Not measured; a subject may keep images
    /// from trial to trial as long as that cannot be seen.
    fn begin(&self, image: &ImageOrder) -> Answer<()>;

    /// Makes a container of the image.
    fn create(&self, container: &str) -> Answer<()>;

    /// Mounts it, and says where.
    fn mount(&self, container: &str) -> Answer<PathBuf>;

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

    /// What its store takes on the disk.
    fn space_bytes(&self) -> Answer<u64>;
}
