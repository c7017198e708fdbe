//! Starting the daemon from a command that needs one.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind, Result};

use super::client::Client;
use super::wire::ErrorBody;
use crate::layout::Layout;

/// How long a daemon may take from its announcement to the first answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What stands in `daemon.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// The daemon's process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// The path of its socket.
    pub socket: PathBuf,
    /// The program's version.
    pub version: String,
}

impl DaemonRecord {
    pub(super) fn of_this_process(layout: &Layout) -> DaemonRecord {
        DaemonRecord {
            pid: std::process::id(),
            started: crate::time::rfc3339(crate::time::now_unix_ns()),
            socket: layout.daemon_socket(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// How the daemon is started: the program, and what comes before `--root ROOT serve --background`.
#[derive(Clone, Debug)]
pub struct DaemonCommand {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

impl DaemonCommand {
    /// The program that runs now.
    pub fn this_program() -> DaemonCommand {
        DaemonCommand { program: PathBuf::from("/proc/self/exe"), arguments: Vec::new() }
    }
}

/// Starts a daemon for the store and connects to it. It says on its standard output that it is ready,
/// or why not (one line: a [`DaemonRecord`] or an [`ErrorBody`]); all else it says goes to
/// `daemon.log`.
pub fn start_daemon(layout: &Layout, command: &DaemonCommand) -> Result<Client> {
    let log_path = layout.daemon_log();
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|error| Error::io(format!("cannot write {}", log_path.display()), error))?;
    let mut child = Command::new(&command.program)
        // what it is shown as: '/proc/self/exe' says nothing
        .arg0("thinstore")
        .args(&command.arguments)
        .arg("--root")
        .arg(layout.root())
        .args(["serve", "--background"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| {
            Error::io(format!("cannot start the daemon {}", command.program.display()), error)
        })?;
    announced(&mut child, layout)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        if let Some(client) = Client::connect(layout)? {
            return Ok(client);
        }
        if Instant::now() >= deadline {
            return Err(silent(layout, "does not answer"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn silent(layout: &Layout, what: &str) -> Error {
    let log = layout.daemon_log();
    Error::new(ErrorKind::Io, format!("the daemon {what}; look at {}", log.display()))
}

/// Waits for the daemon's one line.
fn announced(child: &mut Child, layout: &Layout) -> Result<()> {
    let mut line = Vec::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output.take(64 * 1024))
            .read_until(b'\n', &mut line)
            .map_err(|error| Error::io("cannot read what the daemon says at its start", error))?;
    }
    if serde_json::from_slice::<DaemonRecord>(&line).is_ok() {
        return Ok(());
    }
    // it has ended, or is about to: take its status, so that it does not stay as a zombie
    drop(child.wait());
    match serde_json::from_slice::<ErrorBody>(&line) {
        Ok(body) => Err(body.into_error()),
        Err(_) => Err(silent(layout, "ended before it was ready")),
    }
}
