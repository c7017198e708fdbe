//! `inspect`

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use thinstore_storage::ErrorKind;
use thinstore_store::time::rfc3339;
use thinstore_store::types::{InspectKind, InspectRequest};
use thinstore_store::{Access, Operations};

use super::volume;
use crate::arguments::FormatArgument;
use crate::containers::{Status, find_all};
use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Inspect {
    /// Containers, images, layers or volumes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The same as --format
    #[arg(short = 'f', value_name = "TEMPLATE", value_parser = FormatArgument::parse)]
    template: Option<FormatArgument>,
    /// Only this kind of object
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Container,
    Image,
    Layer,
    Volume,
}

impl Kind {
    /// None is a volume: those are found by themselves.
    fn of_store(self) -> Option<InspectKind> {
        match self {
            Kind::Container => Some(InspectKind::Container),
            Kind::Image => Some(InspectKind::Image),
            Kind::Layer => Some(InspectKind::Layer),
            Kind::Volume => None,
        }
    }
}

impl Inspect {
    /// JSON whatever the format, in a list, as docker does; or what a template says, a line for each.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(Kind::Volume) = self.kind {
            let found = volume::described(context, &self.names)?;
            return print_described(context, self.template.as_ref(), &found);
        }
        let kind = self.kind.and_then(Kind::of_store);
        let found = context.with_store(Access::Read, |store| {
            let mut found = Vec::new();
            for name in &self.names {
                found.push(match store.inspect(&InspectRequest { name: name.clone(), kind }) {
                    Err(error) if error.kind() == ErrorKind::NotFound && kind.is_none() => {
                        Err(error)
                    }
                    described => {
                        let mut described = described?;
                        add_run(context, store, &mut described)?;
                        Ok(described)
                    }
                });
            }
            Ok(found)
        })?;
        // what has no such name may be a volume
        let found: Result<Vec<Value>, Failure> = self
            .names
            .iter()
            .zip(found)
            .map(|(name, found)| match found {
                Ok(described) => Ok(described),
                Err(error) => volume::find(context, name)?.ok_or_else(|| error.into()),
            })
            .collect();
        let found = found?;
        print_described(context, self.template.as_ref(), &found)
    }
}

/// Of a container that was run: how, and how far it is.
fn add_run(
    context: &Context,
    store: &dyn Operations,
    described: &mut Value,
) -> Result<(), Failure> {
    let id = described["Id"].as_str().unwrap_or_default().to_owned();
    let is_container = described.get("State").is_some();
    let runs = if is_container { find_all(&context.root, store)? } else { Vec::new() };
    let Some(run) = runs.into_iter().find(|run| run.record.id == id) else { return Ok(()) };
    let state = run.state().unwrap_or_default();
    let time = |unix_ns: Option<i64>| unix_ns.map(rfc3339).unwrap_or_default();
    described["State"] = json!({
        "Status": run.status()?,
        "Running": run.status()? == Status::Running,
        "Paused": false,
        "Pid": run.pid()?,
        "ExitCode": state.exit_code.unwrap_or_default(),
        "StartedAt": time((state.started_unix_ns != 0).then_some(state.started_unix_ns)),
        "FinishedAt": time(state.ended_unix_ns),
    });
    let line = run.record.line.split_first();
    let (path, arguments) = line.map(|(path, rest)| (path.as_str(), rest)).unwrap_or_default();
    described["Path"] = path.into();
    described["Args"] = json!(arguments);
    described["LogPath"] = run.log().display().to_string().into();
    Ok(())
}

/// JSON in a list, or what a template says of each.
pub fn print_described(
    context: &Context,
    format: Option<&FormatArgument>,
    found: &[Value],
) -> Result<(), Failure> {
    let template = format.and_then(FormatArgument::template).or(context.template.as_ref());
    let Some(template) = template else { return context.output.json(&found) };
    let mut text = String::new();
    for value in found {
        text.push_str(&template.render(value).map_err(Failure::usage)?);
        text.push('\n');
    }
    context.output.text(&text)
}
