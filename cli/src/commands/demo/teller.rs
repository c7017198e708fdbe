//! Tells what happens: each step with the command that does the same, what it did, and what it cost.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use thinstore_store::size::format_size;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Format, Output};
use crate::text::duration;

/// One step of the story.
#[derive(Debug, Serialize)]
struct Step {
    /// What a person would type.
    command: String,
    /// What came of it.
    results: Vec<String>,
    /// How long it took.
    elapsed_us: u64,
    /// How much more of the pool is in use; negative if it is less.
    pool_change_bytes: i64,
}

/// Tells the steps as they happen, or all of them as JSON at the end.
pub struct Teller<'a> {
    output: &'a Output,
    interrupt: Interrupt,
    steps: Vec<Step>,
    used_bytes: u64,
}

/// What a step came to.
pub struct Told {
    pub results: Vec<String>,
    /// What is in use now; none while there is no pool to ask.
    pub used_bytes: Option<u64>,
}

impl<'a> Teller<'a> {
    pub fn new(output: &'a Output, interrupt: Interrupt) -> Teller<'a> {
        Teller { output, interrupt, steps: Vec::new(), used_bytes: 0 }
    }

    /// What is said between steps.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        match self.output.format() {
            Format::Human if !self.output.is_quiet() => self.output.text(&format!("{text}\n")),
            _ => Ok(()),
        }
    }

    /// A title between steps.
    pub fn title(&self, text: &str) -> Result<(), Failure> {
        self.say(&format!("\n{}", self.output.style().strong(text)))
    }

    /// Does a step and tells of it. `measure` is not counted into its time.
    pub fn step<T>(
        &mut self,
        command: &str,
        action: impl FnOnce() -> Result<T, Failure>,
        measure: impl FnOnce(&T) -> Result<Told, Failure>,
    ) -> Result<T, Failure> {
        if self.interrupt.is_set() {
            return Err(Failure::Engine(thinstore_store::interrupted("the demo")));
        }
        let style = self.output.style();
        self.say(&format!("  {} {command}", style.faint("$")))?;
        let started = Instant::now();
        let value = action()?;
        let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let told = measure(&value)?;
        let now = told.used_bytes.unwrap_or(self.used_bytes);
        let change = i64::try_from(i128::from(now) - i128::from(self.used_bytes)).unwrap_or(0);
        self.used_bytes = now;
        for result in &told.results {
            self.say(&format!("      {result}"))?;
        }
        let pool = match (told.used_bytes, change) {
            (None, _) => String::new(),
            (Some(_), 0) => ", pool unchanged".to_owned(),
            (Some(_), change) => {
                let sign = if change < 0 { '-' } else { '+' };
                format!(", pool {sign}{}", format_size(change.unsigned_abs()))
            }
        };
        self.say(&format!("      {}", style.faint(&format!("{}{pool}", duration(elapsed_us)))))?;
        self.steps.push(Step {
            command: command.to_owned(),
            results: told.results,
            elapsed_us,
            pool_change_bytes: change,
        });
        Ok(value)
    }

    /// The end.
    pub fn finish(&self, kept: Option<&Path>) -> Result<(), Failure> {
        if self.output.format() == Format::Json {
            return self.output.json(&self.steps);
        }
        match kept {
            Some(folder) => self.say(&format!(
                "\nThe store is in {}: go on with 'thinstore --root {} ls'.",
                folder.display(),
                folder.display()
            )),
            None => self.say("\nEverything that the demo made is removed again."),
        }
    }
}
