//! The comparison as a person runs it: results, report, resuming, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use thinstore_tests::{Identity, TempStore, host, run_tool};

const SMALL: [&str; 7] =
    ["--quick", "--only", "life", "--drivers", "thin,overlay2", "--repeats", "1"];

#[test]
#[ignore = "needs root: mounts containers of two drivers"]
fn a_comparison_leaves_results_and_a_report_and_nothing_else() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let output = store.path("out");
    let mut words = vec!["bench"];
    words.extend(SMALL);
    words.extend(["--output", output.as_str()]);
    let said = store.ok(&words).stdout_text();
    assert!(said.contains("overlay2") && said.contains("report.html"), "{said}");
    let folder = Path::new(&output);
    for file in ["results.jsonl", "results.csv", "report.html", "report.md", "plots"] {
        assert!(folder.join(file).exists(), "{file}");
    }
    assert!(!folder.join("stores").exists(), "the stores are gone");
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    // All is done: the same command only makes the report again.
    let results = fs::read(folder.join("results.jsonl")).unwrap();
    store.ok(&words);
    assert_eq!(fs::read(folder.join("results.jsonl")).unwrap(), results);
    // What a stopped run has not done yet is done, and nothing else.
    let lines: Vec<&[u8]> = results.split_inclusive(|byte| *byte == b'\n').collect();
    let last_but_one = lines[..lines.len() - 1]
        .iter()
        .rposition(|line| line.starts_with(br#"{"kind":"trial""#))
        .expect("several trials");
    fs::write(folder.join("results.jsonl"), lines[..=last_but_one].concat()).unwrap();
    store.ok(&words);
    let resumed = fs::read(folder.join("results.jsonl")).unwrap();
    let trials = |bytes: &[u8]| {
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.filter(|line| line.starts_with(br#"{"kind":"trial""#)).count()
    };
    assert_eq!(trials(&resumed), trials(&results));
    // Other options are another run.
    let other = ["bench", "--quick", "--only", "chown", "--output", &output];
    store.refused(&[2], &other, &["results.jsonl", "other options"]);
    let again = store.path("again");
    let file = folder.join("results.jsonl").display().to_string();
    store.ok(&["bench", "report", &file, "--output", &again]);
    store.ok(&["bench", "report", &file, &file, "--output", &again]);
    assert!(Path::new(&again).join("report.html").exists());
    store.finish();
}

#[test]
#[ignore = "needs root: asks for a comparison"]
fn a_comparison_of_what_is_not_there_is_refused() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let output = store.path("out");
    store.refused(&[2], &["bench", "--output", &output, "--only", "nothing"], &["nothing", "life"]);
    store.refused(&[2], &["bench", "--output", &output, "--drivers", "aufs"], &["aufs", "thin"]);
    let absent = store.path("absent.jsonl");
    store.refused(&[1], &["bench", "report", &absent, "--output", &output], &["absent.jsonl"]);
    fs::write(&absent, "{\"kind\":\"run\",\"schema_version\":99}\n").unwrap();
    store.refused(&[1], &["bench", "report", &absent, "--output", &output], &["99"]);
    store.run(&["bench"]).assert_code(&[2]);
    store.finish();
}

/// How many trials a file of results says were finished.
fn finished(results: &Path) -> usize {
    let text = fs::read_to_string(results).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(r#"{"kind":"trial""#)).count()
}

#[test]
#[ignore = "needs root: mounts containers of two drivers"]
fn a_comparison_that_is_interrupted_goes_on_with_the_same_command() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let output = store.path("out");
    let results = Path::new(&output).join("results.jsonl");
    let only = ["--quick", "--only", "life", "--drivers", "thin,overlay2", "--repeats", "3"];
    let mut words = vec!["bench"];
    words.extend(only);
    words.extend(["--output", output.as_str()]);
    let running = store.start(&words);
    assert!(host::wait_until(Duration::from_secs(120), || finished(&results) > 0));
    running.signal(Signal::INT);
    let stopped = running.wait(Duration::from_secs(60)).assert_code(&[1]);
    assert!(
        stopped.stderr_text().contains("the same command goes on"),
        "{}",
        stopped.stderr_text()
    );
    let before = finished(&results);
    // Two cells, two drivers, three times.
    assert!((1..12).contains(&before), "{before} of 12 were finished");
    assert!(Path::new(&output).join("report.html").exists(), "a report of what there is");
    assert!(!Path::new(&output).join("stores").exists());
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    store.ok(&words);
    assert_eq!(finished(&results), 12);
    assert!(!fs::read_to_string(&results).unwrap().contains(r#""kind":"error""#));
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    store.finish();
}

/// Sizes of which the last does not fit on a disk of 300 MiB.
const FILL: &str = r#"
name = "fill"
title = "A disk is filled"
purpose = "To see what a full disk comes to."
[parameters]
size_bytes = ["1M", "2M", "3M", "600M"]
[quick]
[[steps]]
do = "create"
[[steps]]
do = "mount"
[[steps]]
do = "write"
file = "new"
size = "{size_bytes}"
sync = true
measure = "write"
"#;

#[test]
#[ignore = "needs root: mounts a small disk, and containers of two drivers"]
fn a_full_disk_ends_a_comparison_and_what_was_finished_is_kept() {
    for driver in ["overlay2", "thin"] {
        let store = TempStore::with_size(Identity::Current, "64M");
        let (disk, stores) = (store.path("disk"), store.new_folder("small"));
        run_tool("truncate", &["-s", "300M", &disk]).assert_success();
        run_tool("mkfs.ext4", &["-q", "-m", "0", &disk]).assert_success();
        run_tool("mount", &["-o", "loop", &disk, &stores]).assert_success();
        let workloads = store.new_folder("workloads");
        fs::write(Path::new(&workloads).join("fill.toml"), FILL).unwrap();
        let (output, room) = (store.path("out"), store.new_folder("room"));
        let results = Path::new(&output).join("results.jsonl");
        let words = |stores| {
            let options = ["bench", "--quick", "--only", "fill", "--repeats", "1", "--seed", "1"];
            let mut words = options.to_vec();
            words.extend(["--drivers", driver, "--workloads", &workloads, "--stores", stores]);
            words.extend(["--output", &output]);
            words
        };
        let said = store.run(&words(&stores)).assert_code(&[1, 2, 3, 4, 5, 6, 7]).stderr_text();
        assert!(said.contains("the disk is full") && said.contains("resume"), "{said}");
        let before = finished(&results);
        assert!((1..4).contains(&before), "{before} of 4 were finished");
        let text = fs::read_to_string(&results).unwrap();
        assert!(!text.contains(r#""kind":"error""#), "it is no fault of the driver: {text}");
        let left = fs::read_dir(&stores).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name != "lost+found").count(), 0, "the stores are gone");
        run_tool("umount", &[&stores]).assert_success();
        // Where there is room, the same run goes on.
        store.ok(&words(&room));
        assert_eq!(finished(&results), 4);
        assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
        store.finish();
    }
}

/// The values of one figure of a driver.
fn figures(results: &Path, metric: &str) -> Vec<f64> {
    let text = fs::read_to_string(results).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["metric"] == metric)
        .map(|line| line["value"].as_f64().unwrap())
        .collect()
}

#[test]
#[ignore = "needs root: mounts containers"]
fn what_a_container_gives_back_counts_when_it_has_arrived_at_the_disk() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let output = store.path("out");
    let words = ["bench", "--only", "space-return", "--drivers", "thin", "--repeats", "3"];
    store.ok(&[words.as_slice(), &["--output", &output]].concat());
    let results = Path::new(&output).join("results.jsonl");
    let (written, left) = (figures(&results, "written"), figures(&results, "after_fstrim"));
    assert_eq!((written.len(), left.len()), (3, 3));
    // Less what the trial before it had, and what only now goes back: pages of the map.
    assert!(written.iter().all(|bytes| *bytes >= 254.0 * 1048576.0), "{written:?}");
    // The journal of the file system in the container, and pages of the map.
    assert!(left.iter().all(|bytes| *bytes < 4.0 * 1048576.0), "{left:?}");
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    store.finish();
}

/// A small run, as a file: each driver is `seconds` slow, in three repeats. `guest` is what a guest says of itself.
fn results(
    store: &TempStore,
    name: &str,
    version: u32,
    guest: Option<&str>,
    drivers: &[(&str, f64)],
) -> String {
    let mut environment = json!({ "host": format!("host of {name}"), "kernel": "Linux 6.1.0" });
    if let Some(guest) = guest {
        environment["guest"] = guest.into();
    }
    let mut lines = vec![json!({
        "kind": "run", "schema_version": version, "run_id": name, "started": "2030-01-01T00:00:00Z", "seed": 1,
        "options": { "repeats": 3, "warm_ups": 0 }, "workloads": [{ "name": "life", "title": "Life" }], "drivers": [],
        "environment": environment,
    })];
    let mut position = 0;
    for repeat in 0..3 {
        for (driver, seconds) in drivers {
            let trial = json!({
                "workload": "life", "driver": driver, "repeat": repeat, "position": position,
                "started": "2030-01-01T00:00:00Z", "duration_seconds": 1.0, "measurements": 1,
            });
            let mut end = trial.clone();
            end["kind"] = "trial".into();
            let mut line = trial;
            for (field, value) in [
                ("kind", json!("measurement")),
                ("metric", json!("create")),
                ("role", json!("result")),
                ("unit", json!("seconds")),
                ("better", json!("lower")),
                ("value", json!(seconds)),
            ] {
                line[field] = value;
            }
            lines.extend([line, end]);
            position += 1;
        }
    }
    let path = store.path(name);
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, lines.concat()).unwrap();
    path
}

const GUEST: Option<&str> = Some("QEMU, processor emulated");

#[test]
fn a_guest_s_results_stand_beside_the_host_s_marked_and_never_in_one_ratio() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let host = results(&store, "host", 1, None, &[("overlay2", 0.010), ("thin", 0.005)]);
    let drivers = [("overlay2", 1.0), ("thin", 2.0), ("devicemapper", 4.0)];
    let guest = results(&store, "guest", 1, GUEST, &drivers);
    let output = store.path("out");
    let words = ["bench", "report", &host, "--guest", &guest, "--output", &output];
    let said = store.ok(&words).stdout_text();
    let rows: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.starts_with("life"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    // overlay2's own figures first; each ratio is to that of the same machine.
    let row = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let of_host = row("life create 10 ms 2.00× -");
    let of_guest = row("life, emulated create 1 s 0.50× 0.25×");
    assert_eq!(rows, [of_host, of_guest], "{said}");
    let read = |name: &str| fs::read_to_string(Path::new(&output).join(name)).unwrap();
    let page = read("report.html");
    for words in ["Life, emulated", "Guest, emulated", "QEMU, processor emulated", "host of guest"]
    {
        assert!(page.contains(words), "the page has no {words}");
    }
    assert!(page.contains("host of host") && page.contains("In the guest, cells have 3 repeats."));
    let markdown = read("report.md");
    assert!(markdown.contains("| Life, emulated | create | 1 s | 0.50× | 0.25× |"), "{markdown}");
    assert!(markdown.contains("## Environment of the guest (emulated)"), "{markdown}");
    let csv = read("results.csv");
    assert_eq!(csv.lines().filter(|line| line.contains(",true,create,")).count(), 9, "{csv}");
    // What was merged is a file of results itself, and is made anew.
    let merged = Path::new(&output).join("merged.jsonl").display().to_string();
    store.ok(&words);
    let again = store.path("again");
    let said_again = store.ok(&["bench", "report", &merged, "--output", &again]).stdout_text();
    let table = |said: &str| said.lines().take(3).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(table(&said_again), table(&said));
    store.refused(
        &[2],
        &["bench", "report", &merged, "--guest", &guest, "--output", &again],
        &["merged.jsonl", "already"],
    );
    store.finish();
}

#[test]
fn what_is_no_guest_s_file_is_not_taken_for_one() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let host = results(&store, "host", 1, None, &[("overlay2", 0.010), ("thin", 0.005)]);
    let guest = results(&store, "guest", 1, GUEST, &[("overlay2", 1.0)]);
    let later = results(&store, "later", 2, GUEST, &[("overlay2", 1.0)]);
    let output = store.path("out");
    let refused = |codes: &[i32], files: &[&str], names: &[&str]| {
        let words = [&["bench", "report"], files, &["--output", &output]].concat();
        store.refused(codes, &words, names);
        assert!(!Path::new(&output).exists(), "nothing was written");
    };
    refused(
        &[2],
        &[&host, "--guest", &host],
        &["host", "not taken in a guest", "tools/guest bench"],
    );
    refused(&[2], &[&guest, "--guest", &guest], &["guest", "give those of the host first"]);
    refused(&[1], &[&host, "--guest", &later], &["later", "schema version 2"]);
    refused(&[1], &[&later, "--guest", &guest], &["later", "schema version 2"]);
    refused(&[1], &[&host, "--guest", &store.path("absent")], &["absent"]);
    // Nor are the two compared as two runs, in either order.
    refused(&[2], &[&host, &guest], &["was run in a guest", "--guest"]);
    refused(&[2], &[&guest, &host], &["was run in a guest", "--guest"]);
    let three = ["bench", "report", &host, &host, "--guest", &guest, "--output", &output];
    store.run(&three).assert_code(&[2]);
    assert!(!Path::new(&output).exists(), "nothing was written");
    store.finish();
}
