//! Operations on a pool that keep the model true: noted before they begin, and when they are
//! acknowledged.

use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_pool::{BLOCK_BYTES, LayerId, NewLayer, Pool};
use thinstore_storage::{BlockDevice, Error, ErrorKind};

use crate::content::{SECTOR_BYTES, SECTORS, WriteId, fill_sector};
use crate::model::{Model, ModelLayer, Presence};
use crate::oracle::{NAMES, compare, read_layer};
use crate::random::Random;

/// Why a story ends early.
#[derive(Debug)]
pub enum Trouble {
    /// The engine says no.
    Engine(Error),
    /// What is there while it runs is not what should be.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Engine(error)
    }
}

/// The outcome of an operation.
pub type Told<T = ()> = Result<T, Trouble>;

/// One thread of a story.
pub struct Actor {
    /// The pool that it works on.
    pub pool: Pool,
    /// What it notes.
    pub model: Arc<Mutex<Model>>,
    /// Its choices.
    pub random: Random,
    thread: u8,
    life: u64,
    writes: u64,
    names: u64,
    device_blocks: u64,
}

impl Actor {
    /// The thread of this number, in this life of the pool.
    pub fn new(pool: &Pool, model: &Arc<Mutex<Model>>, seed: u64, thread: u8, life: u64) -> Actor {
        Actor {
            pool: pool.clone(),
            model: Arc::clone(model),
            random: Random::new(seed ^ u64::from(thread) << 48 ^ life << 56),
            thread,
            life,
            writes: 0,
            names: 0,
            device_blocks: pool.default_device_size_bytes() / BLOCK_BYTES,
        }
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("t{}-{}-{}", self.thread, self.life, self.names)
    }

    fn next_write(&mut self) -> WriteId {
        self.writes += 1;
        WriteId::new(self.thread, self.life << 40 | self.writes)
    }

    /// Layers of this thread, of any life: all, or those that take writes.
    pub fn mine(&self, writable: bool) -> Vec<String> {
        let prefix = format!("t{}-", self.thread);
        let model = self.model.lock();
        let fits =
            |layer: &ModelLayer| layer.presence == Presence::Sure && !(writable && layer.sealed);
        let all =
            model.layers.iter().filter(|(name, layer)| name.starts_with(&prefix) && fits(layer));
        all.map(|(name, _)| name.clone()).collect()
    }

    fn id(&self, name: &str) -> Told<LayerId> {
        self.pool
            .find(NAMES, name)
            .ok_or_else(|| Trouble::Wrong(format!("{name} is not there while the pool runs")))
    }

    /// Something that flushes: what was complete before it began is durable after it.
    fn flushing<T>(&mut self, work: impl FnOnce(&mut Actor) -> Told<T>) -> Told<T> {
        let since = self.model.lock().begin_flush();
        let done = work(self)?;
        self.model.lock().end_flush(since);
        Ok(done)
    }

    /// A new empty device.
    pub fn create(&mut self) -> Told<String> {
        let name = self.new_name();
        self.create_named(&name)?;
        Ok(name)
    }

    /// A new empty device of a given name.
    pub fn create_named(&mut self, name: &str) -> Told {
        let layer = ModelLayer { sizes_blocks: vec![self.device_blocks], ..ModelLayer::default() };
        self.model.lock().begin_layer(name, layer, 0);
        self.flushing(|actor| {
            let new = NewLayer { namespace: NAMES, name: name.to_owned(), ..NewLayer::default() };
            actor.pool.create_layer(new)?;
            Ok(())
        })?;
        self.model.lock().acknowledge(name);
        Ok(())
    }

    /// Writes whole blocks.
    pub fn write(&mut self, name: &str, block: u64, count: u64) -> Told {
        self.write_sectors(name, block * SECTORS as u64, count * SECTORS as u64)
    }

    /// Writes sectors: the blocks at either end in part.
    pub fn write_sectors(&mut self, name: &str, first: u64, count: u64) -> Told {
        let author = self.next_write();
        let device = self.pool.device(self.id(name)?)?;
        let mut data = vec![0; count as usize * SECTOR_BYTES];
        for (sector, bytes) in (first..).zip(data.chunks_mut(SECTOR_BYTES)) {
            fill_sector(author, sector, bytes);
        }
        let sectors = SECTORS as u64;
        let blocks = first / sectors..(first + count).div_ceil(sectors);
        {
            let mut model = self.model.lock();
            for block in blocks.clone() {
                let mut changed = [None; SECTORS];
                for (sector, slot) in (block * sectors..).zip(changed.iter_mut()) {
                    *slot = (first..first + count).contains(&sector).then_some(author);
                }
                model.begin_write(name, block, author, &changed);
            }
        }
        device.write(first * SECTOR_BYTES as u64, &data)?;
        let mut model = self.model.lock();
        blocks.for_each(|block| model.end_write(name, block, author));
        Ok(())
    }

