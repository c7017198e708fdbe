//! Traces as a person makes and uses them: recorded, read by the programs that they are for, and done again.
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
use thinstore_tests::layout::rich_image;
use thinstore_tests::{Identity, Layout, TempStore, host, run_tool};

const LIMIT: Duration = Duration::from_secs(60);

/// A store with a container.
fn with_container() -> TempStore {
    let store = TempStore::with_size(Identity::Current, "256M");
    let source = store.path("source");
    Layout::write(Path::new(&source), &rich_image());
    store.ok(&["import", &source, "--name", "image"]);
    store.ok(&["snapshot", "image", "web"]);
    store
}

/// The requests of a trace: operation, offset, length.
fn requests(store: &TempStore, trace: &str) -> Vec<(String, u64, u64)> {
    let csv = store.path("trace.csv");
    store.ok(&["bench", "convert", trace, &csv]);
    let text = fs::read_to_string(csv).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("start_ns,latency_ns,operation,offset_bytes,length_bytes"));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(',').collect();
            let latency_ns: u64 = words[1].parse().unwrap();
            assert!(latency_ns > 0, "{line}");
            (words[2].to_owned(), words[3].parse().unwrap(), words[4].parse().unwrap())
        })
        .collect()
}

#[test]
#[ignore = "needs root: attaches devices"]
fn what_a_device_is_asked_is_in_its_trace_to_the_byte() {
    let store = with_container();
    let device = store.attach("web").display().to_string();
    let trace = store.path("web.trace");
    let work = format!(
        "dd if=/dev/urandom of={device} bs=4096 seek=5 count=3 oflag=direct conv=fsync,notrunc status=none && \
         dd if={device} of=/dev/null bs=8192 skip=7 count=2 iflag=direct status=none && \
         blkdiscard --offset 1048576 --length 65536 {device} && exit 7"
    );
    let words = ["trace", "web", "-o", &trace, "--", "sh", "-c", &work];
    let said = store.run(&words).assert_code(&[7]);
    // Standard output is that of what ran.
    assert_eq!(said.stdout_text(), "");
    assert!(said.stderr_text().contains("SEQUENTIAL"), "{}", said.stderr_text());
    let requests = requests(&store, &trace);
    let count = |operation: &str, offset: u64, length: u64| {
        requests.iter().filter(|one| **one == (operation.to_owned(), offset, length)).count()
    };
    for block in 5..8 {
        assert_eq!(count("write", block * 4096, 4096), 1, "{requests:?}");
    }
    assert_eq!(requests.iter().filter(|one| one.0 == "write").count(), 3, "{requests:?}");
    assert_eq!((count("read", 57344, 8192), count("read", 65536, 8192)), (1, 1), "{requests:?}");
    assert_eq!(count("discard", 1 << 20, 65536), 1, "{requests:?}");
    assert!(count("flush", 0, 0) > 0, "{requests:?}");
    store.finish();
}

#[test]
#[ignore = "needs root: mounts a container"]
fn a_trace_ends_with_its_signal_its_time_or_its_container() {
    let store = with_container();
    let trace = store.path("web.trace");
    store.refused(&[3], &["trace", "web", "-o", &trace], &["web", "mounted"]);
    store.refused(&[3], &["trace", "none", "-o", &trace], &["none"]);
    let vfs = ["--driver", "vfs", "trace", "web", "-o", &trace];
    store.refused(&[1], &vfs, &["vfs", "thin"]);
    assert!(!Path::new(&trace).exists(), "a trace that did not begin leaves no file");
    let point = store.new_folder("at");
    store.ok(&["mount", "web", &point]);
    store.refused(&[3], &["trace", "web", "-o", &trace, "--", "/nonexistent"], &["/nonexistent"]);
    assert!(!Path::new(&trace).exists());
    let summary = store.json(&["trace", "web", "-o", &trace, "--seconds", "1"]);
    assert_eq!(summary["lost"], 0);

    let recording = store.start(&["trace", "web", "-o", &trace]);
    let other = store.path("other.trace");
    let has_begun = || {
        fs::read_dir(store.folder()).unwrap().flatten().any(|entry| {
            let is_new = entry.file_name().to_string_lossy().starts_with(".thinstore-new-");
            is_new && entry.metadata().is_ok_and(|file| file.len() > 0)
        })
    };
    assert!(host::wait_until(LIMIT, has_begun));
    store.refused(&[4], &["trace", "web", "-o", &other, "--seconds", "1"], &["web", "already"]);
    fs::write(Path::new(&point).join("new"), "some text").unwrap();
    run_tool("sync", &["-f", &point]).assert_success();
    recording.signal(Signal::INT);
    let said = recording.wait(LIMIT).assert_success().stdout_text();
    assert!(said.contains("write") && said.contains("flush"), "{said}");

    let recording = store.start(&["trace", "web", "-o", &trace]);
    assert!(host::wait_until(LIMIT, has_begun));
    store.ok(&["umount", "web"]);
    recording.wait(LIMIT).assert_success();
    assert!(!requests(&store, &trace).is_empty());
    store.finish();
}

