//! `trace`

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::Access;
use thinstore_store::size::format_size;
use thinstore_store::types::NameRequest;
use thinstore_trace::{OperationSummary, Trace};

use crate::context::Context;
use crate::failure::Failure;
use crate::fresh_file::FreshFile;
use crate::interrupt::Interrupt;
use crate::table::table;
use crate::text::{counted, duration, printable};

#[derive(Args, Debug)]
pub struct Record {
    /// A container that is mounted or attached
    name: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE", required = true)]
    output: PathBuf,
    /// End after so long [default: with Ctrl-C, or when the container is unmounted]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Run this meanwhile, and end with it; its exit code is that of the trace
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How often it is looked whether the trace is to end.
const INTERVAL: Duration = Duration::from_millis(20);

/// Says when the first bytes have come: from then on requests are noted. What comes has been gathered, and is in
/// the file at once.
struct Watched<'a> {
    file: &'a File,
    begun: &'a AtomicBool,
}

impl Write for Watched<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.begun.store(true, Ordering::Release);
        self.file.write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What is printed in the end.
#[derive(Serialize)]
struct Told {
    name: String,
    file: String,
    file_bytes: u64,
    duration_ns: u64,
    requests: u64,
    lost: u64,
    most_at_once: u64,
    operations: Vec<ToldOperation>,
}

#[derive(Serialize)]
struct ToldOperation {
    operation: &'static str,
    requests: u64,
    bytes: u64,
    sequential: u64,
}

impl From<OperationSummary> for ToldOperation {
    fn from(summary: OperationSummary) -> ToldOperation {
        ToldOperation {
            operation: summary.operation.name(),
            requests: summary.requests,
            bytes: summary.bytes,
            sequential: summary.sequential,
        }
    }
}

impl Record {
    pub fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let interrupt = Interrupt::watch();
        let fresh = FreshFile::beside(&self.output)?;
        let begun = AtomicBool::new(false);
        let (recorded, ran) = std::thread::scope(|scope| {
            let recording = scope.spawn(|| self.record(context, fresh.file(), &begun));
            let ran = self.meanwhile(&interrupt, &begun, &recording);
            if !recording.is_finished() {
                // if it has just ended by itself, there is nothing to end
                drop(
                    context.with_store(Access::Read, |store| Ok(store.end_trace(&self.request())?)),
                );
            }
            let recorded = recording.join().unwrap_or_else(|_| {
                Err(Failure::Engine(Error::new(ErrorKind::Io, "the thread that records panicked")))
            });
            (recorded, ran)
        });
        if !begun.load(Ordering::Acquire) {
            return recorded.and(ran);
        }
        let code = ran?;
        // What was recorded until something failed is of use as well.
        fresh.keep()?;
        self.tell(context)?;
        recorded.map(|()| code)
    }

    fn request(&self) -> NameRequest {
        NameRequest { name: self.name.clone() }
    }

    fn record(&self, context: &Context, file: &File, begun: &AtomicBool) -> Result<(), Failure> {
        let mut watched = Watched { file, begun };
        context.with_store(Access::Read, |store| Ok(store.trace(&self.request(), &mut watched)?))
    }

    /// Waits for the end of the trace; the exit code of what ran meanwhile.
    fn meanwhile(
        &self,
        interrupt: &Interrupt,
        begun: &AtomicBool,
        recording: &ScopedJoinHandle<'_, Result<(), Failure>>,
    ) -> Result<ExitCode, Failure> {
        while !begun.load(Ordering::Acquire) && !recording.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if recording.is_finished() {
            return Ok(ExitCode::SUCCESS);
        }
        let since = Instant::now();
        let mut child = self.start()?;
        loop {
            if let Some(child) = &mut child
                && let Some(status) = child.try_wait().map_err(|error| self.cannot_run(error))?
            {
                // as a shell has it
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1);
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            // Ctrl-C has reached the child too: it is waited for, unless it stays.
            let ended = recording.is_finished()
                || interrupt.is_set()
                || self
                    .seconds
                    .is_some_and(|seconds| since.elapsed() >= Duration::from_secs(seconds));
            if ended && child.is_none() {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn cannot_run(&self, error: std::io::Error) -> Error {
        let program = self.command.first().map(|word| word.display().to_string());
        Error::io(format!("cannot run {}", program.unwrap_or_default()), error)
    }

    fn start(&self) -> Result<Option<Child>, Failure> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(None) };
        let child = Command::new(program).args(arguments).spawn();
        Ok(Some(child.map_err(|error| self.cannot_run(error))?))
    }

    fn tell(&self, context: &Context) -> Result<(), Failure> {
        let cannot_read =
            |error| Error::io(format!("cannot read {}", self.output.display()), error);
        let bytes = std::fs::read(&self.output).map_err(cannot_read)?;
        let trace = Trace::parse(&bytes)?;
        let summary = trace.summary();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let told = Told {
            name: self.name.clone(),
            file: self.output.display().to_string(),
            file_bytes: count(bytes.len()),
            duration_ns: summary.duration_ns,
            requests: count(trace.requests.len()),
            lost: trace.lost,
            most_at_once: count(summary.most_at_once),
            operations: summary.operations.into_iter().map(ToldOperation::from).collect(),
        };
        // What ran meanwhile has standard output to itself.
        if self.command.is_empty() {
            context.output.outcome(&told, || in_words(&told))
        } else {
            context.output.aside(&told, || in_words(&told))
        }
    }
}

fn in_words(told: &Told) -> String {
    let mut text = format!(
        "{}: {} in {}, at most {} at once; in {}, {}\n",
        printable(&told.name),
        counted(told.requests, "request"),
        duration(told.duration_ns / 1000),
        told.most_at_once,
        printable(&told.file),
        format_size(told.file_bytes),
    );
    if told.lost > 0 {
        text.push_str(&format!("{} more came too fast to be noted\n", told.lost));
    }
    if !told.operations.is_empty() {
        let rows = told.operations.iter().map(|one| {
            let share = one.sequential.saturating_mul(100) / one.requests.max(1);
            let (bytes, share) = match one.operation {
                "flush" => (String::new(), String::new()),
                _ => (format_size(one.bytes), format!("{share} %")),
            };
            [one.operation.to_owned(), one.requests.to_string(), bytes, share]
        });
        text.push_str(&table(["OPERATION", ">REQUESTS", ">BYTES", ">SEQUENTIAL"], rows));
    }
    text
}
