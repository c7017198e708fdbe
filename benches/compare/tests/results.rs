//! The files of results: what is written, what is read, what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    reason = "a test reports by panicking"
)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use thinstore_compare::results::{
    Better, Failure, Histogram, Measurement, Metric, Outcome, Parameters, Results, ResultsFile,
    Skipped, Trial, TrialId, Unit, resources, write_csv,
};

fn trial(repeat: u32) -> TrialId {
    TrialId {
        workload: "random-write".into(),
        parameters: Parameters::default().with("depth", 32).with("sync", "each"),
        driver: "thin".into(),
        repeat,
        emulated: false,
    }
}

fn measured(repeat: u32) -> Outcome {
    let mut latency = Histogram::default();
    latency.add(20, 3);
    latency.add(1_000_000, 1);
    let line = |metric: Metric, value: f64, latency: Option<Histogram>| Measurement {
        trial: trial(repeat),
        position: 7,
        metric,
        value,
        latency,
    };
    let rate = Metric::result("operations", Unit::OperationsPerSecond, Better::Higher);
    Outcome::Measured {
        trial: Trial {
            trial: trial(repeat),
            position: 7,
            started: "2030-01-01T00:00:00Z".into(),
            duration_seconds: 2.5,
            measurements: 0,
        },
        measurements: vec![
            line(rate, 902.5, Some(latency)),
            line(resources::disk_bytes_written(), 4096.0, None),
        ],
    }
}

fn failed(repeat: u32) -> Outcome {
    Outcome::Failed(Failure {
        trial: trial(repeat),
        position: 8,
        started: "2030-01-01T00:00:01Z".into(),
        step: "mount".into(),
        message: "no such device".into(),
    })
}

fn file(folder: &Path) -> PathBuf {
    folder.join("results.jsonl")
}

/// A file with two trials, the second failed.
fn written(folder: &Path) -> ResultsFile {
    let mut results = ResultsFile::create(&file(folder), &common::results(1, 1, 1).run).unwrap();
    results.append(measured(0)).unwrap();
    results.append(failed(1)).unwrap();
    results
}

/// The schema in docs/benchmarks.md: whoever changes these lines breaks the programs of others.
#[test]
fn the_lines_are_those_of_the_documented_schema() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = written(folder.path());
    let skipped = Skipped {
        workload: None,
        parameters: None,
        driver: Some("zfs".into()),
        reason: "the kernel has no zfs".into(),
        emulated: false,
    };
    results.append(Outcome::Skipped(skipped)).unwrap();
    let text = std::fs::read_to_string(file(folder.path())).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let golden = include_str!("golden/schema-1.jsonl");
    assert_eq!(lines, golden.lines().collect::<Vec<_>>(), "\n{text}");
    let document = include_str!("../../../docs/benchmarks.md");
    for line in golden.lines().skip(1) {
        assert!(document.contains(line), "docs/benchmarks.md has not the line\n{line}");
    }
    let mut words = Vec::new();
    collect_words(&serde_json::from_str(lines[0]).unwrap(), &mut words);
    for word in words {
        assert!(
            document.contains(&format!("`{word}`")),
            "docs/benchmarks.md does not explain `{word}`"
        );
    }
}

/// The names of all fields.
fn collect_words(value: &serde_json::Value, words: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                words.push(name.clone());
                // Names of programs are no fields.
                if name != "programs" {
                    collect_words(value, words);
                }
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| collect_words(value, words))
        }
        _ => {}
    }
}

#[test]
fn what_was_written_is_read_and_a_run_knows_what_is_done() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let (mut results, so_far) = ResultsFile::resume(&file(folder.path())).unwrap();
    assert_eq!(so_far.measurements.len(), 2);
    assert_eq!(so_far.completed().into_iter().collect::<Vec<_>>(), [trial(0)]);
    assert_eq!(so_far.failed().into_iter().collect::<Vec<_>>(), [trial(1)]);
    // The failed one is tried again, and its error is gone.
    results.append(measured(1)).unwrap();
    let read = Results::read(&file(folder.path())).unwrap();
    assert_eq!((read.completed().len(), read.failures.len(), read.warnings.len()), (2, 0, 0));
}

#[test]
fn another_schema_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let text = std::fs::read_to_string(file(folder.path())).unwrap();
    // What else stands there means nothing to us.
    std::fs::write(file(folder.path()), "{\"schema_version\":2,\"kind\":\"novel\"}\n").unwrap();
    let error = Results::read(&file(folder.path())).unwrap_err().to_string();
    assert!(error.contains("schema version 2") && error.contains("reads version 1"), "{error}");
    assert!(error.contains("results.jsonl"), "{error}");
    for (wrong, said) in [
        (text.lines().skip(1).collect::<Vec<_>>().join("\n"), "no schema_version"),
        ("hello\n".to_owned(), "no JSON"),
        (String::new(), "no JSON"),
        (format!("{text}{text}"), "second header"),
        (format!("{text}nonsense\n"), "line 6"),
    ] {
        std::fs::write(file(folder.path()), wrong).unwrap();
        let error = Results::read(&file(folder.path())).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let error = Results::read(&folder.path().join("nothing")).unwrap_err().to_string();
    assert!(error.contains("nothing"), "{error}");
}

