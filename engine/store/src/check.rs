//! What `check` tells, and `repair` after it.

use std::time::Duration;

use thinstore_pool::{CheckReport, Finding, LayerId};

use crate::types::{CheckFinding, CheckSummary};

/// The pool's report in the operations' words.
pub(crate) fn summary(report: CheckReport, elapsed: Duration) -> CheckSummary {
    let findings: Vec<CheckFinding> = report.findings.into_iter().map(finding).collect();
    CheckSummary {
        clean: findings.is_empty(),
        layers: report.layers,
        map_pages: report.map_pages,
        data_blocks: report.data_blocks,
        findings,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(crate) fn finding(finding: Finding) -> CheckFinding {
    CheckFinding {
        structure: finding.structure.to_owned(),
        layer_id: finding.layer.map(LayerId::get),
        message: finding.message,
    }
}
