//! `scrub`

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use thinstore_storage::ErrorKind;
use thinstore_store::Access;
use thinstore_store::size::format_size;
use thinstore_store::types::{ObjectKind, ObjectName, ScrubFinding, ScrubRequest, ScrubSummary};

use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::OperationProgress;
use crate::style::Style;
use crate::text::{counted, duration, printable, short_id};

#[derive(Args, Debug)]
pub struct Scrub {
    /// Only these containers, images, layers and volumes of driver thin, with all that they stand on
    names: Vec<String>,
}

impl Scrub {
    /// Exit code 6 if something was found.
    pub fn run(&self, context: &Context) -> Result<ExitCode, Failure> {
        let interrupt = Interrupt::watch();
        let request = ScrubRequest { names: self.names.clone() };
        let progress = Arc::new(OperationProgress::new(context.output.shows_progress(), interrupt));
        let scrubbed =
            context.with_store(Access::Read, |store| Ok(store.scrub(&request, progress.clone())?));
        progress.clear();
        let summary = scrubbed?;
        let style = context.output.style();
        if summary.clean {
            context.output.outcome(&summary, || render(&summary, style))?;
            return Ok(ExitCode::SUCCESS);
        }
        context.output.value(&summary, || render(&summary, style))?;
        Ok(ExitCode::from(ErrorKind::Corrupt.exit_code()))
    }
}

fn object(object: &ObjectName) -> String {
    let name = match (object.kind, object.name.split_once(':')) {
        (ObjectKind::Layer, Some((scheme, hex))) => format!("{scheme}:{}", short_id(hex)),
        _ => printable(&object.name),
    };
    format!("{} {name}", object.kind.name())
}

/// Where a finding is: whose, or nobody's.
fn place(finding: &ScrubFinding) -> String {
    match (&finding.owner, finding.layer_id) {
        (Some(owner), _) => format!(" ({})", object(owner)),
        (None, Some(id)) => format!(" (device {id})"),
        (None, None) => String::new(),
    }
}

fn render(summary: &ScrubSummary, style: Style) -> String {
    let mut text = String::new();
    for group in summary.findings.chunk_by(|a, b| a.affected == b.affected) {
        for finding in group {
            let structure = style.error(&finding.structure);
            text.push_str(&format!("{structure}{}: {}\n", place(finding), finding.message));
        }
        let affected = group.first().map(|finding| finding.affected.as_slice()).unwrap_or_default();
        if !affected.is_empty() {
            let names: Vec<String> = affected.iter().map(object).collect();
            text.push_str(&format!("  seen by {}\n", names.join(", ")));
        }
    }
    if summary.more_findings > 0 {
        text.push_str(&format!("and {} more\n", summary.more_findings));
    }
    let listed = u64::try_from(summary.findings.len()).unwrap_or(u64::MAX);
    let verdict = match summary.clean {
        true => style.good("clean"),
        false => {
            let found = listed.saturating_add(summary.more_findings);
            style.error(&counted(found, "damaged block"))
        }
    };
    text.push_str(&format!(
        "{verdict}: {}, {} of data and {} of metadata in {}\n",
        counted(summary.layers, "device"),
        format_size(summary.data_bytes),
        format_size(summary.metadata_bytes),
        duration(summary.elapsed_ms.saturating_mul(1000)),
    ));
    if summary.unsummed_bytes > 0 {
        let unsummed = format_size(summary.unsummed_bytes);
        text.push_str(&format!("{unsummed} of data have no checksum (yet)\n"));
    }
    let is_lost = |finding: &ScrubFinding| finding.first_block.is_some();
    if summary.findings.iter().any(is_lost) {
        text.push_str(
            "what is damaged cannot be read: bring back what sees it from its source, or remove it\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinstore_store::types::DamageKind;

    fn finding(block: u64) -> ScrubFinding {
        let owner = ObjectName { kind: ObjectKind::Layer, name: format!("sha256:{:064}", 7) };
        let image = ObjectName { kind: ObjectKind::Image, name: "debian:12".to_owned() };
        ScrubFinding {
            structure: "data".to_owned(),
            layer_id: Some(3),
            owner: Some(owner.clone()),
            first_block: Some(block),
            block_count: Some(1),
            pool_block: 100,
            damage: DamageKind::Mismatch,
            found_crc: Some("00000001".to_owned()),
            recorded_crc: Some("00000002".to_owned()),
            message: format!("block {block}: what"),
            affected: vec![image, owner],
        }
    }

    #[test]
    fn findings_come_first_with_all_who_see_them_told_once() {
        let mut summary = ScrubSummary {
            clean: true,
            layers: 2,
            data_bytes: 8192,
            metadata_bytes: 4096,
            ..ScrubSummary::default()
        };
        let text = render(&summary, Style::plain());
        assert_eq!(text, "clean: 2 devices, 8 KiB of data and 4 KiB of metadata in 0 us\n");
        summary.clean = false;
        summary.unsummed_bytes = 4096;
        summary.findings = vec![finding(5), finding(6)];
        summary.findings.push(ScrubFinding {
            owner: None,
            affected: Vec::new(),
            message: "why".to_owned(),
            ..finding(7)
        });
        summary.more_findings = 4;
        let text = render(&summary, Style::plain());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "data (layer sha256:000000000000): block 5: what",
                "data (layer sha256:000000000000): block 6: what",
                "  seen by image debian:12, layer sha256:000000000000",
                "data (device 3): why",
                "and 4 more",
                "7 damaged blocks: 2 devices, 8 KiB of data and 4 KiB of metadata in 0 us",
            ]
        );
        assert!(lines[6].starts_with("4 KiB of data have no checksum"), "{text}");
    }
}
