//! `grow`

use clap::Args;
use thinstore_store::Access;
use thinstore_store::size::{format_size, parse_size};
use thinstore_store::types::GrowRequest;

use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Grow {
    /// How large it is to be then
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: u64,
}

impl Grow {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = GrowRequest { size_bytes: self.size };
        let outcome = context.with_store(Access::Write, |store| Ok(store.grow(&request)?))?;
        context.output.outcome(&outcome, || {
            format!("the pool has {} now\n", format_size(outcome.pool_size_bytes))
        })
    }
}
