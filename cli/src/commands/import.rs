//! `import`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use thinstore_store::size::format_size;
use thinstore_store::types::{ImportOutcome, ImportRequest};
use thinstore_store::{Access, Input};

use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::{InterruptibleInput, OperationProgress};
use crate::text::{counted, duration, short_id};

#[derive(Args, Debug)]
pub struct Import {
    /// An OCI layout folder, an OCI or docker-save archive, Docker's data root with overlay2, a tar of a root
    /// file system (plain, gzip or zstd), a folder, or - for standard input
    source: PathBuf,
    /// What to call the image [default: what the source calls itself, else its file name]
    #[arg(long, value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Write the file systems without the kernel, as is done without root
    #[arg(long, hide = true)]
    user_space: bool,
}

impl Import {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let interrupt = Interrupt::watch();
        let from_stdin = self.source.as_os_str() == "-";
        let source = if from_stdin { self.source.clone() } else { absolute(&self.source)? };
        let request =
            ImportRequest { source, name: self.name.clone(), user_space: self.user_space };
        let input: Option<Input> = from_stdin.then(|| {
            let input: Input = Box::new(InterruptibleInput { interrupt: interrupt.clone() });
            input
        });
        let progress = Arc::new(OperationProgress::new(context.output.shows_progress(), interrupt));
        let imported = context.with_store(Access::Write, |store| {
            let outcome = store.import(&request, input, progress.clone())?;
            progress.clear();
            context.warn_of_full_pool(store);
            Ok(outcome)
        });
        progress.clear();
        let outcome = imported?;
        if context.output.is_quiet() {
            return context.output.list(&[outcome], |outcome| &outcome.name, |_| String::new());
        }
        context.output.value(&outcome, || render(&outcome))
    }
}

/// The daemon works in another folder than the command.
pub fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        let what = format!("cannot find out where {} is", path.display());
        Failure::Engine(thinstore_storage::Error::io(what, error))
    })
}

fn render(outcome: &ImportOutcome) -> String {
    let reused = match outcome.reused_layers {
        0 => String::new(),
        reused => format!(" ({reused} shared)"),
    };
    format!(
        "{}  {}  {}{reused}, {} new of {}, {}\n",
        outcome.name,
        short_id(&outcome.id),
        counted(outcome.layers, "layer"),
        format_size(outcome.new_bytes),
        format_size(outcome.size_bytes),
        duration(outcome.elapsed_ms.saturating_mul(1000)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_tells_what_is_new() {
        let outcome = ImportOutcome {
            name: "debian:12".to_owned(),
            id: "sha256:0123456789abcdef".to_owned(),
            layers: 4,
            reused_layers: 3,
            new_bytes: 1 << 20,
            size_bytes: 100 << 20,
            elapsed_ms: 1234,
            method: "kernel".to_owned(),
        };
        assert_eq!(
            render(&outcome),
            "debian:12  0123456789ab  4 layers (3 shared), 1 MiB new of 100 MiB, 1.2 s\n"
        );
    }
}
