//! Running a container from its mount to its unmount.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use thinstore_runtime::{ProcessOptions, Runtime, resolve_user, write_bundle};
use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_store::types::{MountRequest, NameRequest, root_propagation};
use thinstore_store::{Access, Operations, mount_namespace};

use super::{
    LOCK_PATIENCE, Run, does_not_end, end_processes, network_files, running, runtime, text_of,
    unmount,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::text::printable;

/// What the process is connected to.
pub enum Attachment {
    /// The terminal, or whatever this command's input and output are; all that is printed is kept too.
    Caller { input: bool },
    /// Nothing but its log. `started` is called when the process runs.
    Nobody { started: Box<dyn FnOnce()> },
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Of the runtime's output so much is looked at for why it could not start the process.
const LAST_WORDS_BYTES: u64 = 8 << 10;
/// The exit code of what could not be run, as Docker tells it.
const NOT_RUN: i32 = 125;
/// How long the runtime may take until a process runs or has ended.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a container until its process has ended; its exit code. Whatever happens, it is unmounted then.
pub fn supervise(
    context: &Context,
    run: &Run,
    attachment: Attachment,
) -> std::result::Result<i32, Failure> {
    let Some(_lock) = run.lock(LOCK_PATIENCE)? else {
        return Err(running(run, "stop it first, or run another one").into());
    };
    let interrupt = Interrupt::watch();
    let runtime = runtime(&context.root)?;
    // Of one that was killed.
    end_processes(&runtime, run)?;
    // From here on there may be something to be taken down.
    run.set_started()?;
    let code = context.with_store(Access::Stay, |store| Ok(mount(store, run)?)).and_then(|()| {
        let code = start_and_wait(&runtime, run, attachment, &interrupt);
        end_processes(&runtime, run)?;
        Ok(code?)
    });
    let unmounted = unmount(context, run);
    run.set_ended(*code.as_ref().unwrap_or(&NOT_RUN), unmounted.is_err())?;
    let code = code?;
    unmounted?;
    if run.record.remove {
        let name = NameRequest { name: run.record.name.clone() };
        context.with_store(Access::Write, |store| Ok(store.remove_container(&name)?))?;
        run.remove();
    }
    Ok(code)
}

/// Mounts it, and describes its process to the runtime.
fn mount(store: &dyn Operations, run: &Run) -> Result<()> {
    let record = &run.record;
    // Looked up before anything lies over them.
    let passwd = text_of(store, &record.name, "/etc/passwd")?;
    let group = text_of(store, &record.name, "/etc/group")?;
    let options = ProcessOptions {
        line: record.line.clone(),
        environment: record.environment.clone(),
        working_directory: record.working_directory.clone(),
        user: resolve_user(&record.user, &passwd, &group)?,
        terminal: record.terminal,
        hostname: record.hostname.clone(),
        read_only: record.read_only,
        files: Vec::new(),
        root_propagation: root_propagation(&record.mounts).map(|one| one.name().to_owned()),
    };
    run.make_root()?;
    store.mount(&MountRequest {
        name: record.name.clone(),
        directory: run.root(),
        // The runtime makes the folders that it mounts over.
        read_only: false,
        mounts: record.mounts.clone(),
        mount_namespace: Some(mount_namespace()),
    })?;
    let files = network_files::prepare(run)?;
    write_bundle(run.bundle(), &run.root(), &ProcessOptions { files, ..options })
}

fn start_and_wait(
    runtime: &Runtime,
    run: &Run,
    attachment: Attachment,
    interrupt: &Interrupt,
) -> Result<i32> {
    let log_path = run.log();
    let log = File::options().create(true).append(true).open(&log_path);
    let log =
        log.map_err(|error| Error::io(format!("cannot write {}", log_path.display()), error))?;
    // Of the last time; that there is none is how it should be.
    drop(std::fs::remove_file(run.pid_file()));
    let runtime_lock = run.runtime_lock(LOCK_PATIENCE)?.ok_or_else(|| does_not_end(run))?;
    leave_to_children(&runtime_lock)?;
    let mut command = runtime.run(&run.runtime_id(), run.bundle(), &run.pid_file());
    let (mut child, copies) = match &attachment {
        Attachment::Caller { .. } if run.record.terminal => {
            (command.spawn().map_err(|error| runtime.lost(error))?, Vec::new())
        }
        Attachment::Caller { input } => {
            command.stdin(if *input { Stdio::inherit() } else { Stdio::null() });
            spawn_copied(runtime, &mut command, &log)?
        }
        Attachment::Nobody { .. } => {
            let copy = || log.try_clone().map_err(|error| Error::io("cannot share the log", error));
            command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
            (command.spawn().map_err(|error| runtime.lost(error))?, Vec::new())
        }
    };
    // Now the runtime alone has it.
    drop(runtime_lock);
    if let Attachment::Nobody { started } = attachment {
        wait_until_started(runtime, run, &mut child)?;
        started();
    }
    let status = wait(runtime, run, &mut child, interrupt)?;
    for copy in copies {
        // It ends with what it copies from; a panic there has been told.
        drop(copy.join());
    }
    if !run.pid_file().exists() {
        return Ok(start_failure_code(&last_line(&log_path)));
    }
    Ok(exit_code(status))
}

/// As Docker tells them: 127 for a program that is not there, 126 for one that cannot be run, else 125.
fn start_failure_code(said: &str) -> i32 {
    if said.contains("no such file") || said.contains("not found") {
        127
    } else if said.contains("permission denied") || said.contains("exec format error") {
        126
    } else {
        NOT_RUN
    }
}

/// What is started next keeps this file open.
fn leave_to_children(file: &File) -> Result<()> {
    fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))
        .map(drop)
        .map_err(|error| Error::io("cannot leave a lock to the runtime", error.into()))
}

