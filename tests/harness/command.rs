//! Running programs: captured output, a limit of time, and reports that say what was run.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a program may take unless a test says otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(300);

/// What a program did: its output and how it ended.
pub struct Outcome {
    /// The command line, for reports.
    pub command: String,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub status: ExitStatus,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "$ {}", self.command)?;
        writeln!(formatter, "  {} after {:.1?}", self.status, self.elapsed)?;
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            let shown: String = text.chars().take(4000).collect();
            for line in shown.lines() {
                writeln!(formatter, "  {name}: {line}")?;
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit code; a program that a signal ended fails the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        match self.status.code() {
            Some(code) => code,
            None => panic!("a signal ended the program\n{self}"),
        }
    }

    /// The same outcome, which must be a success.
    #[track_caller]
    pub fn assert_success(self) -> Outcome {
        assert!(self.status.success(), "the command failed\n{self}");
        self
    }

    /// The same outcome, which must have ended with one of `codes`, and without a panic.
    #[track_caller]
    pub fn assert_code(self, codes: &[i32]) -> Outcome {
        assert!(
            codes.contains(&self.code()),
            "the exit code is {}, not {codes:?}\n{self}",
            self.code()
        );
        assert!(!self.stderr_text().contains("panicked at"), "the program panicked\n{self}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("standard output is not JSON: {error}\n{self}"),
        }
    }

    /// The one sentence on standard error, which must name each of `names`.
    #[track_caller]
    pub fn assert_sentence(&self, names: &[&str]) -> String {
        let text = self.stderr_text();
        let sentence = text.trim();
        assert!(!sentence.is_empty(), "nothing on standard error\n{self}");
        assert_eq!(sentence.lines().count(), 1, "more than one line on standard error\n{self}");
        assert!(sentence.contains(' '), "not a sentence\n{self}");
        for name in names {
            assert!(sentence.contains(name), "the sentence does not name '{name}'\n{self}");
        }
        for debris in ["Error {", "Os {", "kind:", "RUST_BACKTRACE"] {
            assert!(!sentence.contains(debris), "the sentence shows '{debris}'\n{self}");
        }
        sentence.to_owned()
    }
}

/// A program that runs beside the test; killed when dropped.
pub struct Running {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
}

/// The words of a command, as a person could paste them.
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

impl Running {
    /// Starts `command`. Its output goes to files, not pipes: a daemon it leaves behind can hold
    /// them open without holding up the test.
    #[track_caller]
    pub fn start(mut command: Command) -> Running {
        let stdout = tempfile::tempfile().expect("a temporary file for standard output");
        let stderr = tempfile::tempfile().expect("a temporary file for standard error");
        command.stdout(stdout.try_clone().expect("a second descriptor"));
        command.stderr(stderr.try_clone().expect("a second descriptor"));
        let text = describe(&command);
        match spawn(&mut command) {
            Ok(child) => Running { command: text, child, stdout, stderr, started: Instant::now() },
            Err(error) => panic!("cannot run '{text}': {error}"),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it ended by itself?
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_some()
    }

    /// Sends a signal to it; a process that is gone already is left alone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let Ok(raw) = i32::try_from(self.child.id()) else {
            return;
        };
        if let Some(pid) = rustix::process::Pid::from_raw(raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for its end; one that takes longer than `limit` is killed and fails the test.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Outcome {
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                return Outcome {
                    command: std::mem::take(&mut self.command),
                    stdout: read_from_start(&mut self.stdout),
                    stderr: read_from_start(&mut self.stderr),
                    status,
                    elapsed: self.started.elapsed(),
                };
            }
            if self.started.elapsed() > limit {
                let _ = self.child.kill();
                let stderr = read_from_start(&mut self.stderr);
                panic!(
                    "'{}' took longer than {limit:?}; its standard error:\n{}",
                    self.command,
                    String::from_utf8_lossy(&stderr)
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_from_start(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("rewind captured output");
    file.read_to_end(&mut bytes).expect("read captured output");
    bytes
}

/// Runs `command` to its end within `limit`.
#[track_caller]
pub fn run_within(mut command: Command, limit: Duration) -> Outcome {
    command.stdin(Stdio::null());
    Running::start(command).wait(limit)
}

/// Runs a tool of the host that must be there and must succeed.
#[track_caller]
pub fn run_tool<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Outcome {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    run_within(command, TIME_LIMIT).assert_success()
}

/// Starts a program that may just have been copied: a process that another thread is starting can hold
/// the copy open for writing until it has started itself.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}
