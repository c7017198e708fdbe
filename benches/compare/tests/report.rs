//! Reports of results that look like those of a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    reason = "a test reports by panicking"
)]

mod common;

use std::time::Instant;

use resvg::tiny_skia::Pixmap;
use thinstore_compare::analysis::{Analysis, Comparison};
use thinstore_compare::report::{ReportOptions, run_table, write_comparison, write_report};
use thinstore_compare::results::Results;
use thinstore_compare::statistics::{Bootstrap, Verdict};

fn analysis(results: &Results, reference: Option<&str>) -> Analysis {
    Analysis::of(results, reference, Bootstrap::default()).unwrap()
}

#[test]
fn a_report_has_a_page_that_loads_nothing_and_every_plot_as_svg_and_png() {
    let folder = tempfile::tempdir().unwrap();
    let results = common::results(1, 5, 1);
    let report = write_report(&results, folder.path(), &ReportOptions::default()).unwrap();
    let page = std::fs::read_to_string(&report.page).unwrap();
    for forbidden in ["http://", "https://", "src=", "@import", "<link"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let mut plots = 0;
    for entry in std::fs::read_dir(folder.path().join("plots")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().unwrap() == "svg" {
            plots += 1;
            let picture = Pixmap::load_png(path.with_extension("png")).unwrap();
            let drawn = picture.pixels().iter().filter(|point| point.red() < 200).count();
            assert!(drawn > 2000, "{}: {drawn} points drawn", path.display());
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(svg.contains("<title>") && !svg.contains("var(--"), "{}", path.display());
        }
    }
    assert_eq!(plots, report.plots);
    // Bars, lines, latencies, resources, ratios.
    for name in [
        "bars-chown-chown",
        "lines-depth-lookup-depth",
        "latency-sqlite-inserts",
        "all-bytes-written-per-byte",
        "ratios",
    ] {
        assert!(folder.path().join(format!("plots/{name}.svg")).exists(), "{name}");
    }
    let csv = std::fs::read_to_string(folder.path().join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), results.measurements.len() + 1);
    let markdown = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    for said in [
        "## Method",
        "Example Processor",
        "dm-thin-pool",
        "too many levels",
        "| Many small files |",
    ] {
        assert!(markdown.contains(said), "{said}");
    }
}

#[test]
fn the_same_results_give_the_same_report() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = ReportOptions { without_png: true, ..ReportOptions::default() };
    for folder in [&first, &second] {
        write_report(&common::results(1, 5, 1), folder.path(), &options).unwrap();
    }
    let read =
        |folder: &tempfile::TempDir| std::fs::read(folder.path().join("report.html")).unwrap();
    assert!(read(&first) == read(&second));
}

#[test]
fn what_fails_what_is_left_out_and_what_shows_no_difference_is_said() {
    let analysis = analysis(&common::results(1, 5, 1), None);
    let table = run_table(&analysis);
    let line = |words: &str| table.lines().find(|line| line.contains(words)).unwrap().to_owned();
    assert!(line("depth 500").contains("failed"));
    assert!(line("WORKLOAD").contains("overlay2   "), "the reference comes first");
    assert!(line("size 1 GiB").contains('×'));
    assert!(table.contains('≈'));
    // Two repeats say nothing.
    let few = self::analysis(&common::results(1, 2, 1), Some("thin"));
    assert!(
        few.rows
            .iter()
            .flat_map(|row| row.present())
            .all(|(_, cell)| { cell.ratio.is_none_or(|ratio| ratio.verdict() == Verdict::TooFew) })
    );
    assert_eq!(few.reference_name(), "thin");
    let error =
        Analysis::of(&common::results(1, 1, 1), Some("aufs"), Bootstrap::default()).unwrap_err();
    assert!(error.to_string().contains("'aufs'") && error.to_string().contains("btrfs"), "{error}");
}

#[test]
fn emulated_figures_are_compared_with_each_other_alone() {
    let mut results = common::results(1, 5, 1);
    let mut guest = common::results(2, 5, 1);
    for line in &mut guest.measurements {
        line.value *= 20.0;
    }
    results.merge_guest(guest);
    let analysis = analysis(&results, None);
    let of = |emulated: bool| {
        analysis
            .rows
            .iter()
            .filter(move |row| row.id.emulated == emulated && row.id.workload == "chown")
    };
    assert!(of(true).count() == of(false).count() && of(true).count() > 0);
    for (guest, host) in of(true).zip(of(false)) {
        let ratio = |row: &thinstore_compare::analysis::Row| {
            row.cells[0].as_ref().unwrap().ratio.unwrap().value
        };
        assert!((ratio(guest) / ratio(host) - 1.0).abs() < 0.4, "{} {}", ratio(guest), ratio(host));
    }
}

