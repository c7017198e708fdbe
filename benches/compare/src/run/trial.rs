//! One trial: the steps of a workload, done with a subject.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::fio;
use super::program::{Running, run_program};
use super::replay::{ReplaySpeed, replay_on};
use super::writing::write;
use super::{Answer, ImageOrder, Meter, MountOrder, Reading, Subject};
use crate::number::float;
use crate::results::{Better, Histogram, Metric, Parameters, Unit, resources};
use crate::workload::{Action, Said, Step, Template, Workload};

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Of what.
    pub metric: Metric,
    /// How much.
    pub value: f64,
    /// The latencies behind it.
    pub latency: Option<Histogram>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub step: String,
    /// Why.
    pub message: String,
    /// The disk was full then, which says nothing of the driver.
    pub disk_is_full: bool,
}

fn fault(step: &str) -> impl Fn(String) -> Fault {
    let step = step.to_owned();
    move |message| Fault { step: step.clone(), message, disk_is_full: false }
}

/// A figure of fio that is called so is of bytes; any other is of operations.
const THROUGHPUT: &str = "throughput";

/// A file system with less than this is full: what fails on it says nothing of a driver.
const FULL_BYTES: u64 = 64 << 20;

/// What a container's name ends with that was made of another one's image.
const COPY: &str = "-copy";

/// The image that `commit` makes of a container.
fn committed(container: &str) -> String {
    format!("{container}-image")
}

/// What is under way.
struct Trial<'a> {
    subject: &'a dyn Subject,
    meter: &'a dyn Meter,
    parameters: &'a Parameters,
    mounts: BTreeMap<String, PathBuf>,
    /// The programs that were started in containers; what is left of them when the trial ends is killed.
    running: Mutex<BTreeMap<String, Running>>,
    before: Reading,
    figures: Vec<Figure>,
}

/// Runs a trial, and takes everything down again, however it went.
pub fn run_trial(
    subject: &dyn Subject,
    meter: &dyn Meter,
    workload: &Workload,
    parameters: &Parameters,
) -> Result<Vec<Figure>, Fault> {
    let mut result = measured(subject, meter, workload, parameters);
    // Looked at now: what filled the disk goes when the trial is taken down.
    if let Err(fault) = &mut result {
        fault.disk_is_full = meter.free_bytes().is_ok_and(|free| free < FULL_BYTES);
    }
    let ended = subject.end().map_err(fault("take down"));
    // What went wrong first is the reason of what goes wrong then.
    let figures = result?;
    ended?;
    Ok(figures)
}

fn measured(
    subject: &dyn Subject,
    meter: &dyn Meter,
    workload: &Workload,
    parameters: &Parameters,
) -> Result<Vec<Figure>, Fault> {
    let image = ImageOrder::of(&workload.image, parameters).map_err(fault("image"))?;
    subject.begin(&image).map_err(fault("image"))?;
    let read = |step: &str| meter.read(subject).map_err(|error| fault(step)(error.to_string()));
    meter.settle(workload.cold).map_err(|error| fault("settle")(error.to_string()))?;
    let before = read("read the counters")?;
    let (mounts, running) = (BTreeMap::new(), Mutex::default());
    let figures = Vec::new();
    let mut trial = Trial { subject, meter, parameters, mounts, running, before, figures };
    for (number, step) in (1..).zip(&workload.steps) {
        trial.step(step).map_err(fault(&format!("step {number}, {}", step.action.name())))?;
    }
    // What was written lazily belongs to the trial too.
    meter.settle(false).map_err(|error| fault("settle")(error.to_string()))?;
    let after = read("read the counters")?;
    let written = match &workload.writes_bytes {
        Some(written) => Some(written.number(parameters).map_err(fault("writes_bytes"))?),
        None => None,
    };
    let mut figures = trial.figures;
    figures.extend(taken(&before, &after, written));
    Ok(figures)
}

