//! Plans and runs, with drivers that are none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    reason = "a test reports by panicking"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thinstore_compare::Result;
use thinstore_compare::measure::DiskCounters;
use thinstore_compare::plan::{Available, Plan, Planned, Selection, TimeLeft};
use thinstore_compare::results::{Results, ResultsFile, Role};
use thinstore_compare::run::{
    Answer, Budget, Ending, Fault, ImageOrder, Meter, MountOrder, Reading, Runner, Subject, Watch,
    run_trial,
};
use thinstore_compare::workload::{Content, Workload};

const COPY: &str = r#"
name = "copy"
title = "A copy"
purpose = "To see."
image = { layers = "{depth}", files = [{ path = "data", size = "8K", count = 3 }] }
writes_bytes = 4096
[parameters]
depth = [1, 10]
[quick]
[[steps]]
do = "create"
containers = 4
parallel = true
measure = "create"
[[steps]]
do = "mount"
containers = 4
mounts = ["volume:/v", "layer:/l", "tmpfs:/{depth}"]
[[steps]]
do = "write"
file = "data0"
size = 4096
sync = true
containers = 4
[[steps]]
do = "command"
run = ["cat", "data0", "data{depth}"]
measure = "reads"
operations = 2
[[steps]]
do = "space"
measure = "space_of_four"
[[steps]]
do = "unmount"
containers = 4
[[steps]]
do = "remove"
containers = 4
measure = "remove"
"#;

const OTHER: &str = r#"
name = "other"
title = "Another"
purpose = "To see."
needs = ["no-such-program"]
[[steps]]
do = "create"
measure = "create"
"#;

fn workloads() -> Vec<Workload> {
    [COPY, OTHER].map(|text| Workload::parse(Path::new("a.toml"), text).unwrap()).into()
}

/// A driver that copies folders, and can be told to fail.
struct Fake {
    name: &'static str,
    folder: PathBuf,
    fails_at: &'static str,
    image: Mutex<Vec<(String, Content<u64>)>>,
    /// What was asked for, in order.
    log: Mutex<Vec<String>>,
}

impl Fake {
    fn new(name: &'static str, folder: &Path, fails_at: &'static str) -> Self {
        Self {
            name,
            folder: folder.join(name),
            fails_at,
            image: Mutex::default(),
            log: Mutex::default(),
        }
    }

    fn asked(&self, what: &str) -> Answer<()> {
        self.log.lock().unwrap().push(what.to_owned());
        if self.fails_at == what { Err(format!("{what}: no such device")) } else { Ok(()) }
    }

    fn count(&self, what: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|asked| *asked == what).count()
    }
}

impl Subject for Fake {
    fn name(&self) -> &str {
        self.name
    }
    fn begin(&self, image: &ImageOrder) -> Answer<()> {
        assert!(!self.folder.exists(), "a fresh state");
        std::fs::create_dir_all(&self.folder).unwrap();
        self.image.lock().unwrap().clone_from(&image.files);
        self.asked("begin")
    }
    fn create(&self, container: &str, committed: Option<&str>) -> Answer<()> {
        if let Some(image) = committed {
            self.log.lock().unwrap().push(format!("{container} of {image}"));
        }
        let folder = self.folder.join(container);
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        for (path, content) in self.image.lock().unwrap().iter() {
            let bytes = match content {
                Content::Noise(size) => vec![0; *size as usize],
                Content::Text(text) => text.clone().into_bytes(),
            };
            std::fs::write(folder.join(path), bytes).unwrap();
        }
        // The command of the deeper cell reads a file that only it has.
        std::fs::write(folder.join("data10"), "x").unwrap();
        self.asked("create")
    }
    fn mount(&self, container: &str, mounts: &[MountOrder]) -> Answer<PathBuf> {
        for mount in mounts {
            self.log.lock().unwrap().push(format!("{:?} over {}", mount.kind, mount.path));
        }
        self.asked("mount").map(|()| self.folder.join(container))
    }
    fn unmount(&self, _: &str) -> Answer<()> {
        self.asked("unmount")
    }
    fn commit(&self, _: &str, _: &str) -> Answer<()> {
        self.asked("commit")
    }
    fn diff(&self, _: &str) -> Answer<u64> {
        self.asked("diff").map(|()| 1)
    }
    fn remove(&self, container: &str) -> Answer<()> {
        std::fs::remove_dir_all(self.folder.join(container)).map_err(|error| error.to_string())?;
        self.asked("remove")
    }
    fn end(&self) -> Answer<()> {
        std::fs::remove_dir_all(&self.folder).ok();
        self.asked("end")
    }
    fn daemons(&self) -> Vec<u32> {
        Vec::new()
    }
    fn space_bytes(&self) -> Answer<u64> {
        Ok(thinstore_compare::measure::allocated_bytes(&self.folder).unwrap_or(0))
    }
}

