//! The transport: requests read from `/dev/fuse` by the fuser crate, done by a [`DeviceService`].
//!
//! Many threads read from the one descriptor, and each does what it reads: a request that waits for the
//! storage then holds up no other, and one that does not is answered without a switch of threads. What
//! may take long (a flush, a large discard) is done on the spot as well while few of its kind are under
//! way, and handed to the slow lane beyond that, so that threads for reads and writes are always left. A
//! write that waits for room in the pool does so in a lane of its own.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use nix::libc;

use super::buffer::AlignedBuffer;
use super::lanes::Lane;
use super::service::{Attributes, BLOCK_BYTES, DeviceService, DirectoryLine, FileError};
use crate::ioctl;

/// The largest request: the most that the kernel sends without a raised `max_pages_limit`.
const REQUEST_MAXIMUM_BYTES: usize = 1 << 20;

/// Requests that the kernel keeps in flight; beyond it, it queues them itself. A loop device has up to
/// 128 in flight.
const BACKGROUND_MAXIMUM: u16 = 1024;

/// Attributes and names change only when a device is added, removed or resized, and then the kernel is
/// told, so it may keep them for as long as it likes.
const KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const KEEP_GENERATION: Generation = Generation(0);

/// Threads that read and do requests, at least and at most. Each may block in the device, so their
/// number is the queue depth that the pool's own storage sees: 32 gives twice the random reads of 8.
const REQUEST_THREADS: std::ops::RangeInclusive<usize> = 32..=64;

/// Requests of the slow kind that may occupy the threads above.
const SLOW_ON_THE_SPOT: usize = 16;

/// Threads that do the slow requests beyond that.
const SLOW_THREADS: usize = 16;

/// Threads that wait with writes for room in the pool. More writes than these stand behind them: no room
/// for the first is none for the next, and the kernel bounds how many there are.
const WAITING_THREADS: usize = 8;

const NO_ROOM: FileError = FileError(libc::ENOSPC);

/// A connection being served.
pub(crate) struct Connection {
    thread: JoinHandle<io::Result<()>>,
    notices: SyncSender<Notice>,
}

/// Something that the kernel is to forget, and where the answer goes.
struct Notice {
    what: Forget,
    answer: SyncSender<io::Result<()>>,
}

enum Forget {
    Name { parent: u64, name: OsString },
    Attributes { inode: u64 },
}

/// Tells the kernel what is sent here. On a thread of its own, which shares the descriptors of the threads
/// that serve: whoever has something to tell may have let go of them (see [`crate::isolated`]), and in its
/// table the number is closed, or another file's.
fn start_notices(notifier: Notifier) -> io::Result<SyncSender<Notice>> {
    let (sender, receiver) = sync_channel::<Notice>(0);
    std::thread::Builder::new().name("export-notices".to_owned()).spawn(move || {
        for notice in receiver {
            let told = match notice.what {
                Forget::Name { parent, name } => notifier.inval_entry(INodeNo(parent), &name),
                // A negative offset means: no data, only attributes.
                Forget::Attributes { inode } => notifier.inval_inode(INodeNo(inode), -1, 0),
            };
            // Nobody waits any more: then nobody asks.
            let _ = notice.answer.send(told);
        }
    })?;
    Ok(sender)
}

impl Connection {
    /// Answers the kernel's first request on the descriptor of a fresh mount, and then serves.
    pub(crate) fn start(service: Arc<DeviceService>, device: OwnedFd) -> io::Result<Connection> {
        let (sender, receiver) = sync_channel(1);
        // The thread that makes the session starts all others, which inherit its flags.
        let thread = std::thread::Builder::new().name("export".to_owned()).spawn(move || {
            // Best effort: `harden` reports when it does not work.
            let _ = ioctl::set_io_flusher();
            let session = Transport::start(service).and_then(|transport| {
                Session::from_fd(transport, device, SessionACL::All, configuration())
            });
            match session {
                Ok(session) => {
                    let _ = sender.send(start_notices(session.notifier()));
                    session.run()
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                    Ok(())
                }
            }
        })?;
        let notices = receiver
            .recv()
            .map_err(|_| io::Error::other("the thread that serves FUSE has ended"))??;
        Ok(Connection { thread, notices })
    }

