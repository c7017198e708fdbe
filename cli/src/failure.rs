//! How commands fail.

use std::process::ExitCode;

use thinstore_storage::{Error, ErrorKind};
use thinstore_store::ErrorBody;

use crate::output::Format;
use crate::style::Style;
use crate::text::printable;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong.
    Engine(Error),
    /// Nobody reads the output any more, as in `thinstore ls | head -1`: no fault.
    NobodyReads,
    /// It has been told already; only the exit code is left.
    Told(ErrorKind),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Engine(error)
    }
}

/// A message on one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Prints an error to stderr.
pub fn tell(error: &Error, format: Format) {
    match format {
        Format::Human => {
            let style = Style::for_stream(&std::io::stderr());
            eprintln!("{} {}", style.error("thinstore:"), printable(&one_line(&error.to_string())));
        }
        Format::Json => {
            let mut body = ErrorBody::new(error);
            body.error.message = one_line(&body.error.message);
            eprintln!("{}", serde_json::to_string(&body).unwrap_or_default());
        }
    }
}

impl Failure {
    /// A fault of the command line.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Engine(Error::new(ErrorKind::Usage, message))
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::Engine(Error::new(ErrorKind::NotFound, message))
    }

    /// Tells what went wrong; the exit code.
    pub fn report(&self, format: Format) -> ExitCode {
        match self {
            Failure::Engine(error) => {
                tell(error, format);
                ExitCode::from(error.kind().exit_code())
            }
            Failure::NobodyReads => ExitCode::SUCCESS,
            Failure::Told(kind) => ExitCode::from(kind.exit_code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line() {
        assert_eq!(one_line("a\n  b\tc"), "a b c");
    }
}
