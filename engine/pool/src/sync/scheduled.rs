//! The same names and signatures as parking_lot's, on shuttle's locks.
//!
//! No lock is poisoned: shuttle ends the whole schedule at the first panic.

// Tests only; a guard has its inner guard but while it waits.
#![allow(clippy::expect_used)]

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread;

/// A lock that one holds.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

/// The lock is held until this is dropped.
pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, held: Some(self.take()) }
    }

    fn take(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("a guard that waits is not used")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("a guard that waits is not used")
    }
}

/// Waits for a change of what a [`Mutex`] guards.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    inner: shuttle::sync::Condvar,
    /// A count for tests, and no point where another thread goes on.
    waiting: std::sync::atomic::AtomicUsize,
}

impl Condvar {
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.waiting.fetch_add(1, atomic::Ordering::Relaxed);
        let held = guard.held.take();
        guard.held = held.map(|held| self.inner.wait(held).unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(1, atomic::Ordering::Relaxed);
    }

    /// Time passes at once: whoever else can go on may do so, and then the wait is over.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _most: Duration) {
        guard.held = None;
        thread::yield_now();
        guard.held = Some(guard.lock.take());
    }

    /// Who waits now.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(atomic::Ordering::Relaxed)
    }

    pub(crate) fn notify_all(&self) {
        self.inner.notify_all();
    }
}

#[derive(Debug, Default)]
struct Holders {
    readers: usize,
    writer: bool,
    waiting_writers: usize,
}

/// A lock that many share or one holds. As parking_lot's, it lets no reader in while a writer waits: who
/// reads twice may wait for himself, and shuttle's own would not show it.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T> {
    holders: Mutex<Holders>,
    changed: Condvar,
    value: parking_lot::RwLock<T>,
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> RwLock<T> {
        RwLock {
            holders: Mutex::default(),
            changed: Condvar::default(),
            value: parking_lot::RwLock::new(value),
        }
    }

    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        let mut holders = self.holders.lock();
        while holders.writer || holders.waiting_writers > 0 {
            self.changed.wait(&mut holders);
        }
        holders.readers += 1;
        let value = self.value.try_read().expect("nobody writes");
        ReadGuard { lock: self, value: Some(value) }
    }

    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        let mut holders = self.holders.lock();
        holders.waiting_writers += 1;
        while holders.writer || holders.readers > 0 {
            self.changed.wait(&mut holders);
        }
        holders.waiting_writers -= 1;
        holders.writer = true;
        let value = self.value.try_write().expect("nobody reads or writes");
        WriteGuard { lock: self, value: Some(value) }
    }
}

/// The lock is shared until this is dropped.
pub(crate) struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    value: Option<parking_lot::RwLockReadGuard<'a, T>>,
}

/// The lock is held alone until this is dropped.
pub(crate) struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    value: Option<parking_lot::RwLockWriteGuard<'a, T>>,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until dropped")
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until dropped")
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until dropped")
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        let mut holders = self.lock.holders.lock();
        self.value = None;
        holders.readers -= 1;
        drop(holders);
        self.lock.changed.notify_all();
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        let mut holders = self.lock.holders.lock();
        self.value = None;
        holders.writer = false;
        drop(holders);
        self.lock.changed.notify_all();
    }
}