/// A disk that writes 10,000 bytes between any two readings.
struct FakeMeter {
    readings: AtomicU64,
    free: u64,
}

impl Default for FakeMeter {
    fn default() -> Self {
        Self { readings: AtomicU64::new(0), free: 1 << 40 }
    }
}

impl Meter for FakeMeter {
    fn read(&self, subject: &dyn Subject) -> Result<Reading> {
        let readings = self.readings.fetch_add(1, Ordering::Relaxed);
        let disk = DiskCounters {
            written_bytes: readings * 10_000,
            flushes: readings,
            ..DiskCounters::default()
        };
        Ok(Reading { disk, space_bytes: subject.space_bytes().unwrap(), ..Reading::default() })
    }
    fn settle(&self, _: bool) -> Result<()> {
        Ok(())
    }
    fn free_bytes(&self) -> Result<u64> {
        Ok(self.free)
    }
}

/// Notes what it is told, and wants to stop after some trials.
#[derive(Default)]
struct Notes {
    begun: Vec<Planned>,
    faults: Vec<Fault>,
    known_left: usize,
    stop_after: Option<usize>,
    budget: Option<Budget>,
}

impl Watch for &mut Notes {
    fn begins(&mut self, planned: &Planned, number: usize, count: usize, left: Option<Duration>) {
        assert!((1..=count).contains(&number));
        self.begun.push(planned.clone());
        self.known_left += usize::from(left.is_some());
    }
    fn ended(&mut self, _: &Planned, fault: Option<&Fault>) {
        self.faults.extend(fault.cloned());
    }
}

fn available(names: &[&str]) -> Vec<Available> {
    names.iter().map(|name| Available { name: (*name).to_owned(), lacks: None }).collect()
}

fn plan(selection: &Selection, seed: u64) -> Plan {
    let lacks = |program: &str| program == "no-such-program";
    Plan::new(&workloads(), &available(&["a", "b", "c"]), selection, seed, lacks).unwrap()
}

fn measured(plan: &Plan) -> Vec<Planned> {
    plan.trials.iter().filter(|trial| !trial.warm_up).cloned().collect()
}

#[test]
fn every_driver_has_its_turn_in_every_cell_of_every_repeat_in_random_order() {
    let selection = Selection { repeats: Some(20), ..Selection::default() };
    let plan = plan(&selection, 7);
    let trials = measured(&plan);
    assert_eq!(trials.len(), 20 * 2 * 3);
    let mut orders: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for turns in trials.chunks(3) {
        // Side by side: the same cell and repeat.
        assert!(turns.iter().all(|turn| {
            turn.trial.parameters == turns[0].trial.parameters
                && turn.trial.repeat == turns[0].trial.repeat
        }));
        let drivers: Vec<String> = turns.iter().map(|turn| turn.trial.driver.clone()).collect();
        assert_eq!(drivers.iter().collect::<BTreeSet<_>>().len(), 3);
        *orders.entry(drivers).or_default() += 1;
    }
    assert_eq!(orders.len(), 6, "all orders come up: {orders:?}");
    let positions: Vec<u64> = trials.iter().map(|trial| trial.position).collect();
    assert_eq!(positions, (0..120).collect::<Vec<u64>>());
    let warm_ups = plan.trials.iter().take_while(|trial| trial.warm_up).count();
    assert_eq!((warm_ups, plan.trials.len()), (6, 126), "once through all cells before");
    assert_eq!(self::plan(&selection, 7), plan, "the seed decides");
    assert_ne!(self::plan(&selection, 8), plan);
}

