//! The devices that a connection serves: names, inodes, and how many opens each has.
//!
//! Invariants: an inode belongs to one device for the life of the connection and is never given
//! again, so a late request of the kernel cannot reach another device; a device leaves the table only
//! when nothing has it open; a name that is being removed cannot be looked up, and can be added again
//! only when it has gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result};
use thinstore_trace::Recorder;

/// The inode of the one directory.
pub(crate) const ROOT_INODE: u64 = 1;

/// The longest name of a device in bytes, as of any file.
pub(crate) const NAME_MAXIMUM_BYTES: usize = 255;

/// One served device.
pub(crate) struct Entry {
    pub(crate) inode: u64,
    pub(crate) name: String,
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) read_only: bool,
    open_count: AtomicU32,
    removing: AtomicBool,
    changes: AtomicU64,
    durable_changes: AtomicU64,
    // So that requests that nobody traces take no lock.
    traced: AtomicBool,
    recorder: Mutex<Option<Arc<Recorder>>>,
}

impl Entry {
    /// Who takes notes of the requests, if anybody does.
    pub(crate) fn recorder(&self) -> Option<Arc<Recorder>> {
        if self.traced.load(Ordering::Relaxed) { self.recorder.lock().clone() } else { None }
    }

    /// Lets a recorder take notes, until [`Entry::end_trace`] or the end of the device.
    pub(crate) fn trace(&self, recorder: Recorder) -> Result<()> {
        let mut there = self.recorder.lock();
        if there.is_some() {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("the device \"{}\" is being traced already", self.name),
            ));
        }
        *there = Some(Arc::new(recorder));
        self.traced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends a trace; false if there was none.
    pub(crate) fn end_trace(&self) -> bool {
        let mut there = self.recorder.lock();
        self.traced.store(false, Ordering::Relaxed);
        there.take().is_some()
    }

    /// Notes that a change has been made, whether it worked or not.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// How many changes have been made, if not all of them are known to be durable.
    pub(crate) fn unsettled_changes(&self) -> Option<u64> {
        let changes = self.changes.load(Ordering::Acquire);
        (self.durable_changes.load(Ordering::Acquire) < changes).then_some(changes)
    }

    /// Notes that so many changes are durable.
    pub(crate) fn note_durable(&self, changes: u64) {
        self.durable_changes.fetch_max(changes, Ordering::AcqRel);
    }

    /// How many opens are not yet released.
    pub(crate) fn open_count(&self) -> u32 {
        self.open_count.load(Ordering::Acquire)
    }

    /// Whether it goes when its last open is released.
    pub(crate) fn is_removing(&self) -> bool {
        self.removing.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Entries {
    by_inode: HashMap<u64, Arc<Entry>>,
    by_name: BTreeMap<String, u64>,
    last_inode: u64,
}

/// All served devices. Opens and removals exclude each other; requests only look up.
#[derive(Default)]
pub(crate) struct DeviceTable {
    entries: RwLock<Entries>,
}

pub(super) fn no_such_device(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no device \"{name}\" is being served"))
}

/// Refuses what cannot be the name of a file.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let problem = match name {
        "" => "is empty",
        "." | ".." => "means a directory",
        _ if name.len() > NAME_MAXIMUM_BYTES => "is longer than 255 bytes",
        _ if name.contains('/') => "contains a \"/\"",
        _ if name.contains('\0') => "contains a NUL byte",
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::Usage,
        format!("the device name {name:?} {problem}; choose a plain file name"),
    ))
}

