//! What each request of the kernel does, whatever brings it: the floor between the transport (which
//! reads, decodes and answers requests) and the devices.
//!
//! A method here may block on the device it serves and on nothing else. Errors are the errno that the
//! kernel is answered with.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use nix::libc;
use thinstore_storage::{BlockDevice, Error, ErrorKind};
use thinstore_trace::Operation;

use super::table::{DeviceTable, Entry, NAME_MAXIMUM_BYTES, ROOT_INODE};

/// The unit that file attributes and `statfs` are given in; a loop device takes it as the granularity
/// of discards.
pub(crate) const BLOCK_BYTES: u32 = 4096;

/// An errno, as the kernel is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileError(pub(crate) i32);

/// What a request is answered with.
pub(crate) type Answer<T> = std::result::Result<T, FileError>;

const NO_ENTRY: FileError = FileError(libc::ENOENT);
const STALE: FileError = FileError(libc::ESTALE);

/// A file or the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) is_directory: bool,
    pub(crate) permissions: u16,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) blocks: u64,
    pub(crate) files: u64,
    pub(crate) block_bytes: u32,
    pub(crate) name_maximum_bytes: u32,
}

/// One line of the directory. `next` is the position after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryLine {
    pub(crate) inode: u64,
    pub(crate) next: u64,
    pub(crate) is_directory: bool,
    pub(crate) name: String,
}

/// The served devices as a flat directory of files.
#[derive(Default)]
pub(crate) struct DeviceService {
    table: DeviceTable,
}

/// What a device is asked.
#[derive(Clone, Copy)]
struct Asked {
    operation: Operation,
    offset_bytes: u64,
    length_bytes: u64,
}

impl Asked {
    fn new(operation: Operation, offset_bytes: u64, length: usize) -> Asked {
        Asked { operation, offset_bytes, length_bytes: u64::try_from(length).unwrap_or(u64::MAX) }
    }
}

fn device_error(entry: &Entry, asked: Asked, error: &Error) -> FileError {
    let device = entry.name.as_str();
    let (operation, offset_bytes) = (asked.operation.name(), asked.offset_bytes);
    match error.kind() {
        // A full pool is the user's to see, once for each request that it fails.
        ErrorKind::Full | ErrorKind::ReadOnly => {
            tracing::warn!(device, operation, offset_bytes, "{error}");
        }
        _ => tracing::error!(device, operation, offset_bytes, "{error}"),
    }
    FileError(error.kind().errno())
}

/// Asks the device, and notes it where it is traced. One that panics fails the request, not the thread that serves
/// all devices.
fn ask(
    entry: &Entry,
    asked: Asked,
    request: impl FnOnce(&dyn BlockDevice) -> thinstore_storage::Result<()>,
) -> Answer<()> {
    let trace = entry.recorder().map(|recorder| (recorder, Instant::now()));
    let result = catch_unwind(AssertUnwindSafe(|| request(&*entry.device)));
    if let Some((recorder, started)) = trace {
        recorder.note(asked.operation, asked.offset_bytes, asked.length_bytes, started);
    }
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(device_error(entry, asked, &error)),
        Err(_) => {
            let (operation, offset_bytes) = (asked.operation.name(), asked.offset_bytes);
            tracing::error!(device = entry.name, operation, offset_bytes, "the device panicked");
            Err(FileError(libc::EIO))
        }
    }
}

/// How many bytes from `offset_bytes` on, at most `wanted`, the device has.
fn length_inside(device: &dyn BlockDevice, offset_bytes: u64, wanted: usize) -> usize {
    let left = device.size_bytes().saturating_sub(offset_bytes);
    usize::try_from(left).map_or(wanted, |left| left.min(wanted))
}

impl DeviceService {
    /// The devices, to add and remove.
    pub(crate) fn table(&self) -> &DeviceTable {
        &self.table
    }

    fn entry(&self, inode: u64) -> Answer<Arc<Entry>> {
        self.table.get(inode).ok_or(STALE)
    }

