//! Searches for as long as asked, in parallel, and prints what it finds with the command to see it again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use parking_lot::Mutex;
use thinstore_crash::failing::{fail_each, failures};
use thinstore_crash::scenario::{SCENARIOS, Scenario, find};
use thinstore_crash::search::{Budget, Finding, search};

/// Cuts the power at every write and flush of stories on a pool, lets disks fail, and judges what is left.
#[derive(Parser)]
struct Arguments {
    /// How long to go on.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Searches side by side [default: one a processor]
    #[arg(long)]
    jobs: Option<usize>,
    /// The first seed; the next ones follow it. By default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// End after so many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Only this story.
    #[arg(long)]
    scenario: Option<String>,
    /// Outcomes of a crash looked at after each operation of the disk.
    #[arg(long, default_value_t = 2)]
    looks: u64,
    /// Names the stories, and ends.
    #[arg(long)]
    list: bool,
}

#[derive(Default)]
struct Sums {
    cuts: BTreeMap<&'static str, u64>,
    failures: u64,
    findings: Vec<Finding>,
}

fn one_seed(scenarios: &[&'static Scenario], seed: u64, budget: Budget, sums: &Mutex<Sums>) {
    let scenario = scenarios[(seed % scenarios.len() as u64) as usize];
    let options = scenario.open_options();
    let mut outcome = search(scenario, seed, budget, &options);
    *sums.lock().cuts.entry(scenario.name).or_default() += outcome.cuts;
    if outcome.finding.is_none() && !scenario.threads {
        let all = failures();
        let failure = &all[(seed / scenarios.len() as u64 % all.len() as u64) as usize];
        outcome = fail_each(scenario, seed, failure, 16, &options);
        sums.lock().failures += outcome.cuts;
    }
    if let Some(finding) = outcome.finding {
        println!("FOUND {finding}");
        println!(
            "  again: tools/crash-search --scenario {} --seed {} --seeds 1 --looks {}",
            finding.scenario, finding.seed, budget.looks
        );
        sums.lock().findings.push(finding);
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        SCENARIOS.iter().for_each(|one| println!("{:18} {}", one.name, one.about));
        return ExitCode::SUCCESS;
    }
    let scenarios: Vec<&'static Scenario> = match &arguments.scenario {
        None => SCENARIOS.iter().collect(),
        Some(name) => match find(name) {
            Some(scenario) => vec![scenario],
            None => {
                eprintln!("there is no scenario '{name}': --list names them");
                return ExitCode::from(2);
            }
        },
    };
    // A panic is a finding, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let first = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        now.as_secs() % 1_000_000_000 * 1000
    });
    let jobs = arguments
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    let end = Instant::now() + Duration::from_secs_f64(arguments.minutes.max(0.0) * 60.0);
    let budget = Budget { looks: arguments.looks.max(1), ..Budget::default() };
    println!("seeds from {first}, {} scenarios, {jobs} at a time", scenarios.len());
    let (next, sums) = (AtomicU64::new(0), Arc::new(Mutex::new(Sums::default())));
    let started = Instant::now();
    let done = || match arguments.seeds {
        Some(seeds) => next.load(Ordering::Relaxed) >= seeds,
        None => Instant::now() >= end,
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !done() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    one_seed(&scenarios, first + number, budget, &sums);
                }
            });
        }
        scope.spawn(|| {
            let mut told = Instant::now();
            while !done() {
                std::thread::sleep(Duration::from_millis(200));
                if told.elapsed() > Duration::from_secs(60) {
                    told = Instant::now();
                    tell(&sums.lock(), started, next.load(Ordering::Relaxed));
                }
            }
        });
    });
    let sums = sums.lock();
    for (name, cuts) in &sums.cuts {
        println!("{cuts:>10} cuts of {name}");
    }
    tell(&sums, started, next.load(Ordering::Relaxed));
    if sums.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(sums: &Sums, started: Instant, seeds: u64) {
    println!(
        "{} cuts and {} failures of the disk in {} s, {seeds} seeds, {} findings",
        sums.cuts.values().sum::<u64>(),
        sums.failures,
        started.elapsed().as_secs(),
        sums.findings.len()
    );
}
