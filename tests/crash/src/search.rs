//! The search: a story is told on a disk that is watched, and what a loss of power would leave after each
//! operation is opened and judged. Then power does fail at one of these moments, and the story goes on
//! with what was left: so recovery is searched like everything else, and what an earlier life left on
//! the disk lies in the way of the next.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use thinstore_pool::{BLOCK_BYTES, OpenOptions, Pool};
use thinstore_storage::{CrashPolicy, FaultPlan, MemoryStorage, SimulatedDisk, Storage};

use crate::actor::Trouble;
use crate::model::{Model, Presence};
use crate::oracle::{layers, read_layer, verify, verify_space};
use crate::random::Random;
use crate::scenario::{Scenario, Stage};
use crate::watched::{Moment, WatchedDisk};

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Outcomes of a crash that are looked at after each operation.
    pub looks: u64,
    /// How often the story is told on the same disk, with a crash in between.
    pub lives: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { looks: 1, lives: 3 }
    }
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The story.
    pub scenario: &'static str,
    /// The seed that it was told with.
    pub seed: u64,
    /// Which life, from 0.
    pub life: u64,
    /// The operations of the disk in that life until the power failed; none: without a loss of power.
    pub operation: Option<u64>,
    /// What was kept of the unsynced writes.
    pub policy: Option<CrashPolicy>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} seed {} life {}", self.scenario, self.seed, self.life)?;
        if let (Some(operation), Some(policy)) = (self.operation, self.policy) {
            write!(formatter, ", power lost after operation {operation} ({policy:?})")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// What a search came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Losses of power looked at.
    pub cuts: u64,
    /// The first thing found.
    pub finding: Option<Finding>,
}

/// Words of a panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

/// Runs something that may panic.
pub fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panic_message(&*panic)))
}

/// What the looks of one life share.
struct Watch {
    scenario: &'static Scenario,
    seed: u64,
    life: u64,
    looks: u64,
    options: OpenOptions,
    empty_used_bytes: u64,
    cuts: Arc<AtomicU64>,
    found: AtomicBool,
    finding: Mutex<Option<Finding>>,
    /// The moment that the next life begins with, and how many were seen to choose it from.
    next: Mutex<(u64, Option<(Moment, CrashPolicy)>)>,
}

impl Watch {
    fn report(&self, operation: Option<u64>, policy: Option<CrashPolicy>, message: String) {
        let (scenario, seed, life) = (self.scenario.name, self.seed, self.life);
        let finding = Finding { scenario, seed, life, operation, policy, message };
        self.finding.lock().get_or_insert(finding);
        self.found.store(true, Ordering::Release);
    }

    fn look(&self, moment: &Moment) {
        for _ in 0..self.looks {
            if self.found.load(Ordering::Acquire) {
                return;
            }
            let number = self.cuts.fetch_add(1, Ordering::Relaxed);
            let mut random = Random::new(self.seed << 24 ^ number);
            let policy = CrashPolicy::from_seed(match number % 4 {
                0 => random.below(4),
                // All but one.
                1 => random.next() >> 2 << 2 | 4,
                _ => random.next(),
            });
            let disk = Arc::new(moment.image.disk(policy));
            let damaged = moment.between_checkpoints && random.below(4) == 0;
            if damaged {
                lose_a_superblock(&disk, &mut random);
            }
            // Opened to read, damage stays, and `check` says so.
            let half_done = !damaged && number.is_multiple_of(5);
            let judged = guarded(|| self.judge(&disk, &moment.model, half_done, &mut random));
            if let Err(message) = judged {
                self.report(Some(moment.image.operations()), Some(policy), message);
                return;
            }
            let mut next = self.next.lock();
            // The more there is to lose, the greater the chance (a weighted reservoir of one: Chao, 1982).
            let weight = 1 + moment.image.unsynced_count() as u64;
            next.0 += weight;
            if random.below(next.0) < weight {
                let policy = [policy, CrashPolicy::AllButFirst][random.below(2) as usize];
                next.1 = Some((moment.clone(), policy));
            }
        }
    }

    fn judge(
        &self,
        disk: &Arc<SimulatedDisk>,
        model: &Model,
        half_done: bool,
        random: &mut Random,
    ) -> Result<(), String> {
        let options = OpenOptions { background: false, ..self.options.clone() };
        if half_done {
            // What recovery would finish at once stays as it is.
            let options = OpenOptions { read_only: true, ..options.clone() };
            let pool = Pool::open(Arc::clone(disk) as Arc<dyn Storage>, &options)
                .map_err(|error| format!("the pool does not open read-only: {error}"))?;
            verify(&pool, model).map_err(|what| format!("read-only: {what}"))?;
        }
        let storage = Arc::clone(disk) as Arc<dyn Storage>;
        let pool = Pool::open(storage, &options)
            .map_err(|error| format!("the pool does not open: {error}"))?;
        verify(&pool, model)?;
        if random.below(8) == 0 {
            verify_space(&pool, self.empty_used_bytes)?;
        }
        drop(pool);
        Ok(())
    }
}

/// Where the two superblocks lie (docs/format.md).
const SUPERBLOCKS_AT: [u64; 2] = [0, 35 * BLOCK_BYTES];

