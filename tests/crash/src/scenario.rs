//! The stories that are told while the power may fail.

use std::sync::Arc;

use parking_lot::Mutex;
use thinstore_pool::{OpenOptions, Pool, PoolOptions};

use crate::actor::{Actor, Told};
use crate::model::Model;

/// What a story is told on.
pub struct Stage {
    /// The open pool.
    pub pool: Pool,
    /// What may be found.
    pub model: Arc<Mutex<Model>>,
    /// Makes every choice.
    pub seed: u64,
    /// How often the pool was opened before.
    pub life: u64,
}

impl Stage {
    fn actor(&self, thread: u8) -> Actor {
        Actor::new(&self.pool, &self.model, self.seed, thread, self.life)
    }
}

/// A story.
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// The pool's size.
    pub pool_bytes: u64,
    /// The size of its devices.
    pub device_blocks: u64,
    /// Several threads: what happens does not follow from the seed alone.
    pub threads: bool,
    /// With the pool's own maintenance thread.
    pub background: bool,
    /// Blocks that a walk over a removed layer frees at a time.
    pub portion_blocks: usize,
    /// Does the space of freed blocks go back to the host?
    pub punch_holes: bool,
    /// Tells it.
    pub run: fn(&Stage) -> Told,
}

const DEVICE_BLOCKS: u64 = 700;

const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    pool_bytes: 8 << 20,
    device_blocks: DEVICE_BLOCKS,
    threads: false,
    background: false,
    portion_blocks: 16_384,
    punch_holes: true,
    run: random,
};

impl Scenario {
    /// How its pool is made.
    pub fn pool_options(&self, seed: u64) -> PoolOptions {
        PoolOptions {
            size_bytes: self.pool_bytes,
            allocation_run_bytes: 4096 << (seed % 9),
            journal_bytes: Some(256 << 10),
            default_device_size_bytes: self.device_blocks * thinstore_pool::BLOCK_BYTES,
            uuid: Some([3; 16]),
        }
    }

    /// How it is opened for the story.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            background: self.background,
            cache_bytes: 1 << 20,
            reclaim_portion_blocks: self.portion_blocks,
            punch_holes: self.punch_holes,
            ..OpenOptions::default()
        }
    }
}

/// All stories.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "random", about: "anything, by one thread", ..PLAIN },
    Scenario {
        name: "random-background",
        about: "anything, with the maintenance thread",
        background: true,
        threads: true,
        portion_blocks: 8,
        ..PLAIN
    },
    Scenario {
        name: "threads",
        about: "four threads, each on devices of its own",
        threads: true,
        run: threads,
        ..PLAIN
    },
    Scenario {
        name: "shared-device",
        about: "three threads write one device, a fourth takes snapshots of it",
        threads: true,
        run: shared_device,
        ..PLAIN
    },
    Scenario {
        name: "overwrite",
        about: "settled blocks overwritten in place, with and without a flush, in part and whole",
        run: overwrite,
        ..PLAIN
    },
    Scenario {
        name: "fork",
        about: "snapshots and commits right after overwrites in place",
        run: fork,
        ..PLAIN
    },
    Scenario {
        name: "absorb",
        about: "inner layers with one child are removed, a few blocks at a time",
        portion_blocks: 4,
        run: absorb,
        ..PLAIN
    },
    Scenario {
        name: "trim",
        about: "inner layers with several children are removed",
        portion_blocks: 4,
        run: trim,
        ..PLAIN
    },
    Scenario {
        name: "delete",
        about: "leaves are removed, and their blocks used again at once",
        portion_blocks: 8,
        run: delete,
        ..PLAIN
    },
    Scenario {
        name: "discard",
        about: "discards and zeroes, and their blocks used again at once",
        run: discard,
        ..PLAIN
    },
    Scenario {
        name: "journal-wrap",
        about: "the ring turns several times",
        run: journal_wrap,
        ..PLAIN
    },
    Scenario {
        name: "lost-batch",
        about: "of batches written without a flush one is lost, and those after it are there",
        pool_bytes: 24 << 20,
        punch_holes: false,
        device_blocks: 3000,
        run: lost_batch,
        ..PLAIN
    },
    Scenario {
        name: "checkpoint",
        about: "writes go on while one checkpoint follows the other",
        threads: true,
        run: checkpoint,
        ..PLAIN
    },
    Scenario {
        name: "superblock-turn",
        about: "checkpoints with little in between",
        run: superblock_turn,
        ..PLAIN
    },
    Scenario {
        name: "sums",
        about: "sealed data gets checksums, and is taken over by layers that overwrite it",
        portion_blocks: 4,
        run: sums,
        ..PLAIN
    },
    Scenario { name: "growth", about: "the pool grows, and its devices", run: growth, ..PLAIN },
    Scenario {
        name: "import",
        about: "layers are written unseen and published with their document",
        run: import,
        ..PLAIN
    },
    Scenario {
        name: "full",
        about: "writes until nothing fits any more, frees, and writes on",
        pool_bytes: 4 << 20,
        run: full,
        ..PLAIN
    },
];