#[test]
fn what_is_left_out_is_said_before_the_start() {
    let mut drivers = available(&["a", "zfs"]);
    drivers[1].lacks = Some("the kernel has no zfs".into());
    let plan = |selection: &Selection| {
        Plan::new(&workloads(), &drivers, selection, 1, |program| program == "no-such-program")
    };
    let said: Vec<String> = plan(&Selection::default())
        .unwrap()
        .skipped
        .into_iter()
        .map(|line| format!("{:?} {:?} {}", line.workload, line.driver, line.reason))
        .collect();
    assert_eq!(said.len(), 2);
    assert!(said[0].contains("zfs") && said[1].contains("needs no-such-program"), "{said:?}");
    for (only, drivers, error) in [
        ("nonsense", "a", "no workload 'nonsense'; there are copy, other"),
        ("copy", "aufs", "no driver 'aufs'; there are a, zfs"),
        ("copy", "zfs", "no driver is left: the kernel has no zfs"),
        ("other", "a", "no workload is left: needs no-such-program"),
    ] {
        let selection = Selection {
            only: vec![only.into()],
            drivers: vec![drivers.into()],
            ..Selection::default()
        };
        let said = plan(&selection).unwrap_err().to_string();
        assert!(said.contains(error), "{said}");
    }
    let quick = Selection { quick: true, ..Selection::default() };
    let lacks_nothing = Plan::new(&workloads(), &drivers, &quick, 1, |_| false).unwrap();
    assert!(lacks_nothing.skipped.iter().any(|line| line.reason == "is not in the quick set"));
    assert_eq!(lacks_nothing.trials.len(), 2 * 5, "five repeats, no warm-up");
}

/// Runs what is left of a plan, with three drivers of which `b` fails to mount.
fn go(
    folder: &Path,
    plan: &Plan,
    file: &mut ResultsFile,
    notes: &mut Notes,
    meter: &dyn Meter,
) -> (Result<Ending>, Vec<Fake>) {
    let fakes: Vec<Fake> = vec![
        Fake::new("a", folder, ""),
        Fake::new("b", folder, "mount"),
        Fake::new("c", folder, ""),
    ];
    let subjects: Vec<&dyn Subject> = fakes.iter().map(|fake| fake as &dyn Subject).collect();
    let stop = AtomicBool::new(false);
    /// Stops when enough was run.
    struct Stopping<'a>(&'a mut Notes, &'a AtomicBool);
    impl Watch for Stopping<'_> {
        fn begins(
            &mut self,
            planned: &Planned,
            number: usize,
            count: usize,
            left: Option<Duration>,
        ) {
            let mut notes = &mut *self.0;
            Watch::begins(&mut notes, planned, number, count, left);
        }
        fn ended(&mut self, planned: &Planned, fault: Option<&Fault>) {
            let mut notes = &mut *self.0;
            Watch::ended(&mut notes, planned, fault);
            if self.0.stop_after.is_some_and(|after| self.0.begun.len() >= after) {
                self.1.store(true, Ordering::Relaxed);
            }
        }
    }
    let workloads = workloads();
    let budget = notes.budget;
    let runner = Runner { workloads: &workloads, subjects: &subjects, meter, stop: &stop, budget };
    let ending = runner.run(plan, file, &mut Stopping(notes, &stop));
    drop(subjects);
    (ending, fakes)
}

#[test]
fn a_run_measures_and_keeps_the_errors_of_drivers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let plan = plan(&Selection { repeats: Some(2), ..Selection::default() }, 3);
    let mut file = ResultsFile::create(&path, &common::results(1, 1, 1).run).unwrap();
    let mut notes = Notes::default();
    let (ending, fakes) = go(folder.path(), &plan, &mut file, &mut notes, &FakeMeter::default());
    assert_eq!(ending.unwrap(), Ending::Finished);
    drop(file);
    let results = Results::read(&path).unwrap();
    // Two cells, two repeats, two sound drivers.
    assert_eq!((results.trials.len(), results.failures.len()), (8, 4));
    assert!(results.failures.iter().all(|failure| {
        failure.trial.driver == "b"
            && failure.step == "step 2, mount"
            && failure.message.contains("no such device")
    }));
    let mut drivers: Vec<String> =
        results.drivers().into_iter().map(|driver| driver.name).collect();
    drivers.sort();
    assert_eq!(drivers, ["a", "b", "c"], "those of the header that were not run have no columns");
    // Warm-ups fail too, and are told, not kept.
    assert_eq!(notes.faults.len(), 6);
    assert_eq!(notes.known_left, plan.trials.len() - 1, "known from the second trial on");
    let names: BTreeSet<(&str, Role)> = results
        .measurements
        .iter()
        .map(|line| (line.metric.name.as_str(), line.metric.role))
        .collect();
    for name in ["create", "reads", "space_of_four", "remove"] {
        assert!(names.contains(&(name, Role::Result)), "{name}");
    }
    for line in &results.measurements {
        match line.metric.name.as_str() {
            // Four copies of three files of 8 KiB, less what ext4 or tmpfs say of folders.
            "space_of_four" => assert!(line.value >= 4.0 * 3.0 * 8192.0, "{}", line.value),
            // Two readings apart, since the space was read between.
            "disk_bytes_written" => assert!((line.value - 20_000.0).abs() < 1e-9),
            "bytes_written_per_byte" => assert!((line.value - 20_000.0 / 4096.0).abs() < 1e-9),
            _ => {}
        }
    }
    for fake in &fakes {
        assert_eq!(
            fake.count("begin"),
            fake.count("end"),
            "{}: every trial is taken down",
            fake.name
        );
        assert!(!fake.folder.exists());
    }
    // Of four containers, in a warm-up and two repeats; what stays in the layer is no mount.
    for (mount, count) in [("Volume over /v", 24), ("Tmpfs over /1", 12), ("Tmpfs over /10", 12)] {
        assert_eq!(fakes[0].count(mount), count, "{mount}");
    }
    assert!(fakes[0].log.lock().unwrap().iter().all(|asked| !asked.contains("/l")));
    assert_eq!(fakes[0].count("create"), 4 * 6, "two cells, two repeats and a warm-up");
}

