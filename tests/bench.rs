//! The comparison as a person runs it: results, report, resuming, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fs;
use std::path::Path;

use thinstore_tests::{Identity, TempStore, host};

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