/// The story of a name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

fn random(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    for _ in 0..60 {
        actor.step()?;
    }
    Ok(())
}

/// Runs one story a thread, and gives the first trouble.
fn together(stories: Vec<Box<dyn FnOnce() -> Told + Send + '_>>) -> Told {
    std::thread::scope(|scope| {
        let threads: Vec<_> = stories
            .into_iter()
            .map(|story| scope.spawn(with_faults_of_this_thread(story)))
            .collect();
        let mut told = Ok(());
        for thread in threads {
            // A panic goes on in this thread, where the search expects it.
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            told = told.and(ended);
        }
        told
    })
}

/// What a thread of a story does, with the fault that is planted where the story is told.
#[cfg(feature = "planted-faults")]
fn with_faults_of_this_thread<'a>(
    story: Box<dyn FnOnce() -> Told + Send + 'a>,
) -> impl FnOnce() -> Told + Send + 'a {
    let fault = thinstore_pool::planted::current();
    move || {
        let _planted = fault.map(thinstore_pool::planted::plant);
        story()
    }
}

#[cfg(not(feature = "planted-faults"))]
fn with_faults_of_this_thread<'a>(
    story: Box<dyn FnOnce() -> Told + Send + 'a>,
) -> impl FnOnce() -> Told + Send + 'a {
    story
}

fn threads(stage: &Stage) -> Told {
    let story = |thread| -> Box<dyn FnOnce() -> Told + Send + '_> {
        let mut actor = stage.actor(thread);
        Box::new(move || {
            for _ in 0..20 {
                actor.step()?;
            }
            Ok(())
        })
    };
    together((1..=4).map(story).collect())
}

fn shared_device(stage: &Stage) -> Told {
    const SHARED: &str = "shared";
    let mut keeper = stage.actor(1);
    if !keeper.model.lock().layers.contains_key(SHARED) {
        keeper.create_named(SHARED)?;
    }
    keeper.write(SHARED, 0, 96)?;
    keeper.settle()?;
    let mut stories: Vec<Box<dyn FnOnce() -> Told + Send + '_>> = Vec::new();
    for thread in 2..=4_u8 {
        let mut actor = stage.actor(thread);
        let first = u64::from(thread - 2) * 32;
        stories.push(Box::new(move || {
            for _ in 0..14 {
                let block = first + actor.random.below(28);
                let count = 1 + actor.random.below(3);
                actor.write(SHARED, block, count)?;
                if actor.random.below(5) == 0 {
                    actor.flush(SHARED)?;
                }
            }
            Ok(())
        }));
    }
    stories.push(Box::new(move || {
        for round in 0..3 {
            let copy = match round {
                1 => keeper.commit(SHARED)?,
                _ => keeper.snapshot(SHARED)?,
            };
            if keeper.random.below(2) == 0 {
                keeper.remove(&copy)?;
            }
        }
        Ok(())
    }));
    together(stories)
}

fn overwrite(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    actor.write(&name, 0, 40)?;
    actor.settle()?;
    for _ in 0..12 {
        let block = actor.random.below(36);
        match actor.random.below(4) {
            0 => actor.write_sectors(&name, block * 8 + 3, 7)?,
            _ => {
                let count = 1 + actor.random.below(4);
                actor.write(&name, block, count)?;
            }
        }
        match actor.random.below(6) {
            0 => actor.flush(&name)?,
            1 => actor.settle()?,
            _ => {}
        }
    }
    // New, at once again, and again after a flush: named in a batch that nothing settles yet.
    actor.write(&name, 100, 4)?;
    actor.write(&name, 100, 4)?;
    actor.flush(&name)?;
    actor.write(&name, 101, 2)?;
    actor.flush(&name)?;
    actor.write(&name, 100, 4)?;
    actor.write(&name, 300, 2)?;
    actor.flush(&name)
}

