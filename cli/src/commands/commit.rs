//! `commit`

use clap::Args;
use thinstore_store::Access;
use thinstore_store::size::format_size;
use thinstore_store::types::CommitRequest;

use crate::context::Context;
use crate::failure::Failure;
use crate::text::{duration, short_id};

#[derive(Args, Debug)]
pub struct Commit {
    /// The container
    name: String,
    /// What to call the new image
    image: String,
    /// A comment for the image's history
    #[arg(short, long)]
    message: Option<String>,
    /// Who made it, for the image's history
    #[arg(short, long)]
    author: Option<String>,
}

impl Commit {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let request = CommitRequest {
            name: self.name,
            image: self.image,
            message: self.message,
            author: self.author,
        };
        let outcome = context.with_store(Access::Write, |store| {
            let outcome = store.commit(&request)?;
            context.warn_of_full_pool(store);
            Ok(outcome)
        })?;
        context.output.outcome(&outcome, || {
            let live = match outcome.live {
                true => format!(", writes waited {}", duration(outcome.frozen_us)),
                false => String::new(),
            };
            format!(
                "{}  {}  {} in its top layer{live}\n",
                outcome.image,
                short_id(&outcome.id),
                format_size(outcome.own_bytes)
            )
        })
    }
}