    fn file_attributes(entry: &Entry) -> Attributes {
        Attributes {
            inode: entry.inode,
            size_bytes: entry.device.size_bytes(),
            is_directory: false,
            permissions: if entry.read_only { 0o400 } else { 0o600 },
        }
    }

    /// The file of a name in the directory.
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Answer<Attributes> {
        if parent != ROOT_INODE {
            return Err(FileError(libc::ENOTDIR));
        }
        let name = std::str::from_utf8(name).map_err(|_| NO_ENTRY)?;
        let entry = self.table.find(name).ok_or(NO_ENTRY)?;
        if entry.is_removing() {
            return Err(NO_ENTRY);
        }
        Ok(Self::file_attributes(&entry))
    }

    /// The attributes of an inode.
    pub(crate) fn attributes(&self, inode: u64) -> Answer<Attributes> {
        if inode == ROOT_INODE {
            return Ok(Attributes { inode, size_bytes: 0, is_directory: true, permissions: 0o700 });
        }
        Ok(Self::file_attributes(&*self.entry(inode)?))
    }

    /// Answers a change of attributes: a device's size is changed by its owner, not through its file,
    /// so only what changes nothing is allowed.
    pub(crate) fn set_attributes(
        &self,
        inode: u64,
        size_bytes: Option<u64>,
        changes_more: bool,
    ) -> Answer<Attributes> {
        let attributes = self.attributes(inode)?;
        if changes_more || size_bytes.is_some_and(|size_bytes| size_bytes != attributes.size_bytes)
        {
            return Err(FileError(libc::EPERM));
        }
        Ok(attributes)
    }