#[test]
fn a_stopped_run_goes_on_where_it_was_in_the_same_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let plan = plan(&Selection { repeats: Some(3), ..Selection::default() }, 3);
    let mut file = ResultsFile::create(&path, &common::results(1, 1, 1).run).unwrap();
    let mut notes = Notes { stop_after: Some(13), ..Notes::default() };
    let (ending, _) = go(folder.path(), &plan, &mut file, &mut notes, &FakeMeter::default());
    assert_eq!(ending.unwrap(), Ending::Stopped);
    drop(file);
    let (mut file, so_far) = ResultsFile::resume(&path).unwrap();
    let mut done = so_far.completed();
    assert_eq!(done.len() + so_far.failures.len(), 13 - 6);
    done.extend(so_far.failed());
    let rest = plan.clone().without(&done);
    assert_eq!(measured(&rest).len(), 18 - 7);
    let expected: Vec<Planned> =
        measured(&plan).into_iter().filter(|planned| !done.contains(&planned.trial)).collect();
    assert_eq!(measured(&rest), expected, "positions and order stay");
    let mut notes = Notes::default();
    let (ending, _) = go(folder.path(), &rest, &mut file, &mut notes, &FakeMeter::default());
    assert_eq!(ending.unwrap(), Ending::Finished);
    drop(file);
    let results = Results::read(&path).unwrap();
    assert_eq!((results.trials.len(), results.failures.len()), (12, 6));
    let all: BTreeSet<_> = results.completed().into_iter().chain(results.failed()).collect();
    assert!(plan.without(&all).trials.is_empty(), "nothing is left, no warm-up either");
}

#[test]
fn a_run_in_a_guest_is_marked_and_nothing_of_a_host_counts_as_done_in_it() {
    let host = plan(&Selection { repeats: Some(2), ..Selection::default() }, 7);
    let guest = host.clone().in_guest();
    assert!(guest.trials.iter().all(|planned| planned.trial.emulated));
    assert_eq!(guest.trials.len(), host.trials.len());
    let done: BTreeSet<_> = host.trials.iter().map(|planned| planned.trial.clone()).collect();
    assert_eq!(guest.clone().without(&done), guest);
    let done: BTreeSet<_> = guest.trials.iter().map(|planned| planned.trial.clone()).collect();
    assert!(guest.without(&done).trials.is_empty());
}

#[test]
fn a_run_whose_time_is_used_ends_after_the_first_repeat_and_the_rest_can_be_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let plan = plan(&Selection { quick: true, ..Selection::default() }, 3);
    let mut file = ResultsFile::create(&path, &common::results(1, 1, 1).run).unwrap();
    let budget =
        |seconds| Some(Budget { begun: Instant::now(), limit: Duration::from_secs(seconds) });
    let mut notes = Notes { budget: budget(0), ..Notes::default() };
    let (ending, _) = go(folder.path(), &plan, &mut file, &mut notes, &FakeMeter::default());
    // Two cells, three drivers, five times: the first is run, whatever time it takes.
    assert_eq!(ending.unwrap(), Ending::OutOfTime(2 * 3 * 4));
    assert_eq!(notes.begun.len(), 2 * 3);
    assert!(notes.begun.iter().all(|planned| planned.trial.repeat == 0));
    let done: BTreeSet<_> = notes.begun.iter().map(|planned| planned.trial.clone()).collect();
    let rest = plan.without(&done);
    let mut notes = Notes { budget: budget(1000), ..Notes::default() };
    let (ending, _) = go(folder.path(), &rest, &mut file, &mut notes, &FakeMeter::default());
    assert_eq!((ending.unwrap(), notes.begun.len()), (Ending::Finished, 2 * 3 * 4));
    // A resumed run whose time is over at once adds nothing.
    let mut notes = Notes { budget: budget(0), ..Notes::default() };
    let (ending, _) = go(folder.path(), &rest, &mut file, &mut notes, &FakeMeter::default());
    assert_eq!((ending.unwrap(), notes.begun.len()), (Ending::OutOfTime(2 * 3 * 4), 0));
}