fn fork(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    actor.write(&name, 0, 24)?;
    for round in 0..4 {
        actor.settle()?;
        for _ in 0..4 {
            let block = actor.random.below(22);
            actor.write(&name, block, 2)?;
        }
        let copy = match round % 2 {
            0 => actor.snapshot(&name)?,
            _ => actor.commit(&name)?,
        };
        // To what is shared now, from both sides.
        actor.write(&name, 3, 4)?;
        if round % 2 == 0 {
            actor.write(&copy, 5, 4)?;
        }
        actor.flush(&name)?;
        if round == 1 {
            actor.checkpoint()?;
        }
    }
    Ok(())
}

fn absorb(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    for start in [0, 250, 500] {
        actor.write(&name, start, 12)?;
    }
    let sealed = actor.commit(&name)?;
    for start in [2, 252, 600] {
        actor.write(&name, start, 4)?;
    }
    actor.settle()?;
    let middle = actor.commit(&name)?;
    actor.write(&name, 4, 4)?;
    actor.write(&name, 508, 6)?;
    if actor.random.below(2) == 0 {
        actor.checkpoint()?;
    }
    actor.remove(&middle)?;
    // What was taken over is the layer's own now.
    actor.write(&name, 250, 6)?;
    actor.remove(&sealed)?;
    actor.write(&name, 0, 8)?;
    actor.flush(&name)?;
    let other = actor.create()?;
    actor.write(&other, 0, 30)?;
    actor.flush(&other)
}

fn sums(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    actor.write(&name, 0, 12)?;
    actor.write(&name, 250, 12)?;
    for round in 0..4 {
        let sealed = actor.commit(&name)?;
        let start = actor.random.below(8);
        actor.write(&name, start, 2)?;
        if round > 0 {
            actor.sum()?;
        }
        let middle = actor.commit(&name)?;
        actor.write(&name, 252, 3)?;
        if actor.random.below(3) > 0 {
            actor.sum()?;
        }
        if actor.random.below(3) == 0 {
            actor.checkpoint()?;
        }
        // What had checksums is the writable layer's own now, and overwritten in place at once.
        actor.remove(&sealed)?;
        actor.remove(&middle)?;
        for block in [0, start, 8, 250] {
            actor.write(&name, block, 3)?;
        }
        if round % 2 == 0 {
            actor.flush(&name)?;
        }
    }
    actor.sum()?;
    actor.flush(&name)
}

fn trim(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    for start in [0, 250, 500] {
        actor.write(&name, start, 12)?;
    }
    let sealed = actor.commit(&name)?;
    let first = actor.snapshot(&sealed)?;
    let second = actor.snapshot(&sealed)?;
    for copy in [&name, &first, &second] {
        actor.write(copy, 252, 6)?;
        actor.write(copy, 2, 3)?;
    }
    actor.remove(&sealed)?;
    let other = actor.create()?;
    actor.write(&other, 0, 30)?;
    actor.flush(&other)?;
    actor.remove(&first)?;
    actor.remove(&name)?;
    actor.write(&second, 4, 8)?;
    actor.flush(&second)
}

fn delete(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let kept = actor.create()?;
    for round in 0..5 {
        let name = actor.create()?;
        let count = 20 + actor.random.below(60);
        actor.write(&name, 0, count)?;
        actor.write(&name, 260, 10)?;
        actor.flush(&name)?;
        actor.write(&kept, round * 30, 10)?;
        actor.remove(&name)?;
        actor.write(&kept, round * 30 + 10, 20)?;
        actor.flush(&kept)?;
    }
    Ok(())
}

