//! The one error type of the engine, and the one table that turns its kinds into exit codes, errno
//! values and names.
//!
//! A message says what failed, on which object, and what to do about it. The operating system's own
//! error, where there is one, is kept as the source and its text stands at the end of the message.

use std::fmt;
use std::io;

/// What an operation of the engine returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in the classes that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The storage below failed a read, a write or a flush.
    Io,
    /// Something read back is not what was written: a checksum, a bound or an invariant is broken.
    Corrupt,
    /// A pool, image or archive of a version or with a feature that this program does not know.
    Incompatible,
    /// The pool (or the device) has no room for what was asked.
    Full,
    /// What was asked makes no sense: a bad name, size, path or combination of options.
    Usage,
    /// No object of that name.
    NotFound,
    /// An object of that name exists already.
    Exists,
    /// The object, or the pool, is in use.
    InUse,
    /// The pool takes no changes: opened read-only, or latched after a failed write.
    ReadOnly,
    /// The caller may not do this (most often: it needs root).
    Permission,
    /// An archive or image that is refused: hostile, truncated, or with a wrong digest.
    Refused,
    /// This host or kernel cannot do what was asked.
    Unsupported,
}

impl ErrorKind {
    /// Every kind, its stable name (the `code` of the JSON form), the exit code of the command line
    /// and the errno that a block device answers with.
    pub const TABLE: [(ErrorKind, &'static str, u8, i32); 12] = [
        (ErrorKind::Io, "io", 1, libc_errno::EIO),
        (ErrorKind::Corrupt, "corrupt", 6, libc_errno::EIO),
        (ErrorKind::Incompatible, "incompatible", 1, libc_errno::EINVAL),
        (ErrorKind::Full, "full", 5, libc_errno::ENOSPC),
        (ErrorKind::Usage, "usage", 2, libc_errno::EINVAL),
        (ErrorKind::NotFound, "not_found", 3, libc_errno::ENOENT),
        (ErrorKind::Exists, "exists", 4, libc_errno::EEXIST),
        (ErrorKind::InUse, "in_use", 4, libc_errno::EBUSY),
        (ErrorKind::ReadOnly, "read_only", 1, libc_errno::EROFS),
        (ErrorKind::Permission, "permission", 1, libc_errno::EPERM),
        (ErrorKind::Refused, "refused", 1, libc_errno::EINVAL),
        (ErrorKind::Unsupported, "unsupported", 1, libc_errno::EOPNOTSUPP),
    ];

    fn row(self) -> (&'static str, u8, i32) {
        for (kind, name, exit_code, errno) in Self::TABLE {
            if kind == self {
                return (name, exit_code, errno);
            }
        }
        ("io", 1, libc_errno::EIO)
    }

    /// The stable name, as in `{"error": {"code": NAME}}`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The kind of a stable name, as a client reads it back.
    pub fn from_name(name: &str) -> Option<ErrorKind> {
        Self::TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(self) -> u8 {
        self.row().1
    }

    /// The errno that a block device answers a request with.
    pub fn errno(self) -> i32 {
        self.row().2
    }
}

/// The errno values of the table, spelled out so that this file needs no FFI crate. They are the same
/// on every Linux architecture that Rust supports but for `EOPNOTSUPP` on MIPS, PA-RISC and SPARC.
mod libc_errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EIO: i32 = 5;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const EINVAL: i32 = 22;
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
    pub const EOPNOTSUPP: i32 = 95;
}

/// An error of the engine: its kind, one sentence, and the cause where the system gave one.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// An error of the system below: `message` says what was being done, and on which object.
    ///
    /// A full disk, a missing or existing file, a missing permission and a read-only file system keep
    /// their kinds; all else is `Io`.
    pub fn io(message: impl Into<String>, source: io::Error) -> Error {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        Error { kind, message: message.into(), source: Some(source) }
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with `context` before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(formatter, "{}: {source}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {
    // The source's text is part of the message already; a printed chain must not repeat it.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

impl From<ErrorKind> for io::ErrorKind {
    fn from(kind: ErrorKind) -> io::ErrorKind {
        match kind {
            ErrorKind::Full => io::ErrorKind::StorageFull,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::Exists => io::ErrorKind::AlreadyExists,
            ErrorKind::InUse => io::ErrorKind::ResourceBusy,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::Permission => io::ErrorKind::PermissionDenied,
            ErrorKind::Usage => io::ErrorKind::InvalidInput,
            ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::Refused => {
                io::ErrorKind::InvalidData
            }
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Io => io::ErrorKind::Other,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = error.kind.into();
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_one_row_and_is_found_by_its_name() {
        let names: BTreeSet<&str> = ErrorKind::TABLE.iter().map(|row| row.1).collect();
        assert_eq!(names.len(), ErrorKind::TABLE.len());
        for (kind, name, exit_code, errno) in ErrorKind::TABLE {
            assert_eq!(ErrorKind::from_name(name), Some(kind));
            assert_eq!((kind.name(), kind.exit_code(), kind.errno()), (name, exit_code, errno));
            assert!(exit_code != 0 && errno > 0);
        }
        assert_eq!(ErrorKind::from_name("nonsense"), None);
    }

    #[test]
    fn the_errno_values_are_those_of_this_system() {
        let pairs = [
            (ErrorKind::Io, nix::errno::Errno::EIO),
            (ErrorKind::Full, nix::errno::Errno::ENOSPC),
            (ErrorKind::NotFound, nix::errno::Errno::ENOENT),
            (ErrorKind::Exists, nix::errno::Errno::EEXIST),
            (ErrorKind::InUse, nix::errno::Errno::EBUSY),
            (ErrorKind::ReadOnly, nix::errno::Errno::EROFS),
            (ErrorKind::Permission, nix::errno::Errno::EPERM),
            (ErrorKind::Usage, nix::errno::Errno::EINVAL),
            (ErrorKind::Unsupported, nix::errno::Errno::EOPNOTSUPP),
        ];
        for (kind, errno) in pairs {
            assert_eq!(nix::errno::Errno::from_raw(kind.errno()), errno);
        }
    }

    #[test]
    fn errors_of_the_system_keep_their_kind_and_stand_once_in_the_message() {
        let pairs = [
            (io::ErrorKind::StorageFull, ErrorKind::Full),
            (io::ErrorKind::NotFound, ErrorKind::NotFound),
            (io::ErrorKind::PermissionDenied, ErrorKind::Permission),
            (io::ErrorKind::AlreadyExists, ErrorKind::Exists),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::ReadOnly),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Io),
        ];
        for (below, kind) in pairs {
            let error = Error::io("cannot read /pool", io::Error::new(below, "reason"));
            assert_eq!(error.kind(), kind);
            assert_eq!(error.context("check").to_string(), "check: cannot read /pool: reason");
        }
        let error = Error::io("cannot read /pool", io::Error::other("reason"));
        assert!(std::error::Error::source(&error).is_none());
    }

    #[test]
    fn an_error_becomes_one_of_the_system_with_the_same_words() {
        let error = io::Error::from(Error::new(ErrorKind::Full, "the pool /pool is full"));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.to_string(), "the pool /pool is full");
    }
}
