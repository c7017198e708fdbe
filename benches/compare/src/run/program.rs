//! Programs that steps run.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::Answer;

/// A step that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(3600);

/// So much of what a program says goes into a message.
const WORDS: usize = 600;

/// Runs a program in a folder to its end, and gives what it wrote.
pub fn run_program(words: &[String], folder: &Path) -> Answer<String> {
    run_within(words, folder, LIMIT)
}

fn run_within(words: &[String], folder: &Path, limit: Duration) -> Answer<String> {
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
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    std::thread::scope(|scope| {
        let output = scope.spawn(move || text_of(output));
        let errors = scope.spawn(move || text_of(errors));
        // Waited for without polling: what is measured ends when the program does.
        let (ended, end) = channel();
        scope.spawn(move || ended.send(child.wait()).ok());
        let mut in_time = true;
        let status = match end.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => {
                in_time = false;
                if let Some(pid) = pid {
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
                }
                end.recv().ok()
            }
            status => status.ok(),
        };
        if !in_time {
            return Err(format!("{name} did not end within {} s, and was killed", limit.as_secs()));
        }
        let status =
            status.ok_or("it was not waited for")?.map_err(|error| format!("{name}: {error}"))?;
        let output = output.join().unwrap_or_default();
        let errors = errors.join().unwrap_or_default();
        if status.success() {
            return Ok(output);
        }
        let said = errors.trim();
        let from = said.char_indices().rev().nth(WORDS).map_or(0, |(at, _)| at);
        Err(format!("{name} ended with {status}: {}", said.get(from..).unwrap_or(said)))
    })
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
    fn a_program_says_what_went_wrong() {
        let here = Path::new(".");
        assert_eq!(run_program(&words("echo good"), here).unwrap(), "good\n");
        let error = run_program(&words("echo bad >&2; exit 3"), here).unwrap_err();
        assert!(error.contains("bad") && error.contains('3'), "{error}");
        assert!(
            run_program(&["no-such-program".into()], here).unwrap_err().contains("cannot be run")
        );
        let error =
            run_within(&words("exec sleep 100"), here, Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("killed"), "{error}");
    }
}
