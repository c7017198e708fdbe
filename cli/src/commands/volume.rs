//! `volume`

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use thinstore_store::size::{format_size, parse_size};
use thinstore_store::types::{
    NameRequest, PrunedVolumes, VolumeCopyRequest, VolumeCreateRequest, VolumePruneRequest,
    VolumeResizeRequest, VolumeSummary,
};
use thinstore_store::{Access, DriverName};

use super::inspect::print_described;
use super::remove::{RemovedName, remove_each};
use crate::arguments::FormatArgument;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::table;
use crate::text::{age, printable};

#[derive(Args, Debug)]
pub struct Volume {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Make a volume
    Create(Create),
    /// List volumes
    Ls,
    /// Describe volumes as JSON in Docker's shape
    Inspect(Inspect),
    /// Keep what a volume of driver thin has now, as a volume that never changes
    Snapshot(Copy),
    /// Make a volume that has what a volume of driver thin has now, and goes its own way
    Clone(Copy),
    /// Make a volume of driver thin larger, also while it is mounted
    Resize(Resize),
    /// Remove volumes that no container uses
    Rm(Names),
    /// Remove all volumes that no container uses
    Prune(Prune),
}

#[derive(Args, Debug)]
struct Create {
    /// Its name; without one it gets 64 hex digits, and is anonymous
    name: Option<String>,
    /// Something to remember of it
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How much a volume of driver thin can hold; the size of the store's devices if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
}

#[derive(Args, Debug)]
struct Copy {
    /// The volume
    #[arg(value_name = "VOLUME")]
    source: String,
    /// The copy's name
    #[arg(value_name = "NEW")]
    name: String,
    /// Something to remember of it
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = label)]
    labels: Vec<(String, String)>,
}

#[derive(Args, Debug)]
struct Resize {
    /// The volume
    #[arg(value_name = "VOLUME")]
    name: String,
    /// Not less than it has
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: u64,
}

#[derive(Args, Debug)]
struct Names {
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
struct Inspect {
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
    /// The same as --format
    #[arg(short = 'f', value_name = "TEMPLATE", value_parser = FormatArgument::parse)]
    template: Option<FormatArgument>,
}

#[derive(Args, Debug)]
struct Prune {
    /// Those with a name too, not only anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    force: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key {
        "" => Err("a label begins with its key".to_owned()),
        key => Ok((key.to_owned(), value.to_owned())),
    }
}

impl Volume {
    /// Can its answer be printed by a template?
    pub fn takes_template(&self) -> bool {
        matches!(self.command, VolumeCommand::Inspect(_))
    }

    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            VolumeCommand::Create(create) => create.run(context),
            VolumeCommand::Ls => list(context),
            VolumeCommand::Inspect(inspect) => inspect.run(context),
            VolumeCommand::Snapshot(copy) => copy.run(context, false),
            VolumeCommand::Clone(copy) => copy.run(context, true),
            VolumeCommand::Resize(resize) => resize.run(context),
            VolumeCommand::Rm(names) => remove(context, names.names),
            VolumeCommand::Prune(prune) => prune.run(context),
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let labels: BTreeMap<String, String> = self.labels.into_iter().collect();
        let driver = context.volume_driver()?;
        let request =
            VolumeCreateRequest { name: self.name, labels, driver, size_bytes: self.size };
        let made = context.with_pool(Access::Write, |store| Ok(store.create_volume(&request)?))?;
        context.output.value(&made, || format!("{}\n", made.name))
    }
}

impl Copy {
    fn run(self, context: &Context, writable: bool) -> Result<(), Failure> {
        let request = VolumeCopyRequest {
            source: self.source,
            name: self.name,
            writable,
            labels: self.labels.into_iter().collect(),
        };
        let made = context.with_pool(Access::Write, |store| Ok(store.copy_volume(&request)?))?;
        context.output.value(&made, || format!("{}\n", made.name))
    }
}