/// Damages one superblock, if the other is whole: either leads to everything.
fn lose_a_superblock(disk: &SimulatedDisk, random: &mut Random) {
    let whole = SUPERBLOCKS_AT.iter().all(|at| {
        let mut bytes = [0; BLOCK_BYTES as usize];
        let (content, crc) = bytes.split_at_mut(508);
        disk.read_at(*at, content).is_ok()
            && disk.read_at(at + 508, &mut crc[..4]).is_ok()
            && crc32fast::hash(content).to_le_bytes() == crc[..4]
    });
    if whole {
        let at = random.pick(&SUPERBLOCKS_AT) + random.below(200);
        disk.corrupt(at, &[0xa5; 3]).unwrap();
    }
}

/// What is in use in a pool without layers.
fn empty_used_bytes(scenario: &Scenario, seed: u64) -> Result<u64, String> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(scenario.pool_bytes));
    let say = |error: thinstore_storage::Error| error.to_string();
    Pool::create(&*storage, &scenario.pool_options(seed)).map_err(say)?;
    let options = OpenOptions { background: false, ..scenario.open_options() };
    let pool = Pool::open(storage, &options).map_err(say)?;
    pool.checkpoint().map_err(say)?;
    Ok(pool.usage().used_bytes)
}

/// Tells a story and looks at every loss of power. `options` are those of the scenario, or changed ones.
pub fn search(
    scenario: &'static Scenario,
    seed: u64,
    budget: Budget,
    options: &OpenOptions,
) -> Outcome {
    let cuts = Arc::new(AtomicU64::new(0));
    let failed = |message| Finding {
        scenario: scenario.name,
        seed,
        life: 0,
        operation: None,
        policy: None,
        message,
    };
    let disk = SimulatedDisk::new(scenario.pool_bytes);
    let made = Pool::create(&disk, &scenario.pool_options(seed)).map_err(|error| error.to_string());
    let empty_used_bytes = match made.and_then(|()| empty_used_bytes(scenario, seed)) {
        Ok(bytes) => bytes,
        Err(message) => return Outcome { cuts: 0, finding: Some(failed(message)) },
    };
    let mut next = Some((disk, Model::default()));
    let mut finding = None;
    for life in 0..budget.lives {
        let Some((disk, model)) = next.take() else { break };
        let watch = Arc::new(Watch {
            scenario,
            seed,
            life,
            looks: budget.looks,
            options: options.clone(),
            empty_used_bytes,
            cuts: Arc::clone(&cuts),
            found: AtomicBool::new(false),
            finding: Mutex::new(None),
            next: Mutex::new((0, None)),
        });
        live(&watch, disk, model);
        finding = watch.finding.lock().take();
        if finding.is_some() {
            break;
        }
        let chosen = watch.next.lock().1.take();
        next = chosen.map(|(moment, policy)| (moment.image.disk(policy), moment.model));
    }
    Outcome { cuts: cuts.load(Ordering::Relaxed), finding }
}

/// Opens what is there, and tells the story once.
fn live(watch: &Arc<Watch>, disk: SimulatedDisk, model: Model) {
    let model = Arc::new(Mutex::new(model));
    let looking = Arc::clone(watch);
    let look = move |moment: &Moment| looking.look(moment);
    let disk = Arc::new(WatchedDisk::new(disk, Arc::clone(&model), look));
    disk.disk().set_faults(FaultPlan::new());
    let told = guarded(|| {
        let storage = Arc::clone(&disk) as Arc<dyn Storage>;
        let pool = Pool::open(storage, &watch.options)
            .map_err(|error| format!("the pool does not open: {error}"))?;
        if watch.life > 0 {
            let before = model.lock().clone();
            verify(&pool, &before).map_err(|what| format!("as it begins: {what}"))?;
        }
        resolve(&pool, &mut model.lock())?;
        let stage = Stage { pool, model: Arc::clone(&model), seed: watch.seed, life: watch.life };
        match (watch.scenario.run)(&stage) {
            Ok(()) => {}
            // What is left of the last life may take what this one needs.
            Err(Trouble::Engine(error)) if error.kind() == thinstore_storage::ErrorKind::Full => {}
            Err(Trouble::Engine(error)) => return Err(format!("while it ran: {error}")),
            Err(Trouble::Wrong(what)) => return Err(format!("while it ran: {what}")),
        }
        if watch.found.load(Ordering::Acquire) {
            return Ok(());
        }
        let model = model.lock().clone();
        verify(&stage.pool, &model).map_err(|what| format!("at the end: {what}"))?;
        stage.pool.close().map_err(|error| format!("closing: {error}"))
    });
    if let Err(message) = told {
        watch.report(None, None, message);
    }
}

/// A life begins with what the last one left: the model takes over what is there.
fn resolve(pool: &Pool, model: &mut Model) -> Result<(), String> {
    let found = layers(pool);
    model.layers.retain(|name, layer| {
        let there = found.contains_key(name);
        there || layer.presence == Presence::Sure
    });
    for (name, id) in &found {
        let content = read_layer(pool, *id, name)?;
        let info = pool.layer(*id).map_err(|error| error.to_string())?;
        let layer = model.layers.get_mut(name).ok_or_else(|| format!("{name} is not known"))?;
        layer.sealed = info.sealed;
        layer.sealing = false;
        layer.document = pool.document(*id).map_err(|error| error.to_string())?;
        model.resolve(name, &content, info.size_bytes / BLOCK_BYTES);
    }
    Ok(())
}
