//! `run`

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use thinstore_runtime::ImageConfig;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::time::now_unix_ns;
use thinstore_store::types::{InspectKind, InspectRequest, NameRequest, SnapshotRequest};
use thinstore_store::{Access, ErrorBody, Operations};

use super::mount::{MountOptions, require_root};
use super::serve::check_environment;
use crate::containers::{Attachment, Run, RunRecord, find_run, running, runtime, supervise};
use crate::context::Context;
use crate::failure::Failure;

/// How a process in a container begins.
#[derive(Args, Debug)]
pub struct ProcessArguments {
    /// Set a variable of its environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Where it starts, in the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Whom it runs as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
}

#[derive(Args, Debug)]
pub struct RunContainer {
    /// An image, of which a container is made, or a container
    source: String,
    /// What to call the new container
    #[arg(long)]
    name: Option<String>,
    /// Go on in the background, and print the container's name
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Give the process this command's input
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long, conflicts_with = "detach")]
    tty: bool,
    #[command(flatten)]
    mounts: MountOptions,
    #[command(flatten)]
    process: ProcessArguments,
    /// What to run instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Do not let it write to its own file system
    #[arg(long)]
    read_only: bool,
    /// What to run instead of the image's command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl RunContainer {
    /// The exit code is that of the container's process.
    pub fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        require_root("running a container")?;
        check_environment()?;
        runtime(&context.root)?;
        let mounts = self.mounts.specifications()?;
        let (run, is_new) = context.with_store(Access::Write, |store| {
            let (name, is_new) = self.container(context, store)?;
            let run = self.remember(context, store, &name, mounts);
            if run.is_err() && is_new {
                // the first error is the one to tell
                drop(store.remove_container(&NameRequest { name }));
            }
            Ok((run?, is_new))
        })?;
        let result = self.start(context, &run);
        if let (Err(Failure::Engine(_)), true) = (&result, is_new) {
            let request = NameRequest { name: run.record.name.clone() };
            drop(context.with_store(Access::Write, |store| Ok(store.remove_container(&request)?)));
            run.remove();
        }
        result
    }

    fn start(&self, context: &Context, run: &Run) -> Result<ExitCode, Failure> {
        if !self.detach {
            return attached(context, run, self.interactive);
        }
        start_in_background(context, run)?;
        let started = serde_json::json!({"name": run.record.name, "id": run.record.id});
        context.output.value(&started, || format!("{}\n", run.record.name))?;
        Ok(ExitCode::SUCCESS)
    }

    /// The container to run, and whether it was made for that.
    fn container(
        &self,
        context: &Context,
        store: &dyn Operations,
    ) -> Result<(String, bool), Failure> {
        let is_container = store.containers()?.iter().any(|one| one.name == self.source);
        match (&self.name, is_container) {
            (None, true) => Ok((self.source.clone(), false)),
            (Some(_), true) => Err(Failure::usage(format!(
                "'{}' is a container and has its name; --name goes with an image",
                self.source
            ))),
            (name, false) => {
                let name = name.clone().unwrap_or_else(random_name);
                let source = self.source.clone();
                let made = store.snapshot(&SnapshotRequest { source, name, size_bytes: None })?;
                context.warn_of_full_pool(store);
                Ok((made.name, true))
            }
        }
    }

    fn remember(
        &self,
        context: &Context,
        store: &dyn Operations,
        name: &str,
        mounts: Vec<thinstore_store::types::MountSpecification>,
    ) -> Result<Run, Failure> {
        if let Some(run) = find_run(&context.root, store, name)?
            && run.is_running()?
        {
            return Err(running(&run, "stop it first, or run another one").into());
        }
        let kind = Some(InspectKind::Container);
        let container = store.inspect(&InspectRequest { name: name.to_owned(), kind })?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let config = ImageConfig::from_value(&container["Config"]);
        let line = config.command_line(&self.command, self.entrypoint.as_deref());
        let line = line.ok_or_else(|| {
            Failure::usage(format!(
                "'{}' does not say what to run; name it after --: thinstore run {} -- COMMAND",
                self.source, self.source
            ))
        })?;
        let workdir =
            self.process.workdir.clone().unwrap_or_else(|| match config.working_dir.as_str() {
                "" => PathBuf::from("/"),
                folder => PathBuf::from(folder),
            });
        if !workdir.is_absolute() {
            return Err(Failure::usage(format!(
                "the working directory '{}' is not absolute in the container",
                workdir.display()
            )));
        }
        let record = RunRecord {
            name: name.to_owned(),
            driver: context.driver,
            id: text(&container["Id"]),
            image: text(&container["Config"]["Image"]),
            line,
            environment: config.environment(&self.process.env, name, self.tty),
            working_directory: workdir,
            user: self.process.user.clone().unwrap_or_else(|| config.user.clone()),
            hostname: name.to_owned(),
            terminal: self.tty,
            read_only: self.read_only,
            mounts,
            remove: self.rm,
            created_unix_ns: now_unix_ns(),
        };
        Ok(Run::create(&context.root, record)?)
    }
}

/// Runs it with this command's output.
pub fn attached(context: &Context, run: &Run, input: bool) -> Result<ExitCode, Failure> {
    let code = supervise(context, run, Attachment::Caller { input })?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Has a process of its own run it; returns when the container's process runs.
pub fn start_in_background(context: &Context, run: &Run) -> Result<(), Failure> {
    let failed =
        |error| Failure::Engine(Error::io("cannot start a process in the background", error));
    let program = std::env::current_exe().map_err(failed)?;
    let root = std::path::absolute(&context.root).map_err(failed)?;
    let mut child = Command::new(program)
        .arg("--root")
        .arg(root)
        .args(["--driver", context.driver.as_str()])
        .args(["start", "--supervise", &run.record.name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.trim() == STARTED {
        return Ok(());
    }
    drop(child.wait());
    let told = serde_json::from_str::<ErrorBody>(&line).map(ErrorBody::into_error);
    Err(Failure::Engine(told.unwrap_or_else(|_| {
        Error::new(ErrorKind::Io, "the process in the background ended before the container ran")
    })))
}

/// What the process in the background says when the container's process runs.
pub const STARTED: &str = "started";

fn random_name() -> String {
    // the keys of every one of these are random
    format!("run-{:016x}", RandomState::new().build_hasher().finish())
}
