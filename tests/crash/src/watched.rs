//! A disk that is looked at after each operation.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_pool::BLOCK_BYTES;
use thinstore_storage::{CrashImage, SimulatedDisk, Storage};

use crate::model::Model;

/// A disk after an operation, and what may be found on it.
#[derive(Clone)]
pub struct Moment {
    /// What is durable, and what may be.
    pub image: CrashImage,
    /// What was acknowledged.
    pub model: Model,
    /// No checkpoint has begun to write: the older superblock leads to everything as well.
    pub between_checkpoints: bool,
}

/// Looks at a moment.
pub type Look = dyn Fn(&Moment) + Send + Sync;

/// Blocks in a group (docs/format.md).
const GROUP_BLOCKS: u64 = 32_768;

/// How far a checkpoint is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Between,
    Begun,
    Superblock,
}

/// A simulated disk whose every operation is looked at.
///
/// The operation, the disk's image and the model's are taken in one turn: no other operation of the disk
/// comes to its end in between, so nothing is acknowledged that the image lacks. The look itself is
/// outside of it.
pub struct WatchedDisk {
    disk: SimulatedDisk,
    model: Arc<Mutex<Model>>,
    turn: Mutex<Turn>,
    look: Box<Look>,
}

impl WatchedDisk {
    /// Watches a disk.
    pub fn new(
        disk: SimulatedDisk,
        model: Arc<Mutex<Model>>,
        look: impl Fn(&Moment) + Send + Sync + 'static,
    ) -> WatchedDisk {
        WatchedDisk { disk, model, turn: Mutex::new(Turn::Begun), look: Box::new(look) }
    }

    /// The disk itself.
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    fn operate(
        &self,
        next: impl FnOnce(Turn) -> Turn,
        operation: impl FnOnce(&SimulatedDisk) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut turn = self.turn.lock();
        let result = operation(&self.disk);
        *turn = next(*turn);
        let moment = Moment {
            image: self.disk.image(),
            model: self.model.lock().clone(),
            between_checkpoints: *turn == Turn::Between,
        };
        drop(turn);
        (self.look)(&moment);
        result
    }
}

impl Storage for WatchedDisk {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        // Bitmaps go where the older superblock's are (docs/format.md).
        let next = |turn| match offset_bytes / BLOCK_BYTES % GROUP_BLOCKS {
            1 | 2 => Turn::Begun,
            0 | 35 => Turn::Superblock,
            _ => turn,
        };
        self.operate(next, |disk| disk.write_at(offset_bytes, data))
    }

    fn sync(&self) -> io::Result<()> {
        let next = |turn| if turn == Turn::Superblock { Turn::Between } else { turn };
        self.operate(next, SimulatedDisk::sync)
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.operate(|turn| turn, |disk| disk.punch_hole(offset_bytes, length_bytes))
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.disk.reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.operate(|turn| turn, |disk| disk.grow(size_bytes))
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.drop_cache()
    }

    fn name(&self) -> String {
        self.disk.name()
    }
}
