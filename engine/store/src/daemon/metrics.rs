//! The figures of `/metrics`, as Prometheus reads them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use thinstore_storage::Result;

use super::server::{Shared, failure};
use crate::types::{ContainerState, ContainerSummary, UsageReport, UsageRequest};

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let asked = shared.clone();
    let figures = tokio::task::spawn_blocking(move || -> Result<_> {
        let usage = asked.operations.usage(&UsageRequest::default())?;
        Ok((usage, asked.operations.containers()?))
    })
    .await;
    match figures {
        Ok(Ok((usage, containers))) => {
            let mut text = store_metrics(&usage, &containers);
            let counters = [
                ("requests_total", "Requests answered", shared.requests.load(Ordering::Relaxed)),
                ("failures_total", "Requests that failed", shared.failures.load(Ordering::Relaxed)),
            ];
            for (name, help, value) in counters {
                metric(&mut text, name, "counter", help, value);
            }
            let uptime = shared.started.elapsed().as_secs();
            metric(&mut text, "uptime_seconds", "gauge", "Since the daemon's start", uptime);
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        Ok(Err(error)) => failure(&error),
        Err(_) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    // writing to a String cannot fail
    let _ = write!(
        text,
        "# HELP thinstore_{name} {help}.\n# TYPE thinstore_{name} {kind}\nthinstore_{name} {value}\n"
    );
}

fn store_metrics(usage: &UsageReport, containers: &[ContainerSummary]) -> String {
    let count = |state: ContainerState| {
        let found = containers.iter().filter(|container| container.state == state).count();
        u64::try_from(found).unwrap_or(u64::MAX)
    };
    let mut text = String::new();
    for (name, help, value) in [
        ("pool_size_bytes", "The size of the pool", usage.pool_size_bytes),
        ("pool_used_bytes", "Everything in the pool that is not free", usage.pool_used_bytes),
        ("pool_pending_free_bytes", "Removed and not yet free", usage.pending_free_bytes),
        ("pool_data_bytes", "Blocks that hold data", usage.data_bytes),
        ("pool_metadata_bytes", "Maps and tables", usage.metadata_bytes),
        ("pool_reserved_bytes", "Kept back for removals", usage.reserved_bytes),
        ("pool_full_percent", "Of what data can take", usage.pool_full_percent.into()),
        (
            "pool_full_warning_percent",
            "The mark that the pool is full to, 80 or 95; else 0",
            usage.pool_full_warning_percent.unwrap_or_default().into(),
        ),
        ("images", "Images", usage.summary.images.total),
        ("containers", "Containers", usage.summary.containers.total),
        ("containers_attached", "Containers that are attached", count(ContainerState::Attached)),
        ("containers_mounted", "Containers that are mounted", count(ContainerState::Mounted)),
        ("volumes", "Volumes", usage.summary.volumes.total),
    ] {
        metric(&mut text, name, "gauge", help, value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_help_type_and_value() {
        let usage = UsageReport { pool_size_bytes: 7, ..UsageReport::default() };
        let text = store_metrics(&usage, &[]);
        assert!(text.starts_with(
            "# HELP thinstore_pool_size_bytes The size of the pool.\n# TYPE thinstore_pool_size_bytes gauge\nthinstore_pool_size_bytes 7\n"
        ));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once(' ').expect("name and value");
            assert!(name.starts_with("thinstore_") && value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