#[test]
fn nothing_in_the_results_becomes_part_of_the_page() {
    let mut results = common::results(1, 3, 1);
    let evil = "</script><script>alert(1)</script>\"'><img onerror=x>";
    for driver in &mut results.run.drivers {
        driver.description = evil.into();
    }
    for line in &mut results.measurements {
        if line.trial.driver == "zfs" {
            line.trial.driver = evil.into();
        }
        if line.trial.workload == "chown" {
            line.trial.workload = evil.into();
            line.metric.name = evil.into();
        }
    }
    results.run.workloads[0].title = evil.into();
    results.run.environment.kernel = evil.into();
    results.failures[0].message = evil.into();
    results.skipped[0].reason = evil.into();
    let folder = tempfile::tempdir().unwrap();
    let report = write_report(&results, folder.path(), &ReportOptions::default()).unwrap();
    let page = std::fs::read_to_string(report.page).unwrap();
    assert!(!page.contains("<img") && page.matches("<script>").count() == 1);
    let names = (("a<img>", &results), ("b<img>", &results));
    let report =
        write_comparison(names.0, names.1, folder.path(), &ReportOptions::default()).unwrap();
    let page = std::fs::read_to_string(report.page).unwrap();
    assert!(!page.contains("<img") && page.matches("<script>").count() == 1);
}

/// It takes about half a second on two cores; the limit leaves room for a machine that is busy otherwise.
#[test]
fn ten_thousand_measurements_are_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let results = common::results(1, 5, 27);
    assert!(results.measurements.len() > 10_000);
    let begun = Instant::now();
    let options = ReportOptions { without_png: true, ..ReportOptions::default() };
    let report = write_report(&results, folder.path(), &options).unwrap();
    let took = begun.elapsed();
    println!("{} measurements, {} plots: {took:?}", results.measurements.len(), report.plots);
    assert!(took.as_secs() < 10, "{took:?}");
}

#[test]
fn an_empty_run_has_a_report_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = common::results(1, 1, 1);
    results.measurements.clear();
    let report = write_report(&results, folder.path(), &ReportOptions::default()).unwrap();
    assert_eq!(report.plots, 0);
}

#[test]
fn two_runs_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (first, mut second) = (common::results(1, 5, 1), common::results(2, 5, 1));
    for line in &mut second.measurements {
        if line.trial.driver == "thin"
            && line.trial.workload == "chown"
            && line.metric.name == "chown"
        {
            line.value *= 3.0;
        }
    }
    second.measurements.retain(|line| line.trial.workload != "sqlite");
    let (a, b) = (analysis(&first, None), analysis(&second, None));
    let comparison = Comparison::of(&a, &b);
    let worse: Vec<_> = comparison
        .changes
        .iter()
        .filter(|change| change.ratio.unwrap().value > 2.0)
        .map(|change| (change.id.workload.as_str(), comparison.drivers[change.driver].as_str()))
        .collect();
    assert_eq!(worse, [("chown", "thin")]);
    assert!(comparison.only_first > 0 && comparison.only_second == 0);
    // The same machine twice: nearly all intervals overlap.
    let share = comparison.reproducibility().unwrap();
    assert!(share > 0.95 && share < 1.0, "{share}");
    let names = (("a.jsonl", &first), ("b.jsonl", &second));
    let report =
        write_comparison(names.0, names.1, folder.path(), &ReportOptions::default()).unwrap();
    assert!(report.table.contains("of the results overlap"));
    second.measurements.clear();
    let names = (("a.jsonl", &first), ("b.jsonl", &second));
    let error =
        write_comparison(names.0, names.1, folder.path(), &ReportOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no figure in common"), "{error}");
}

#[test]
fn what_failed_in_the_same_way_in_every_repeat_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let results = common::results(1, 3, 1);
    assert_eq!(results.failures.len(), 3);
    let report = write_report(&results, folder.path(), &ReportOptions::default()).unwrap();
    let page = std::fs::read_to_string(report.page).unwrap();
    assert_eq!(page.matches("too many levels").count(), 1);
    assert!(page.contains("repeat 1, 2, 3"));
}