    fn zero_with(
        &mut self,
        name: &str,
        block: u64,
        count: u64,
        zero: impl FnOnce(&dyn BlockDevice, u64, u64) -> thinstore_storage::Result<()>,
    ) -> Told {
        let author = self.next_write();
        let device = self.pool.device(self.id(name)?)?;
        let blocks = {
            let mut model = self.model.lock();
            let blocks = model.written(name, block..block + count);
            for block in &blocks {
                model.begin_write(name, *block, author, &[Some(WriteId::ZEROES); SECTORS]);
            }
            blocks
        };
        zero(&device, block * BLOCK_BYTES, count * BLOCK_BYTES)?;
        let mut model = self.model.lock();
        blocks.iter().for_each(|block| model.end_write(name, *block, author));
        Ok(())
    }

    /// Discards whole blocks.
    pub fn discard(&mut self, name: &str, block: u64, count: u64) -> Told {
        self.zero_with(name, block, count, |device, offset, length| device.discard(offset, length))
    }

    /// Zeroes whole blocks.
    pub fn zero(&mut self, name: &str, block: u64, count: u64) -> Told {
        self.zero_with(name, block, count, |device, offset, length| {
            device.write_zeroes(offset, length)
        })
    }

    /// Flushes a device.
    pub fn flush(&mut self, name: &str) -> Told {
        let device = self.pool.device(self.id(name)?)?;
        self.flushing(|_| Ok(device.flush()?))
    }

    /// Flushes until nothing waits to be settled: what is overwritten now is overwritten in place.
    pub fn settle(&mut self) -> Told {
        for _ in 0..3 {
            self.flushing(|actor| Ok(actor.pool.flush()?))?;
        }
        Ok(())
    }

    /// A writable snapshot.
    pub fn snapshot(&mut self, source: &str) -> Told<String> {
        self.copy(source, false)
    }

    /// A sealed copy of what a writable layer has now.
    pub fn commit(&mut self, source: &str) -> Told<String> {
        self.copy(source, true)
    }

    fn copy(&mut self, source: &str, sealed: bool) -> Told<String> {
        let name = self.new_name();
        let id = self.id(source)?;
        let since = self.model.lock().begin_snapshot(source, &name, sealed);
        let made = self.flushing(|actor| {
            let new = NewLayer { namespace: NAMES, name: name.clone(), ..NewLayer::default() };
            Ok(match sealed {
                true => actor.pool.seal_snapshot(id, new)?,
                false => actor.pool.snapshot(id, new)?,
            })
        })?;
        // With others writing, only now can it be seen what came into it.
        let layer = self.model.lock().layers[&name].clone();
        let found = read_layer(&self.pool, made, &name).map_err(Trouble::Wrong)?;
        let versions = compare(&name, &layer, &found).map_err(Trouble::Wrong)?;
        self.model.lock().end_snapshot(source, &name, since, &versions);
        Ok(name)
    }

    /// Seals a layer itself.
    pub fn seal(&mut self, name: &str) -> Told {
        let id = self.id(name)?;
        self.model.lock().layers.get_mut(name).unwrap().sealing = true;
        self.flushing(|actor| Ok(actor.pool.seal(id)?))?;
        let mut model = self.model.lock();
        let layer = model.layers.get_mut(name).unwrap();
        layer.sealed = true;
        layer.sealing = false;
        Ok(())
    }

    /// Removes a layer.
    pub fn remove(&mut self, name: &str) -> Told {
        let id = self.id(name)?;
        self.model.lock().begin_removal(name);
        self.flushing(|actor| Ok(actor.pool.remove(id)?))?;
        self.model.lock().layers.remove(name);
        Ok(())
    }

    /// Makes a device larger.
    pub fn resize(&mut self, name: &str, size_blocks: u64) -> Told {
        let id = self.id(name)?;
        self.model.lock().layers.get_mut(name).unwrap().sizes_blocks.push(size_blocks);
        self.flushing(|actor| Ok(actor.pool.resize(id, size_blocks * BLOCK_BYTES)?))?;
        self.model.lock().layers.get_mut(name).unwrap().sizes_blocks = vec![size_blocks];
        Ok(())
    }

    /// Makes the pool larger.
    pub fn grow(&mut self, size_bytes: u64) -> Told {
        self.flushing(|actor| Ok(actor.pool.grow(size_bytes)?))
    }

    /// Takes the checksums of all that is sealed.
    pub fn sum(&mut self) -> Told {
        Ok(self.pool.sum_sealed()?)
    }

