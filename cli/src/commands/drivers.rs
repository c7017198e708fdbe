//! `drivers`

use serde::Serialize;
use thinstore_store::{AUFS, AUFS_IS_GONE, DriverName, obstacle};

use crate::context::Context;
use crate::failure::Failure;
use crate::table::table;

/// A driver, as it is listed.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    /// Does it work here?
    works: bool,
    /// Why it does not.
    obstacle: Option<String>,
    how: &'static str,
    limits: &'static str,
}

pub fn run(context: &Context) -> Result<(), Failure> {
    let mut listed = Vec::new();
    for name in DriverName::all() {
        let obstacle = obstacle(name, &context.root)?;
        listed.push(Listed {
            works: obstacle.is_none(),
            obstacle,
            how: name.how(),
            limits: name.limits(),
            name: name.as_str(),
        });
    }
    listed.push(Listed {
        name: AUFS,
        works: false,
        obstacle: Some(AUFS_IS_GONE.to_owned()),
        how: "folders laid over each other, before overlay2",
        limits: "",
    });
    context.output.list(&listed, |one| one.name, text)
}

fn text(listed: &[Listed]) -> String {
    let mut text = table(
        ["DRIVER", "HERE", "HOW"],
        listed.iter().map(|one| {
            let here = if one.works { "works" } else { "no" };
            [one.name.to_owned(), here.to_owned(), one.how.to_owned()]
        }),
    );
    let missing: Vec<&Listed> = listed.iter().filter(|one| !one.works).collect();
    if !missing.is_empty() {
        text.push_str("\nDo not work here:\n");
        for one in missing {
            let why = one.obstacle.as_deref().unwrap_or_default();
            text.push_str(&format!("  {}: {why}\n", one.name));
        }
    }
    text.push_str("\nLimits:\n");
    for one in listed.iter().filter(|one| !one.limits.is_empty()) {
        text.push_str(&format!("  {}: {}\n", one.name, one.limits));
    }
    text
}
