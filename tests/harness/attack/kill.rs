//! The daemon is killed again and again under three mounted containers that are written, and after
//! each restart everything is held against what was acknowledged.
//!
//! The judges: the writers' ledgers ([`super::ledger`]); fio, which verifies what it reads while it runs, and
//! after a kill only a file that it had written whole and synced before; copies that were made
//! under the load ([`super::sealed`]); `check`, e2fsck, the host's mounts, loop devices and processes; and in the
//! end the pool's space, which must come back to the byte.
//!
//! A finding is a panic: what the store is worth after one is not known, so the first ends the attack.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::fio;
use super::random::Random;
use super::rounds::{Action, Operation, assert_no_fault};
use super::sealed::Copied;
use super::writers::{Target, Writers};
use crate::command::Running;
use crate::store::TempStore;
use crate::{Identity, TarWriter, host};

/// How long a command may take while its daemon is killed, or after.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

const CONTAINERS: u64 = 3;
const WHOLE_SIZE: &str = "4M";

/// How to attack.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many kills.
    pub times: u32,
    /// What the moments and operations follow from.
    pub seed: u64,
    /// Say on standard error what is going on.
    pub verbose: bool,
}

/// What an attack has done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Kills in all.
    pub kills: u32,
    /// Of these, of a daemon that was just starting.
    pub kills_in_recovery: u32,
    /// Of these, while a container was held still, or about to be.
    pub kills_while_frozen: u32,
    /// Operations that were under way at a kill, and how many of them succeeded.
    pub operations: BTreeMap<Action, (u32, u32)>,
    /// Units of records whose write was acknowledged.
    pub acknowledged: u64,
    /// Units that were read back after restarts.
    pub verified: u64,
    /// Copies that were read, each time.
    pub copies: u32,
    /// Runs of e2fsck.
    pub file_system_checks: u32,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} kills in {:.0?}: {} of a starting daemon, {} while a file system was held still",
            self.kills, self.elapsed, self.kills_in_recovery, self.kills_while_frozen
        )?;
        for (action, (started, succeeded)) in &self.operations {
            let action = format!("{action:?}").to_lowercase();
            writeln!(
                formatter,
                "  during {action}: {started}, of which {succeeded} had succeeded"
            )?;
        }
        write!(
            formatter,
            "  {} writes of units acknowledged, {} units read back, {} times a copy, {} e2fsck",
            self.acknowledged, self.verified, self.copies, self.file_system_checks
        )
    }
}

struct Container {
    name: String,
    point: String,
    targets: Vec<Target>,
    /// The seed of the file that fio has written whole.
    whole_seed: u64,
}

impl Container {
    fn whole(&self) -> String {
        format!("{}/whole", self.point)
    }
}

struct Load {
    writers: Writers,
    fio: Vec<Running>,
    /// The mounted folders. Everybody goes through these: by its path, a folder whose dead mount has been
    /// taken away would be one of the host's.
    roots: Vec<File>,
}

struct Attack {
    options: Options,
    store: TempStore,
    random: Random,
    containers: Vec<Container>,
    copies: Vec<Copied>,
    rounds: u32,
    report: Report,
    started: Instant,
}

/// Attacks, and returns what was done.
///
/// # Panics
/// On the first finding.
#[track_caller]
pub fn run(options: Options) -> Report {
    let started = Instant::now();
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "3G", "--device-size", "256M"]);
    let source = store.path("base.tar");
    TarWriter::new().file("base", b"base").write_to(Path::new(&source));
    store.ok(&["import", &source, "--name", "base"]);
    store.ok(&["rmi", "base"]);
    let empty = store.pool_used_bytes();
    store.ok(&["import", &source, "--name", "base"]);
    let mut attack = Attack {
        options,
        random: Random::new(options.seed),
        containers: Vec::new(),
        copies: Vec::new(),
        rounds: 0,
        report: Report::default(),
        store,
        started,
    };
    attack.make_containers();
    while attack.report.kills < options.times {
        attack.round();
    }
    attack.end(empty);
    let mut report = std::mem::take(&mut attack.report);
    report.elapsed = started.elapsed();
    attack.store.finish();
    report
}

