//! `df`

use clap::Args;
use thinstore_store::size::format_size;
use thinstore_store::types::{UsageReport, UsageRequest, UsageTotals};
use thinstore_store::{Access, DriverName};

use crate::context::Context;
use crate::failure::Failure;
use crate::style::Style;
use crate::table::table;
use crate::text::{age, printable, short_id};

#[derive(Args, Debug)]
pub struct Df {
    /// Show every image, container and volume
    #[arg(short, long)]
    verbose: bool,
    /// First wait until all that was removed is free again
    #[arg(long)]
    wait: bool,
}

impl Df {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = UsageRequest { wait: self.wait, pool_only: false };
        // what is pending is freed by whoever has the pool open for writing
        let access = if self.wait { Access::Write } else { Access::Read };
        let report = context.with_store(access, |store| Ok(store.usage(&request)?))?;
        context.warn_if_full(&report);
        let style = context.output.style();
        context.output.value(&report, || match self.verbose {
            false => format!("{}{}", short(&report), pool_part(context, &report)),
            true => format!("{}{}", long(&report, style), pool_part(context, &report)),
        })
    }
}

/// `12 MiB (40%)`
fn reclaimable(totals: &UsageTotals) -> String {
    let percent = match totals.size_bytes {
        0 => 0,
        size => u128::from(totals.reclaimable_bytes) * 100 / u128::from(size),
    };
    format!("{} ({percent}%)", format_size(totals.reclaimable_bytes))
}

fn short(report: &UsageReport) -> String {
    let row = |kind: &str, totals: &UsageTotals| {
        [
            kind.to_owned(),
            totals.total.to_string(),
            totals.active.to_string(),
            format_size(totals.size_bytes),
            reclaimable(totals),
        ]
    };
    let rows = [
        row("Images", &report.summary.images),
        row("Containers", &report.summary.containers),
        row("Volumes", &report.summary.volumes),
    ];
    let headings = ["TYPE", ">TOTAL", ">ACTIVE", ">SIZE", ">RECLAIMABLE"];
    table(headings, rows.into_iter())
}

/// The other drivers have no pool.
fn pool_part(context: &Context, report: &UsageReport) -> String {
    match context.driver {
        DriverName::Thin => format!("\n{}", pool(report)),
        _ => String::new(),
    }
}

fn pool(report: &UsageReport) -> String {
    let rows = [[
        format_size(report.pool_size_bytes),
        format_size(report.pool_used_bytes),
        format!("{}%", report.pool_full_percent),
        format_size(report.data_bytes),
        format_size(report.metadata_bytes),
        format_size(report.pending_free_bytes),
        format_size(report.reserved_bytes),
        format_size(report.host_bytes),
    ]];
    table(
        [
            ">POOL SIZE",
            ">USED",
            ">FULL",
            ">DATA",
            ">METADATA",
            ">PENDING FREE",
            ">RESERVED",
            ">ON THE HOST",
        ],
        rows.into_iter(),
    )
}

fn long(report: &UsageReport, style: Style) -> String {
    let images = table(
        ["NAME", "IMAGE ID", "CREATED", ">SIZE", ">SHARED SIZE", ">UNIQUE SIZE", ">CONTAINERS"],
        report.images.iter().map(|image| {
            [
                printable(&image.name),
                short_id(&image.id),
                age(image.created_unix_ns),
                format_size(image.size_bytes),
                format_size(image.shared_bytes),
                format_size(image.unique_bytes),
                image.containers.to_string(),
            ]
        }),
    );
    let containers = table(
        ["NAME", "IMAGE", "CREATED", ">SIZE", ">SHARED SIZE", ">UNIQUE SIZE", "IN USE"],
        report.containers.iter().map(|container| {
            [
                printable(&container.name),
                printable(container.image.as_deref().unwrap_or_default()),
                age(container.created_unix_ns),
                format_size(container.size_bytes),
                format_size(container.shared_bytes),
                format_size(container.unique_bytes),
                if container.in_use { "yes" } else { "no" }.to_owned(),
            ]
        }),
    );
    let volumes = table(
        ["NAME", "DRIVER", ">LINKS", ">SIZE", ">SHARED SIZE", ">UNIQUE SIZE"],
        report.volumes.iter().map(|volume| {
            [
                printable(&volume.name),
                volume.driver.clone(),
                volume.links.to_string(),
                format_size(volume.size_bytes),
                format_size(volume.shared_bytes),
                format_size(volume.unique_bytes),
            ]
        }),
    );
    let title = |text: &str| style.strong(text);
    format!(
        "{}\n\n{images}\n{}\n\n{containers}\n{}\n\n{volumes}",
        title("Images space usage:"),
        title("Containers space usage:"),
        title("Volumes space usage:"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> UsageReport {
        let mut report = UsageReport {
            pool_size_bytes: 100 << 30,
            pool_used_bytes: 300 << 20,
            data_bytes: 200 << 20,
            metadata_bytes: 10 << 20,
            fixed_bytes: 90 << 20,
            reserved_bytes: 1 << 20,
            host_bytes: 310 << 20,
            ..UsageReport::default()
        };
        report.summary.images =
            UsageTotals { total: 2, active: 1, size_bytes: 200 << 20, reclaimable_bytes: 50 << 20 };
        report
    }

    #[test]
    fn df_reads_like_docker_system_df() {
        assert_eq!(
            format!("{}\n{}", short(&report()), pool(&report())),
            "TYPE         TOTAL   ACTIVE      SIZE    RECLAIMABLE\n\
             Images           2        1   200 MiB   50 MiB (25%)\n\
             Containers       0        0       0 B       0 B (0%)\n\
             Volumes          0        0       0 B       0 B (0%)\n\
             \n\
             POOL SIZE      USED   FULL      DATA   METADATA   PENDING FREE   RESERVED   ON THE HOST\n  \
               100 GiB   300 MiB     0%   200 MiB     10 MiB            0 B      1 MiB       310 MiB\n"
        );
    }

    #[test]
    fn the_json_of_df_has_its_promised_fields() {
        let value = serde_json::to_value(report()).expect("json");
        for field in [
            "pool_size_bytes",
            "pool_used_bytes",
            "pending_free_bytes",
            "data_bytes",
            "metadata_bytes",
            "reserved_bytes",
            "pool_full_percent",
        ] {
            assert!(value[field].is_u64(), "{field}");
        }
        for list in ["images", "containers", "volumes"] {
            assert!(value[list].is_array(), "{list}");
        }
    }
}