impl DeviceTable {
    /// Takes up a device under a new name.
    pub(crate) fn add(
        &self,
        name: &str,
        device: Arc<dyn BlockDevice>,
        read_only: bool,
    ) -> Result<Arc<Entry>> {
        check_name(name)?;
        let mut entries = self.entries.write();
        if entries.by_name.contains_key(name) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("a device \"{name}\" is being served already; detach it first"),
            ));
        }
        let inode = entries.last_inode.max(ROOT_INODE) + 1;
        entries.last_inode = inode;
        let entry = Arc::new(Entry {
            inode,
            name: name.to_owned(),
            device,
            read_only,
            open_count: AtomicU32::new(0),
            removing: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            durable_changes: AtomicU64::new(0),
            traced: AtomicBool::new(false),
            recorder: Mutex::new(None),
        });
        entries.by_name.insert(name.to_owned(), inode);
        entries.by_inode.insert(inode, Arc::clone(&entry));
        Ok(entry)
    }

    /// Takes a device away, if nothing has it open.
    pub(crate) fn remove(&self, name: &str) -> Result<Arc<Entry>> {
        let mut entries = self.entries.write();
        let entry = entries.named(name)?;
        let open_count = entry.open_count();
        if open_count > 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the device \"{name}\" is open ({open_count} times); unmount and detach it first"
                ),
            ));
        }
        entries.forget(&entry);
        Ok(entry)
    }

    /// Refuses new opens of a device, and takes it away when the last one is released. True if it is
    /// gone already.
    pub(crate) fn remove_when_released(&self, name: &str) -> Result<bool> {
        let mut entries = self.entries.write();
        let entry = entries.named(name)?;
        entry.removing.store(true, Ordering::Release);
        let gone = entry.open_count() == 0;
        if gone {
            entries.forget(&entry);
        }
        Ok(gone)
    }

    /// The device of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read();
        entries.by_name.get(name).and_then(|inode| entries.by_inode.get(inode)).cloned()
    }

    /// The device of an inode.
    pub(crate) fn get(&self, inode: u64) -> Option<Arc<Entry>> {
        self.entries.read().by_inode.get(&inode).cloned()
    }

    /// Counts an open; none if the device is not there or on its way out.
    pub(crate) fn open(&self, inode: u64) -> Option<Arc<Entry>> {
        let entries = self.entries.read();
        let entry = entries.by_inode.get(&inode)?;
        if entry.is_removing() {
            return None;
        }
        // Removal takes the write lock, so the count cannot be judged between this and the answer.
        entry.open_count.fetch_add(1, Ordering::AcqRel);
        Some(Arc::clone(entry))
    }

    /// Counts the end of an open.
    pub(crate) fn release(&self, inode: u64) {
        let mut entries = self.entries.write();
        let Some(entry) = entries.by_inode.get(&inode).cloned() else {
            return;
        };
        let before = entry.open_count();
        entry.open_count.store(before.saturating_sub(1), Ordering::Release);
        if before <= 1 && entry.is_removing() {
            entries.forget(&entry);
        }
    }

    /// All devices by name.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        let entries = self.entries.read();
        entries.by_name.values().filter_map(|inode| entries.by_inode.get(inode)).cloned().collect()
    }
}

impl Entries {
    fn named(&self, name: &str) -> Result<Arc<Entry>> {
        self.by_name
            .get(name)
            .and_then(|inode| self.by_inode.get(inode))
            .cloned()
            .ok_or_else(|| no_such_device(name))
    }

    fn forget(&mut self, entry: &Entry) {
        self.by_inode.remove(&entry.inode);
        self.by_name.remove(&entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinstore_storage::MemoryDevice;

    fn memory() -> Arc<dyn BlockDevice> {
        Arc::new(MemoryDevice::new(1 << 20))
    }

    #[test]
    fn a_name_that_cannot_be_a_file_name_is_refused() {
        let long = "x".repeat(256);
        for name in ["", ".", "..", "a/b", "a\0b", long.as_str()] {
            let error = DeviceTable::default().add(name, memory(), false).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{name:?}");
        }
        assert!(DeviceTable::default().add(&long[1..], memory(), false).is_ok());
    }

    #[test]
    fn a_name_is_served_once_and_an_inode_is_never_given_again() {
        let table = DeviceTable::default();
        let first = table.add("one", memory(), false).unwrap();
        let error = table.add("one", memory(), false).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        table.remove("one").unwrap();
        let second = table.add("one", memory(), false).unwrap();
        assert_ne!(first.inode, second.inode);
        assert!(table.get(first.inode).is_none());
    }

    #[test]
    fn an_open_device_cannot_be_removed() {
        let table = DeviceTable::default();
        let entry = table.add("one", memory(), false).unwrap();
        table.open(entry.inode).unwrap();
        assert_eq!(table.remove("one").map(drop).unwrap_err().kind(), ErrorKind::InUse);
        table.release(entry.inode);
        table.remove("one").unwrap();
        assert_eq!(table.remove("one").map(drop).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_deferred_removal_admits_no_open_and_ends_with_the_last_release() {
        let table = DeviceTable::default();
        let entry = table.add("one", memory(), false).unwrap();
        table.open(entry.inode).unwrap();
        table.open(entry.inode).unwrap();
        assert!(!table.remove_when_released("one").unwrap());
        assert!(table.open(entry.inode).is_none());
        assert!(table.add("one", memory(), false).is_err());
        table.release(entry.inode);
        assert!(table.find("one").is_some());
        table.release(entry.inode);
        assert!(table.find("one").is_none());
        assert!(table.add("one", memory(), false).is_ok());
    }
}
