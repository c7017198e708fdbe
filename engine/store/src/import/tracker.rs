//! Progress and cancelling of a layer that is being written.
//!
//! How far the source has been read is told on the thread that reads it; whether to end is asked where
//! the tree is written, since an error there ends the layer.

use std::sync::Arc;

use thinstore_archive::Progress as SourceProgress;
use thinstore_filesystem::{FileContent, Metadata, Node, TreePath, TreeWriter};
use thinstore_storage::Result;

use crate::operations::{Progress, ProgressEvent};

/// Tells how far a layer is.
pub(crate) struct Tracker {
    progress: Arc<dyn Progress>,
}

impl Tracker {
    pub(crate) fn new(progress: Arc<dyn Progress>) -> Tracker {
        Tracker { progress }
    }

    /// For the thread that reads the source: bytes consumed so far and their total.
    pub(crate) fn source_progress(&self) -> SourceProgress {
        let progress = self.progress.clone();
        let mut told: u64 = 0;
        Box::new(move |consumed, _total| {
            // a layer that is read a second time begins at zero again and is not counted twice
            if consumed > told {
                progress.report(&ProgressEvent::Advanced { bytes: consumed - told });
                told = consumed;
            }
        })
    }

    /// An error, if it is to end.
    pub(crate) fn check(&self) -> Result<()> {
        match self.progress.cancelled() {
            true => Err(crate::interrupted("the import")),
            false => Ok(()),
        }
    }

    /// Says which entry it was that failed, where that is not said already.
    fn named<T>(&self, path: &TreePath, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let shown = path.to_string();
            let told = self.progress.cancelled()
                || error.to_string().contains(shown.trim_start_matches('/'));
            if told {
                error
            } else {
                error.context(format!("the entry '{}'", shown.escape_debug()))
            }
        })
    }

    /// The same tree, whose every change asks first whether to end.
    pub(crate) fn watch<'a>(&'a self, inner: &'a mut dyn TreeWriter) -> WatchedWriter<'a> {
        WatchedWriter { inner, tracker: self }
    }
}

/// A tree writer that ends when it is told to.
pub(crate) struct WatchedWriter<'a> {
    inner: &'a mut dyn TreeWriter,
    tracker: &'a Tracker,
}

/// A file's content that ends when it is told to.
struct WatchedContent<'a> {
    inner: &'a mut dyn FileContent,
    tracker: &'a Tracker,
}

impl FileContent for WatchedContent<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        self.tracker.check()?;
        self.inner.next(buffer)
    }
}

impl TreeWriter for WatchedWriter<'_> {
    fn put(
        &mut self,
        path: &TreePath,
        node: &Node,
        metadata: &Metadata,
        content: Option<&mut dyn FileContent>,
    ) -> Result<()> {
        self.tracker.check()?;
        let result = match content {
            Some(inner) => {
                let mut content = WatchedContent { inner, tracker: self.tracker };
                self.inner.put(path, node, metadata, Some(&mut content))
            }
            None => self.inner.put(path, node, metadata, None),
        };
        self.tracker.named(path, result)
    }

    fn hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        self.tracker.check()?;
        let result = self.inner.hard_link(path, target);
        self.tracker.named(path, result)
    }

    fn remove(&mut self, path: &TreePath) -> Result<()> {
        self.tracker.check()?;
        let result = self.inner.remove(path);
        self.tracker.named(path, result)
    }

    fn clear(&mut self, path: &TreePath) -> Result<()> {
        self.tracker.check()?;
        self.inner.clear(path)
    }

    fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }
}