#[test]
fn wherever_a_run_is_stopped_whole_trials_are_kept_and_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = written(folder.path());
    results.append(measured(2)).unwrap();
    drop(results);
    let bytes = std::fs::read(file(folder.path())).unwrap();
    let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let whole = Results::read(&file(folder.path())).unwrap();
    for length in header..bytes.len() {
        std::fs::write(file(folder.path()), &bytes[..length]).unwrap();
        let torn = Results::read(&file(folder.path())).unwrap();
        let completed = torn.completed();
        assert!(completed.is_subset(&whole.completed()));
        assert_eq!(torn.measurements.len(), 2 * completed.len(), "whole trials alone, at {length}");
        let (mut resumed, so_far) = ResultsFile::resume(&file(folder.path())).unwrap();
        for repeat in [0, 1, 2] {
            if !so_far.completed().contains(&trial(repeat)) {
                resumed.append(measured(repeat)).unwrap();
            }
        }
        drop(resumed);
        let read = Results::read(&file(folder.path())).unwrap();
        assert_eq!((read.completed().len(), read.measurements.len()), (3, 6), "at {length}");
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    }
}

#[test]
fn a_torn_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let mut raw = std::fs::OpenOptions::new().append(true).open(file(folder.path())).unwrap();
    raw.write_all(b"{\"kind\":\"meas").unwrap();
    let read = Results::read(&file(folder.path())).unwrap();
    assert_eq!(read.warnings.len(), 1);
    assert!(read.warnings[0].contains("torn"), "{}", read.warnings[0]);
}

#[test]
fn one_run_at_a_time_writes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let results = written(folder.path());
    let error = ResultsFile::resume(&file(folder.path())).unwrap_err().to_string();
    assert!(error.contains("another run"), "{error}");
    drop(results);
    assert!(ResultsFile::resume(&file(folder.path())).is_ok());
    let run = common::results(1, 1, 1).run;
    let error = ResultsFile::create(&file(folder.path()), &run).unwrap_err().to_string();
    assert!(error.contains("results.jsonl"), "{error}");
}

#[test]
fn no_figure_that_is_none_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = written(folder.path());
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        let Outcome::Measured { trial, mut measurements } = measured(5) else { panic!() };
        measurements[0].value = value;
        let error = results.append(Outcome::Measured { trial, measurements }).unwrap_err();
        assert!(error.to_string().contains("no figure"), "{error}");
    }
    assert_eq!(Results::read(&file(folder.path())).unwrap().trials.len(), 1);
}

/// A limit on the size of files stands in for the disk: a write is cut short, and then refused. It holds for a whole
/// process, so this test runs itself once more as one.
#[test]
fn a_full_disk_keeps_all_finished_results() {
    if let Some(path) = std::env::var_os("THINSTORE_TEST_FULL_DISK") {
        let (mut results, _) = ResultsFile::resume(Path::new(&path)).unwrap();
        let error = results.append(measured(9)).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("results.jsonl"), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let length = std::fs::metadata(file(folder.path())).unwrap().len();
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$0\" \"$@\""])
        .arg((length + 300).to_string())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_keeps_all_finished_results"])
        .env("THINSTORE_TEST_FULL_DISK", file(folder.path()))
        .output()
        .expect("sh and prlimit");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert_eq!(std::fs::metadata(file(folder.path())).unwrap().len(), length, "as it was before");
    assert!(Results::read(&file(folder.path())).unwrap().warnings.is_empty());
}

#[test]
fn the_results_of_a_guest_are_marked_and_survive_writing() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = common::results(1, 2, 1);
    let mut guest = common::results(2, 2, 1);
    guest.run.drivers[0].name = "devicemapper".into();
    let (lines, names) = (host.measurements.len(), host.run.drivers.len());
    host.merge_guest(guest);
    assert!(host.measurements[lines..].iter().all(|line| line.trial.emulated));
    assert!(host.measurements[..lines].iter().all(|line| !line.trial.emulated));
    assert_eq!((host.guests.len(), host.run.drivers.len()), (1, names + 1));
    host.write(&file(folder.path())).unwrap();
    let read = Results::read(&file(folder.path())).unwrap();
    assert_eq!(read, host);
}

#[test]
fn csv_has_a_line_a_measurement_and_a_column_a_parameter() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let mut results = Results::read(&file(folder.path())).unwrap();
    results.measurements[1].trial.driver = "a \"b\", c".into();
    let mut csv = Vec::new();
    write_csv(&results, &mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "run_id,workload,driver,repeat,position,emulated,metric,role,unit,better,value,latency_count,\
         latency_p50_seconds,latency_p90_seconds,latency_p99_seconds,latency_p999_seconds,\
         latency_max_seconds,parameter.depth,parameter.sync"
    );
    assert!(lines[1].starts_with(
        "sample-1,random-write,thin,0,7,false,operations,result,operations_per_second,higher,902.5,4,"
    ));
    assert!(lines[1].ends_with(",32,each"));
    assert!(lines[2].starts_with(
        "sample-1,random-write,\"a \"\"b\"\", c\",0,7,false,disk_bytes_written,resource,"
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_file_has_in_it_is_read_or_refused(damage in prop::collection::vec((0..4000_usize, any::<u8>()), 0..12)) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = include_bytes!("golden/schema-1.jsonl").to_vec();
        for (place, byte) in damage {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        std::fs::write(file(folder.path()), &bytes).unwrap();
        if let Ok(results) = Results::read(&file(folder.path())) {
            let options = thinstore_compare::report::ReportOptions { without_png: true, ..Default::default() };
            thinstore_compare::report::write_report(&results, folder.path(), &options).ok();
        }
    }
}
