//! What is remembered of a container that was run: `ROOT/containers/ID/`, with how to run it, how far it is,
//! what it printed, and the bundle.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::time::{ago, now_unix_ns};
use thinstore_store::types::MountSpecification;
use thinstore_store::{DriverName, Layout, Operations};

use super::wait_for;

/// How to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub name: String,
    #[serde(default)]
    pub driver: DriverName,
    /// The container's id.
    pub id: String,
    /// The image's name; empty if it has none.
    pub image: String,
    pub line: Vec<String>,
    pub environment: Vec<String>,
    pub working_directory: PathBuf,
    /// As the image or a person wrote it.
    pub user: String,
    pub hostname: String,
    pub terminal: bool,
    pub read_only: bool,
    pub mounts: Vec<MountSpecification>,
    /// Is it to be removed when it has ended?
    pub remove: bool,
    pub created_unix_ns: i64,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    pub started_unix_ns: i64,
    pub ended_unix_ns: Option<i64>,
    /// Of the process, once it has ended.
    pub exit_code: Option<i32>,
    /// It has ended, and its mount could not be taken down.
    #[serde(default)]
    pub is_left_mounted: bool,
    /// Files of `/etc` that were made only for something of the host's to be mounted on.
    #[serde(default)]
    pub mount_points: Vec<String>,
}

impl RunState {
    /// Was it begun, and not taken down whole?
    pub fn is_open(&self) -> bool {
        self.exit_code.is_none() || self.is_left_mounted
    }
}

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Exited,
}

