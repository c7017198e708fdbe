//! What is done, and measured: workloads are declared in TOML files, which a person can add to.
//! docs/benchmarks.md says what may stand in them.

mod format;
mod shipped;
mod template;
mod traces;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
pub use template::Template;
use thinstore_trace::Trace;

use crate::results::{ParameterValue, Parameters, Unit, WorkloadInfo};
use crate::{Error, Result};

/// A workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Names it in results and options.
    pub name: String,
    /// For people.
    pub title: String,
    /// What it is there to show.
    pub purpose: String,
    /// The paper or the lesson that it comes from.
    pub source: String,
    /// The heading it stands below in the report.
    pub group: String,
    /// Programs without which it is left out.
    pub needs: Vec<String>,
    /// What the containers stand on.
    pub image: Image,
    /// The page cache is empty when the steps begin.
    pub cold: bool,
    /// How many bytes the steps write: what the disk writes is divided by it.
    pub writes_bytes: Option<Template>,
    /// About how long a trial takes, for the first estimate of the time left.
    pub seconds: Option<f64>,
    /// Every combination of these is a cell.
    pub parameters: BTreeMap<String, Vec<ParameterValue>>,
    /// Those of the short set; none if the workload is not in it.
    pub quick_parameters: Option<BTreeMap<String, Vec<ParameterValue>>>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// What containers stand on. A subject makes it before the trial; that is not measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The name of an image that the runner knows, as `debian`; none for an empty one.
    pub base: Option<String>,
    /// How many layers lie upon the base; the first has the files, each of the others a small one.
    pub layers: Template,
    /// What its first layer has.
    pub files: Vec<ImageFile>,
    /// Programs of the host that it has too, each with its libraries and at its own path.
    pub programs: Vec<String>,
}

/// Files of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFile {
    /// Below the root; with more than one, a number is put behind it.
    pub path: String,
    /// What each has in it.
    pub content: Content<Template>,
    /// How many there are.
    pub count: Template,
}

/// What a file has in it; `S` is how its size is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<S> {
    /// So many bytes that do not compress.
    Noise(S),
    /// A text, as it stands.
    Text(String),
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// For how many containers: `c0`, `c1`, ...
    pub containers: Template,
    /// For all of them at the same time.
    pub parallel: bool,
    /// For their copies instead, `c0-copy`, `c1-copy`, ...: containers of the images that `commit` made.
    pub copies: bool,
    /// What is measured by it.
    pub measure: Option<Measure>,
}

/// What a step may do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Makes containers from the image.
    Create,
    /// Mounts them, with these over paths of theirs: `KIND:/path`, see [`MountOrder`](crate::run::MountOrder).
    Mount(Vec<Template>),
    /// Unmounts them.
    Unmount,
    /// Removes them.
    Remove,
    /// Makes an image of what they have.
    Commit,
    /// Lists what changed in them.
    Diff,
    /// Runs a program in the folder that they are mounted on.
    Command(Vec<Template>),
    /// Starts a program there, and goes on.
    Start(Vec<Template>),
    /// Waits for the program that was started there.
    Finish,
    /// Overwrites bytes of a file.
    Write {
        /// Below the mount.
        file: Template,
        /// From here.
        offset: Template,
        /// So many.
        size: Template,
        /// And makes them durable.
        sync: bool,
    },
    /// Runs fio in the folder that they are mounted on.
    Fio(Vec<Template>),
    /// Does a trace again on a file.
    Replay {
        /// Without the space that nothing in it touches.
        trace: Arc<Trace>,
        /// Below the mount. As large as the trace's device, or larger.
        file: Template,
        /// `full` or `original`.
        speed: Template,
    },
    /// Makes everything durable.
    Sync,
    /// Empties the page cache.
    DropCaches,
    /// Measures by how much the store has grown since the first step.
    Space,
    /// Measures by how much the page cache has grown since the first step.
    PageCache,
}

impl Action {
    /// Its name in the file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Mount(_) => "mount",
            Self::Unmount => "unmount",
            Self::Remove => "remove",
            Self::Commit => "commit",
            Self::Diff => "diff",
            Self::Command(_) => "command",
            Self::Start(_) => "start",
            Self::Finish => "finish",
            Self::Write { .. } => "write",
            Self::Fio(_) => "fio",
            Self::Replay { .. } => "replay",
            Self::Sync => "sync",
            Self::DropCaches => "drop-caches",
            Self::Space => "space",
            Self::PageCache => "page-cache",
        }
    }
}

/// What is measured by a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The metric's name.
    pub name: String,
    /// If it is so many operations: their rate is the figure, and not the time.
    pub operations: Option<Template>,
    /// If the program says the figure itself.
    pub figure: Option<Said>,
}

/// A figure that a program says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// It is the number behind these words in what the program wrote.
    pub after: String,
    /// What it is; of rates more is better, of everything else less.
    pub unit: Unit,
}

impl Said {
    /// The figure.
    pub fn read(&self, output: &str) -> std::result::Result<f64, String> {
        let number = output.split_once(&self.after).and_then(|(_, rest)| {
            let end = |character: char| !(character.is_ascii_digit() || "+-.e".contains(character));
            rest.trim_start().split(end).next()?.parse::<f64>().ok()
        });
        number
            .filter(|number| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| format!("no number behind '{}' in what it wrote", self.after))
    }
}

/// One cell of the comparison, without the driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The workload's place in the list.
    pub workload: usize,
    /// Its parameters.
    pub parameters: Parameters,
}

impl Workload {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; the path is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        format::parse(folder, text).map_err(|(line, message)| Error::Malformed {
            path: path.to_owned(),
            line,
            message,
        })
    }

    /// Reads all `*.toml` of a folder, by name.
    pub fn read_folder(folder: &Path) -> Result<Vec<Self>> {
        let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        let mut workloads: Vec<Self> = Vec::new();
        for path in paths {
            let workload = Self::read(&path)?;
            if workloads.iter().any(|known| known.name == workload.name) {
                let message = format!("another file has a workload '{}' too", workload.name);
                return Err(Error::Malformed { path, line: 0, message });
            }
            workloads.push(workload);
        }
        Ok(workloads)
    }

    /// Every combination of its parameters; none if it is not in the short set.
    pub fn combinations(&self, quick: bool) -> Vec<Parameters> {
        let parameters =
            if quick { self.quick_parameters.as_ref() } else { Some(&self.parameters) };
        let Some(parameters) = parameters else { return Vec::new() };
        let mut combinations = vec![Parameters::default()];
        for (name, values) in parameters {
            combinations = combinations
                .iter()
                .flat_map(|known| {
                    values.iter().map(|value| {
                        let mut more = known.clone();
                        more.0.insert(name.clone(), value.clone());
                        more
                    })
                })
                .collect();
        }
        combinations
    }

    /// What the report says of it.
    pub fn info(&self) -> WorkloadInfo {
        WorkloadInfo {
            name: self.name.clone(),
            title: self.title.clone(),
            purpose: self.purpose.clone(),
            source: self.source.clone(),
            group: self.group.clone(),
        }
    }
}
