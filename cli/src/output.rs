//! Where results go.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::style::Style;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables and sentences.
    Human,
    /// JSON with stable fields.
    Json,
}

/// Standard output, and how to write to it.
pub struct Output {
    format: Format,
    quiet: bool,
    style: Style,
}

/// What happened to be written: a reader that has gone away ends the program quietly.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Engine(thinstore_store::output_failed(error)),
    })
}

impl Output {
    pub fn new(format: Format, quiet: bool) -> Output {
        Output { format, quiet, style: Style::for_stream(&io::stdout()) }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn style(&self) -> Style {
        self.style
    }

    /// Are progress bars of use?
    pub fn shows_progress(&self) -> bool {
        !self.quiet && self.format == Format::Human && io::stderr().is_terminal()
    }

    /// Prints text as it is.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }

    /// Prints a value: as JSON, or in words.
    pub fn value<T: Serialize>(
        &self,
        value: &T,
        human: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Human => self.text(&human()),
        }
    }

    /// As [`Output::value`], of a change: says nothing if it is to be quiet.
    pub fn outcome<T: Serialize>(
        &self,
        value: &T,
        human: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match (self.format, self.quiet) {
            (Format::Human, true) => Ok(()),
            _ => self.value(value, human),
        }
    }

    /// As [`Output::outcome`], to stderr: of a command whose stdout is another program's.
    pub fn aside<T: Serialize>(
        &self,
        value: &T,
        human: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = match (self.format, self.quiet) {
            (Format::Human, true) => return Ok(()),
            (Format::Human, false) => human(),
            (Format::Json, _) => in_json(value)?,
        };
        written(io::stderr().write_all(text.as_bytes()))
    }

    /// Prints a list: as JSON, as a table, or only the names.
    pub fn list<T: Serialize>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> &str,
        table: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Failure> {
        match (self.format, self.quiet) {
            (Format::Json, _) => self.json(&items),
            (Format::Human, false) => self.text(&table(items)),
            (Format::Human, true) => {
                let names: String = items.iter().map(|item| format!("{}\n", name(item))).collect();
                self.text(&names)
            }
        }
    }

    /// Prints a value as JSON.
    pub fn json<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        self.text(&in_json(value)?)
    }
}

fn in_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| {
        Failure::usage(format!("the result cannot be written as JSON: {error}"))
    })?;
    text.push('\n');
    Ok(text)
}

/// Standard output for bytes, which remembers whether its reader has gone away.
pub struct PipedStdout {
    stdout: io::Stdout,
    nobody_reads: bool,
}

impl PipedStdout {
    pub fn new() -> PipedStdout {
        PipedStdout { stdout: io::stdout(), nobody_reads: false }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            self.nobody_reads = true;
        }
        result
    }

    /// The result of what was written here: that nobody reads is no failure.
    pub fn finish(mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        let result = result.and_then(|()| written(self.flush()));
        if self.nobody_reads { Err(Failure::NobodyReads) } else { result }
    }
}

impl Write for PipedStdout {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let result = self.stdout.write(data);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.stdout.flush();
        self.note(result)
    }
}
