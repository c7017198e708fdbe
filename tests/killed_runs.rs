//! Containers whose watcher is killed, at each step of its work, also with the daemon: whatever is there by then,
//! the next command takes it down. `THINSTORE_KILLED_RUNS=1000` for more random moments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use thinstore_tests::{Identity, TempStore, host, images};

/// Longer than any step takes.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

fn store_with_image() -> TempStore {
    let store = TempStore::without_init(Identity::Current);
    store.ok(&["init", "--size", "2G", "--device-size", "256M"]);
    store.ok(&["import", images::busybox().to_str().unwrap(), "--name", "web"]);
    store
}

/// How far a run has come, as it is seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Remembered,
    Begun,
    Mounted,
    Described,
    KnownToRuntime,
    Running,
    Ended,
}

const STEPS: [Step; 7] = [
    Step::Remembered,
    Step::Begun,
    Step::Mounted,
    Step::Described,
    Step::KnownToRuntime,
    Step::Running,
    Step::Ended,
];

/// A run that is going to be killed.
struct Victim<'a> {
    store: &'a TempStore,
    watcher: Child,
}

impl Victim<'_> {
    /// The command that runs a container watches over it itself.
    fn start(store: &TempStore) -> Victim<'_> {
        let line = ["run", "web", "--name", "job", "--", "sleep", "0.3"];
        let mut command = store.command(&line);
        let watcher = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Victim { store, watcher }
    }

    /// `ROOT/containers/ID`.
    fn folder(&self) -> Option<PathBuf> {
        folders_of(self.store).into_iter().next()
    }

    fn has_come_to(&self, step: Step) -> bool {
        let Some(folder) = self.folder() else { return false };
        let is_there = |name: &str| folder.join(name).exists();
        let runtime = |id: &str| self.store.root().join("run/runtime").join(runtime_id(id));
        let id = folder.file_name().unwrap().to_string_lossy().into_owned();
        match step {
            Step::Remembered => is_there("run.json"),
            Step::Begun => is_there("state.json"),
            Step::Mounted => host::mount_at(&folder.join("root")).is_some(),
            Step::Described => is_there("config.json"),
            Step::KnownToRuntime => runtime(&id).exists(),
            Step::Running => is_there("pid"),
            Step::Ended => is_there("pid") && !runtime(&id).exists(),
        }
    }

    /// Kills it. The runtime's process, and the container's, go on.
    fn kill(mut self) {
        self.watcher.kill().unwrap();
        self.watcher.wait().unwrap();
    }
}

fn folders_of(store: &TempStore) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.root().join("containers"));
    entries.map(|all| all.flatten().map(|one| one.path()).collect()).unwrap_or_default()
}

fn runtime_id(id: &str) -> String {
    format!("thinstore-{}", &id[..32])
}

/// The control groups of a container, wherever the runtime has put them.
fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut unseen = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = unseen.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(&runtime_id(id)) {
                    found.push(entry.path());
                }
                unseen.push(entry.path());
            }
        }
    }
    found
}

fn kill_daemon(store: &TempStore) {
    if let Some(pid) = store.daemon_pid() {
        host::kill(pid);
    }
}

/// Everything that a run makes, in words.
fn left_of_runs(store: &TempStore, ids: &[String]) -> Vec<String> {
    let folders = store.root().join("containers");
    let mut left: Vec<String> =
        host::mounts_below(&folders).iter().map(|mount| format!("{mount:?}")).collect();
    left.extend(host::loops_below(store.folder()).iter().map(|one| format!("{one:?}")));
    left.extend(folders_of(store).iter().map(|folder| folder.display().to_string()));
    for id in ids {
        left.extend(cgroups_of(id).iter().map(|group| group.display().to_string()));
    }
    let known = fs::read_dir(store.root().join("run/runtime")).into_iter().flatten().flatten();
    left.extend(known.map(|one| one.path().display().to_string()));
    let processes = host::processes_of(store.folder()).into_iter();
    left.extend(processes.filter(|one| !one.1.contains(" serve")).map(|one| one.1));
    left
}

