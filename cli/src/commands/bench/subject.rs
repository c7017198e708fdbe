//! A driver in a store of its own, as the comparison sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thinstore_compare::measure::allocated_bytes;
use thinstore_compare::run::{Answer, ImageOrder, MountOrder, MountedOver, Subject};
use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::types::{
    CommitRequest, DiffRequest, ImportRequest, MountRequest, MountSpecification, NameRequest,
    SnapshotRequest, UsageRequest,
};
use thinstore_store::{
    Access, Connection, DaemonCommand, DriverName, InitOptions, NoProgress, Operations, Store,
    connect, mount_namespace,
};

use super::image;

/// How large the pool of the thin driver is: sparse, and larger than what any workload writes.
const POOL_BYTES: u64 = 1 << 40;

/// How long the daemon may take to start.
const DAEMON_PATIENCE: Duration = Duration::from_secs(20);

/// How many images a store keeps from trial to trial; making them takes longer than most trials.
const KEPT_IMAGES: usize = 16;

/// A driver of ours.
pub struct StoreSubject {
    driver: DriverName,
    root: PathBuf,
    /// The archives of images, which all drivers take theirs from.
    archives: PathBuf,
    connection: Connection,
    /// What serves the thin driver's devices for as long as the comparison lasts.
    daemon: Option<Child>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The names of the images that are kept, by what was ordered, and when each was wanted last.
    images: BTreeMap<String, (String, u64)>,
    trials: u64,
    /// That of the trial.
    image: String,
}

impl StoreSubject {
    /// Makes a store for a driver below `folder`.
    pub fn make(driver: DriverName, folder: &Path) -> Result<StoreSubject> {
        let failed =
            |error| Error::io(format!("cannot make a store in {}", folder.display()), error);
        let root = folder.join(driver.as_str());
        let archives = folder.join("archives");
        for path in [&archives, &root] {
            std::fs::create_dir_all(path).map_err(failed)?;
        }
        let options = InitOptions { size_bytes: POOL_BYTES, ..InitOptions::default() };
        Store::init(&root, &options)?;
        std::fs::create_dir_all(root.join("mounts")).map_err(failed)?;
        let daemon = match driver {
            DriverName::Thin => Some(serve(&root).map_err(failed)?),
            _ => None,
        };
        let connection = connection(&root, driver)?;
        let state = Mutex::default();
        Ok(StoreSubject { driver, root, archives, connection, daemon, state })
    }

    fn operations(&self) -> &dyn Operations {
        self.connection.operations()
    }

    fn mount_point(&self, container: &str) -> PathBuf {
        self.root.join("mounts").join(container)
    }

    /// The name of the image of an order, which is there then.
    fn image(&self, order: &ImageOrder) -> Answer<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.trials += 1;
        let trial = state.trials;
        let key = format!("{order:?}");
        if let Some((name, last)) = state.images.get_mut(&key) {
            *last = trial;
            return Ok(name.clone());
        }
        let oldest = state.images.iter().min_by_key(|(_, (_, last))| *last);
        if state.images.len() >= KEPT_IMAGES
            && let Some((key, (name, _))) = oldest.map(|(key, value)| (key.clone(), value.clone()))
        {
            self.operations().remove_image(&NameRequest { name }).map_err(told)?;
            state.images.remove(&key);
        }
        let source = self.archive(order, &key)?;
        let name = format!("bench:{trial}");
        let request = ImportRequest { source, name: Some(name.clone()), user_space: false };
        self.operations().import(&request, None, Arc::new(NoProgress)).map_err(told)?;
        state.images.insert(key, (name.clone(), trial));
        Ok(name)
    }

    /// The archive of an order; one driver makes it, all take it.
    fn archive(&self, order: &ImageOrder, key: &str) -> Answer<PathBuf> {
        if let Some(base) = &order.base {
            return Err(format!("there is no image '{base}' to stand on"));
        }
        let path = self.archives.join(format!(
            "{}.tar",
            thinstore_store::names::sha256_digest(key.as_bytes()).replace(':', "-")
        ));
        if !path.exists() {
            let fresh = self.archives.join("new");
            image::write(order, &self.archives, &fresh)
                .and_then(|()| std::fs::rename(&fresh, &path))
                .map_err(|error| format!("an image cannot be made: {error}"))?;
        }
        Ok(path)
    }

    /// Takes down containers, their volumes, and images that are not kept.
    fn take_down(&self) -> Answer<()> {
        for container in self.operations().containers().map_err(told)? {
            let request = NameRequest { name: container.name };
            self.operations().unmount(&request).map_err(told)?;
            self.operations().remove_container(&request).map_err(told)?;
        }
        for volume in self.operations().volumes().map_err(told)? {
            let request = NameRequest { name: volume.name };
            self.operations().remove_volume(&request).map_err(told)?;
        }
        let kept: Vec<String> = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.images.values().map(|(name, _)| name.clone()).collect()
        };
        for image in self.operations().images().map_err(told)? {
            if !kept.contains(&image.name) {
                self.operations().remove_image(&NameRequest { name: image.name }).map_err(told)?;
            }
        }
        self.settle()
    }

    /// What is given back is on its way for a moment; returns when nothing is.
    fn settle(&self) -> Answer<()> {
        let wait = UsageRequest { wait: true, pool_only: true };
        self.operations().usage(&wait).map(drop).map_err(told)
    }

    /// Ends what serves the store, and removes it.
    pub fn remove(mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!("{error}");
        }
        if let Connection::Daemon(client) = &self.connection
            && let Err(error) = client.stop()
        {
            tracing::warn!("{error}");
        }
        if let Some(daemon) = &mut self.daemon {
            drop(daemon.wait());
        }
        drop(self.connection.close());
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            tracing::warn!("cannot remove {}: {error}", self.root.display());
        }
    }
}

