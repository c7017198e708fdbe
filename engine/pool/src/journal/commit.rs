//! Making things durable: one flush of the storage for all who wait.

use thinstore_storage::{Error, ErrorKind, Result};

use super::pending::Freed;
use super::writer::{Durable, Released, Writer};
use crate::core::Core;
use crate::planted::{Fault, planted};
use crate::space::Extent;
use crate::sync::{Condvar, Mutex};

#[derive(Default)]
struct Group {
    running: bool,
    /// Commits begun and commits ended.
    begun: u64,
    ended: u64,
}

/// Group commit: whoever comes while a commit runs waits for the next one, and one of those who wait
/// runs it for all. (DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984.)
#[derive(Default)]
pub(crate) struct GroupCommit {
    group: Mutex<Group>,
    ended: Condvar,
}

#[cfg(all(test, feature = "shuttle"))]
impl GroupCommit {
    /// How many wait for a commit that is under way.
    pub(crate) fn waiting(&self) -> usize {
        self.ended.waiting()
    }
}

impl Core {
    /// Makes durable all that was completed before this call: one journal write if there is something to
    /// record, and one flush of the storage.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_writable()?;
        let commit = &self.group_commit;
        let mut group = commit.group.lock();
        let mine = group.begun + 1;
        while group.ended < mine {
            if group.running {
                commit.ended.wait(&mut group);
                continue;
            }
            group.running = true;
            group.begun += 1;
            drop(group);
            let result = self.commit();
            group = commit.group.lock();
            group.running = false;
            match result {
                // Nothing was begun: whoever waits tries for himself, and hears the same.
                Err(error) if error.kind() == ErrorKind::Full && self.latched.get().is_none() => {
                    commit.ended.notify_all();
                    return Err(error);
                }
                // Whatever else went wrong, those who wait must hear of it.
                result => {
                    let result = result.map_err(|error| self.latch(error));
                    group.ended = group.begun;
                    commit.ended.notify_all();
                    result?;
                }
            }
        }
        drop(group);
        self.check_latch()
    }

    fn commit(&self) -> Result<()> {
        self.make_room_in_ring()?;
        let mut writer = self.writer.lock();
        // Of those who waited for a commit that failed, one comes here next: a flush that succeeds after
        // one that failed proves nothing, so nothing may be written that builds on it.
        self.check_latch()?;
        let records = self.pending.take();
        if planted(Fault::HolePunchedEarly) {
            self.punch(&records.freed);
        }
        if !records.is_empty() || writer.can_settle() {
            let staged = writer.stage(records);
            self.check_ring(&writer)?;
            self.write_journal(staged.position, &staged.bytes)?;
        }
        let durable = writer.after_flush();
        self.sync_storage()?;
        let releasing = self.releasing.read();
        let freed = self.settle_flushed(&mut writer, durable);
        drop(writer);
        self.release(freed);
        drop(releasing);
        self.note_fullness();
        Ok(())
    }

    /// Takes a checkpoint first where the ring is as full as it may get. It fails with [`ErrorKind::Full`]
    /// where the host has no space for one: then nothing was begun.
    fn make_room_in_ring(&self) -> Result<()> {
        let limit_sixteenths = if self.background { 7 } else { 6 };
        let pending_bytes = self.pending.length_bytes();
        let crowded = {
            let writer = self.writer.lock();
            if self.background && writer.is_past(5, pending_bytes) {
                self.maintenance.wake();
            }
            writer.is_past(limit_sixteenths, pending_bytes) || self.has_too_many_dirty_pages()
        };
        if crowded { self.checkpoint() } else { Ok(()) }
    }

    /// Writes pending records to the ring without a flush, so that they do not pile up in memory between
    /// flushes. Called with no lock held.
    pub(crate) fn spill_if_long(&self) -> Result<()> {
        if self.pending.length_bytes() * 16 < self.ring.blocks * crate::types::BLOCK_BYTES
            && !self.has_too_many_dirty_pages()
        {
            return Ok(());
        }
        self.make_room_in_ring()?;
        let mut writer = self.writer.lock();
        self.check_latch()?;
        let records = self.pending.take();
        if records.is_empty() {
            return Ok(());
        }
        let staged = writer.stage(records);
        self.check_ring(&writer)?;
        self.write_journal(staged.position, &staged.bytes)
    }

    /// A replay finds what was available at the last checkpoint, and must not come to want more. In a pool
    /// with little left, a checkpoint is taken in time. Called with no lock held that a checkpoint takes.
    pub(crate) fn keep_replay_room(&self) -> Result<()> {
        let freed = self.unreleased_blocks.load(std::sync::atomic::Ordering::Relaxed);
        let coming =
            u64::try_from(freed).unwrap_or(0) + crate::convert::to_u64(self.pages.held_blocks());
        if !self.pages.space.is_replay_room_short(coming) {
            return Ok(());
        }
        self.settle()?;
        self.checkpoint_twice()
    }

    /// Refuses another layer where its record would use up what removals and checkpoints need.
    pub(crate) fn check_room_for_layer(&self) -> Result<()> {
        if self.pages.space.has_room_for_layer() {
            return Ok(());
        }
        self.settle()?;
        self.checkpoint_twice()?;
        if self.pages.space.has_room_for_layer() { Ok(()) } else { Err(self.full()) }
    }

    /// The last line of defence: a batch is never written over one that a superblock needs.
    pub(crate) fn check_ring(&self, writer: &Writer) -> Result<()> {
        if writer.overruns_now() {
            return Err(self.latch(self.corrupt("the journal overran its ring")));
        }
        Ok(())
    }

    pub(crate) fn write_journal(&self, position: u64, bytes: &[u8]) -> Result<()> {
        self.ring.write(&*self.storage, position, bytes).map_err(|source| {
            self.latch(Error::io(format!("cannot write the journal of {}", self.name), source))
        })
    }

    /// Flushes the storage; a failure latches the pool, for after it nobody can say what is on the disk.
    /// One at a time: a flush that succeeds after a failed one, before the latch is set, would make
    /// durable what only seems to be there.
    pub(crate) fn sync_storage(&self) -> Result<()> {
        let _one = self.syncing.lock();
        self.check_latch()?;
        self.storage
            .sync()
            .map_err(|source| self.latch(Error::io(format!("cannot flush {}", self.name), source)))
    }

    /// A flush has returned: settled blocks may be overwritten in place. Done under the writer's lock: a
    /// block that is freed, used again and named anew meanwhile must not be settled by its old name.
    /// Gives what is to be released.
    pub(crate) fn settle_flushed(&self, writer: &mut Writer, durable: Durable) -> Vec<Freed> {
        let Released { named, freed } = writer.flushed(durable);
        for extent in named {
            self.pages.space.settle(extent);
        }
        freed
    }

    /// Freed blocks are given back to the host where that was asked for, and then to the pool.
    pub(crate) fn release(&self, released: Vec<Freed>) {
        self.punch(&released);
        let has_come = !released.is_empty();
        for freed in released {
            self.pages.space.release(freed.extent);
            self.note_released(u64::from(freed.extent.count));
        }
        if has_come {
            self.room.has_come();
        }
    }

    /// Gives blocks back to the host where that was asked for.
    fn punch(&self, released: &[Freed]) {
        let mut punched: Vec<Extent> = released
            .iter()
            .filter(|freed| freed.punch && self.punch_holes)
            .map(|freed| freed.extent)
            .collect();
        punched.sort_by_key(|extent| extent.start);
        let mut joined = Vec::with_capacity(punched.len());
        for extent in punched {
            Extent::push_joined(&mut joined, extent);
        }
        for extent in joined {
            let length_bytes = u64::from(extent.count) * crate::types::BLOCK_BYTES;
            if let Err(error) = self.storage.punch_hole(extent.start.offset_bytes(), length_bytes) {
                // The space stays with the pool: nothing is lost but the host's room.
                tracing::warn!("cannot give {} back to the host: {error}", extent.start);
            }
        }
    }

    /// Settles what is durable and not settled yet: two flushes at the most. What was freed before is free
    /// on return, and the host has it back.
    pub(crate) fn settle(&self) -> Result<()> {
        for _ in 0..2 {
            {
                let writer = self.writer.lock();
                if !writer.has_outstanding() && self.pending.length_bytes() == 0 {
                    break;
                }
            }
            self.flush()?;
        }
        // Another thread may have settled it, and still punch its holes.
        drop(self.releasing.write());
        Ok(())
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("{} is open read-only", self.name),
            ));
        }
        self.check_latch()
    }
}