/// A hundred requests of every kind.
const IOLOG_REQUESTS: u64 = 100;

fn iolog() -> String {
    let mut text = String::from("fio version 3 iolog\n0 disk add\n0 disk open\n");
    for number in 0..IOLOG_REQUESTS {
        let (action, length) = match number % 5 {
            0 => ("datasync", 0),
            1 => ("trim", 4096),
            2 | 3 => ("write", 8192),
            _ => ("read", 4096),
        };
        let offset = if length == 0 { 0 } else { number * 7919 % 500 * 4096 + (1 << 40) };
        text.push_str(&format!("{} disk {action} {offset} {length}\n", number * 100));
    }
    text
}

#[test]
#[ignore = "needs programs: fio and blkparse"]
fn fio_and_blkparse_read_what_is_written_for_them() {
    let store = TempStore::without_init(Identity::Current);
    let path = |name: &str| store.path(name);
    fs::write(path("own.iolog"), iolog()).unwrap();
    store.ok(&["bench", "convert", &path("own.iolog"), &path("small.trace"), "--fold"]);
    // There and back again.
    let (events, log) = (path("small.blktrace.0"), path("small.iolog"));
    store.ok(&["bench", "convert", &path("small.trace"), &events]);
    store.ok(&["bench", "convert", &events, &path("again.trace")]);
    store.ok(&["bench", "convert", &path("again.trace"), &log]);
    let parsed = run_tool("blkparse", &["-i", &path("small"), "-q"]).assert_success().stdout_text();
    let count = |what: [&str; 2]| {
        let words = |line: &str| line.split_ascii_whitespace().skip(5).take(2).eq(what);
        parsed.lines().filter(|line| words(line)).count()
    };
    for (kind, queued) in [("R", 20), ("W", 40), ("D", 20), ("FW", 20)] {
        assert_eq!((count(["Q", kind]), count(["C", kind])), (queued, queued), "{kind}: {parsed}");
    }
    fs::File::create(path("disk")).unwrap().set_len(4 << 20).unwrap();
    let fio = std::process::Command::new("fio")
        .args(["--name=replay", "--replay_no_stall=1", "--ioengine=psync", "--output-format=json"])
        .arg(format!("--read_iolog={log}"))
        .current_dir(store.folder())
        .output()
        .expect("this test needs fio");
    let text = String::from_utf8_lossy(&fio.stdout);
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    let job = &json["jobs"][0];
    assert_eq!(job["read"]["total_ios"], 20, "{text}");
    assert_eq!(job["write"]["total_ios"], 40, "{text}");
    for (name, said) in [("unknown.xyz", "--to"), ("small.iolog", "blanks")] {
        let words = ["bench", "convert", &path("small.trace"), &path(name), "--file", "a b"];
        store.refused(&[1, 2], &words, &[said]);
    }
    fs::write(path("nothing"), "nothing of the kind").unwrap();
    let words = ["bench", "convert", &path("nothing"), &path("x.trace")];
    store.refused(&[6], &words, &["nothing", "no trace"]);
}

#[test]
#[ignore = "needs root: mounts containers of two drivers"]
fn a_trace_is_done_again_on_every_driver() {
    let store = TempStore::with_size(Identity::Current, "64M");
    let (log, output) = (store.path("My own.iolog"), store.path("out"));
    fs::write(&log, iolog()).unwrap();
    let words = [
        "bench",
        "replay",
        &log,
        "--drivers",
        "thin,overlay2",
        "--repeats",
        "1",
        "--output",
        &output,
    ];
    let said = store.ok(&words).stdout_text();
    assert!(said.contains("overlay2"), "{said}");
    let results = fs::read_to_string(Path::new(&output).join("results.jsonl")).unwrap();
    let trials = results.lines().filter(|line| line.starts_with(r#"{"kind":"trial""#)).count();
    assert_eq!(trials, 2, "{results}");
    assert!(
        results.contains("replay-my-own") && !results.contains(r#"{"kind":"error""#),
        "{results}"
    );
    assert_eq!(host::left_below(store.folder()), Vec::<String>::new());
    // Another trace of that name is another run.
    fs::write(&log, iolog().replace("8192", "4096")).unwrap();
    store.refused(&[2], &words, &["results.jsonl", "workloads"]);
}
