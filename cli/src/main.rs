//! `thinstore`: parse, call, print.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod containers;
mod context;
mod failure;
mod fresh_file;
mod interrupt;
mod output;
mod progress;
mod style;
mod table;
mod template;
mod text;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as ClapErrorKind;

use arguments::Arguments;
use context::Context;
use failure::Failure;
use output::Format;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let run = Context::new(&arguments.global)
        .and_then(|context| commands::run(arguments.command, &context));
    match run {
        Ok(code) => code,
        Err(failure) => failure.report(arguments.global.format.plain()),
    }
}

/// Help and version go to stdout; a wrong command line to stderr, with exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    let is_help =
        matches!(error.kind(), ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion);
    if !is_help && asked_for_json() {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        let message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
        return Failure::usage(message).report(Format::Json);
    }
    // a pipe that nobody reads any more is no reason to complain
    drop(error.print());
    ExitCode::from(if is_help { 0 } else { 2 })
}

/// The command line could not be parsed, so `--format json` is looked for by hand.
fn asked_for_json() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|pair| pair == ["--format", "json"])
}
