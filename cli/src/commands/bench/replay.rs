//! `bench replay`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use thinstore_compare::workload::Workload;
use thinstore_storage::Error;
use thinstore_trace::Trace;

use super::{RunArguments, told};
use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Replay {
    /// Traces of 'thinstore trace' or blktrace, or iologs of fio
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// As fast as its requests depend on each other, or none before its time
    #[arg(long, value_enum, default_value_t = Speed::Full)]
    speed: Speed,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    Full,
    Original,
}

impl Replay {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let mut workloads: Vec<Workload> = Vec::new();
        for path in &self.traces {
            let workload = self.workload(path)?;
            if workloads.iter().any(|known| known.name == workload.name) {
                return Err(Failure::usage(format!(
                    "two of the traces are named {}; rename one of the files",
                    workload.name
                )));
            }
            workloads.push(workload);
        }
        let selection = self.run.selection(Vec::new(), false);
        self.run.compare(context, &workloads, &selection)
    }

    /// What the person who wrote it down as a file would have written.
    fn workload(&self, path: &Path) -> Result<Workload, Failure> {
        let trace = read(path)?;
        let size_bytes = trace.folded().header.device_size_bytes;
        let count = trace.requests.len();
        let (speed, purpose) = match self.speed {
            Speed::Full => ("full", "done again as fast as they depend on each other"),
            Speed::Original => ("original", "done again, none before its time"),
        };
        let name = name_of(path);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::io(format!("cannot find {}", path.display()), error))?;
        let absolute = absolute.to_str().ok_or_else(|| {
            Failure::usage(format!("{}: its path is no text; rename it", path.display()))
        })?;
        let title = format!("Replay of {file}");
        let purpose = format!("{count} requests of {}, {purpose}.", trace.header.name);
        let text = |text: &str| toml_text(text);
        let workload = format!(
            "name = {}\ntitle = {}\ngroup = \"Replay\"\npurpose = {}\nsource = {}\n\
             image = {{ files = [{{ path = \"disk\", size = {size_bytes} }}] }}\n\
             [[steps]]\ndo = \"create\"\n[[steps]]\ndo = \"mount\"\n\
             [[steps]]\ndo = \"replay\"\ntrace = {}\nfile = \"disk\"\nspeed = \"{speed}\"\nmeasure = \"requests\"\n",
            text(&name),
            text(&title),
            text(&purpose),
            text(&format!("{file}, CRC-32 {:08x}", trace_crc(path)?)),
            text(absolute),
        );
        Workload::parse(path, &workload).map_err(told)
    }
}

/// Tells traces of one name apart, when a run is taken up again.
fn trace_crc(path: &Path) -> Result<u32, Failure> {
    Ok(crc32fast::hash(&bytes_of(path)?))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error| Error::io(format!("cannot read {}", path.display()), error);
    Ok(std::fs::read(path).map_err(cannot)?)
}

/// Reads a trace of whatever form.
pub(super) fn read(path: &Path) -> Result<Trace, Failure> {
    let bytes = bytes_of(path)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let trace = Trace::parse_any(&name, &bytes)
        .map_err(|error| error.context(path.display().to_string()))?;
    Ok(trace)
}

/// A workload's name: what it may not have becomes `-`.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = stem
        .chars()
        .map(
            |letter| if matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_') { letter } else { '-' },
        )
        .collect();
    format!("replay-{name}")
}

/// A basic string of TOML (TOML 1.0, "String").
fn toml_text(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(letter);
            }
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_what_a_workload_may_have() {
        assert_eq!(name_of(Path::new("/a/My Trace.2.trace")), "replay-my-trace-2");
        assert_eq!(toml_text("a \"b\" \\ \n"), r#""a \"b\" \\ \u000a""#);
    }
}
