//! `completions` and `man`

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use thinstore_storage::Error;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::written;

#[derive(Args, Debug)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self, _context: &Context) -> Result<(), Failure> {
        // into memory first: the generator takes a broken pipe for a fault of the program
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "thinstore", &mut script);
        let mut stdout = std::io::stdout().lock();
        written(std::io::Write::write_all(&mut stdout, &script))
    }
}

#[derive(Args, Debug)]
pub struct Man {
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Man {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let failed = |error| Error::io(format!("cannot write to {}", self.output.display()), error);
        std::fs::create_dir_all(&self.output).map_err(failed)?;
        clap_mangen::generate_to(Arguments::command(), &self.output).map_err(failed)?;
        let written = serde_json::json!({"directory": self.output.display().to_string()});
        context
            .output
            .outcome(&written, || format!("wrote the manual pages to {}\n", self.output.display()))
    }
}