    /// Makes the kernel forget a name.
    pub(crate) fn forget_name(&self, parent: u64, name: &str) -> io::Result<()> {
        self.tell(Forget::Name { parent, name: name.into() })
    }

    /// Makes the kernel forget the attributes of an inode.
    pub(crate) fn forget_attributes(&self, inode: u64) -> io::Result<()> {
        self.tell(Forget::Attributes { inode })
    }

    fn tell(&self, what: Forget) -> io::Result<()> {
        let ended = || io::Error::other("the thread that tells the kernel of changes has ended");
        let (answer, told) = sync_channel(1);
        self.notices.send(Notice { what, answer }).map_err(|_| ended())?;
        told.recv().map_err(|_| ended())?
    }

    /// Waits for the end of the connection, which its unmounting brings. False if it goes on, because a
    /// copy of the mount is left in another mount namespace; it ends with the process then.
    pub(crate) fn join(self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match self.thread.join() {
            Ok(result) => result.map(|()| true),
            Err(_) => Err(io::Error::other("the thread that serves FUSE panicked")),
        }
    }
}

fn configuration() -> Config {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (least, most) = (*REQUEST_THREADS.start(), *REQUEST_THREADS.end());
    let mut configuration = Config::default();
    configuration.n_threads = Some(processors.saturating_mul(4).clamp(least, most));
    configuration
}

struct Transport {
    service: Arc<DeviceService>,
    slow: Lane,
    waiting: Lane,
    slow_on_the_spot: AtomicUsize,
}

impl Transport {
    fn start(service: Arc<DeviceService>) -> io::Result<Transport> {
        let slow = Lane::start("export-slow", SLOW_THREADS)?;
        let waiting = Lane::start("export-waiting", WAITING_THREADS)?;
        Ok(Transport { service, slow, waiting, slow_on_the_spot: AtomicUsize::new(0) })
    }

