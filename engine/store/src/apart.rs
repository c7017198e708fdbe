//! Work that may wait for a block device which this very process serves.
//!
//! A thread that waits for such a device cannot be killed. If the process is killed meanwhile, its
//! threads that serve the device end, but the kernel takes the connection down, and lets the waiting
//! thread go, only when the last copy of the FUSE descriptor is closed. All threads of a process share
//! their descriptors, and the waiting thread would keep them open: it would wait for ever, with the
//! pool locked. So whatever may wait is done on a thread with a table of descriptors of its own, in
//! which the one of FUSE is closed (unshare(2), CLONE_FILES).
//!
//! What such a thread opens, it must close itself; what others have opened before, it can use. That is the
//! difference from [`thinstore_export::isolated`], whose threads begin without any open file: an import
//! reads from an archive that was opened before.

use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use thinstore_storage::{Error, ErrorKind, Result};

/// Does something on a thread that does not keep this process's FUSE connections alive.
pub(crate) fn apart<T: Send>(action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("apart".to_owned());
        let spawned = thread.spawn_scoped(scope, || {
            let_go_of_fuse()?;
            action()
        });
        let spawned = spawned.map_err(|error| Error::io("cannot start a thread", error))?;
        match spawned.join() {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorKind::Io,
                "the operation ended in a fault of the program; run 'thinstore check'",
            )),
        }
    })
}

fn let_go_of_fuse() -> Result<()> {
    unshare(CloneFlags::CLONE_FILES)
        .map_err(|errno| Error::io("cannot separate a thread's descriptors", errno.into()))?;
    let failed = |error| Error::io("cannot list the open files of a thread", error);
    let mut connections = Vec::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_fuse = std::fs::read_link(entry.path()).is_ok_and(|to| to == Path::new("/dev/fuse"));
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let (true, Some(number)) = (is_fuse, number) {
            connections.push(number);
        }
    }
    for number in connections {
        // only this thread's copy; those that serve keep theirs
        nix::unistd::close(number)
            .map_err(|errno| Error::io("cannot close a copy of a descriptor", errno.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_before_can_be_used_and_errors_come_back() {
        let file = tempfile::tempfile().expect("a file");
        let length = apart(|| {
            file.metadata()
                .map(|metadata| metadata.len())
                .map_err(|error| Error::io("cannot look", error))
        });
        assert_eq!(length.expect("a length"), 0);
        let error = apart::<()>(|| Err(Error::new(ErrorKind::Full, "full"))).expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Full);
        drop(file);
    }
}
