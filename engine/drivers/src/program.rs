//! Other programs that drivers need.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use thinstore_storage::{Error, ErrorKind, Result};

/// A program, and the package of Debian's that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

impl Program {
    /// Where it is; the folders of administration are looked in too, which are not on everybody's path.
    pub(crate) fn path(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).collect::<Vec<_>>();
        let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
        folders
            .into_iter()
            .chain(more)
            .map(|folder| folder.join(self.name))
            .find(|path| path.is_file())
    }

    /// What is missing, as the end of a sentence.
    pub(crate) fn obstacle(self) -> Option<String> {
        match self.path() {
            Some(_) => None,
            None => Some(format!(
                "the program {} is missing; install the package {}",
                self.name, self.package
            )),
        }
    }

    pub(crate) fn command(self) -> Result<Command> {
        let path = self.path().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, self.obstacle().unwrap_or_default())
        })?;
        let mut command = Command::new(path);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it to its end; what it printed.
    pub(crate) fn run<A: AsRef<OsStr>>(self, arguments: &[A]) -> Result<String> {
        let output = self.command()?.args(arguments).output();
        let output =
            output.map_err(|error| Error::io(format!("cannot run {}", self.name), error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().replace('\n', "; ");
        Err(Error::new(ErrorKind::Io, format!("{} failed ({}): {said}", self.name, output.status)))
    }
}
