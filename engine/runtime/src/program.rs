//! The program that makes processes of bundles: crun or runc, whose command lines are the same here.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use thinstore_storage::{Error, ErrorKind, Result};

/// In the order of preference.
const PROGRAMS: [&str; 2] = ["crun", "runc"];

/// What the program says of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RuntimeState {
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// Its first process; 0 once it has ended.
    #[serde(default)]
    pub pid: i32,
}

impl RuntimeState {
    /// Is there a process?
    pub fn is_alive(&self) -> bool {
        self.status != "stopped"
    }
}

/// The program, and where it keeps what it knows.
#[derive(Clone, Debug)]
pub struct Runtime {
    program: PathBuf,
    state: PathBuf,
}

impl Runtime {
    /// Looks for a program in the search path; `state` is a folder for it, made when it is needed.
    ///
    /// Errors: `Unsupported` if there is none, with the packages that have one.
    pub fn find(state: &Path) -> Result<Runtime> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let candidates = PROGRAMS
            .iter()
            .flat_map(|program| folders.iter().map(move |folder| folder.join(program)));
        let found = candidates.into_iter().find(|program| program.is_file());
        let program = found.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "running a container needs crun or runc, and neither is in the search path; install one \
                 of the packages crun and runc",
            )
        })?;
        Ok(Runtime { program, state: state.to_owned() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state);
        command
    }

    /// The command that runs a bundle and ends with it, with its exit code. `pid_file` is written once the
    /// container's process is there: without it, the process could not be started.
    pub fn run(&self, id: &str, bundle: &Path, pid_file: &Path) -> Command {
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(bundle).arg("--pid-file").arg(pid_file).arg(id);
        command
    }

    /// The command that runs one more process in a container.
    pub fn exec(&self, id: &str, terminal: bool, options: &[String], line: &[String]) -> Command {
        let mut command = self.command();
        command.arg("exec");
        if terminal {
            command.arg("--tty");
        }
        command.args(options).arg(id).args(line);
        command
    }

    /// Sends a signal, such as `TERM`, to the first process. One that has ended is no error.
    pub fn kill(&self, id: &str, signal: &str) -> Result<()> {
        let output = self.output(&["kill", id, signal])?;
        match output.status.success() || self.state(id)?.is_none_or(|state| !state.is_alive()) {
            true => Ok(()),
            false => Err(self.failed("kill", id, &output.stderr)),
        }
    }

    /// Removes what is left of a container, its processes too. Nothing there is no error.
    pub fn delete(&self, id: &str) -> Result<()> {
        let output = self.output(&["delete", "--force", id])?;
        match output.status.success() || self.state(id)?.is_none() {
            true => Ok(()),
            false => Err(self.failed("delete", id, &output.stderr)),
        }
    }

    /// What the program knows of a container; none if it knows none of that id.
    pub fn state(&self, id: &str) -> Result<Option<RuntimeState>> {
        let output = self.output(&["state", id])?;
        if !output.status.success() {
            return Ok(None);
        }
        serde_json::from_slice(&output.stdout).map(Some).map_err(|error| {
            let program = self.program.display();
            Error::new(ErrorKind::Io, format!("{program} says what is not understood ({error})"))
        })
    }

    fn output(&self, arguments: &[&str]) -> Result<std::process::Output> {
        self.command().args(arguments).stdin(Stdio::null()).output().map_err(|e| self.lost(e))
    }

    /// The error of a program that cannot be started.
    pub fn lost(&self, error: io::Error) -> Error {
        Error::io(format!("cannot start {}", self.program.display()), error)
    }

    fn failed(&self, what: &str, id: &str, stderr: &[u8]) -> Error {
        let said = String::from_utf8_lossy(stderr);
        let last = said.lines().last().unwrap_or_default();
        let program = self.program.display();
        Error::new(ErrorKind::Io, format!("{program} cannot {what} {id}: {}", last.escape_debug()))
    }
}
