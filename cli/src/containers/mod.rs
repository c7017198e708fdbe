//! Containers with a process: what is remembered of them below the store, and who runs them.
//!
//! Whoever runs a container (the command itself, or a process in the background) holds a lock from before
//! its mount until after its unmount. So it is running exactly while the lock is held; what one that was
//! killed has left is taken down by the next command that looks.

mod network_files;
mod record;
mod supervise;

pub use record::{Run, RunRecord, Status, find_all, find_run, never_run, was_any_run};
pub use supervise::{Attachment, supervise};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thinstore_runtime::Runtime;
use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::types::{CatRequest, NameRequest};
use thinstore_store::{Access, Layout, Operations};

use crate::context::Context;
use crate::failure::Failure;

/// How long a container that was killed may take to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the runtime keeps what it knows.
pub fn runtime(root: &Path) -> Result<Runtime> {
    Runtime::find(&Layout::new(root).run().join("runtime"))
}

/// The exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;
/// Longer than somebody takes who merely looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A small file of a container; empty if it is not there.
pub fn text_of(store: &dyn Operations, name: &str, path: &str) -> Result<String> {
    let request = CatRequest { name: name.to_owned(), path: PathBuf::from(path) };
    let mut bytes = Vec::new();
    match store.cat(&request, &mut bytes) {
        Ok(()) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Ends what the runtime has of a container. Its process that makes a container may outlive whoever
/// started it, and before it has come so far it knows nothing to be deleted.
fn end_processes(runtime: &Runtime, run: &Run) -> Result<()> {
    let is_over = || {
        runtime.delete(&run.runtime_id())?;
        Ok(run.runtime_lock(Duration::ZERO)?.is_some())
    };
    if wait_for(END_TIMEOUT, is_over)? {
        return runtime.delete(&run.runtime_id());
    }
    Err(does_not_end(run))
}

fn does_not_end(run: &Run) -> Error {
    Error::new(
        ErrorKind::InUse,
        format!("the container '{}' does not end; look for its processes", run.record.name),
    )
}

/// Unmounts a container whose process has ended.
///
/// The daemon may still be about to mount it for somebody who was killed since. So the folder goes as well: without
/// it, that comes to nothing. The kernel takes the process's own view of the file system down a little later: until then the
/// device is held, and could not be used again.
fn unmount(context: &Context, run: &Run) -> std::result::Result<(), Failure> {
    let name = &run.record.name;
    network_files::remove_mount_points(run)?;
    let request = NameRequest { name: name.clone() };
    // Where nobody serves devices, opening the store takes down what one who did has left.
    context.with_store(Access::Write, |store| {
        let is_down = || {
            store.unmount(&request)?;
            run.remove_root()
        };
        if !wait_for(END_TIMEOUT, is_down)? {
            let message = format!("the container '{name}' is mounted again and again");
            return Err(Error::new(ErrorKind::InUse, message).into());
        }
        let is_free = || {
            let containers = store.containers()?;
            let container = containers.into_iter().find(|container| container.name == *name);
            Ok(container.is_none_or(|container| container.device.is_none()))
        };
        // Somebody who holds it for long is told of by whatever needs it next.
        wait_for(END_TIMEOUT, is_free)?;
        Ok(())
    })
}

/// Takes down what somebody who was killed has left of a container: its processes and its mount.
pub fn clean_up(context: &Context, run: &Run) -> std::result::Result<(), Failure> {
    let is_open = || run.state().is_some_and(|state| state.is_open());
    if !is_open() || run.is_running()? {
        return Ok(());
    }
    let Some(_lock) = run.lock(LOCK_PATIENCE)? else { return Ok(()) };
    let state = run.state().unwrap_or_default();
    if !state.is_open() {
        return Ok(());
    }
    end_processes(&runtime(&context.root)?, run)?;
    unmount(context, run)?;
    Ok(run.set_ended(state.exit_code.unwrap_or(KILLED), false)?)
}

/// Ends a container's process, with SIGTERM and after `patience` with SIGKILL; false if it was not running.
pub fn stop(
    context: &Context,
    run: &Run,
    patience: Duration,
) -> std::result::Result<bool, Failure> {
    clean_up(context, run)?;
    if !run.is_running()? {
        return Ok(false);
    }
    let runtime = runtime(&context.root)?;
    let id = run.runtime_id();
    runtime.kill(&id, "TERM")?;
    if run.wait_until_ended(patience)? {
        return Ok(true);
    }
    runtime.kill(&id, "KILL")?;
    if run.wait_until_ended(END_TIMEOUT)? {
        return Ok(true);
    }
    Err(does_not_end(run).into())
}

/// Ends what is to be removed, where it runs and `force` is given. Called with no store open: unmounting opens it.
pub fn prepare_removal(
    context: &Context,
    names: Vec<String>,
    force: bool,
) -> std::result::Result<Vec<Prepared>, Failure> {
    let runs: Vec<Result<Option<Run>>> = if was_any_run(&context.root) {
        context.with_store(Access::Read, |store| {
            Ok(names.iter().map(|name| find_run(&context.root, store, name)).collect())
        })?
    } else {
        names.iter().map(|_| Ok(None)).collect()
    };
    let mut prepared = Vec::new();
    for (name, run) in names.into_iter().zip(runs) {
        let ended = run.map_err(Failure::from).and_then(|run| {
            run.iter().try_for_each(|run| end_for_removal(context, run, force))?;
            Ok(run)
        });
        let run = match ended {
            Ok(run) => Ok(run),
            Err(Failure::Engine(error)) => Err(error),
            Err(failure) => return Err(failure),
        };
        prepared.push(Prepared { name, run });
    }
    Ok(prepared)
}

/// A container that is to be removed: what was remembered of its run, or why it cannot be ended.
pub struct Prepared {
    pub name: String,
    pub run: Result<Option<Run>>,
}

fn end_for_removal(context: &Context, run: &Run, force: bool) -> std::result::Result<(), Failure> {
    clean_up(context, run)?;
    if run.is_running()? {
        if !force {
            return Err(running(run, "stop it with 'thinstore stop', or use rm --force").into());
        }
        stop(context, run, Duration::ZERO)?;
    }
    Ok(())
}

/// The refusal of what a running container cannot do.
pub fn running(run: &Run, what_to_do: &str) -> Error {
    let message = format!("the container '{}' is running; {what_to_do}", run.record.name);
    Error::new(ErrorKind::InUse, message)
}

/// Waits for something that another process does.
fn wait_for(patience: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        if condition()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
