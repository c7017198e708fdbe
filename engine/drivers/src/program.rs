//! Other programs that drivers need.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use thinstore_storage::{Error, ErrorKind, Result};

/// A program, and the package of Debian's that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

/// Has the kernel kill a program that is still at work when this process is killed: it would come to its end, a
/// mount for instance, after the next command has looked for what was left. What a program leaves in the
/// background does not take it over (prctl(2)).
#[allow(unsafe_code)]
fn die_with_this_process(command: &mut Command) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        match getppid() == Some(parent) {
            true => Ok(()),
            // it was killed before that was said
            false => Err(rustix::io::Errno::SRCH.into()),
        }
    };
    // SAFETY: between fork and exec it makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
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
        die_with_this_process(&mut command);
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
