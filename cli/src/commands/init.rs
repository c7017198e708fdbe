//! `init`

use clap::Args;
use thinstore_store::size::{format_size, parse_size};
use thinstore_store::{InitOptions, Store};

use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Init {
    /// The largest size that all devices together can take
    #[arg(long, value_name = "SIZE", default_value = "100G", value_parser = parse_size)]
    size: u64,
    /// How much contiguous space is set aside at a time: 4K to 1M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_size)]
    allocation_run: u64,
    /// The size of the file systems that images are written to
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = parse_size)]
    device_size: u64,
}

impl Init {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let options = InitOptions {
            size_bytes: self.size,
            allocation_run_bytes: self.allocation_run,
            device_size_bytes: self.device_size,
        };
        Store::init(&context.root, &options)?;
        let made = serde_json::json!({
            "root": context.root.display().to_string(),
            "pool_size_bytes": options.size_bytes,
            "allocation_run_bytes": options.allocation_run_bytes,
            "device_size_bytes": options.device_size_bytes,
        });
        context.output.outcome(&made, || {
            format!(
                "made a store at {}: a pool of {}, devices of {}\n",
                context.root.display(),
                format_size(options.size_bytes),
                format_size(options.device_size_bytes)
            )
        })
    }
}