impl Attack {
    fn say(&self, what: &dyn fmt::Display) {
        if self.options.verbose {
            eprintln!(
                "{:.0?} [{} kills, round {}] {what}",
                self.started.elapsed(),
                self.report.kills,
                self.rounds
            );
        }
    }

    fn make_containers(&mut self) {
        for number in 0..CONTAINERS {
            let name = format!("box-{number}");
            let point = self.store.new_folder(&format!("at-{number}"));
            self.store.ok(&["snapshot", "base", &name]);
            self.store.ok(&["mount", &name, &point]);
            let targets = Target::all(number + 1);
            self.containers.push(Container { name, point, targets, whole_seed: 0 });
        }
        self.write_whole_files();
    }

    /// Has fio write its files whole, each with a new seed.
    fn write_whole_files(&mut self) {
        let mut running = Vec::new();
        for container in &mut self.containers {
            container.whole_seed = self.random.number();
            running.push(fio::start_writing_whole(
                &container.whole(),
                WHOLE_SIZE,
                container.whole_seed,
            ));
        }
        for one in running {
            one.wait(COMMAND_LIMIT).assert_success();
        }
    }

    fn start_load(&mut self) -> Load {
        let mut load = Load { writers: Writers::new(), fio: Vec::new(), roots: Vec::new() };
        for container in &self.containers {
            let root = File::open(&container.point).expect("open a mounted folder");
            let path = format!("/proc/{}/fd/{}", std::process::id(), root.as_raw_fd());
            for target in &container.targets {
                load.writers.start(target, &path, self.random.number());
            }
            load.fio.push(fio::start_load(&format!("{path}/load"), self.random.number()));
            load.roots.push(root);
        }
        load
    }

    fn round(&mut self) {
        self.rounds += 1;
        let load = self.start_load();
        std::thread::sleep(Duration::from_millis(50) + self.random.time(200));
        if self.random.below(4) == 0 {
            self.write_whole_files();
        }
        let action = Action::choose(&mut self.random, self.copies.len());
        let number = self.random.index(self.containers.len());
        let container = &self.containers[number];
        let mut operation = Operation::start(
            action,
            &self.store,
            &mut self.random,
            self.rounds,
            (&container.name, &container.targets),
            &mut self.copies,
        );
        let longest_ms = [20, 60, 150, 400][self.random.index(4)];
        std::thread::sleep(self.random.time(longest_ms));
        let daemon = self.store.daemon_pid().expect("the daemon ended by itself");
        load.writers.stop();
        host::kill(daemon);
        self.report.kills += 1;
        let frozen = std::fs::read_dir(self.store.root().join("run/frozen"));
        if frozen.is_ok_and(|mut notes| notes.next().is_some()) {
            self.report.kills_while_frozen += 1;
        }
        if self.report.kills < self.options.times && self.random.below(4) == 0 {
            self.kill_in_recovery(daemon);
        }
        let succeeded = operation.end();
        let counted = self.report.operations.entry(action).or_default();
        counted.0 += 1;
        counted.1 += u32::from(succeeded);
        self.say(&format_args!("killed during {action:?}, which succeeded: {succeeded}"));

        self.mount_again();
        self.end_load(load);
        self.verify_containers();
        if let Some(copy) = operation.settle(&self.store, succeeded) {
            self.copies.push(copy);
        }
        for copy in &mut self.copies {
            copy.verify(&self.store);
            self.report.copies += 1;
        }
        self.check_file_system(number);
        self.store.ok(&["check"]);
        self.store.ok(&["scrub"]);
    }

