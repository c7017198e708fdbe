//! Programs that steps run.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Answer;

/// A step that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(3600);

/// So much of what a program says goes into a message.
const WORDS: usize = 600;

/// Runs a program in a folder to its end, and gives what it wrote.
pub fn run_program(words: &[String], folder: &Path) -> Answer<String> {
    Running::start(words, folder)?.end(LIMIT)
}

/// A program that runs. One that is not waited for is killed.
pub struct Running {
    name: String,
    pid: Option<Pid>,
    /// None when it was told.
    end: Option<Receiver<io::Result<ExitStatus>>>,
    output: Option<JoinHandle<String>>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a program in a folder.
    pub fn start(words: &[String], folder: &Path) -> Answer<Self> {
        let (name, arguments) = words.split_first().ok_or("no program is named")?;
        let mut child = Command::new(name)
            .args(arguments)
            .current_dir(folder)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} cannot be run: {error}"))?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Waited for without polling: what is measured ends when the program does.
        let (ended, end) = channel();
        std::thread::spawn(move || ended.send(child.wait()).ok());
        Ok(Self {
            name: name.clone(),
            pid,
            end: Some(end),
            output: Some(std::thread::spawn(move || text_of(output))),
            errors: Some(std::thread::spawn(move || text_of(errors))),
        })
    }

    /// Waits for it, and gives what it wrote.
    pub fn finish(self) -> Answer<String> {
        self.end(LIMIT)
    }

    fn end(mut self, limit: Duration) -> Answer<String> {
        let name = self.name.clone();
        let status = match self.end.as_ref().map(|end| end.recv_timeout(limit)) {
            Some(Err(RecvTimeoutError::Timeout)) => {
                return Err(format!(
                    "{name} did not end within {} s, and was killed",
                    limit.as_secs()
                ));
            }
            Some(Ok(status)) => status.map_err(|error| format!("{name}: {error}"))?,
            Some(Err(RecvTimeoutError::Disconnected)) | None => {
                return Err(format!("{name} was not waited for"));
            }
        };
        self.end = None;
        let text = |thread: Option<JoinHandle<String>>| {
            thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        let (output, errors) = (text(self.output.take()), text(self.errors.take()));
        if status.success() {
            return Ok(output);
        }
        let said = errors.trim();
        let from = said.char_indices().rev().nth(WORDS).map_or(0, |(at, _)| at);
        Err(format!("{name} ended with {status}: {}", said.get(from..).unwrap_or(said)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(end) = self.end.take() else { return };
        if matches!(end.try_recv(), Err(TryRecvError::Empty)) {
            if let Some(pid) = self.pid {
                kill_process(pid, Signal::KILL).ok();
            }
            end.recv().ok();
        }
    }
}

fn text_of(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        vec!["sh".into(), "-c".into(), text.into()]
    }

    #[test]
    fn a_program_that_nobody_waits_for_is_killed() {
        let here = Path::new(".");
        let running = Running::start(&words("exec sleep 100"), here).unwrap();
        let pid = running.pid.unwrap();
        drop(running);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone");
        let running = Running::start(&words("echo good"), here).unwrap();
        assert_eq!(running.finish().unwrap(), "good\n");
    }

    #[test]
    fn a_program_says_what_went_wrong() {
        let here = Path::new(".");
        assert_eq!(run_program(&words("echo good"), here).unwrap(), "good\n");
        let error = run_program(&words("echo bad >&2; exit 3"), here).unwrap_err();
        assert!(error.contains("bad") && error.contains('3'), "{error}");
        assert!(
            run_program(&["no-such-program".into()], here).unwrap_err().contains("cannot be run")
        );
        let sleeps = Running::start(&words("exec sleep 100"), here).unwrap();
        let error = sleeps.end(Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("killed"), "{error}");
    }
}