    /// Does a request that may take long, here or in the slow lane.
    fn slowly(&self, job: impl FnOnce(&DeviceService) + Send + 'static) {
        if self.slow_on_the_spot.fetch_add(1, Ordering::AcqRel) < SLOW_ON_THE_SPOT {
            job(&self.service);
            self.slow_on_the_spot.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        self.slow_on_the_spot.fetch_sub(1, Ordering::AcqRel);
        let service = Arc::clone(&self.service);
        self.slow.submit(Box::new(move || job(&service)));
    }
}

thread_local! {
    /// A buffer that begins on a page, as direct I/O below wants it; fuser's own does not.
    static BUFFER: RefCell<AlignedBuffer> = RefCell::new(AlignedBuffer::new(REQUEST_MAXIMUM_BYTES));
}

/// Runs `job` with `length` bytes of the thread's buffer; none if a request is larger than agreed.
fn with_buffer<T>(length: usize, job: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
    if length > REQUEST_MAXIMUM_BYTES {
        return None;
    }
    BUFFER.with(|buffer| Some(job(buffer.try_borrow_mut().ok()?.first(length))))
}

fn errno(error: FileError) -> Errno {
    Errno::from_i32(error.0)
}

fn file_type(is_directory: bool) -> FileType {
    if is_directory { FileType::Directory } else { FileType::RegularFile }
}

fn file_attributes(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.inode),
        size: attributes.size_bytes,
        blocks: attributes.size_bytes.div_ceil(512),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attributes.is_directory),
        perm: attributes.permissions,
        nlink: if attributes.is_directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn reply_empty(reply: ReplyEmpty, answer: Result<(), FileError>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_written(reply: ReplyWrite, answer: Result<usize, FileError>) {
    match answer.map(u32::try_from) {
        Ok(Ok(written)) => reply.written(written),
        Ok(Err(_)) => reply.error(Errno::EIO),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_attributes(reply: ReplyAttr, answer: Result<Attributes, FileError>) {
    match answer {
        Ok(attributes) => reply.attr(&KEPT, &file_attributes(&attributes)),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Transport {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS] {
            // What an older kernel lacks costs speed only.
            let _ = config.add_capabilities(wanted);
        }
        let refused = |_| io::Error::other("fuser refused a limit");
        let largest = u32::try_from(REQUEST_MAXIMUM_BYTES).map_err(io::Error::other)?;
        config.set_max_write(largest).map_err(refused)?;
        config.set_max_background(BACKGROUND_MAXIMUM).map_err(|_| refused(0))?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.service.lookup(parent.0, name.as_bytes()) {
            Ok(attributes) => reply.entry(&KEPT, &file_attributes(&attributes), KEEP_GENERATION),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        reply_attributes(reply, self.service.attributes(inode.0));
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size_bytes: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _status_changed: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = accessed.is_some() || modified.is_some();
        let owner = mode.is_some() || user.is_some() || group.is_some();
        // A truncation to the same size brings times with it; times alone are not kept anyway.
        let changes_more = owner || (times && size_bytes.is_none());
        reply_attributes(reply, self.service.set_attributes(inode.0, size_bytes, changes_more));
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.service.open(inode.0, flags.0) {
            Ok(()) => reply.opened(
                FileHandle(inode.0),
                FopenFlags::FOPEN_DIRECT_IO
                    | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
                    | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset_bytes: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        // Taken out of the closure only where there was no buffer to read into.
        let mut reply = Some(reply);
        let done = with_buffer(length, |buffer| {
            let answer = self.service.read(inode.0, offset_bytes, buffer);
            match (answer, reply.take()) {
                (Ok(length), Some(reply)) => reply.data(buffer.get(..length).unwrap_or_default()),
                (Err(error), Some(reply)) => reply.error(errno(error)),
                (_, None) => {}
            }
        });
        if let (None, Some(reply)) = (done, reply) {
            reply.error(Errno::EINVAL);
        }
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset_bytes: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let answer = with_buffer(data.len(), |buffer| {
            buffer.copy_from_slice(data);
            self.service.write(inode.0, offset_bytes, buffer, false)
        });
        let answer = answer.unwrap_or(Err(FileError(libc::EINVAL)));
        if answer == Err(NO_ROOM) && self.service.waits_for_room(inode.0) {
            // It waits elsewhere: the threads here are for those that need no room, or bring some.
            let (service, data) = (Arc::clone(&self.service), data.to_vec());
            self.waiting.submit(Box::new(move || {
                reply_written(reply, service.write(inode.0, offset_bytes, &data, true));
            }));
            return;
        }
        reply_written(reply, answer);
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Closing a file is not syncing it, and nothing is held back here that it could report.
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.service.release(inode.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.slowly(move |service| reply_empty(reply, service.sync(inode.0)));
    }

    fn fallocate(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset_bytes: u64,
        length_bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.slowly(move |service| {
            reply_empty(reply, service.allocate(inode.0, offset_bytes, length_bytes, mode));
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.service.directory(inode.0, after) {
            Ok(lines) => {
                for DirectoryLine { inode, next, is_directory, name } in lines {
                    if reply.add(INodeNo(inode), next, file_type(is_directory), name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let totals = self.service.totals();
        reply.statfs(
            totals.blocks,
            0,
            0,
            totals.files,
            0,
            totals.block_bytes,
            totals.name_maximum_bytes,
            totals.block_bytes,
        );
    }

    fn access(&self, _request: &Request, _inode: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // Only root reaches the mount at all.
        reply.ok();
    }
}
