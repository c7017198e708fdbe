//! Loads that write records to a mounted file system and note in a ledger what was acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::ledger::{Content, Ledger, erases};
use super::random::Random;
use super::records::{blocks_of, offset_of, open, read_file, read_small_file, small_file_blocks};
use crate::host;

/// The longest record in blocks, and the longest batch of records before a flush.
const RECORD_BLOCKS: u64 = 24;
const BATCH_RECORDS: u64 = 8;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Past the page cache, fdatasync after each record; some punch holes.
    Direct,
    /// Through the page cache, fsync after a few records; some are zeroed in place.
    Buffered,
    /// A folder of small files, each replaced whole by a rename, or removed; the folder is synced.
    Small,
}

/// A step of a writer, for whoever keeps a record beside the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// False: about to be written. True: a flush has acknowledged it.
    pub acknowledged: bool,
    /// The first unit.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// The generation.
    pub generation: u64,
}

/// Is told each step of a target, in the ledger's order.
pub type Witness = Arc<dyn Fn(Step) + Send + Sync>;

/// A file (or a folder of small ones) with its ledger.
#[derive(Clone)]
pub struct Target {
    /// How it is written.
    pub kind: Kind,
    stream: u64,
    name: &'static str,
    ledger: Arc<Mutex<Ledger>>,
    witness: Option<Witness>,
}

impl Target {
    /// One of each kind, for container number `container`.
    pub fn all(container: u64) -> Vec<Target> {
        [
            (Kind::Direct, "direct", 256),
            (Kind::Buffered, "buffered", 384),
            (Kind::Small, "small", 24),
        ]
        .into_iter()
        .zip(0..)
        .map(|((kind, name, units), number)| Target {
            kind,
            stream: (container << 32) | (number << 16),
            name,
            ledger: Arc::new(Mutex::new(Ledger::new(units))),
            witness: None,
        })
        .collect()
    }

    /// Small files as archive number `number` holds them.
    pub(super) fn archived(number: u64) -> Target {
        Target {
            kind: Kind::Small,
            stream: (1 << 56) | (number << 16),
            name: "archived",
            ledger: Arc::new(Mutex::new(Ledger::new(200))),
            witness: None,
        }
    }

    /// The same target with what was known of it before, and with somebody who is told each step from now on.
    pub fn resumed(self, ledger: Ledger, witness: Witness) -> Target {
        Target { ledger: Arc::new(Mutex::new(ledger)), witness: Some(witness), ..self }
    }

    /// What its blocks carry.
    pub fn stream(&self) -> u64 {
        self.stream
    }

    /// Its name in the file system.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its ledger.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn small_stream(&self, unit: usize) -> u64 {
        self.stream + u64::try_from(unit).expect("a unit") + 1
    }

    /// What it holds now in the file system mounted at `root`.
    ///
    /// # Errors
    /// What no write of this target can have left.
    pub fn read(&self, root: &Path) -> Result<Vec<Content>, String> {
        let units = self.ledger().units();
        let path = root.join(self.name);
        match self.kind {
            Kind::Direct | Kind::Buffered => read_file(&path, self.stream, units),
            Kind::Small => (0..units)
                .map(|unit| read_small_file(&path.join(unit.to_string()), self.small_stream(unit)))
                .collect(),
        }
    }

    fn write_until(
        &self,
        root: &Path,
        random: &mut Random,
        stop: &AtomicBool,
    ) -> std::io::Result<()> {
        let path = root.join(self.name);
        match self.kind {
            Kind::Small => {
                std::fs::create_dir_all(&path)?;
                File::open(root)?.sync_all()?;
                while !stop.load(Ordering::SeqCst) {
                    self.replace_small_file(&path, random, stop)?;
                    std::thread::sleep(random.time(3));
                }
            }
            Kind::Direct | Kind::Buffered => {
                let file = open(&path, self.kind == Kind::Direct)?;
                // The name must last as the content does.
                file.sync_all()?;
                File::open(root)?.sync_all()?;
                while !stop.load(Ordering::SeqCst) {
                    self.write_batch(&file, random, stop)?;
                    std::thread::sleep(random.time(2));
                }
            }
        }
        Ok(())
    }

    fn write_batch(
        &self,
        file: &File,
        random: &mut Random,
        stop: &AtomicBool,
    ) -> std::io::Result<()> {
        let direct = self.kind == Kind::Direct;
        let batch = if direct { 1 } else { 1 + random.below(BATCH_RECORDS) };
        let mut written = Vec::new();
        for _ in 0..batch {
            let count = usize::try_from(1 + random.below(RECORD_BLOCKS)).expect("a few blocks");
            let first = random.index(self.ledger().units() - count + 1);
            let generation = self.begin(first, count);
            if erases(generation) {
                let how = if direct {
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
                } else {
                    FallocateFlags::ZERO_RANGE
                };
                rustix::fs::fallocate(file, how, offset_of(first), offset_of(count))?;
            } else {
                let blocks = blocks_of(self.stream, first, count, generation);
                file.write_all_at(blocks.bytes(), offset_of(first))?;
            }
            written.push((first, count, generation));
        }
        if direct {
            file.sync_data()?
        } else {
            file.sync_all()?
        }
        for (first, count, generation) in written {
            self.acknowledge(first, count, generation, stop);
        }
        Ok(())
    }

    fn replace_small_file(
        &self,
        folder: &Path,
        random: &mut Random,
        stop: &AtomicBool,
    ) -> std::io::Result<()> {
        let unit = random.index(self.ledger().units());
        let path = folder.join(unit.to_string());
        let generation = self.begin(unit, 1);
        if erases(generation) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        } else {
            let blocks =
                blocks_of(self.small_stream(unit), 0, small_file_blocks(generation), generation);
            let fresh = folder.join("fresh");
            std::fs::write(&fresh, blocks.bytes())?;
            File::open(&fresh)?.sync_all()?;
            std::fs::rename(&fresh, &path)?;
        }
        File::open(folder)?.sync_all()?;
        self.acknowledge(unit, 1, generation, stop);
        Ok(())
    }

    /// Notes that something is about to be written; its generation.
    fn begin(&self, first: usize, count: usize) -> u64 {
        let mut ledger = self.ledger();
        let generation = ledger.begin(first, count);
        self.tell(Step { acknowledged: false, first, count, generation });
        generation
    }

    /// Called under the ledger's lock.
    fn tell(&self, step: Step) {
        if let Some(witness) = &self.witness {
            witness(step);
        }
    }

    /// Notes what a flush that has returned acknowledged, if that was before the end was asked for. On a dead
    /// device ext4 answers a folder's fsync with success once its journal has failed: that is no word of ours.
    fn acknowledge(&self, first: usize, count: usize, generation: u64, stop: &AtomicBool) {
        if !stop.load(Ordering::SeqCst) {
            let mut ledger = self.ledger();
            ledger.acknowledge(first, count, generation);
            self.tell(Step { acknowledged: true, first, count, generation });
        }
    }
}

