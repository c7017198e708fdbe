//! `export`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use thinstore_storage::Error;
use thinstore_store::types::{ExportFormat, ExportRequest};
use thinstore_store::{Access, Overlay2Export, output_failed};

use crate::context::Context;
use crate::failure::Failure;
use crate::fresh_file::FreshFile;
use crate::output::PipedStdout;

#[derive(Args, Debug)]
pub struct Export {
    /// A container, image or layer
    name: String,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// An OCI archive with a layer for each layer, instead of one tar
    #[arg(long)]
    oci: bool,
    /// A new folder with the layers as Docker's overlay2 has them, laid out as /var/lib/docker (root)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["oci", "output"])]
    overlay2: Option<PathBuf>,
}

impl Export {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(folder) = &self.overlay2 {
            return to_overlay2(context, self.name, folder);
        }
        let format = if self.oci { ExportFormat::Oci } else { ExportFormat::Tar };
        let request = ExportRequest { name: self.name, format };
        match &self.output {
            Some(path) if path.as_os_str() != "-" => match path.metadata() {
                // a device or a pipe is written to, not replaced
                Ok(there) if !there.is_file() && !there.is_dir() => {
                    to_special(context, &request, path)
                }
                _ => to_file(context, &request, path),
            },
            _ => to_stdout(context, &request),
        }
    }
}

fn to_stdout(context: &Context, request: &ExportRequest) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "an archive is not for a terminal; name a file with -o, or redirect the output",
        ));
    }
    let mut stdout = PipedStdout::new();
    let result = context.with_store(Access::Read, |store| Ok(store.export(request, &mut stdout)?));
    stdout.finish(result)
}

fn to_overlay2(context: &Context, name: String, folder: &Path) -> Result<(), Failure> {
    let export = Overlay2Export::prepare(folder)?;
    let request = ExportRequest { name, format: ExportFormat::Layers };
    context.with_store(Access::Read, |store| {
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, export.archive()?);
        store.export(&request, &mut writer)?;
        writer.flush().map_err(output_failed)?;
        Ok(())
    })?;
    export.finish()?;
    let written = serde_json::json!({"folder": folder.display().to_string()});
    context.output.outcome(&written, || format!("wrote {}\n", folder.display()))
}

fn to_special(context: &Context, request: &ExportRequest, path: &Path) -> Result<(), Failure> {
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
    context.with_store(Access::Read, |store| {
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, &file);
        store.export(request, &mut writer)?;
        writer.flush().map_err(output_failed)?;
        Ok(())
    })
}

/// The file gets its name when it is complete.
fn to_file(context: &Context, request: &ExportRequest, path: &Path) -> Result<(), Failure> {
    let fresh = FreshFile::beside(path)?;
    context.with_store(Access::Read, |store| {
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, fresh.file());
        store.export(request, &mut writer)?;
        writer.flush().map_err(output_failed)?;
        Ok(())
    })?;
    fresh.keep()?;
    let written = serde_json::json!({"file": path.display().to_string()});
    context.output.outcome(&written, || format!("wrote {}\n", path.display()))
}
