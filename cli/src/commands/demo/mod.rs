//! `demo`: the main job from beginning to end, on an image that it makes itself.

mod image;
mod story;
mod teller;

use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::TempDir;
use thinstore_storage::Error;

use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

use story::Story;
use teller::Teller;

#[derive(Args, Debug)]
pub struct Demo {
    /// Leave the store in this new folder, with the image and the containers in it
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Where the demo works. What is temporary is gone when this is dropped.
struct Place {
    /// The image, the mount point and, if it is not kept, the store.
    work: TempDir,
    store: PathBuf,
}

impl Place {
    fn new(keep: Option<&Path>) -> Result<Place, Failure> {
        let work = tempfile::Builder::new()
            .prefix("thinstore-demo-")
            .tempdir()
            .map_err(|error| Error::io("cannot make a temporary folder", error))?;
        let store = match keep {
            Some(folder) => super::import::absolute(folder)?,
            None => work.path().join("store"),
        };
        Ok(Place { work, store })
    }

    fn image(&self) -> PathBuf {
        self.work.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.work.path().join("mounted")
    }
}

impl Demo {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let interrupt = Interrupt::watch();
        let place = Place::new(self.keep.as_deref())?;
        let mut teller = Teller::new(&context.output, interrupt);
        let told = Story::new(&place, &mut teller).and_then(|mut story| {
            let told = story.tell(self.keep.is_some());
            // nothing may be mounted in what is removed next
            let ended = story.end();
            told.and(ended)
        });
        let work = place.work.path().to_owned();
        let removed = place.work.close().map_err(|error| {
            Failure::Engine(Error::io(format!("cannot remove {}", work.display()), error))
        });
        told?;
        removed?;
        teller.finish(self.keep.as_deref())
    }
}
