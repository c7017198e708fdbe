//! Errors of the kernel as errors of the engine.

use std::io;

use nix::errno::Errno;
use thinstore_storage::{Error, ErrorKind};

/// The error of a failed system call: `message` says what was being done, and on which object.
pub(crate) fn system_error(message: impl Into<String>, errno: Errno) -> Error {
    let kind = match errno {
        Errno::EBUSY | Errno::ETXTBSY => ErrorKind::InUse,
        Errno::EROFS => ErrorKind::ReadOnly,
        Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENODEV | Errno::ENOTTY => ErrorKind::Unsupported,
        Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::ENAMETOOLONG => ErrorKind::Usage,
        _ => return Error::io(message, io::Error::from(errno)),
    };
    Error::new(kind, format!("{}: {}", message.into(), errno.desc()))
}

/// The same for an error that std has wrapped.
pub(crate) fn io_error(message: impl Into<String>, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) => system_error(message, Errno::from_raw(code)),
        None => Error::io(message, error),
    }
}

/// The error of a device node of the kernel that cannot be opened: missing means that the kernel lacks
/// the feature, or that this container was not given it.
pub(crate) fn node_error(node: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(
            ErrorKind::Unsupported,
            format!(
                "{node} is missing: the kernel lacks the feature, or this container was not given it"
            ),
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::Permission,
            format!(
                "{node} cannot be opened: root is needed, and in a container access to the device"
            ),
        ),
        _ => io_error(format!("opening {node} failed"), error),
    }
}
