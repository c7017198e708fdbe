//! Every input of the corpora is taken by its target: those that cover what fuzzing has come to, and
//! those that once found something (`found-*`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use thinstore_fuzz_targets::{TARGETS, target};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a corpus has a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs all inputs of a target, and names those that it did not take.
fn run_all(name: &str) {
    let target = target(name).unwrap();
    let files = files_of(&corpora().join(name));
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    let inputs =
        files.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap()));
    let seeds = (target.seeds)().into_iter().enumerate();
    let seeds = seeds.map(|(number, seed)| (format!("seed {number}"), seed));
    let bad: Vec<String> = inputs
        .chain(seeds)
        .filter(|(_, input)| catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err())
        .map(|(what, _)| what)
        .collect();
    assert!(bad.is_empty(), "{name} does not take {bad:#?}");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folders: BTreeSet<String> = files_of(&corpora())
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(folders, names);
}

#[test]
fn damaged_pools_of_the_corpus_are_refused_or_used_without_harm() {
    run_all("pool_image");
}

#[test]
fn journals_of_the_corpus_are_refused_or_replayed_without_harm() {
    run_all("journal");
}

#[test]
fn map_pages_of_the_corpus_are_refused_or_walked_without_harm() {
    run_all("map_page");
}

#[test]
fn tars_of_the_corpus_are_refused_or_come_in_and_out_the_same() {
    run_all("tar");
}

#[test]
fn images_of_the_corpus_are_refused_or_come_in_and_out_the_same() {
    run_all("oci");
}

#[test]
fn requests_of_the_corpus_are_answered_and_leave_a_whole_store() {
    run_all("api");
}

#[test]
fn words_of_the_corpus_are_refused_or_mean_what_they_say() {
    run_all("cli");
}
