//! Threads that cannot keep a dying process from ending.
//!
//! A process that is killed while one of its threads waits for a device that the process itself serves
//! would never end: the waiting thread shares the open `/dev/fuse`, so the kernel takes the connection
//! for alive and goes on waiting for an answer that nobody is left to give. A thread with a descriptor
//! table of its own does not hold the connection: the kernel closes it with the last of the other
//! threads, fails the request, and the waiting thread ends as well.

use thinstore_storage::{Error, ErrorKind, Result};

use crate::error::io_error;
use crate::ioctl;

/// Runs `work` on a thread of its own that has no open files but the three standard ones.
///
/// Everything that waits for a device served by this process belongs in here: the functions of this
/// crate do so themselves; reading or writing files below a mount is the caller's to wrap. `work` must
/// open what it needs itself and can neither use nor return an open file.
///
/// # Errors
/// That of `work`, or [`ErrorKind::Io`] when no thread can be started or `work` panics.
pub fn isolated<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("isolated".to_owned())
            .spawn_scoped(scope, || {
                leave_open_files();
                work()
            })
            .map_err(|error| io_error("starting a thread failed", error))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "an operation on a device panicked")))
    })
}

/// Gives the calling thread an empty descriptor table. Kernels before 5.9 and strict seccomp filters do
/// not let it; then it works as any other thread, and only a kill at the wrong moment tells.
pub(crate) fn leave_open_files() {
    if let Err(errno) = ioctl::leave_descriptors() {
        tracing::debug!("a thread keeps its open files: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolated_thread_has_no_open_file_and_the_others_keep_theirs() {
        let file = std::fs::File::open("/dev/zero").unwrap();
        let links = || {
            let directory = std::fs::read_dir("/proc/thread-self/fd").unwrap();
            directory
                .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                .filter(|path| path.as_os_str() == "/dev/zero")
                .count()
        };
        assert_eq!(isolated(|| Ok(links())).unwrap(), 0);
        assert!(links() >= 1);
        assert!(file.metadata().is_ok());
    }

    #[test]
    fn errors_and_panics_come_back() {
        let error = isolated::<()>(|| Err(Error::new(ErrorKind::Full, "full"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(isolated::<()>(|| panic!("no")).unwrap_err().kind(), ErrorKind::Io);
    }
}