    /// A checkpoint.
    pub fn checkpoint(&mut self) -> Told {
        Ok(self.pool.checkpoint()?)
    }

    /// Layers that are written unseen, sealed, and published together with one that names the last of
    /// them and has a document: all of it or nothing.
    pub fn import(&mut self, layers: u64) -> Told {
        let group = self.next_write().0;
        let mut ids = Vec::new();
        let mut origin = None;
        for number in 0..layers {
            let new = NewLayer { transient: true, ..NewLayer::default() };
            let id = match origin {
                None => self.pool.create_layer(new)?,
                Some(origin) => self.pool.snapshot(origin, new)?,
            };
            let device = self.pool.device(id)?;
            let author = self.next_write();
            let mut data = vec![0; 3 * BLOCK_BYTES as usize];
            let first = number * 2 * SECTORS as u64;
            for (sector, bytes) in (first..).zip(data.chunks_mut(SECTOR_BYTES)) {
                fill_sector(author, sector, bytes);
            }
            device.write(number * 2 * BLOCK_BYTES, &data)?;
            drop(device);
            self.pool.seal(id)?;
            ids.push((id, author));
            origin = Some(id);
        }
        let document = self.next_write().0.to_le_bytes().repeat(700);
        let stored = self.pool.store_document(&document)?;
        let name = self.new_name();
        let mut transaction = self.pool.begin();
        let mut model = self.model.lock();
        let mut blocks = std::collections::BTreeMap::new();
        for (number, (id, author)) in (0_u64..).zip(&ids) {
            (number * 2..number * 2 + 3).for_each(|block| {
                blocks.insert(block, [*author; SECTORS]);
            });
            transaction.publish(*id, None);
        }
        // Of the layers themselves only the image's name can be seen; a snapshot of the last shows them.
        let image = ModelLayer {
            sealed: true,
            sizes_blocks: vec![self.device_blocks],
            document: Some(document.clone()),
            ..ModelLayer::default()
        };
        model.begin_layer(&name, image, group);
        drop(model);
        let new = NewLayer {
            namespace: NAMES,
            name: name.clone(),
            reference: ids.last().map(|(id, _)| *id),
            ..NewLayer::default()
        };
        transaction.create(new, true, Some(stored));
        self.flushing(|actor| Ok(actor.pool.commit(transaction)?))?;
        self.model.lock().acknowledge(&name);
        let found = read_layer(&self.pool, ids.last().unwrap().0, "the last layer");
        if found.as_ref() != Ok(&blocks) {
            return Err(Trouble::Wrong(format!("the published layers have {found:x?}")));
        }
        // The image goes before what it references.
        self.remove(&name)?;
        for (id, _) in ids.into_iter().rev() {
            self.pool.remove(id)?;
        }
        Ok(())
    }

    /// A write that the pool may have no room for.
    pub fn write_if_room(&mut self, name: &str, block: u64, count: u64) -> Told<bool> {
        match self.write(name, block, count) {
            Err(Trouble::Engine(error)) if error.kind() == ErrorKind::Full => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// A random operation on one of this thread's layers.
    pub fn step(&mut self) -> Told {
        let writable = self.mine(true);
        if writable.is_empty() {
            return self.create().map(drop);
        }
        let all = self.mine(false);
        let one = self.random.pick(&writable).clone();
        let any = self.random.pick(&all).clone();
        let end = self.device_blocks - 20;
        match self.random.below(40) {
            0 => self.create().map(drop),
            1..=14 => {
                let start = match self.random.below(3) {
                    0 => self.random.below(8),
                    1 => 250 + self.random.below(12),
                    _ => self.random.below(end),
                };
                let count = 1 + self.random.below(12);
                self.write(&one, start, count)
            }
            15..=18 => {
                let first = self.random.below(300);
                let count = 1 + self.random.below(30);
                self.write_sectors(&one, first, count)
            }
            19..=20 => {
                let (start, count) = (self.random.below(end - 300), 1 + self.random.below(300));
                self.discard(&one, start, count)
            }
            21 => {
                let (start, count) = (self.random.below(20), 1 + self.random.below(20));
                self.zero(&one, start, count)
            }
            22..=26 => self.flush(&one),
            27 => self.settle(),
            28..=30 if all.len() < 12 => self.snapshot(&any).map(drop),
            31..=32 if all.len() < 12 => self.commit(&one).map(drop),
            33 => self.seal(&one),
            34..=36 => self.remove(&any),
            37 => self.import(2),
            38 => {
                let now = self.model.lock().layers[&one].sizes_blocks[0];
                let more = self.random.below(3);
                self.resize(&one, now + more)
            }
            _ => self.checkpoint(),
        }
    }
}
