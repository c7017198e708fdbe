//! What goes wrong here.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a comparison could not be run, read or reported.
#[derive(Debug)]
pub enum Error {
    /// The file system refused something.
    Io {
        /// What was being done, as `read` or `write`.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of results has another schema version.
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// Its version, as it stands there.
        found: String,
    },
    /// A file is not what it should be.
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 for the whole file.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// What was asked for makes no sense.
    Invalid(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: what was being done with which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Has the disk no room left?
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => {
                write!(formatter, "cannot {action} {}: {source}", path.display())
            }
            Self::SchemaVersion { path, found } => write!(
                formatter,
                "{}: results of schema version {found}, but this program reads version {}; use the \
                 thinstore that wrote them",
                path.display(),
                crate::results::SCHEMA_VERSION
            ),
            Self::Malformed { path, line: 0, message } => {
                write!(formatter, "{}: {message}", path.display())
            }
            Self::Malformed { path, line, message } => {
                write!(formatter, "{}, line {line}: {message}", path.display())
            }
            Self::Invalid(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