    /// Starts a daemon and kills it at once.
    fn kill_in_recovery(&mut self, before: i32) {
        let folder = self.store.folder().to_owned();
        let container = &self.containers[0];
        let mount = self.store.start(&["mount", &container.name, &container.point]);
        let mut found = None;
        host::wait_until(Duration::from_secs(10), || {
            found = host::processes_of(&folder)
                .into_iter()
                .find(|(pid, line)| line.contains("serve --background") && *pid != before)
                .map(|(pid, _)| pid);
            found.is_some()
        });
        if let Some(daemon) = found {
            std::thread::sleep(self.random.time(120));
            host::kill(daemon);
            self.report.kills += 1;
            self.report.kills_in_recovery += 1;
        }
        assert_no_fault(&mount.wait(COMMAND_LIMIT));
    }

    /// Whatever command comes next has to put right what the killed daemon left.
    fn mount_again(&mut self) {
        let first = &self.containers[0].name;
        match self.random.below(6) {
            0 => drop(self.store.ok(&["umount", first])),
            1 => drop(self.store.ok(&["check"])),
            2 => drop(self.store.ok(&["df", "--wait"])),
            3 => drop(self.store.ok(&["ls"])),
            _ => {}
        }
        for container in &self.containers {
            self.store.ok(&["mount", &container.name, &container.point]);
        }
    }

    fn end_load(&self, load: Load) {
        for one in load.fio {
            let outcome = one.wait(COMMAND_LIMIT);
            assert!(
                !fio::found_wrong_data(&outcome),
                "fio read what it had not written\n{outcome}"
            );
        }
        if let Err(error) = load.writers.end(COMMAND_LIMIT) {
            panic!("{error}");
        }
        drop(load.roots);
        // One mount and one loop device for each container, one connection, and nothing of the dead one.
        let below = || {
            let (fuse, others): (Vec<_>, Vec<_>) = host::mounts_below(self.store.folder())
                .into_iter()
                .partition(|mount| mount.kind.starts_with("fuse"));
            (fuse.len(), others.len(), host::loops_below(self.store.folder()).len())
        };
        let count = self.containers.len();
        let clean = host::wait_until(Duration::from_secs(10), || below() == (1, count, count));
        assert!(clean, "left by a killed daemon: {:#?}", host::left_below(self.store.folder()));
        let notes = std::fs::read_dir(self.store.root().join("run/frozen"));
        assert_eq!(notes.map_or(0, Iterator::count), 0, "a note of a frozen file system is left");
    }

    fn verify_containers(&mut self) {
        let whole: Vec<Running> = self
            .containers
            .iter()
            .map(|one| fio::start_verifying_whole(&one.whole(), WHOLE_SIZE, one.whole_seed))
            .collect();
        for container in &self.containers {
            for target in &container.targets {
                let contents = target.read(Path::new(&container.point));
                let judged = contents.and_then(|contents| {
                    target.ledger().settle(&contents).map(|()| contents.len())
                });
                match judged {
                    Ok(units) => self.report.verified += u64::try_from(units).unwrap_or(0),
                    Err(error) => panic!("{}, {}: {error}", container.name, target.name()),
                }
            }
        }
        for one in whole {
            one.wait(COMMAND_LIMIT).assert_success();
        }
    }

    fn check_file_system(&mut self, number: usize) {
        let container = &self.containers[number];
        self.store.ok(&["umount", &container.name]);
        self.store.assert_file_system_clean(&container.name);
        self.store.ok(&["mount", &container.name, &container.point]);
        self.report.file_system_checks += 1;
    }

    /// Removes everything: its space comes back to the byte.
    fn end(&mut self, empty: u64) {
        for container in &self.containers {
            self.store.ok(&["umount", &container.name]);
            self.store.assert_file_system_clean(&container.name);
            self.report.file_system_checks += 1;
            let targets = container.targets.iter();
            self.report.acknowledged +=
                targets.map(|target| target.ledger().acknowledged()).sum::<u64>();
            self.store.ok(&["rm", &container.name]);
        }
        for copy in self.copies.drain(..) {
            self.store.ok(&copy.removal());
        }
        self.store.ok(&["rmi", "base"]);
        assert_eq!(self.store.names("ls"), Vec::<String>::new());
        assert_eq!(self.store.names("images"), Vec::<String>::new());
        assert_eq!(self.store.pool_used_bytes(), empty, "space did not come back");
    }
}
