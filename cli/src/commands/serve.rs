//! `serve`

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::{Client, DaemonRecord, ErrorBody, Layout, OnFull, ServeOptions, serve};

use super::import::absolute;
use crate::context::Context;
use crate::failure::Failure;

/// How long a daemon that was told to end may take to close the pool.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a daemon that a command starts finds `--on-full`.
const ON_FULL_VARIABLE: &str = "THINSTORE_ON_FULL";

#[derive(Args, Debug)]
pub struct Serve {
    /// End the daemon that runs; it refuses while something is mounted
    #[arg(long)]
    stop: bool,
    /// What a write does that finds no room in the pool: error, or wait:SECONDS for some. A daemon that a
    /// command starts takes it from the environment
    #[arg(
        long,
        value_name = "error|wait:SECONDS",
        env = ON_FULL_VARIABLE,
        default_value = "error",
        value_parser = on_full
    )]
    on_full: OnFull,
    /// Started by a command that needs a daemon: say on stdout when it is ready, and end when idle
    #[arg(long, hide = true, conflicts_with = "stop")]
    background: bool,
    /// How long nothing may need a background daemon before it ends
    #[arg(long, hide = true, default_value_t = 5000)]
    idle_ms: u64,
}

fn on_full(text: &str) -> Result<OnFull, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// Refuses a setting that the daemon would refuse: said before it is started for nothing.
pub fn check_environment() -> Result<(), Failure> {
    match std::env::var(ON_FULL_VARIABLE) {
        Ok(text) => match text.parse::<OnFull>() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(ON_FULL_VARIABLE).into()),
        },
        Err(std::env::VarError::NotPresent) => Ok(()),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("{ON_FULL_VARIABLE} is no text")))
        }
    }
}

impl Serve {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        // whoever started this may have held signals back, and that is inherited
        let _ = nix::sys::signal::SigSet::all().thread_unblock();
        match (self.stop, self.background) {
            (true, _) => stop(context),
            (false, true) => self.in_background(context),
            (false, false) => self.in_foreground(context),
        }
    }

    fn in_foreground(&self, context: &Context) -> Result<(), Failure> {
        log_to_stderr();
        let quiet = context.output.is_quiet();
        let ready = move |record: &DaemonRecord| {
            if !quiet {
                eprintln!("thinstore: process {} serves {}", record.pid, record.socket.display());
            }
        };
        let options = ServeOptions {
            service: true,
            idle: Duration::from_millis(self.idle_ms),
            on_full: self.on_full,
            ready: Box::new(ready),
        };
        Ok(serve(absolute(&context.root)?, options)?)
    }

    /// Away from the terminal and its signals. One line on stdout says that it is ready, or why not;
    /// then stdout is closed, so that nobody waits for it.
    fn in_background(&self, context: &Context) -> Result<(), Failure> {
        // it fails only where there is nothing to get away from: at the head of a session
        let _ = nix::unistd::setsid();
        log_to_stderr();
        let options = ServeOptions {
            service: false,
            idle: Duration::from_millis(self.idle_ms),
            on_full: self.on_full,
            ready: Box::new(announce),
        };
        let result = serve(absolute(&context.root)?, options);
        if let Err(error) = result {
            tracing::error!("{error}");
            announce(&ErrorBody::new(&error));
            return Err(Failure::Told(error.kind()));
        }
        Ok(())
    }
}

fn announce(line: &impl serde::Serialize) {
    let mut stdout = std::io::stdout().lock();
    let text = serde_json::to_string(line).unwrap_or_default();
    // whoever started it may have gone away; it is of use all the same
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("THINSTORE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log on a full disk takes nothing. To say so there is a panic, in a thread that serves devices.
        .log_internal_errors(false)
        .with_ansi(false)
        .init();
}

fn stop(context: &Context) -> Result<(), Failure> {
    let layout = Layout::new(&context.root);
    let Some(client) = Client::connect(&layout)? else {
        let none = serde_json::json!({"stopped": false});
        return context.output.outcome(&none, || "no daemon runs\n".to_owned());
    };
    let pid = stop_and_wait(&layout, client)?;
    let stopped = serde_json::json!({"stopped": true, "pid": pid});
    context.output.outcome(&stopped, || format!("the daemon (process {pid}) has ended\n"))
}

/// Ends a daemon and waits until it has closed the pool; its process.
pub fn stop_and_wait(layout: &Layout, client: Client) -> Result<u32, Failure> {
    let pid = client.version().pid;
    client.stop()?;
    drop(client);
    let deadline = Instant::now() + END_TIMEOUT;
    while is_there(layout, pid) {
        if Instant::now() >= deadline {
            return Err(Failure::Engine(Error::new(
                ErrorKind::InUse,
                format!("the daemon (process {pid}) has not ended yet; look at daemon.log"),
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(pid)
}

/// Does the process live, and is it still this store's daemon?
fn is_there(layout: &Layout, pid: u32) -> bool {
    let lives = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z "));
    lives && (layout.daemon_json().exists() || holds_pool(layout, pid))
}

/// Has the process the pool open?
fn holds_pool(layout: &Layout, pid: u32) -> bool {
    let Ok(pool) = layout.pool().canonicalize() else { return false };
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path == pool))
}