/// Writers that run until they are told to end, or cannot write any more.
pub struct Writers {
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    stop: Arc<AtomicBool>,
    early: Arc<Mutex<Vec<String>>>,
}

impl Writers {
    /// Nobody yet.
    pub fn new() -> Writers {
        Writers { threads: Vec::new(), stop: Arc::default(), early: Arc::default() }
    }

    /// Begins to write a target in the file system mounted at `root`.
    pub fn start(&mut self, target: &Target, root: &str, seed: u64) {
        let (target, root) = (target.clone(), PathBuf::from(root));
        let (stop, early) = (self.stop.clone(), self.early.clone());
        self.threads.push(std::thread::spawn(move || {
            let result = target.write_until(&root, &mut Random::new(seed), &stop);
            if let Err(error) = &result
                && !stop.load(Ordering::SeqCst)
            {
                let text = format!("writing {} below {}: {error}", target.name, root.display());
                early.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            result
        }));
    }

    /// From now on nothing is acknowledged, errors are expected, and nothing new is begun. To be called right before a
    /// kill: what was acknowledged until then was so by a living daemon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Ends them all; what failed although nothing had been killed.
    ///
    /// # Errors
    /// When one does not come to its end, or had no reason to fail.
    pub fn end(self, limit: Duration) -> Result<(), String> {
        self.stop();
        if !host::wait_until(limit, || self.threads.iter().all(JoinHandle::is_finished)) {
            return Err("a writer hangs in the file system of a daemon that was killed".to_owned());
        }
        for thread in self.threads {
            if thread.join().is_err() {
                return Err("a writer panicked".to_owned());
            }
        }
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.is_empty() { Ok(()) } else { Err(early.join("; ")) }
    }
}

impl Default for Writers {
    fn default() -> Self {
        Writers::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writers_note_is_what_a_file_system_that_loses_nothing_holds() {
        let folder = tempfile::tempdir().unwrap();
        let targets = Target::all(3);
        let root = folder.path().to_str().unwrap();
        let mut writers = Writers::new();
        for (target, seed) in targets.iter().zip(0..) {
            writers.start(target, root, seed);
        }
        let busy = || targets.iter().all(|target| target.ledger().acknowledged() > 40);
        assert!(host::wait_until(Duration::from_secs(30), busy));
        writers.end(Duration::from_secs(10)).unwrap();
        for target in &targets {
            let contents = target.read(folder.path()).unwrap();
            target.ledger().settle(&contents).unwrap();
            // A unit that went back is seen.
            let lost = vec![Content::Erased; contents.len()];
            assert!(target.ledger().judge_all(&lost).is_err());
        }
    }
}
