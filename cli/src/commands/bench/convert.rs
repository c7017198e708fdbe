//! `bench convert`

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use thinstore_store::output_failed;
use thinstore_trace::{Trace, TraceWriter, blktrace, csv, iolog};

use super::replay::read;
use crate::context::Context;
use crate::failure::Failure;
use crate::fresh_file::FreshFile;

#[derive(Args, Debug)]
pub struct Convert {
    /// A trace of 'thinstore trace' or blktrace, or an iolog of fio
    trace: PathBuf,
    /// The file to write
    output: PathBuf,
    /// What to write [default: what the name of the output ends with]
    #[arg(long, value_enum)]
    to: Option<Form>,
    /// Leave out the space that nothing touches
    #[arg(long)]
    fold: bool,
    /// The file that an iolog is about, for fio
    #[arg(long, value_name = "NAME", default_value = "disk")]
    file: String,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// .trace
    Thinstore,
    /// .iolog, version 3
    Fio,
    /// .blktrace, or .blktrace.0, for blkparse and btt
    Blktrace,
    /// .csv
    Csv,
}

impl Convert {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let form = self.form()?;
        let mut trace = read(&self.trace)?;
        if self.fold {
            trace = trace.folded();
        }
        let fresh = FreshFile::beside(&self.output)?;
        let mut writer = BufWriter::new(fresh.file());
        let written = match form {
            Form::Thinstore => write_ours(&trace, &mut writer),
            Form::Fio => iolog::write(&trace, &self.file, &mut writer),
            Form::Blktrace => blktrace::write(&trace, &mut writer),
            Form::Csv => csv::write(&trace, &mut writer),
        };
        written.and_then(|()| writer.flush()).map_err(output_failed)?;
        drop(writer);
        fresh.keep()?;
        if !trace.complete {
            eprintln!(
                "thinstore: {} has no end: it has what was recorded before it was cut off",
                self.trace.display()
            );
        }
        let file = self.output.display().to_string();
        let requests = trace.requests.len();
        context.output.outcome(&serde_json::json!({"file": file, "requests": requests}), || {
            format!("wrote {file}, {requests} requests\n")
        })
    }

    fn form(&self) -> Result<Form, Failure> {
        if let Some(form) = self.to {
            return Ok(form);
        }
        let name = self.output.file_name().unwrap_or_default().to_string_lossy();
        // blktrace has a file for each CPU, told by a number
        let plain = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        match plain.trim_end_matches('.').rsplit_once('.') {
            Some((_, "trace")) => Ok(Form::Thinstore),
            Some((_, "iolog")) => Ok(Form::Fio),
            Some((_, "blktrace")) => Ok(Form::Blktrace),
            Some((_, "csv")) => Ok(Form::Csv),
            _ => Err(Failure::usage(format!(
                "'{name}' does not say what it is to be; name it .trace, .iolog, .blktrace or .csv, or use --to"
            ))),
        }
    }
}

fn write_ours(trace: &Trace, output: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = TraceWriter::new(output, &trace.header)?;
    for request in &trace.requests {
        writer.put(request)?;
    }
    writer.finish(trace.lost).map(drop)
}