const COPIES: &str = r#"
name = "copies"
title = "Copies"
purpose = "To see."
[[steps]]
do = "create"
containers = 2
[[steps]]
do = "mount"
containers = 2
[[steps]]
do = "start"
containers = 2
run = ["sh", "-c", "echo said 1.5 times; sleep 0.2; echo longest: 0.25"]
[[steps]]
do = "commit"
containers = 2
[[steps]]
do = "command"
containers = 2
run = ["echo", "tps = 12.5 (of one)"]
measure = "rate"
figure = { after = "tps = ", unit = "operations_per_second" }
[[steps]]
do = "finish"
containers = 2
measure = "longest"
figure = { after = "longest:", unit = "seconds" }
[[steps]]
do = "create"
copies = true
containers = 2
[[steps]]
do = "mount"
copies = true
containers = 2
[[steps]]
do = "command"
copies = true
containers = 2
run = ["true"]
measure = "check"
"#;

#[test]
fn programs_run_beside_the_steps_say_figures_and_copies_stand_on_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let trial = |text: &str| {
        let workload = Workload::parse(Path::new("a.toml"), text).unwrap();
        let fake = Fake::new("a", folder.path(), "");
        let parameters = workload.combinations(false).remove(0);
        let result = run_trial(&fake, &FakeMeter::default(), &workload, &parameters);
        (result, fake)
    };
    let (figures, fake) = trial(COPIES);
    let figures = figures.unwrap();
    let value =
        |name: &str| figures.iter().find(|figure| figure.metric.name == name).unwrap().value;
    // Rates add up, of times the longest counts.
    assert!((value("rate") - 25.0).abs() < 1e-9 && (value("longest") - 0.25).abs() < 1e-9);
    assert!(value("check") > 0.0);
    for number in 0..2 {
        assert_eq!(fake.count(&format!("c{number}-copy of c{number}-image")), 1);
    }
    let (fault, _) = trial(&COPIES.replace("after = \"longest:\"", "after = \"shortest\""));
    let fault = fault.unwrap_err();
    assert!(fault.step == "step 6, finish" && fault.message.contains("'shortest'"), "{fault:?}");
    // What is left running when a step fails does not outlive the trial.
    let sleeps = COPIES.replace("sleep 0.2", "echo $$ > pid; exec sleep 1000").replace(
        "\"echo\", \"tps = 12.5 (of one)\"",
        "\"sh\", \"-c\", \"until [ -s pid ]; do :; done; cp pid ../../pid; exit 1\"",
    );
    let (fault, _) = trial(&sleeps);
    assert_eq!(fault.unwrap_err().step, "step 5, command");
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid}");
}

#[test]
fn a_full_disk_is_no_fault_of_a_driver() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let plan = plan(&Selection { quick: true, ..Selection::default() }, 3);
    let mut file = ResultsFile::create(&path, &common::results(1, 1, 1).run).unwrap();
    let meter = FakeMeter { free: 1 << 20, ..FakeMeter::default() };
    let (ending, _) = go(folder.path(), &plan, &mut file, &mut Notes::default(), &meter);
    let error = ending.unwrap_err().to_string();
    assert!(error.contains("the disk is full") && error.contains("resume"), "{error}");
    let results = Results::read(&path).unwrap();
    assert!(results.failures.is_empty() && results.warnings.is_empty());
}

#[test]
fn the_time_left_is_learned() {
    let workloads = workloads();
    let plan = plan(&Selection { repeats: Some(1), ..Selection::default() }, 1);
    let trials = measured(&plan);
    let mut left = TimeLeft::default();
    assert_eq!(left.of(&trials, &workloads), None);
    left.learn(&trials[0], 2.0);
    assert_eq!(
        left.of(&trials, &workloads),
        Some(Duration::from_secs(12)),
        "as the others of the workload"
    );
    left.learn(&trials[1], 4.0);
    left.learn(&trials[1], 6.0);
    // One of 2 s, one of 5 s, four as all of the workload did: 4 s.
    assert_eq!(left.of(&trials, &workloads), Some(Duration::from_secs(23)));
    assert_eq!(left.of(&[], &workloads), Some(Duration::ZERO));
}
