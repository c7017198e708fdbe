//! The load, in the machine that loses power: two containers are written, copied and removed until the time is up.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thinstore_tests::TarWriter;
use thinstore_tests::attack::random::Random;
use thinstore_tests::attack::writers::{Target, Writers};
use thinstore_tests::command::{Outcome, run_tool, run_within};

use crate::database::{self, Database, Journal};
use crate::history::{
    CONTAINERS, Change, Event, History, Known, Progress, container_name, targets_of,
};

/// How long a command may take; in an emulated machine it takes its time.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// So many copies are kept at most.
const MOST_COPIES: usize = 4;

/// What the pool lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Below {
    /// The disk is the pool.
    Nothing,
    /// The pool is a file of an ext4 on the disk.
    Ext4,
}

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The block device that is the pool, or has a file system with it.
    #[arg(long)]
    pub disk: PathBuf,
    /// How the pool lies on it.
    #[arg(long)]
    pub below: Below,
    /// The program.
    #[arg(long)]
    pub program: PathBuf,
    /// A folder for the store and for mount points.
    #[arg(long)]
    pub folder: PathBuf,
    /// Where the history is, or will be.
    #[arg(long)]
    pub history: PathBuf,
    /// How long to go on.
    #[arg(long)]
    pub seconds: u64,
    /// What the load follows from.
    #[arg(long)]
    pub seed: u64,
    /// The device-mapper device that takes marks.
    #[arg(long)]
    pub marks: Option<String>,
}

/// How long everybody works at once, and how many things then happen one after the other.
const BUSY: Duration = Duration::from_secs(4);
const QUIET_STEPS: u32 = 6;

struct Load {
    options: Options,
    history: Arc<History>,
    known: Known,
    marking: Mutex<()>,
}

/// A container's database.
struct Rows {
    container: usize,
    database: Database,
    newest: u64,
}

impl Rows {
    fn commit(&mut self, history: &History) {
        self.newest += 1;
        let (container, number) = (self.container, self.newest);
        history.note(&Event::Transaction { container, acknowledged: false, number });
        self.database.commit(number).expect("a transaction");
        history.note(&Event::Transaction { container, acknowledged: true, number });
    }
}

/// Runs the load.
///
/// # Panics
/// When anything fails: nothing here is killed but by what kills all of it.
pub fn run(options: Options) {
    let (history, events) = History::open(&options.history).expect("the history so far");
    let known = Known::after(&events).expect("what is known so far");
    Load { options, history: Arc::new(history), known, marking: Mutex::new(()) }.work();
}

