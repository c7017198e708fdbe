//! Containers with a process: what is remembered of them below the store, and who runs them.
//!
//! Whoever runs a container (the command itself, or a process in the background) holds a lock from before
//! its mount until after its unmount. So it is running exactly while the lock is held; what one that was
//! killed has left is taken down by the next command that looks.

mod record;
mod supervise;

pub use record::{Run, RunRecord, Status, find_all, find_run, never_run};
pub use supervise::{Attachment, supervise};

use std::path::Path;
use std::time::{Duration, Instant};

use thinstore_runtime::Runtime;
use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::types::NameRequest;
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

/// Unmounts a container whose process has ended. The kernel takes the process's own view of the file system
/// down a little later: until then the device is held, and could not be used again.
fn unmount(context: &Context, name: &str) -> std::result::Result<(), Failure> {
    let request = NameRequest { name: name.to_owned() };
    context.with_store(Access::Stay, |store| {
        store.unmount(&request)?;
        let is_free = || {
            let containers = store.containers()?;
            let container = containers.into_iter().find(|container| container.name == name);
            Ok(container.is_none_or(|container| container.device.is_none()))
        };
        // Somebody who holds it for long is told of by whatever needs it next.
        wait_for(END_TIMEOUT, is_free)?;
        Ok(())
    })
}

/// Takes down what somebody who was killed has left of a container: its processes and its mount.
pub fn clean_up(context: &Context, run: &Run) -> std::result::Result<(), Failure> {
    if run.state().is_none_or(|state| state.exit_code.is_some()) {
        return Ok(());
    }
    let Some(_lock) = run.lock()? else { return Ok(()) };
    runtime(&context.root)?.delete(&run.runtime_id())?;
    unmount(context, &run.record.name)?;
    Ok(run.set_ended(KILLED)?)
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
    Err(Failure::Engine(Error::new(
        ErrorKind::InUse,
        format!("the container '{}' does not end; look for its processes", run.record.name),
    )))
}

/// Refuses what is running, or with `force` ends it.
pub fn prepare_removal(
    context: &Context,
    store: &dyn Operations,
    name: &str,
    force: bool,
) -> Result<Option<Run>> {
    let Some(run) = find_run(&context.root, store, name)? else { return Ok(None) };
    let plain = |failure: Failure| match failure {
        Failure::Engine(error) => error,
        _ => Error::new(ErrorKind::InUse, format!("the container '{name}' cannot be stopped")),
    };
    clean_up(context, &run).map_err(plain)?;
    if run.is_running()? {
        if !force {
            return Err(running(&run, "stop it with 'thinstore stop', or use rm --force"));
        }
        stop(context, &run, Duration::ZERO).map_err(plain)?;
    }
    Ok(Some(run))
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
