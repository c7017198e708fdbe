//! `bench`: the comparison of drivers, and reports of it.

mod convert;
mod image;
mod programs;
mod replay;
mod subject;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use thinstore_compare::environment::Environment;
use thinstore_compare::plan::{Available, Plan, Selection};
use thinstore_compare::report::{ReportOptions, write_comparison, write_report};
use thinstore_compare::results::{DriverInfo, Outcome, Results, ResultsFile, Run, SCHEMA_VERSION};
use thinstore_compare::run::{Budget, Ending, MachineMeter, Runner, Subject};
use thinstore_compare::workload::Workload;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::{DriverName, obstacle};

use self::subject::StoreSubject;
use self::watch::Bar;
use super::mount::require_root;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// What a run writes its results to, in its folder.
const RESULTS: &str = "results.jsonl";

/// What a report of a run with that of a guest keeps of both, in its folder.
const MERGED: &str = "merged.jsonl";

/// How long repeats are added in the short set: it is there for whoever does not want to wait for more than three minutes.
const QUICK_SECONDS: u32 = 115;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Bench {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// The short set: a whole table in a few minutes
    #[arg(long)]
    quick: bool,
    /// Only these workloads
    #[arg(long, value_name = "W", value_delimiter = ',')]
    only: Vec<String>,
    /// Workloads of your own too: a folder of .toml files
    #[arg(long, value_name = "DIR")]
    workloads: Option<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
}

/// How drivers are compared, whatever the work is.
#[derive(Args, Debug)]
struct RunArguments {
    /// Only these drivers
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    drivers: Vec<String>,
    /// How often each is measured [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: Option<u32>,
    /// No repeat but the first goes on for longer after the start; what there is then is what counts, and the same
    /// command adds to it [default: of the short set 115]
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u32>,
    /// Of the order of the trials [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Where results and report go; a run that was stopped goes on here
    #[arg(long, value_name = "DIR", required = true)]
    output: Option<PathBuf>,
    /// Where the drivers' stores are, until the end: on the file system and disk that are to be measured
    /// [default: in the output]
    #[arg(long, value_name = "DIR")]
    stores: Option<PathBuf>,
    #[command(flatten)]
    how: ReportArguments,
}

#[derive(Subcommand, Debug)]
enum BenchCommand {
    /// Make a report of results, or compare two
    Report(Report),
    /// Do traces again on every driver
    Replay(replay::Replay),
    /// Turn traces into what other programs read, and theirs into ours
    Convert(convert::Convert),
}

#[derive(Args, Debug)]
struct Report {
    /// Results of a run
    results: PathBuf,
    /// Those of another run, of another commit or machine
    other: Option<PathBuf>,
    /// Results of a run in a guest, to be shown beside, marked as emulated: they are compared with each other alone
    #[arg(long, value_name = "RESULTS", conflicts_with = "other")]
    guest: Option<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", required = true)]
    output: PathBuf,
    #[command(flatten)]
    how: ReportArguments,
}

#[derive(Args, Debug)]
struct ReportArguments {
    /// The driver that the others are compared with [default: overlay2]
    #[arg(long, value_name = "DRIVER")]
    reference: Option<String>,
}

impl ReportArguments {
    fn options(&self) -> ReportOptions {
        ReportOptions { reference: self.reference.clone(), ..ReportOptions::default() }
    }
}

fn told(error: thinstore_compare::Error) -> Failure {
    let kind = match &error {
        thinstore_compare::Error::Invalid(_) => ErrorKind::Usage,
        thinstore_compare::Error::SchemaVersion { .. } => ErrorKind::Incompatible,
        _ if error.is_full_disk() => ErrorKind::Full,
        _ => ErrorKind::Io,
    };
    Failure::Engine(Error::new(kind, error.to_string()))
}

impl Bench {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Some(BenchCommand::Report(report)) => return report.run(context),
            Some(BenchCommand::Replay(replay)) => return replay.run(context),
            Some(BenchCommand::Convert(convert)) => return convert.run(context),
            None => {}
        }
        let workloads = self.all_workloads()?;
        let selection = self.run.selection(self.only, self.quick);
        self.run.compare(context, &workloads, &selection)
    }

    fn all_workloads(&self) -> Result<Vec<Workload>, Failure> {
        let mut workloads = Workload::shipped().map_err(told)?;
        if let Some(folder) = &self.workloads {
            let more = Workload::read_folder(folder).map_err(told)?;
            workloads.retain(|one| more.iter().all(|other| other.name != one.name));
            workloads.extend(more);
        }
        Ok(workloads)
    }
}