impl Load {
    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(&self.options.program);
        command.arg("--root").arg(self.options.folder.join("store")).args(arguments);
        run_within(command, COMMAND_LIMIT)
    }

    #[track_caller]
    fn must(&self, arguments: &[&str]) {
        self.ask(arguments).assert_success();
    }

    fn point(&self, container: usize) -> PathBuf {
        self.options.folder.join(container_name(container))
    }

    /// Writes into the log of writes how many events have happened.
    fn mark(&self) {
        let Some(device) = &self.options.marks else { return };
        // Between the count and its arrival nobody else's arrives: numbers only grow.
        let _one_at_a_time = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        let events = self.history.events().to_string();
        let mut command = Command::new("dmsetup");
        command.args(["message", device, "0", "mark", &events]);
        run_within(command, COMMAND_LIMIT).assert_success();
    }

    fn work(&self) {
        let mut random = Random::new(self.options.seed);
        self.prepare();
        self.history.note(&Event::Started);
        let end = Instant::now() + Duration::from_secs(self.options.seconds);
        let targets: Vec<_> = (0..CONTAINERS).map(|number| self.watched_targets(number)).collect();
        let mut databases: Vec<_> =
            (0..CONTAINERS).map(|number| self.open_database(number)).collect();
        let made = self.known.copies.iter();
        let mut copies: Vec<(String, bool)> = made
            .filter(|(_, copy)| copy.made == Progress::Done && copy.removed.is_none())
            .map(|(name, copy)| (name.clone(), copy.image))
            .collect();
        while Instant::now() < end {
            let busy_until = end.min(Instant::now() + BUSY);
            self.write_until(busy_until, &targets, &mut databases, &mut copies, &mut random);
            // One thing after the other: what one forgot to flush no other flushes.
            for _ in 0..QUIET_STEPS {
                match random.below(2) {
                    0 => databases[random.index(CONTAINERS)].commit(&self.history),
                    _ => self.change(&mut copies, &mut random),
                }
                self.mark();
            }
        }
        drop(databases);
        for container in 0..CONTAINERS {
            self.must(&["umount", &container_name(container)]);
        }
        self.must(&["serve", "--stop"]);
        self.must(&["check"]);
        if self.options.below == Below::Ext4 {
            run_tool("umount", &[self.options.folder.join("store")]);
        }
    }

    /// Makes the containers where they are missing, and mounts them.
    fn prepare(&self) {
        let store = self.options.folder.join("store");
        std::fs::create_dir_all(&store).expect("the store's folder");
        match self.options.below {
            Below::Nothing => {
                symlink(&self.options.disk, store.join("pool")).expect("name the pool")
            }
            Below::Ext4 => drop(run_tool("mount", &[&self.options.disk, &store])),
        }
        self.must(&["check"]);
        if !self.known.started {
            let source = self.options.folder.join("base.tar");
            TarWriter::new().file("base", b"base").write_to(&source);
            // Killed before the containers were said to be there, this begins again.
            let names = |listing: &str| self.ask(&[listing, "--format", "json"]).stdout_text();
            if !names("images").contains("base") {
                self.must(&["import", &source.display().to_string(), "--name", "base"]);
            }
            let there = names("ls");
            for container in (0..CONTAINERS).map(container_name) {
                if !there.contains(&container) {
                    self.must(&["snapshot", "base", &container]);
                }
            }
        }
        for container in 0..CONTAINERS {
            let point = self.point(container);
            std::fs::create_dir_all(&point).expect("a mount point");
            self.must(&["mount", &container_name(container), &point.display().to_string()]);
            if self.known.started {
                self.verify(container, &point);
            }
        }
    }

    /// What was found in the container after the loss of power must be in it.
    fn verify(&self, container: usize, point: &Path) {
        let known = self.known.containers.get(container).expect("a known container");
        for (target, ledger) in targets_of(container).into_iter().zip(&known.ledgers) {
            let contents = target.read(point).expect("read what was written");
            ledger.judge_all(&contents).expect("what was found before is there");
        }
        let newest = database::newest_transaction(point).expect("the database");
        assert_eq!(newest, known.transaction_acknowledged, "the database has another end");
    }

    fn watched_targets(&self, container: usize) -> Vec<Target> {
        let known = self.known.containers.get(container).expect("a known container");
        let targets = targets_of(container).into_iter().zip(known.ledgers.clone());
        targets
            .enumerate()
            .map(|(number, (target, ledger))| {
                let history = Arc::clone(&self.history);
                target.resumed(
                    ledger,
                    Arc::new(move |step| {
                        history.note(&Event::Units {
                            container,
                            target: number,
                            acknowledged: step.acknowledged,
                            first: step.first,
                            count: step.count,
                            generation: step.generation,
                        });
                    }),
                )
            })
            .collect()
    }

    fn open_database(&self, container: usize) -> Rows {
        let known = self.known.containers.get(container).expect("a known container");
        let database = Database::open(&self.point(container), Journal::of(container));
        Rows {
            container,
            database: database.expect("open a database"),
            newest: known.transaction_acknowledged,
        }
    }

    /// Everybody at once.
    fn write_until(
        &self,
        end: Instant,
        targets: &[Vec<Target>],
        databases: &mut [Rows],
        copies: &mut Vec<(String, bool)>,
        random: &mut Random,
    ) {
        let mut writers = Writers::new();
        for (container, targets) in targets.iter().enumerate() {
            let point = self.point(container).display().to_string();
            for target in targets {
                writers.start(target, &point, random.number());
            }
        }
        std::thread::scope(|scope| {
            for rows in databases {
                scope.spawn(move || {
                    while Instant::now() < end {
                        rows.commit(&self.history);
                    }
                });
            }
            scope.spawn(|| {
                while Instant::now() < end {
                    self.mark();
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            while Instant::now() < end {
                std::thread::sleep(random.time(1000));
                self.change(copies, random);
            }
        });
        writers.end(COMMAND_LIMIT).expect("the writers");
        self.mark();
    }

    /// Copies a container or removes a copy.
    fn change(&self, copies: &mut Vec<(String, bool)>, random: &mut Random) {
        if copies.len() >= MOST_COPIES || (!copies.is_empty() && random.below(3) == 0) {
            let (name, image) = copies.swap_remove(random.index(copies.len()));
            let command = if image { "rmi" } else { "rm" };
            self.carry_out(Change::Remove { name: name.clone() }, &[command, &name]);
            return;
        }
        let container = random.index(CONTAINERS);
        let name = format!("copy-{}", self.history.events());
        let of = container_name(container);
        if random.below(2) == 0 {
            let change = Change::Commit { container, name: name.clone() };
            self.carry_out(change, &["commit", &of, &name]);
            copies.push((name, true));
        } else {
            let change = Change::Snapshot { container, name: name.clone() };
            self.carry_out(change, &["snapshot", &of, &name]);
            copies.push((name, false));
        }
        if random.below(8) == 0 {
            self.must(&["df", "--wait"]);
        }
    }

    #[track_caller]
    fn carry_out(&self, change: Change, arguments: &[&str]) {
        self.history.note(&Event::Asked(change));
        self.must(arguments);
        self.history.note(&Event::Answered { done: true });
    }
}