/// What the next commands have to make good.
fn take_down(store: &TempStore, looks_first: bool, what: &str) {
    let id_of = |folder: &PathBuf| folder.file_name().unwrap().to_string_lossy().into_owned();
    let ids: Vec<String> = folders_of(store).iter().map(id_of).collect();
    if looks_first {
        assert_eq!(store.ok(&["ps", "-q"]).stdout_text(), "", "{what}: it runs");
    }
    for name in store.names("ls") {
        store.ok(&["rm", &name]);
    }
    // Folders of which nothing is known go when somebody lists.
    store.ok(&["ps"]);
    let is_clean = || left_of_runs(store, &ids).is_empty();
    let clean = host::wait_until(Duration::from_secs(5), is_clean);
    assert!(clean, "{what}: {:#?}", left_of_runs(store, &ids));
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_watcher_killed_at_any_step_leaves_nothing_behind() {
    let store = store_with_image();
    for (round, step) in STEPS.into_iter().cycle().take(4 * STEPS.len()).enumerate() {
        let with_daemon = round / STEPS.len() % 2 == 1;
        let looks_first = round / STEPS.len() / 2 == 1;
        let what = format!("{step:?}, daemon killed: {with_daemon}, ps first: {looks_first}");
        let victim = Victim::start(&store);
        let come = host::wait_until(STEP_TIMEOUT, || victim.has_come_to(step));
        assert!(come, "{what}: it does not come so far");
        victim.kill();
        if with_daemon {
            kill_daemon(&store);
        }
        take_down(&store, looks_first, &what);
    }
    store.finish();
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_watcher_killed_at_any_moment_leaves_nothing_behind() {
    let store = store_with_image();
    let mut seed: u64 = 0x5851_f42d_4c95_7f2d;
    let asked = std::env::var("THINSTORE_KILLED_RUNS").ok();
    let rounds = asked.map_or(20, |count| count.parse().unwrap());
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = Duration::from_millis(seed >> 33 & 0xff);
        let with_daemon = seed >> 60 & 1 == 1;
        let victim = Victim::start(&store);
        std::thread::sleep(delay);
        victim.kill();
        if with_daemon {
            kill_daemon(&store);
        }
        let what = format!("round {round}, {delay:?}, daemon killed: {with_daemon}");
        take_down(&store, round % 2 == 0, &what);
    }
    store.finish();
}

#[test]
#[ignore = "needs root: runs containers"]
fn after_a_restart_of_the_machine_a_container_that_ran_can_be_started_and_removed() {
    let store = store_with_image();
    let run = ["run", "web", "--name", "job", "-d", "--", "sleep", "1000"];
    store.ok(&run);
    let pid = store.ok(&["inspect", "-f", "{{.State.Pid}}", "job"]).stdout_text();
    let pid: i32 = pid.trim().parse().unwrap();
    for (watcher, line) in host::processes_of(store.folder()) {
        if line.contains("--supervise") {
            host::kill(watcher);
        }
    }
    // No process, no mount and no device is left, but every file.
    kill_daemon(&store);
    host::kill(pid);
    host::wait_until(STEP_TIMEOUT, || {
        host::take_down(store.folder());
        host::left_below(store.folder()).is_empty()
    });
    let state = |expected: &str| {
        let template = "{{.State.Status}} {{.State.ExitCode}}";
        let found = store.ok(&["inspect", "-f", template, "job"]).stdout_text();
        assert_eq!(found.trim(), expected);
    };
    assert_eq!(store.ok(&["ps", "-q"]).stdout_text(), "");
    state("exited 137");
    store.ok(&["start", "job"]);
    state("running 0");
    store.ok(&["stop", "--time", "0", "job"]);
    take_down(&store, true, "restarted");
    store.finish();
}

#[test]
#[ignore = "needs root: runs containers"]
fn those_who_look_at_a_container_do_not_keep_it_from_starting() {
    let store = store_with_image();
    store.ok(&["run", "web", "--name", "job", "--", "true"]);
    let lock = File::open(folders_of(&store)[0].join("lock")).unwrap();
    // Who looks has a share of the lock, for an instant. Nobody takes that for somebody who runs it.
    lock.lock_shared().unwrap();
    let status = store.ok(&["inspect", "-f", "{{.State.Status}}", "job"]).stdout_text();
    assert_eq!(status, "exited\n");
    let starting = store.start(&["start", "--attach", "job"]);
    std::thread::sleep(Duration::from_millis(300));
    lock.unlock().unwrap();
    starting.wait(STEP_TIMEOUT).assert_success();
    store.ok(&["rm", "job"]);
    store.finish();
}

#[test]
#[ignore = "needs root: runs containers"]
fn a_container_has_the_host_s_names_and_its_files_stay_as_they_are() {
    let store = store_with_image();
    store.ok(&["snapshot", "web", "build"]);
    let own = store.path("own");
    fs::write(&own, "of the image\n").unwrap();
    store.ok(&["cp", &own, "build:/etc/hosts"]);
    store.ok(&["commit", "build", "named"]);
    store.ok(&["rm", "build"]);
    let printed = |command: &str| {
        store
            .ok(&["run", "named", "--rm", "--name", "job", "--", "sh", "-c", command])
            .stdout_text()
    };
    let of_host = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
    assert_eq!(printed("cat /etc/resolv.conf"), of_host("resolv.conf"));
    assert_eq!(printed("cat /etc/hostname"), "job\n");
    let hosts = printed("cat /etc/hosts");
    assert!(
        hosts.starts_with(of_host("hosts").trim_end()) && hosts.ends_with("\tjob\n"),
        "{hosts}"
    );
    let run = ["run", "named", "--name", "job", "--", "sh", "-c"];
    let refused = store.run(&[&run[..], &["echo x > /etc/hosts"]].concat());
    assert!(refused.assert_code(&[1]).stderr_text().contains("Read-only"));
    // Whatever lies over the files while it runs, the container has its own, also while it runs.
    assert_eq!(store.ok(&["diff", "job"]).stdout_text(), "");
    store.ok(&["run", "named", "--name", "long", "-d", "--", "sleep", "1000"]);
    assert_eq!(store.ok(&["diff", "long"]).stdout_text(), "");
    store.ok(&["rm", "--force", "long"]);
    assert_eq!(store.ok(&["cat", "job", "/etc/hosts"]).stdout_text(), "of the image\n");
    store.refused(&[3], &["cat", "job", "/etc/resolv.conf"], &["resolv.conf"]);
    store.ok(&["rm", "job"]);
    // Who mounts something of his own there has that.
    let own_hosts = format!("{own}:/etc/hosts:ro");
    let line = ["run", "named", "--rm", "-v", &own_hosts, "--", "cat", "/etc/hosts"];
    assert_eq!(store.ok(&line).stdout_text(), "of the image\n");
    let etc = store.new_folder("etc");
    let own_etc = format!("{etc}:/etc");
    store.ok(&["run", "named", "--rm", "-v", &own_etc, "--", "true"]);
    assert_eq!(fs::read_dir(&etc).unwrap().count(), 0, "something was made in the host's folder");
    store.finish();
}
