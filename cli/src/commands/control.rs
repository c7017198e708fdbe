//! `start`, `stop`, `exec`, `ps` and `logs`

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use thinstore_runtime::resolve_user;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::{Access, ErrorBody};

use super::mount::require_root;
use super::run::{ProcessArguments, STARTED, attached, start_in_background};
use super::serve::check_environment;
use crate::containers::{
    Attachment, Run, Status, clean_up, find_all, find_run, never_run, running, runtime, stop,
    supervise, text_of,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::PipedStdout;
use crate::table::table;
use crate::text::{age, printable};

/// The container of a name that was run.
fn run_of(context: &Context, name: &str) -> Result<Run, Failure> {
    context.with_store(Access::Read, |store| {
        Ok(find_run(&context.root, store, name)?.ok_or_else(|| never_run(name))?)
    })
}

#[derive(Args, Debug)]
pub struct Start {
    /// A container that was run before
    name: String,
    /// Show what it prints, and end with it
    #[arg(short, long)]
    attach: bool,
    /// Give the process this command's input
    #[arg(short, long, requires = "attach")]
    interactive: bool,
    /// Started by a command: say on stdout when the container's process runs
    #[arg(long, hide = true)]
    supervise: bool,
}

impl Start {
    pub fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        require_root("running a container")?;
        check_environment()?;
        let run = run_of(context, &self.name)?;
        if self.supervise {
            return in_background(context, &run);
        }
        clean_up(context, &run)?;
        if run.is_running()? {
            return Err(running(&run, "there is nothing to start").into());
        }
        if self.attach {
            return attached(context, &run, self.interactive);
        }
        start_in_background(context, &run)?;
        let started = serde_json::json!({"name": run.record.name, "id": run.record.id});
        context.output.outcome(&started, || format!("{}\n", run.record.name))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Away from the terminal and its signals. One line on stdout says that the process runs, or why not.
fn in_background(context: &Context, run: &Run) -> Result<ExitCode, Failure> {
    // it fails only where there is nothing to get away from: at the head of a session
    let _ = nix::unistd::setsid();
    let tell = |line: &str| {
        let mut stdout = std::io::stdout().lock();
        // whoever started this may have gone away; it is of use all the same
        drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
    };
    let started = Box::new(move || tell(STARTED));
    match supervise(context, run, Attachment::Nobody { started }) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(Failure::Engine(error)) => {
            tell(&serde_json::to_string(&ErrorBody::new(&error)).unwrap_or_default());
            Err(Failure::Told(error.kind()))
        }
        Err(failure) => Err(failure),
    }
}

#[derive(Args, Debug)]
pub struct Stop {
    /// The containers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How many seconds it may take to end by itself
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u64,
}

impl Stop {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        for name in &self.names {
            let run = run_of(context, name)?;
            let was_running = stop(context, &run, Duration::from_secs(self.time))?;
            let stopped = serde_json::json!({"name": name, "was_running": was_running});
            context.output.outcome(&stopped, || match was_running {
                true => format!("{name}\n"),
                false => format!("{name} is not running\n"),
            })?;
        }
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Exec {
    /// A running container
    name: String,
    /// Give the process this command's input
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    process: ProcessArguments,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    /// The exit code is that of the process.
    pub fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        require_root("running a command in a container")?;
        let run = run_of(context, &self.name)?;
        if !run.is_running()? {
            return Err(Failure::Engine(Error::new(
                ErrorKind::InUse,
                format!("the container '{}' is not running; start it first", self.name),
            )));
        }
        let mut options = Vec::new();
        for variable in &self.process.env {
            options.extend(["--env".to_owned(), variable.clone()]);
        }
        if let Some(folder) = &self.process.workdir {
            options.extend(["--cwd".to_owned(), folder.display().to_string()]);
        }
        if let Some(user) = &self.process.user {
            let name = &run.record.name;
            let (passwd, group) = context.with_store(Access::Read, |store| {
                Ok((text_of(store, name, "/etc/passwd")?, text_of(store, name, "/etc/group")?))
            })?;
            let user = resolve_user(user, &passwd, &group)?;
            options.extend(["--user".to_owned(), format!("{}:{}", user.uid, user.gid)]);
        }
        let runtime = runtime(&context.root)?;
        let mut command = runtime.exec(&run.runtime_id(), self.tty, &options, &self.command);
        if !self.interactive && !self.tty {
            command.stdin(std::process::Stdio::null());
        }
        let status = command.status().map_err(|error| runtime.lost(error))?;
        Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }
}

#[derive(Args, Debug)]
pub struct Ps {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    id: String,
    image: String,
    command: Vec<String>,
    created_unix_ns: i64,
    status: Status,
    status_text: String,
    exit_code: Option<i32>,
}

impl Ps {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let runs = context.with_store(Access::Read, |store| Ok(find_all(&context.root, store)?))?;
        let mut listed = Vec::new();
        for run in runs {
            clean_up(context, &run)?;
            let status = run.status()?;
            if self.all || status == Status::Running {
                listed.push(Listed {
                    status_text: run.status_text()?,
                    exit_code: run.state().and_then(|state| state.exit_code),
                    name: run.record.name,
                    id: run.record.id,
                    image: run.record.image,
                    command: run.record.line,
                    created_unix_ns: run.record.created_unix_ns,
                    status,
                });
            }
        }
        context.output.list(&listed, |one| &one.name, listing)
    }
}

fn listing(listed: &[Listed]) -> String {
    table(
        ["NAME", "IMAGE", "COMMAND", "CREATED", "STATUS"],
        listed.iter().map(|one| {
            let command = printable(&one.command.join(" "));
            let short: String = command.chars().take(30).collect();
            [
                printable(&one.name),
                printable(&one.image),
                if short == command { command } else { format!("{short}...") },
                age(one.created_unix_ns),
                one.status_text.clone(),
            ]
        }),
    )
}

#[derive(Args, Debug)]
pub struct Logs {
    /// A container that was run
    name: String,
    /// Go on until it ends
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let run = run_of(context, &self.name)?;
        let mut output = PipedStdout::new();
        let printed = print(&run, self.follow, &mut output).map_err(Failure::from);
        output.finish(printed)
    }
}

fn print(run: &Run, follow: bool, output: &mut PipedStdout) -> Result<(), Error> {
    let path = run.log();
    let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
    let mut log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Looked at before reading: what came before its end is read.
        let has_ended = !run.is_running()?;
        loop {
            let count = log.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            output.write_all(bytes).map_err(thinstore_store::output_failed)?;
        }
        if !follow || has_ended {
            return Ok(());
        }
        output.flush().map_err(thinstore_store::output_failed)?;
        std::thread::sleep(Duration::from_millis(100));
    }
}