impl RunArguments {
    fn selection(&self, only: Vec<String>, quick: bool) -> Selection {
        Selection { only, drivers: self.drivers.clone(), repeats: self.repeats, quick }
    }

    /// Compares the drivers, and reports.
    fn compare(
        &self,
        context: &Context,
        workloads: &[Workload],
        selection: &Selection,
    ) -> Result<(), Failure> {
        let Some(output) = &self.output else {
            return Err(Failure::usage("say where the results go with --output DIR"));
        };
        require_root("comparing drivers")?;
        let budget = self.budget(selection.quick);
        let interrupt = Interrupt::watch();
        make_folder(output)?;
        let stores = self.stores.clone().unwrap_or_else(|| output.join("stores"));
        make_folder(&stores)?;
        let stores = stores
            .canonicalize()
            .map_err(|error| Error::io(format!("cannot find {}", stores.display()), error))?;
        let (mut file, plan) = self.plan(workloads, selection, output, &stores)?;
        for skipped in &plan.skipped {
            let what = skipped.driver.as_deref().or(skipped.workload.as_deref());
            eprintln!("thinstore: left out: {}: {}", what.unwrap_or_default(), skipped.reason);
        }
        let ending = run_plan(context, (workloads, &plan), &mut file, &stores, budget, &interrupt);
        drop(file);
        drop(std::fs::remove_dir_all(stores.join("archives")));
        // the user's own folder stays; an empty one of ours goes
        drop(std::fs::remove_dir(&stores));
        let results = Results::read(&output.join(RESULTS)).map_err(told)?;
        if !results.completed().is_empty() {
            report(context, &results, output, &self.how)?;
        }
        match ending? {
            Ending::Finished => Ok(()),
            Ending::OutOfTime(left) => {
                eprintln!(
                    "thinstore: the time was over with {left} trials of later repeats left; the same command adds them"
                );
                Ok(())
            }
            Ending::Stopped => Err(Failure::Engine(Error::new(
                ErrorKind::Io,
                format!(
                    "the comparison was stopped; the same command goes on with it in {}",
                    output.display()
                ),
            ))),
        }
    }

    /// The time from now on.
    fn budget(&self, quick: bool) -> Option<Budget> {
        let seconds = self.time_limit.or(quick.then_some(QUICK_SECONDS))?;
        Some(Budget { begun: Instant::now(), limit: Duration::from_secs(seconds.into()) })
    }

    /// The file of results, new or that of a run that was stopped, and what is still to be done.
    fn plan(
        &self,
        workloads: &[Workload],
        selection: &Selection,
        output: &Path,
        stores: &Path,
    ) -> Result<(ResultsFile, Plan), Failure> {
        let mut drivers = Vec::new();
        for name in DriverName::all() {
            let lacks = obstacle(name, stores)?;
            drivers.push(Available { name: name.to_string(), lacks });
        }
        let environment = Environment::collect(stores);
        let plan = |seed| {
            let plan = Plan::new(workloads, &drivers, selection, seed, lacks).map_err(told)?;
            Ok::<_, Failure>(if environment.guest.is_some() { plan.in_guest() } else { plan })
        };
        let path = output.join(RESULTS);
        if path.exists() {
            let (file, results) = ResultsFile::resume(&path).map_err(told)?;
            if results.is_of_guest() != environment.guest.is_some() {
                return Err(Failure::usage(format!(
                    "{} has results of {}; choose another --output",
                    path.display(),
                    if results.is_of_guest() { "a guest" } else { "a run outside this guest" }
                )));
            }
            let infos: Vec<_> = workloads.iter().map(Workload::info).collect();
            if results.run.options != selection.options() || results.run.workloads != infos {
                return Err(Failure::usage(format!(
                    "{} has results of a run with other options or workloads; choose another --output, or the same ones",
                    path.display()
                )));
            }
            let plan = plan(results.run.seed)?.without(&results.completed());
            return Ok((file, plan));
        }
        let seed = self.seed.unwrap_or_else(|| thinstore_store::time::now_unix_ns().unsigned_abs());
        let plan = plan(seed)?;
        let info = |name: DriverName| DriverInfo {
            name: name.to_string(),
            description: format!("{}; {}", name.how(), name.limits()),
        };
        let run = Run {
            schema_version: SCHEMA_VERSION,
            run_id: format!("{seed:016x}"),
            started: environment.date.clone(),
            seed,
            options: selection.options(),
            workloads: workloads.iter().map(Workload::info).collect(),
            drivers: DriverName::all().map(info).collect(),
            environment,
        };
        let mut file = ResultsFile::create(&path, &run).map_err(told)?;
        for skipped in &plan.skipped {
            file.append(Outcome::Skipped(skipped.clone())).map_err(told)?;
        }
        Ok((file, plan))
    }
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::io(format!("cannot make the folder {}", path.display()), error))?;
    Ok(())
}

