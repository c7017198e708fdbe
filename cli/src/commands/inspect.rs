//! `inspect`

use clap::{Args, ValueEnum};
use serde_json::Value;
use thinstore_store::Access;
use thinstore_store::types::{InspectKind, InspectRequest};

use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Inspect {
    /// Containers, images or layers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Only this kind of object
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Container,
    Image,
    Layer,
}

impl From<Kind> for InspectKind {
    fn from(kind: Kind) -> InspectKind {
        match kind {
            Kind::Container => InspectKind::Container,
            Kind::Image => InspectKind::Image,
            Kind::Layer => InspectKind::Layer,
        }
    }
}

impl Inspect {
    /// JSON whatever the format, in a list, as docker does; or what a template says, a line for each.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let kind = self.kind.map(InspectKind::from);
        let found = context.with_store(Access::Read, |store| {
            let mut found = Vec::new();
            for name in self.names {
                found.push(store.inspect(&InspectRequest { name, kind })?);
            }
            Ok(found)
        })?;
        print_described(context, &found)
    }
}

/// JSON in a list, or what a template says of each.
pub fn print_described(context: &Context, found: &[Value]) -> Result<(), Failure> {
    let Some(template) = &context.template else { return context.output.json(&found) };
    let mut text = String::new();
    for value in found {
        text.push_str(&template.render(value).map_err(Failure::usage)?);
        text.push('\n');
    }
    context.output.text(&text)
}