/// What the trial took.
fn taken(before: &Reading, after: &Reading, written: Option<u64>) -> Vec<Figure> {
    let disk = after.disk.since(&before.disk);
    let machine = after.machine.since(&before.machine);
    let daemons = after.daemons.since(&before.daemons);
    let grown = |after: u64, before: u64| float(after.saturating_sub(before));
    let mut pairs = vec![
        (resources::disk_bytes_written(), float(disk.written_bytes)),
        (resources::disk_flushes(), float(disk.flushes)),
        (resources::space(), grown(after.space_bytes, before.space_bytes)),
        (resources::page_cache(), grown(after.page_cache_bytes, before.page_cache_bytes)),
        (resources::cpu_user(), machine.user_seconds),
        (resources::cpu_kernel(), machine.kernel_seconds),
        (resources::cpu_daemons(), daemons.seconds()),
    ];
    if let Some(bytes) = written.filter(|bytes| *bytes > 0) {
        pairs.push((resources::bytes_written_per_byte(), float(disk.written_bytes) / float(bytes)));
    }
    pairs.into_iter().map(|(metric, value)| Figure { metric, value, latency: None }).collect()
}

impl Trial<'_> {
    fn step(&mut self, step: &Step) -> Answer<()> {
        let count = step.containers.number(self.parameters)?;
        let suffix = if step.copies { COPY } else { "" };
        let names: Vec<String> = (0..count).map(|number| format!("c{number}{suffix}")).collect();
        let begun = Instant::now();
        let ready = match &step.action {
            Action::Sync => {
                self.meter.settle(false).map_err(|error| error.to_string())?;
                None
            }
            Action::DropCaches => {
                self.meter.settle(true).map_err(|error| error.to_string())?;
                None
            }
            Action::Space | Action::PageCache => Some(Ready::Figure(self.grown(&step.action)?)),
            Action::Finish => Some(Ready::Said(self.finish(&names)?)),
            action => self.all(action, &names, step.parallel)?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        let Some(measure) = &step.measure else { return Ok(()) };
        let figure = match (ready, &measure.operations) {
            (Some(Ready::Figure(mut figure)), _) => {
                figure.metric.name.clone_from(&measure.name);
                figure
            }
            // Of large requests it is the bytes that are asked for.
            (Some(Ready::Fio(sum)), _) if measure.name == THROUGHPUT => Figure {
                metric: Metric::result(THROUGHPUT, Unit::BytesPerSecond, Better::Higher),
                value: sum.bytes_per_second,
                latency: Some(sum.latency),
            },
            (Some(Ready::Fio(sum)), _) => Figure {
                metric: Metric::result(&measure.name, Unit::OperationsPerSecond, Better::Higher),
                value: sum.operations_per_second,
                latency: Some(sum.latency),
            },
            (Some(Ready::Said(outputs)), _) if measure.figure.is_some() => {
                said(&measure.name, measure.figure.as_ref(), &outputs)?
            }
            (_, Some(operations)) => Figure {
                metric: Metric::result(&measure.name, Unit::OperationsPerSecond, Better::Higher),
                value: float(operations.number(self.parameters)?) / seconds.max(1e-9),
                latency: None,
            },
            (_, None) => Figure {
                metric: Metric::result(&measure.name, Unit::Seconds, Better::Lower),
                value: seconds,
                latency: None,
            },
        };
        self.figures.push(figure);
        Ok(())
    }

    /// By how much something has grown since the first step.
    fn grown(&self, action: &Action) -> Answer<Figure> {
        let now = self.meter.read(self.subject).map_err(|error| error.to_string())?;
        let bytes = if *action == Action::Space {
            now.space_bytes.saturating_sub(self.before.space_bytes)
        } else {
            now.page_cache_bytes.saturating_sub(self.before.page_cache_bytes)
        };
        let metric = Metric::result("", Unit::Bytes, Better::Lower);
        Ok(Figure { metric, value: float(bytes), latency: None })
    }

    /// Waits for what was started in these containers.
    fn finish(&mut self, names: &[String]) -> Answer<Vec<String>> {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut finish = |name: &String| {
            let running = running.remove(name).ok_or("nothing was started there")?;
            running.finish()
        };
        let named = |name| finish(name).map_err(|message| format!("{name}: {message}"));
        names.iter().map(named).collect()
    }

    /// An action for all of these containers: one after the other, or at the same time.
    fn all(&mut self, action: &Action, names: &[String], parallel: bool) -> Answer<Option<Ready>> {
        let this = &*self;
        let answers: Vec<Answer<Done>> = if parallel && names.len() > 1 {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    names.iter().map(|name| scope.spawn(move || this.one(action, name))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".to_owned())))
                    .collect()
            })
        } else {
            let mut answers = Vec::new();
            for name in names {
                answers.push(this.one(action, name));
                if answers.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            answers
        };
        let mut sum: Option<fio::FioResult> = None;
        let mut outputs = Vec::new();
        for (name, answer) in names.iter().zip(answers) {
            match answer.map_err(|message| format!("{name}: {message}"))? {
                Done::Plain => {}
                Done::Mounted(path) => {
                    self.mounts.insert(name.clone(), path);
                }
                Done::Unmounted => {
                    self.mounts.remove(name);
                }
                Done::Said(output) => outputs.push(output),
                Done::Started(running) => {
                    let known = self.running.get_mut();
                    known.unwrap_or_else(PoisonError::into_inner).insert(name.clone(), running);
                }
                Done::Fio(result) => {
                    let sum = sum.get_or_insert_default();
                    sum.operations_per_second += result.operations_per_second;
                    sum.bytes_per_second += result.bytes_per_second;
                    sum.latency.merge(&result.latency);
                }
            }
        }
        let said = (!outputs.is_empty()).then_some(Ready::Said(outputs));
        Ok(sum.map(Ready::Fio).or(said))
    }

    fn one(&self, action: &Action, container: &str) -> Answer<Done> {
        let subject = self.subject;
        let folder = || {
            self.mounts
                .get(container)
                .ok_or_else(|| "it is not mounted: a step 'mount' is missing".to_owned())
        };
        let texts = |words: &[Template]| {
            words.iter().map(|word| word.text(self.parameters)).collect::<Answer<Vec<String>>>()
        };
        match action {
            Action::Create => {
                let committed = container.strip_suffix(COPY).map(committed);
                subject.create(container, committed.as_deref())?;
            }
            Action::Mount(mounts) => {
                let mut orders = Vec::new();
                for text in texts(mounts)? {
                    orders.extend(MountOrder::parse(&text)?);
                }
                return subject.mount(container, &orders).map(Done::Mounted);
            }
            Action::Unmount => {
                subject.unmount(container)?;
                return Ok(Done::Unmounted);
            }
            Action::Remove => subject.remove(container)?,
            Action::Commit => subject.commit(container, &committed(container))?,
            Action::Diff => drop(subject.diff(container)?),
            Action::Command(words) => {
                return run_program(&texts(words)?, folder()?).map(Done::Said);
            }
            Action::Start(words) => {
                return Running::start(&texts(words)?, folder()?).map(Done::Started);
            }
            Action::Write { file, offset, size, sync } => {
                let (path, offset) = (file.text(self.parameters)?, offset.number(self.parameters)?);
                write(folder()?, &path, offset, size.number(self.parameters)?, *sync)?;
            }
            Action::Replay { trace, file, speed } => {
                let (path, speed) = (file.text(self.parameters)?, speed.text(self.parameters)?);
                let speed = ReplaySpeed::parse(&speed)?;
                return replay_on(folder()?, &path, trace, speed).map(Done::Fio);
            }
            Action::Fio(options) => {
                let mut words: Vec<String> = fio::OPTIONS.map(str::to_owned).into();
                words.push("--directory=.".to_owned());
                words.extend(texts(options)?);
                return fio::parse(&run_program(&words, folder()?)?).map(Done::Fio);
            }
            Action::Finish
            | Action::Sync
            | Action::DropCaches
            | Action::Space
            | Action::PageCache => {}
        }
        Ok(Done::Plain)
    }
}

/// A figure that is no time.
enum Ready {
    Figure(Figure),
    Fio(fio::FioResult),
    Said(Vec<String>),
}

/// What programs said of themselves: rates add up, of all else the largest counts.
fn said(name: &str, figure: Option<&Said>, outputs: &[String]) -> Answer<Figure> {
    let figure = figure.ok_or("no figure")?;
    let rate = matches!(figure.unit, Unit::OperationsPerSecond | Unit::BytesPerSecond);
    let mut value = 0.0_f64;
    for output in outputs {
        let one = figure.read(output)?;
        value = if rate { value + one } else { value.max(one) };
    }
    let better = if rate { Better::Higher } else { Better::Lower };
    Ok(Figure { metric: Metric::result(name, figure.unit, better), value, latency: None })
}

/// What an action for one container came to.
enum Done {
    Plain,
    Mounted(PathBuf),
    Unmounted,
    Said(String),
    Started(Running),
    Fio(fio::FioResult),
}