/// A container that was run.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
    pub record: RunRecord,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(format!("cannot use {}", path.display()), error)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The old content or the new, never a part.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = failed(path);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(&failed)?;
    let text = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    file.write_all(&text).map_err(&failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Was it taken?
fn answer(tried: std::result::Result<(), TryLockError>) -> std::io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// It may be there already.
fn make_folder(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn folders(root: &Path) -> PathBuf {
    Layout::new(root).containers()
}

/// Is anything remembered? Without it, there is no need to open the store for that.
pub fn was_any_run(root: &Path) -> bool {
    std::fs::read_dir(folders(root)).is_ok_and(|mut entries| entries.next().is_some())
}

/// All containers that were run and are still there, the latest first. What is left of others goes.
pub fn find_all(root: &Path, store: &dyn Operations) -> Result<Vec<Run>> {
    let Ok(entries) = std::fs::read_dir(folders(root)) else { return Ok(Vec::new()) };
    let containers = store.containers()?;
    let mut runs = Vec::new();
    for entry in entries.flatten() {
        let folder = entry.path();
        let id = entry.file_name();
        let container = containers.iter().find(|one| *one.id == *id);
        let record = read::<RunRecord>(&folder.join("run.json"));
        if record.as_ref().is_some_and(|record| record.driver != store.driver()) {
            continue;
        }
        match (container, record) {
            (Some(container), Some(mut record)) => {
                record.name.clone_from(&container.name);
                runs.push(Run { folder, record });
            }
            (None, _) => {
                let gone = Run { folder, record: RunRecord::default() };
                // One that is just being removed by whoever ran it has its lock.
                if let Ok(Some(_lock)) = gone.lock(Duration::ZERO) {
                    gone.remove();
                }
            }
            (Some(_), None) => {}
        }
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.record.created_unix_ns));
    Ok(runs)
}

/// A container that was run; none if the container of that name never was.
pub fn find_run(root: &Path, store: &dyn Operations, name: &str) -> Result<Option<Run>> {
    Ok(find_all(root, store)?.into_iter().find(|run| {
        run.record.name == name || (name.len() >= 12 && run.record.id.starts_with(name))
    }))
}

impl Run {
    /// Remembers how to run a container.
    pub fn create(root: &Path, record: RunRecord) -> Result<Run> {
        let folders = folders(root);
        let folder = folders.join(&record.id);
        for path in [&folders, &folder] {
            make_folder(path)?;
        }
        write(&folder.join("run.json"), &record)?;
        Ok(Run { folder, record })
    }

    /// Forgets it. What cannot be removed now goes when somebody lists containers.
    pub fn remove(&self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }

    pub fn bundle(&self) -> &Path {
        &self.folder
    }

    /// Where its file system is mounted while it runs.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub fn make_root(&self) -> Result<()> {
        make_folder(&self.root())
    }

    /// False: something is mounted there.
    pub fn remove_root(&self) -> Result<bool> {
        let root = self.root();
        match std::fs::remove_dir(&root) {
            Ok(()) => Ok(true),
            // What somebody put into it while nothing was mounted there must not keep a container for ever.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(false),
            Err(error) => Err(failed(&root)(error)),
        }
    }

    /// Written once its process is there.
    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// What it has printed.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn runtime_id(&self) -> String {
        format!("thinstore-{}", self.record.id.get(..32).unwrap_or(&self.record.id))
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        file.map_err(failed(&path))
    }

    fn take(&self, name: &str, patience: Duration) -> Result<Option<File>> {
        let file = self.lock_file(name)?;
        let is_taken = || answer(file.try_lock()).map_err(failed(&self.folder.join(name)));
        Ok(wait_for(patience, is_taken)?.then_some(file))
    }

    /// The right to run it, or to take it down; none if somebody else has it all that time. Who merely looks
    /// whether it runs has a share of it for an instant.
    pub fn lock(&self, patience: Duration) -> Result<Option<File>> {
        self.take("lock", patience)
    }

    /// Held as long as the runtime's process lives that was started with it.
    pub fn runtime_lock(&self, patience: Duration) -> Result<Option<File>> {
        self.take("runtime.lock", patience)
    }

    pub fn is_running(&self) -> Result<bool> {
        let looked = self.lock_file("lock").and_then(|file| {
            answer(file.try_lock_shared()).map_err(failed(&self.folder.join("lock")))
        });
        match looked {
            Ok(is_free) => Ok(!is_free),
            // It was removed when it ended.
            Err(_) if !self.folder.exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Its first process; 0 while it does not run.
    pub fn pid(&self) -> Result<i32> {
        let pid = std::fs::read_to_string(self.pid_file()).ok();
        let is_running = self.is_running()?;
        Ok(pid.filter(|_| is_running).and_then(|pid| pid.trim().parse().ok()).unwrap_or_default())
    }

    pub fn wait_until_ended(&self, patience: Duration) -> Result<bool> {
        wait_for(patience, || Ok(!self.is_running()?))
    }

    pub fn state(&self) -> Option<RunState> {
        read(&self.folder.join("state.json"))
    }

    pub fn set_started(&self) -> Result<()> {
        let mount_points = self.state().unwrap_or_default().mount_points;
        let started_unix_ns = now_unix_ns();
        self.set_state(&RunState { started_unix_ns, mount_points, ..RunState::default() })
    }

    /// The files in the container that are there only for something to be mounted on, while it runs.
    pub fn made_mount_points(&self) -> Vec<String> {
        let names = self.state().unwrap_or_default().mount_points;
        names.into_iter().map(|name| format!("/etc/{name}")).collect()
    }

    /// Which files of `/etc` are going to be made for something to be mounted on.
    pub fn set_mount_points(&self, mount_points: Vec<String>) -> Result<()> {
        self.set_state(&RunState { mount_points, ..self.state().unwrap_or_default() })
    }

    pub fn set_ended(&self, exit_code: i32, is_left_mounted: bool) -> Result<()> {
        self.set_state(&RunState {
            ended_unix_ns: Some(now_unix_ns()),
            exit_code: Some(exit_code),
            is_left_mounted,
            ..self.state().unwrap_or_default()
        })
    }

    fn set_state(&self, state: &RunState) -> Result<()> {
        write(&self.folder.join("state.json"), state)
    }

    pub fn status(&self) -> Result<Status> {
        Ok(match (self.is_running()?, self.state()) {
            (true, _) => Status::Running,
            (false, Some(_)) => Status::Exited,
            (false, None) => Status::Created,
        })
    }

    /// As `docker ps` tells it.
    pub fn status_text(&self) -> Result<String> {
        let state = self.state().unwrap_or_default();
        let now = now_unix_ns();
        Ok(match self.status()? {
            Status::Created => "Created".to_owned(),
            Status::Running => {
                let since = ago(state.started_unix_ns, now);
                format!("Up {}", since.trim_end_matches(" ago"))
            }
            Status::Exited => {
                let code = state.exit_code.unwrap_or_default();
                let when = state.ended_unix_ns.map(|then| ago(then, now)).unwrap_or_default();
                format!("Exited ({code}) {when}").trim_end().to_owned()
            }
        })
    }
}

/// The error of a name that no container was run under.
pub fn never_run(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "no container '{}' was run; 'thinstore ps --all' shows those that were",
            name.escape_debug()
        ),
    )
}
