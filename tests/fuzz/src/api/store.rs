//! The store that requests are asked of: one image, one container, and again so after each input.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use tempfile::TempDir;
use thinstore_store::types::{ImportRequest, NameRequest, SnapshotRequest, UsageRequest};
use thinstore_store::{InitOptions, NoProgress, OpenMode, Operations, Store};

use super::guarded::Guarded;
use crate::archive::tar_builder;

const IMAGE: &str = "base:latest";
const CONTAINER: &str = "web";

pub(super) struct Served {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) router: Router,
    store: Arc<Store>,
    _folder: TempDir,
}

impl Served {
    fn new() -> Served {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let options = InitOptions {
            size_bytes: 64 << 20,
            allocation_run_bytes: 4096,
            device_size_bytes: 16 << 20,
        };
        Store::init(&root, &options).unwrap();
        let store = Arc::new(Store::open(&root, OpenMode::Write).unwrap());
        let served = Served {
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
            router: thinstore_store::routes(Arc::new(Guarded(Arc::clone(&store)))),
            store,
            _folder: folder,
        };
        served.bring_back();
        served
    }

    /// Makes the store what it was, and looks whether it is whole.
    pub(super) fn bring_back(&self) {
        let named = |name: &str| NameRequest { name: name.to_owned() };
        let mut containers: Vec<String> =
            self.store.containers().unwrap().into_iter().map(|found| found.name).collect();
        let mut images: Vec<String> =
            self.store.images().unwrap().into_iter().map(|found| found.name).collect();
        for volume in self.store.volumes().unwrap() {
            self.store.remove_volume(&named(&volume.name)).unwrap();
        }
        if containers == [CONTAINER] && images == [IMAGE] {
            return;
        }
        containers.retain(|name| name != CONTAINER);
        for name in containers {
            self.store.remove_container(&named(&name)).unwrap();
        }
        images.retain(|name| name != IMAGE);
        for name in images {
            // A container stands on it, made anew below.
            if self.store.remove_image(&named(&name)).is_err() {
                self.store.remove_container(&named(CONTAINER)).unwrap();
                self.store.remove_image(&named(&name)).unwrap();
            }
        }
        if self.store.images().unwrap().is_empty() {
            self.import();
        }
        if self.store.containers().unwrap().is_empty() {
            let new = SnapshotRequest {
                source: IMAGE.to_owned(),
                name: CONTAINER.to_owned(),
                size_bytes: None,
            };
            self.store.snapshot(&new).unwrap();
        }
        let usage = UsageRequest { wait: true, ..UsageRequest::default() };
        self.store.usage(&usage).unwrap();
        let check = self.store.check().unwrap();
        assert!(check.findings.is_empty(), "{:?}", check.findings);
    }

    fn import(&self) {
        let request =
            ImportRequest { source: "-".into(), name: Some(IMAGE.to_owned()), user_space: true };
        let tar = Box::new(std::io::Cursor::new(tar_builder::small_system()));
        self.store.import(&request, Some(tar), Arc::new(NoProgress)).unwrap();
    }
}

/// Does something with the store, one at a time.
pub(super) fn with(ask: impl FnOnce(&Served)) {
    static SERVED: OnceLock<Mutex<Served>> = OnceLock::new();
    let served = SERVED.get_or_init(|| Mutex::new(Served::new()));
    ask(&served.lock().unwrap_or_else(PoisonError::into_inner));
}