/// What the runtime said last: its message, where it writes lines of `key=value`.
fn last_line(log: &Path) -> String {
    let text = last_words(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().last().unwrap_or_default();
    match line.split_once(" msg=\"") {
        Some((_, message)) => message.trim_end_matches('"').replace("\\\"", "'"),
        None => line.to_owned(),
    }
}

fn last_words(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length_bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(length_bytes.saturating_sub(LAST_WORDS_BYTES)))?;
    let mut words = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut words)?;
    Ok(words)
}

/// Starts with output that goes to where this command's goes, and to the log.
fn spawn_copied(
    runtime: &Runtime,
    command: &mut Command,
    log: &File,
) -> Result<(Child, Vec<JoinHandle<()>>)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| runtime.lost(error))?;
    let mut copies = Vec::new();
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        copies.extend(copy(stdout, io::stdout(), log));
        copies.extend(copy(stderr, io::stderr(), log));
    }
    Ok((child, copies))
}

/// That nobody reads any more must not end the container: only the log goes on.
fn copy(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    log: &File,
) -> Option<JoinHandle<()>> {
    let mut log = log.try_clone().ok()?;
    let work = move || {
        let mut buffer = [0; 8192];
        let mut is_read = true;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default();
            drop(log.write_all(bytes));
            is_read = is_read && to.write_all(bytes).and_then(|()| to.flush()).is_ok();
        }
    };
    std::thread::Builder::new().spawn(work).ok()
}

fn wait_until_started(runtime: &Runtime, run: &Run, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        let has_ended = child.try_wait().map_err(|error| runtime.lost(error))?.is_some();
        if run.pid_file().exists() {
            return Ok(());
        }
        if has_ended {
            let said = last_line(&run.log());
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the process of the container '{}' cannot be started: {}",
                    run.record.name,
                    printable(&said)
                ),
            ));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let name = &run.record.name;
    let message = format!("the runtime does not start the process of the container '{name}'");
    Err(Error::new(ErrorKind::Io, message))
}

/// A signal to this command is one to the container's process.
fn wait(
    runtime: &Runtime,
    run: &Run,
    child: &mut Child,
    interrupt: &Interrupt,
) -> Result<ExitStatus> {
    let mut is_told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| runtime.lost(error))? {
            return Ok(status);
        }
        if interrupt.is_set() && !is_told {
            is_told = true;
            runtime.kill(&run.runtime_id(), "TERM")?;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128_i32.saturating_add(signal),
        (None, None) => 1,
    }
}