/// Is a program missing?
fn lacks(program: &str) -> bool {
    programs::find(program).is_none()
}

fn run_plan(
    context: &Context,
    (workloads, plan): (&[Workload], &Plan),
    file: &mut ResultsFile,
    stores: &Path,
    budget: Option<Budget>,
    interrupt: &Interrupt,
) -> Result<Ending, Failure> {
    let meter = MachineMeter::new(stores).map_err(told)?;
    let mut subjects: Vec<StoreSubject> = Vec::new();
    let is_used =
        |name: DriverName| plan.trials.iter().any(|planned| planned.trial.driver == name.as_str());
    let mut made = Ok(());
    for name in DriverName::all().filter(|name| is_used(*name)) {
        match StoreSubject::make(name, stores) {
            Ok(subject) => subjects.push(subject),
            Err(error) => {
                made = Err(error.context(format!("the driver {name}")));
                break;
            }
        }
    }
    let mut bar = Bar::new(context.output.shows_progress());
    let ending = made.map_err(Failure::from).and_then(|()| {
        let dynamic: Vec<&dyn Subject> = subjects
            .iter()
            .map(|subject| {
                let subject: &dyn Subject = subject;
                subject
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let runner = Runner { workloads, subjects: &dynamic, meter: &meter, stop: &stop, budget };
        with_signals(interrupt, &stop, || runner.run(plan, file, &mut bar).map_err(told))
    });
    bar.clear();
    for subject in subjects {
        subject.remove();
    }
    ending
}

/// Sets `stop` when there is a signal.
fn with_signals<T>(interrupt: &Interrupt, stop: &AtomicBool, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if interrupt.is_set() {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Writes results that were merged, in place of what an earlier report has merged there: never of a file that either was
/// read from, for a merged one is refused as both.
fn keep_merged(results: &Results, path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(format!("cannot replace {}", path.display()), error).into());
        }
        _ => {}
    }
    results.write(path).map_err(told)
}

fn report(
    context: &Context,
    results: &Results,
    output: &Path,
    how: &ReportArguments,
) -> Result<(), Failure> {
    let report = write_report(results, output, &how.options()).map_err(told)?;
    print(context, &report)
}

fn print(context: &Context, report: &thinstore_compare::report::Report) -> Result<(), Failure> {
    let value = serde_json::json!({
        "page": report.page.display().to_string(),
        "plots": report.plots,
    });
    context.output.outcome(&value, || {
        format!("{}\nThe page: {}\n", report.table.trim_end(), report.page.display())
    })
}

impl Report {
    fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(guest) = &self.guest {
            let results = Results::read_with_guest(&self.results, guest).map_err(told)?;
            make_folder(&self.output)?;
            keep_merged(&results, &self.output.join(MERGED))?;
            return report(context, &results, &self.output, &self.how);
        }
        let first = Results::read(&self.results).map_err(told)?;
        match &self.other {
            None => report(context, &first, &self.output, &self.how),
            Some(other) => {
                let second = Results::read(other).map_err(told)?;
                let (name, other) =
                    (self.results.display().to_string(), other.display().to_string());
                Results::check_comparable((&name, &other), (&first, &second)).map_err(told)?;
                make_folder(&self.output)?;
                let report = write_comparison(
                    (&name, &first),
                    (&other, &second),
                    &self.output,
                    &self.how.options(),
                );
                print(context, &report.map_err(told)?)
            }
        }
    }
}