impl Resize {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let request = VolumeResizeRequest { name: self.name, size_bytes: self.size };
        let outcome =
            context.with_pool(Access::Write, |store| Ok(store.resize_volume(&request)?))?;
        context.output.outcome(&outcome, || {
            let size = format_size(outcome.size_bytes);
            let when = match outcome.grows_at_next_mount {
                true => "; its file system follows when it is mounted next",
                false => "",
            };
            format!("{} has {size}{when}\n", printable(&outcome.name))
        })
    }
}

fn volumes(context: &Context) -> Result<Vec<VolumeSummary>, Failure> {
    context.with_pool(Access::Read, |store| Ok(store.volumes()?))
}

fn list(context: &Context) -> Result<(), Failure> {
    let volumes = volumes(context)?;
    context.output.list(
        &volumes,
        |volume| &volume.name,
        |volumes| {
            table(
                ["DRIVER", "VOLUME NAME", ">SIZE", "CREATED", "USED BY"],
                volumes.iter().map(|volume| {
                    [
                        volume.driver.clone(),
                        printable(&volume.name),
                        volume.size_bytes.map(format_size).unwrap_or_default(),
                        age(volume.created_unix_ns),
                        printable(&volume.used_by.join(", ")),
                    ]
                }),
            )
        },
    )
}

impl Inspect {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let found = described(context, &self.names)?;
        print_described(context, self.template.as_ref(), &found)
    }
}

/// Volumes in Docker's shape.
pub fn described(context: &Context, names: &[String]) -> Result<Vec<Value>, Failure> {
    let found = names.iter().map(|name| {
        find(context, name)?.ok_or_else(|| {
            Failure::not_found(format!(
                "there is no volume '{}'; 'thinstore volume ls' shows those there are",
                printable(name)
            ))
        })
    });
    found.collect()
}

/// A volume in Docker's shape, if there is one of that name.
pub fn find(context: &Context, name: &str) -> Result<Option<Value>, Failure> {
    let volumes = volumes(context)?;
    Ok(volumes.iter().find(|volume| volume.name == name).map(in_dockers_shape))
}

fn in_dockers_shape(volume: &VolumeSummary) -> Value {
    let mut described = json!({
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mount_point,
        "Name": volume.name,
        "Options": {},
        "Scope": "local",
        "UsedBy": volume.used_by,
    });
    if let Some(size_bytes) = volume.size_bytes {
        described["Options"] = json!({"size": size_bytes.to_string()});
        described["Status"] = json!({
            "CopyOf": volume.copy_of,
            "Device": volume.device,
            "OwnBytes": volume.own_bytes,
            "ReadOnly": volume.read_only,
            "SizeBytes": size_bytes,
        });
    }
    described
}

fn remove(context: &Context, names: Vec<String>) -> Result<(), Failure> {
    let removed = remove_each(context, DriverName::Thin, names, |store, name| {
        store.remove_volume(&NameRequest { name: name.clone() })?;
        Ok(RemovedName { name })
    })?;
    removed.print(context, || removed.names())?;
    removed.result()
}

impl Prune {
    fn run(self, context: &Context) -> Result<(), Failure> {
        if !self.force && !self.is_wanted()? {
            return Ok(());
        }
        let request = VolumePruneRequest { all: self.all };
        let pruned =
            context.with_pool(Access::Write, |store| Ok(store.prune_volumes(&request)?))?;
        context.output.outcome(&pruned, || pruned_text(&pruned))
    }

    /// Asks on a terminal. Nobody is there to answer anywhere else.
    fn is_wanted(&self) -> Result<bool, Failure> {
        let which = if self.all { "" } else { "anonymous " };
        let what = format!("this removes all {which}volumes that no container uses");
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format!("{what}; say that you mean it with --force")));
        }
        eprint!("{what}. Go on? [y/N] ");
        let mut answer = String::new();
        // what cannot be read is no yes
        drop(io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut answer)));
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

fn pruned_text(pruned: &PrunedVolumes) -> String {
    let names: String =
        pruned.volumes.iter().map(|name| format!("{}\n", printable(name))).collect();
    format!("{names}{} came back\n", format_size(pruned.reclaimed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_key() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a"), Ok(("a".to_owned(), String::new())));
        assert!(label("=x").is_err() && label("").is_err());
    }
}
