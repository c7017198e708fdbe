//! `rm` and `rmi`

use clap::Args;
use serde::Serialize;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::types::{NameRequest, RemovedImage};
use thinstore_store::{Access, DriverName, Operations};

use crate::containers::{Prepared, prepare_removal};
use crate::context::Context;
use crate::failure::{Failure, tell};
use crate::text::counted;

#[derive(Args, Debug)]
pub struct RemoveContainers {
    /// Stop those that run
    #[arg(short, long)]
    force: bool,
    /// The containers
    #[arg(required = true)]
    names: Vec<String>,
}

/// What was removed, by its name.
#[derive(Serialize)]
pub struct RemovedName {
    pub name: String,
}

impl Removed<RemovedName> {
    /// A line for each.
    pub fn names(&self) -> String {
        self.done.iter().map(|one| format!("{}\n", one.name)).collect()
    }
}

impl RemoveContainers {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let prepared = prepare_removal(context, self.names, self.force)?;
        let removed =
            remove_each(context, context.driver, prepared, |store, Prepared { name, run }| {
                let run = run?;
                store.remove_container(&NameRequest { name: name.clone() })?;
                if let Some(run) = run {
                    run.remove();
                }
                Ok(RemovedName { name })
            })?;
        removed.print(context, || removed.names())?;
        removed.result()
    }
}

#[derive(Args, Debug)]
pub struct RemoveImages {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl RemoveImages {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let removed = remove_each(context, context.driver, self.names, |store, name| {
            store.remove_image(&NameRequest { name })
        })?;
        let line = |image: &RemovedImage| {
            let layers = u64::try_from(image.layers.len()).unwrap_or(u64::MAX);
            format!("{} and {}\n", image.name, counted(layers, "layer"))
        };
        removed.print(context, || removed.done.iter().map(line).collect())?;
        removed.result()
    }
}

/// What was removed, and the first reason why something was not.
pub struct Removed<T> {
    done: Vec<T>,
    first_failure: Option<ErrorKind>,
}

impl<T: Serialize> Removed<T> {
    /// Nothing is printed of nothing.
    pub fn print(&self, context: &Context, human: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.done.is_empty() {
            true => Ok(()),
            false => context.output.outcome(&self.done, human),
        }
    }

    pub fn result(&self) -> Result<(), Failure> {
        match self.first_failure {
            Some(kind) => Err(Failure::Told(kind)),
            None => Ok(()),
        }
    }
}

/// Removes what can be removed, and tells of the rest as it comes.
pub fn remove_each<I, T>(
    context: &Context,
    driver: DriverName,
    all: Vec<I>,
    remove: impl Fn(&dyn Operations, I) -> Result<T, Error>,
) -> Result<Removed<T>, Failure> {
    context.with_driver(driver, Access::Write, |store| {
        let mut removed = Removed { done: Vec::new(), first_failure: None };
        for one in all {
            match remove(store, one) {
                Ok(one) => removed.done.push(one),
                Err(error) => {
                    tell(&error, context.output.format());
                    removed.first_failure.get_or_insert(error.kind());
                }
            }
        }
        Ok(removed)
    })
}