    /// Opens a file. Each open must be followed by one [`DeviceService::release`].
    pub(crate) fn open(&self, inode: u64, open_flags: i32) -> Answer<()> {
        let entry = self.entry(inode)?;
        if entry.read_only && open_flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Err(FileError(libc::EROFS));
        }
        self.table.open(inode).map(drop).ok_or(NO_ENTRY)
    }

    /// Ends an open.
    pub(crate) fn release(&self, inode: u64) {
        self.table.release(inode);
    }

    /// Fills `buffer` as far as the file goes; the answer is how far.
    pub(crate) fn read(&self, inode: u64, offset_bytes: u64, buffer: &mut [u8]) -> Answer<usize> {
        let entry = self.entry(inode)?;
        let length = length_inside(&*entry.device, offset_bytes, buffer.len());
        let Some(buffer) = buffer.get_mut(..length).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let asked = Asked::new(Operation::Read, offset_bytes, length);
        ask(&entry, asked, |device| device.read(offset_bytes, buffer))?;
        Ok(length)
    }

    /// Writes `data` as far as the file goes; the answer is how far. Past the end there is no space, as
    /// on any block device. Where the device has no room for it, `waits` says whether it may wait.
    pub(crate) fn write(
        &self,
        inode: u64,
        offset_bytes: u64,
        data: &[u8],
        waits: bool,
    ) -> Answer<usize> {
        let entry = self.entry(inode)?;
        if entry.read_only {
            return Err(FileError(libc::EROFS));
        }
        let length = length_inside(&*entry.device, offset_bytes, data.len());
        if length == 0 && !data.is_empty() {
            return Err(FileError(libc::ENOSPC));
        }
        let data = data.get(..length).unwrap_or_default();
        let answer = ask(&entry, Asked::new(Operation::Write, offset_bytes, length), |device| {
            if waits {
                device.write(offset_bytes, data)
            } else {
                device.write_at_once(offset_bytes, data)
            }
        });
        entry.note_change();
        answer.map(|()| length)
    }

    /// Would a write that finds no room wait for some?
    pub(crate) fn waits_for_room(&self, inode: u64) -> bool {
        self.entry(inode).is_ok_and(|entry| entry.device.waits_for_room())
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self, inode: u64) -> Answer<()> {
        if inode == ROOT_INODE {
            return Ok(());
        }
        let entry = self.entry(inode)?;
        // Binding a loop device and mounting ask for flushes of devices that nobody has written to.
        // Changes are counted, not marked: a flush that finds another under way must not answer for it.
        let Some(changes) = entry.unsettled_changes() else {
            return Ok(());
        };
        ask(&entry, Asked::new(Operation::Flush, 0, 0), |device| device.flush())?;
        entry.note_durable(changes);
        Ok(())
    }

    /// Makes a range read as zeroes and frees its space: punching a hole and zeroing a range.
    ///
    /// A loop device punches a hole for two requests that cannot be told apart here: a discard, which
    /// may be ignored, and a write of zeroes that may deallocate (ext4 initialises inode tables with
    /// it), which may not. So a hole is a write of zeroes, never a mere discard.
    pub(crate) fn allocate(
        &self,
        inode: u64,
        offset_bytes: u64,
        length_bytes: u64,
        mode: i32,
    ) -> Answer<()> {
        let entry = self.entry(inode)?;
        let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let size_bytes = entry.device.size_bytes();
        let end = offset_bytes.checked_add(length_bytes).ok_or(FileError(libc::EFBIG))?;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE => {}
            _ => return Err(FileError(libc::EOPNOTSUPP)),
        }
        if entry.read_only {
            return Err(FileError(libc::EROFS));
        }
        if !keeps_size && end > size_bytes {
            return Err(FileError(libc::ENOSPC));
        }
        let length_bytes = end.min(size_bytes).saturating_sub(offset_bytes);
        if length_bytes == 0 {
            return Ok(());
        }
        let asked = Asked { operation: Operation::Discard, offset_bytes, length_bytes };
        let answer = ask(&entry, asked, |device| device.write_zeroes(offset_bytes, length_bytes));
        entry.note_change();
        answer
    }

    /// What `statfs` shows: the sizes of all devices. A loop device asks for discards to be possible.
    pub(crate) fn totals(&self) -> Totals {
        let entries = self.table.list();
        let size_bytes =
            entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.device.size_bytes()));
        Totals {
            blocks: size_bytes / u64::from(BLOCK_BYTES),
            files: u64::try_from(entries.len()).unwrap_or(u64::MAX),
            block_bytes: BLOCK_BYTES,
            name_maximum_bytes: u32::try_from(NAME_MAXIMUM_BYTES).unwrap_or(u32::MAX),
        }
    }

    /// The directory from a position on. Positions are inodes, so that a device added or removed
    /// between two calls neither hides nor repeats another.
    pub(crate) fn directory(&self, inode: u64, after: u64) -> Answer<Vec<DirectoryLine>> {
        const SELF: u64 = 1;
        const PARENT: u64 = 2;
        if inode != ROOT_INODE {
            return Err(FileError(libc::ENOTDIR));
        }
        let dot = |name: &str, next| DirectoryLine {
            inode: ROOT_INODE,
            next,
            is_directory: true,
            name: name.to_owned(),
        };
        let mut lines = vec![dot(".", SELF), dot("..", PARENT)];
        let mut entries = self.table.list();
        entries.sort_by_key(|entry| entry.inode);
        lines.extend(entries.iter().filter(|entry| !entry.is_removing()).map(|entry| {
            DirectoryLine {
                inode: entry.inode,
                next: entry.inode + PARENT,
                is_directory: false,
                name: entry.name.clone(),
            }
        }));
        lines.retain(|line| line.next > after);
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use thinstore_storage::MemoryDevice;

    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

    fn serve(read_only: bool) -> (DeviceService, u64) {
        let service = DeviceService::default();
        let device = Arc::new(MemoryDevice::new(1 << 20));
        let inode = service.table().add("one", device, read_only).unwrap().inode;
        (service, inode)
    }

    #[test]
    fn reads_and_writes_stop_at_the_end_of_the_device() {
        let (service, inode) = serve(false);
        assert_eq!(service.write(inode, (1 << 20) - 4, b"abcdefgh", false), Ok(4));
        let mut buffer = [0; 8];
        assert_eq!(service.read(inode, (1 << 20) - 4, &mut buffer), Ok(4));
        assert_eq!(&buffer[..4], b"abcd");
        assert_eq!(service.read(inode, 1 << 20, &mut buffer), Ok(0));
        assert_eq!(service.read(inode, u64::MAX, &mut buffer), Ok(0));
        assert_eq!(service.write(inode, 1 << 20, b"x", false), Err(FileError(libc::ENOSPC)));
        assert_eq!(service.write(inode, 1 << 20, b"", false), Ok(0));
    }

    #[test]
    fn a_read_only_device_refuses_every_change() {
        let (service, inode) = serve(true);
        assert_eq!(service.open(inode, libc::O_RDWR), Err(FileError(libc::EROFS)));
        assert_eq!(service.open(inode, libc::O_RDONLY), Ok(()));
        assert_eq!(service.write(inode, 0, b"x", false), Err(FileError(libc::EROFS)));
        assert_eq!(service.allocate(inode, 0, 4096, PUNCH), Err(FileError(libc::EROFS)));
        assert_eq!(service.attributes(inode).unwrap().permissions, 0o400);
    }

    #[test]
    fn a_hole_and_a_zeroed_range_read_as_zeroes_also_where_blocks_are_partly_covered() {
        for mode in [PUNCH, ZERO] {
            let (service, inode) = serve(false);
            service.write(inode, 0, &[7; 16384], false).unwrap();
            service.allocate(inode, 100, 10000, mode).unwrap();
            let mut buffer = [1; 16384];
            service.read(inode, 0, &mut buffer).unwrap();
            assert!(buffer[..100].iter().all(|byte| *byte == 7));
            assert!(buffer[100..10100].iter().all(|byte| *byte == 0));
            assert!(buffer[10100..].iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn allocation_outside_the_device_or_of_another_kind_is_refused() {
        let (service, inode) = serve(false);
        assert_eq!(service.allocate(inode, 0, 4096, 0), Err(FileError(libc::EOPNOTSUPP)));
        assert_eq!(
            service.allocate(inode, 0, 4096, libc::FALLOC_FL_COLLAPSE_RANGE),
            Err(FileError(libc::EOPNOTSUPP))
        );
        assert_eq!(service.allocate(inode, u64::MAX, 4096, PUNCH), Err(FileError(libc::EFBIG)));
        assert_eq!(service.allocate(inode, 1 << 30, 4096, PUNCH), Ok(()));
        assert_eq!(
            service.allocate(inode, 1 << 30, 4096, libc::FALLOC_FL_ZERO_RANGE),
            Err(FileError(libc::ENOSPC))
        );
    }

    /// Counts flushes, and fails them if so told.
    #[derive(Default)]
    struct FlushedDevice {
        flushes: AtomicU64,
        fails: AtomicBool,
    }

    impl BlockDevice for FlushedDevice {
        fn size_bytes(&self) -> u64 {
            1 << 20
        }
        fn read(&self, _: u64, _: &mut [u8]) -> thinstore_storage::Result<()> {
            panic!("a read of this device panics")
        }
        fn write(&self, _: u64, _: &[u8]) -> thinstore_storage::Result<()> {
            Err(Error::new(ErrorKind::Full, "the pool is full"))
        }
        fn write_zeroes(&self, _: u64, _: u64) -> thinstore_storage::Result<()> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> thinstore_storage::Result<()> {
            Ok(())
        }
        fn flush(&self) -> thinstore_storage::Result<()> {
            self.flushes.fetch_add(1, Ordering::Relaxed);
            match self.fails.load(Ordering::Relaxed) {
                true => Err(Error::new(ErrorKind::Io, "the disk is gone")),
                false => Ok(()),
            }
        }
    }

    #[test]
    fn a_traced_device_has_its_requests_noted_until_the_trace_ends() {
        let (service, inode) = serve(false);
        let (recorder, recording) = thinstore_trace::recorder();
        let entry = service.table().get(inode).unwrap();
        service.write(inode, 0, b"before", false).unwrap();
        entry.trace(recorder).unwrap();
        let (another, _) = thinstore_trace::recorder();
        assert!(entry.trace(another).is_err());
        service.write(inode, 4096, &[7; 8192], false).unwrap();
        service.sync(inode).unwrap();
        service.read(inode, (1 << 20) - 512, &mut [0; 4096]).unwrap();
        service.allocate(inode, 0, 4096, PUNCH).unwrap();
        assert!(entry.end_trace() && !entry.end_trace());
        service.write(inode, 0, b"after", false).unwrap();
        let mut noted = Vec::new();
        while let Some(requests) = recording.next(100, std::time::Duration::ZERO) {
            noted.extend(
                requests.iter().map(|one| (one.operation, one.offset_bytes, one.length_bytes)),
            );
        }
        assert_eq!(
            noted,
            [
                (Operation::Write, 4096, 8192),
                (Operation::Flush, 0, 0),
                (Operation::Read, (1 << 20) - 512, 512),
                (Operation::Discard, 0, 4096),
            ]
        );
    }

    #[test]
    fn only_changes_are_flushed_and_a_failed_flush_is_asked_for_again() {
        let service = DeviceService::default();
        let device = Arc::new(FlushedDevice::default());
        let inode = service.table().add("one", device.clone(), false).unwrap().inode;
        let flushes = || device.flushes.load(Ordering::Relaxed);
        service.sync(inode).unwrap();
        assert_eq!(flushes(), 0);
        service.allocate(inode, 0, 4096, PUNCH).unwrap();
        service.sync(inode).unwrap();
        service.sync(inode).unwrap();
        assert_eq!(flushes(), 1);
        // A write that failed may have changed something.
        assert_eq!(service.write(inode, 0, b"x", false), Err(FileError(libc::ENOSPC)));
        device.fails.store(true, Ordering::Relaxed);
        assert_eq!(service.sync(inode), Err(FileError(libc::EIO)));
        device.fails.store(false, Ordering::Relaxed);
        service.sync(inode).unwrap();
        assert_eq!(flushes(), 3);
    }

    #[test]
    fn a_device_that_panics_fails_the_request_alone() {
        let service = DeviceService::default();
        let inode =
            service.table().add("one", Arc::new(FlushedDevice::default()), false).unwrap().inode;
        assert_eq!(service.read(inode, 0, &mut [0; 8]), Err(FileError(libc::EIO)));
        assert_eq!(service.sync(inode), Ok(()));
    }

    #[test]
    fn a_size_cannot_be_changed_through_the_file() {
        let (service, inode) = serve(false);
        assert_eq!(service.set_attributes(inode, Some(0), false), Err(FileError(libc::EPERM)));
        assert_eq!(service.set_attributes(inode, None, true), Err(FileError(libc::EPERM)));
        assert!(service.set_attributes(inode, Some(1 << 20), false).is_ok());
    }

    #[test]
    fn a_removed_device_is_stale_for_requests_that_come_late() {
        let (service, inode) = serve(false);
        service.table().remove("one").unwrap();
        assert_eq!(service.read(inode, 0, &mut [0; 8]), Err(STALE));
        assert_eq!(service.sync(inode), Err(STALE));
        assert_eq!(service.lookup(ROOT_INODE, b"one"), Err(NO_ENTRY));
    }

    #[test]
    fn the_directory_goes_on_where_it_stopped_when_devices_come_and_go() {
        let (service, _) = serve(false);
        for name in ["two", "three"] {
            service.table().add(name, Arc::new(MemoryDevice::new(4096)), false).unwrap();
        }
        let names = |after| -> Vec<(String, u64)> {
            let lines = service.directory(ROOT_INODE, after).unwrap();
            lines.into_iter().map(|line| (line.name, line.next)).collect()
        };
        let all = names(0);
        let shown: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(shown, [".", "..", "one", "two", "three"]);
        service.table().remove("one").unwrap();
        let rest: Vec<String> = names(all[2].1).into_iter().map(|(name, _)| name).collect();
        assert_eq!(rest, ["two", "three"]);
        assert!(names(all[4].1).is_empty());
    }

    #[test]
    fn totals_never_overflow_and_name_the_discard_granularity() {
        let (service, _) = serve(false);
        let totals = service.totals();
        assert_eq!(totals.block_bytes, 4096);
        assert_eq!(totals.blocks, 256);
        assert_eq!(totals.files, 1);
    }
}