fn discard(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    let other = actor.create()?;
    for round in 0..6 {
        actor.write(&name, 0, 40)?;
        actor.write(&name, 254, 6)?;
        if round % 2 == 0 {
            actor.settle()?;
        }
        let start = actor.random.below(30);
        actor.discard(&name, start, 10)?;
        actor.write(&other, round * 40, 30)?;
        actor.flush(&other)?;
        actor.zero(&name, 250, 300)?;
        actor.write(&name, start, 4)?;
        actor.flush(&name)?;
    }
    Ok(())
}

fn journal_wrap(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    // A batch takes a block of the ring at least: the ring has 64.
    for round in 0..110 {
        let block = actor.random.below(680);
        let count = 1 + actor.random.below(6);
        actor.write(&name, block, count)?;
        if round % 20 == 0 {
            // Blocks with nothing side by side, each a record of its own.
            for step in 0..12 {
                actor.write(&name, step * 50 + round % 7, 1)?;
            }
        }
        actor.flush(&name)?;
    }
    Ok(())
}

fn lost_batch(stage: &Stage) -> Told {
    const BLOCKS: u64 = 3000;
    let mut actor = stage.actor(1);
    let name = match actor.mine(true).pop() {
        Some(name) => name,
        None => {
            let name = actor.create()?;
            for start in (0..BLOCKS).step_by(250) {
                actor.write(&name, start, 250)?;
            }
            name
        }
    };
    actor.settle()?;
    // Discards that do not touch each other make many records, which go to the ring before anybody asks
    // for a flush. Those of the next life are others, in batches of the same lengths.
    for block in (stage.life % 2..BLOCKS).step_by(2) {
        actor.discard(&name, block, 1)?;
    }
    for _ in 0..10 {
        actor.write(&name, 1 - stage.life % 2, 1)?;
    }
    actor.flush(&name)
}

fn checkpoint(stage: &Stage) -> Told {
    let mut keeper = stage.actor(1);
    let mut writer = stage.actor(2);
    let name = writer.create()?;
    together(vec![
        Box::new(move || {
            for _ in 0..6 {
                keeper.checkpoint()?;
            }
            Ok(())
        }),
        Box::new(move || {
            for round in 0..30 {
                let block = writer.random.below(600);
                writer.write(&name, block, 1 + round % 5)?;
                if round % 4 == 0 {
                    writer.flush(&name)?;
                }
            }
            Ok(())
        }),
    ])
}

fn superblock_turn(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    for _ in 0..10 {
        let block = actor.random.below(600);
        actor.write(&name, block, 2)?;
        if actor.random.below(3) == 0 {
            let copy = actor.snapshot(&name)?;
            actor.checkpoint()?;
            actor.remove(&copy)?;
        }
        actor.checkpoint()?;
    }
    Ok(())
}

fn growth(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    let mut size_blocks = DEVICE_BLOCKS;
    for round in 1..=4 {
        actor.write(&name, size_blocks - 10, 10)?;
        let pool_bytes = actor.pool.usage().size_bytes + (round << 20);
        actor.grow(pool_bytes)?;
        size_blocks += 200 * round;
        actor.resize(&name, size_blocks)?;
        actor.write(&name, size_blocks - 20, 20)?;
        if round == 2 {
            actor.checkpoint()?;
        }
        actor.flush(&name)?;
    }
    // A second level of pages.
    actor.resize(&name, 70_000)?;
    actor.write(&name, 69_990, 10)?;
    actor.flush(&name)
}

fn import(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let name = actor.create()?;
    for layers in [1, 3, 2] {
        actor.write(&name, layers * 10, 8)?;
        actor.import(layers)?;
        actor.flush(&name)?;
    }
    Ok(())
}

fn full(stage: &Stage) -> Told {
    let mut actor = stage.actor(1);
    let first = actor.create()?;
    let second = actor.create()?;
    for round in 0..3 {
        let mut block = 0;
        while block < DEVICE_BLOCKS && actor.write_if_room(&first, block, 20)? {
            block += 20;
            if block % 160 == 0 {
                actor.flush(&first)?;
            }
        }
        // An overwrite needs no room, and what was acknowledged stays.
        actor.flush(&first)?;
        actor.discard(&first, round * 40, 200)?;
        actor.flush(&first)?;
        actor.write_if_room(&second, round * 50, 30)?;
        actor.flush(&second)?;
    }
    actor.remove(&first)?;
    actor.write(&second, 400, 100)?;
    actor.flush(&second)
}