/// Starts a daemon that stays.
fn serve(root: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--root").arg(root).arg("serve");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// For the thin driver, to the daemon that is just starting.
fn connection(root: &Path, driver: DriverName) -> Result<Connection> {
    let deadline = Instant::now() + DAEMON_PATIENCE;
    loop {
        let connection = connect(root, driver, Access::Write, &DaemonCommand::this_program())?;
        if driver != DriverName::Thin || matches!(connection, Connection::Daemon(_)) {
            return Ok(connection);
        }
        connection.close()?;
        if Instant::now() > deadline {
            return Err(Error::new(ErrorKind::Io, "the daemon of the thin driver does not start"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The mounts as the commands have them: a volume for each order.
fn specifications(container: &str, mounts: &[MountOrder]) -> Answer<Vec<MountSpecification>> {
    let specification = |(number, order): (usize, &MountOrder)| match order.kind {
        MountedOver::Volume => {
            let text = format!("{container}-{number}:{}", order.path);
            MountSpecification::from_volume_option(&text, Path::new("/"))
        }
        MountedOver::Tmpfs => MountSpecification::from_tmpfs_option(&order.path),
    };
    mounts.iter().enumerate().map(specification).collect::<Result<_>>().map_err(told)
}

fn told(error: Error) -> String {
    error.to_string()
}

impl Subject for StoreSubject {
    fn name(&self) -> &str {
        self.driver.as_str()
    }

    fn begin(&self, image: &ImageOrder) -> Answer<()> {
        self.take_down()?;
        let name = self.image(image)?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).image = name;
        Ok(())
    }

    fn create(&self, container: &str, committed: Option<&str>) -> Answer<()> {
        let image = || self.state.lock().unwrap_or_else(PoisonError::into_inner).image.clone();
        let source = committed.map_or_else(image, str::to_owned);
        let request = SnapshotRequest { source, name: container.to_owned(), size_bytes: None };
        self.operations().snapshot(&request).map(drop).map_err(told)
    }

    fn mount(&self, container: &str, mounts: &[MountOrder]) -> Answer<PathBuf> {
        let directory = self.mount_point(container);
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let request = MountRequest {
            name: container.to_owned(),
            directory: directory.clone(),
            mounts: specifications(container, mounts)?,
            mount_namespace: Some(mount_namespace()),
            ..MountRequest::default()
        };
        self.operations().mount(&request).map_err(told)?;
        Ok(directory)
    }

    fn unmount(&self, container: &str) -> Answer<()> {
        let request = NameRequest { name: container.to_owned() };
        self.operations().unmount(&request).map(drop).map_err(told)
    }

    fn commit(&self, container: &str, image: &str) -> Answer<()> {
        let request = CommitRequest {
            name: container.to_owned(),
            image: image.to_owned(),
            ..CommitRequest::default()
        };
        self.operations().commit(&request).map(drop).map_err(told)
    }

    fn diff(&self, container: &str) -> Answer<u64> {
        let request = DiffRequest { from: container.to_owned(), to: None };
        let changes = self.operations().differences(&request).map_err(told)?;
        Ok(u64::try_from(changes.len()).unwrap_or(u64::MAX))
    }

    fn remove(&self, container: &str) -> Answer<()> {
        let request = NameRequest { name: container.to_owned() };
        self.operations().remove_container(&request).map_err(told)
    }

    fn end(&self) -> Answer<()> {
        self.take_down()
    }

    fn daemons(&self) -> Vec<u32> {
        self.daemon.iter().map(Child::id).collect()
    }

    fn space_bytes(&self) -> Answer<u64> {
        self.settle()?;
        allocated_bytes(&self.root).map_err(|error| error.to_string())
    }
}
