//! `snapshot`

use clap::Args;
use thinstore_store::Access;
use thinstore_store::size::parse_size;
use thinstore_store::types::SnapshotRequest;

use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Snapshot {
    /// An image, a layer (its digest or the beginning of it) or a container
    source: String,
    /// What to call the new container
    name: String,
    /// The size of its device [default: that of the source; it cannot be smaller]
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
}

impl Snapshot {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let request =
            SnapshotRequest { source: self.source, name: self.name, size_bytes: self.size };
        let container = context.with_store(Access::Write, |store| {
            let container = store.snapshot(&request)?;
            context.warn_of_full_pool(store);
            Ok(container)
        })?;
        context.output.outcome(&container, || format!("{}\n", container.name))
    }
}
