//! `check`

use std::process::ExitCode;

use clap::Args;
use thinstore_storage::ErrorKind;
use thinstore_store::types::{CheckFinding, CheckSummary};
use thinstore_store::{Access, survey};

use crate::context::Context;
use crate::failure::{Failure, tell};
use crate::style::Style;
use crate::text::{counted, duration};

#[derive(Args, Debug)]
pub struct Check {}

impl Check {
    /// Exit code 6 if something was found.
    pub fn run(&self, context: &Context) -> Result<ExitCode, Failure> {
        let summary = match context.with_store(Access::Read, |store| Ok(store.check()?)) {
            // what cannot be opened is looked at all the same
            Err(Failure::Engine(error)) if error.kind() == ErrorKind::Corrupt => {
                tell(&error, context.output.format());
                survey(&context.root, &error)?
            }
            checked => checked?,
        };
        let style = context.output.style();
        if summary.clean {
            context.output.outcome(&summary, || render(&summary, style))?;
            return Ok(ExitCode::SUCCESS);
        }
        context.output.value(&summary, || render(&summary, style))?;
        Ok(ExitCode::from(ErrorKind::Corrupt.exit_code()))
    }
}

fn render(summary: &CheckSummary, style: Style) -> String {
    let mut text = String::new();
    for finding in &summary.findings {
        text.push_str(&finding_line(finding, style));
    }
    let verdict = match summary.clean {
        true => style.good("clean"),
        false => {
            let found = u64::try_from(summary.findings.len()).unwrap_or(u64::MAX);
            style.error(&counted(found, "finding"))
        }
    };
    text.push_str(&format!(
        "{verdict}: {}, {}, {} in {}\n",
        counted(summary.layers, "device"),
        counted(summary.map_pages, "map page"),
        counted(summary.data_blocks, "data block"),
        duration(summary.elapsed_ms.saturating_mul(1000)),
    ));
    text
}

/// A finding on a line.
pub fn finding_line(finding: &CheckFinding, style: Style) -> String {
    let layer = finding.layer_id.map(|id| format!(" (layer {id})")).unwrap_or_default();
    format!("{}{layer}: {}\n", style.error(&finding.structure), finding.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_before_the_verdict() {
        let mut summary = CheckSummary { clean: true, layers: 2, ..CheckSummary::default() };
        let text = render(&summary, Style::plain());
        assert_eq!(text, "clean: 2 devices, 0 map pages, 0 data blocks in 0 us\n");
        summary.clean = false;
        summary.findings = vec![CheckFinding {
            structure: "map".to_owned(),
            layer_id: Some(3),
            message: "what".to_owned(),
        }];
        let text = render(&summary, Style::plain());
        assert!(text.starts_with("map (layer 3): what\n1 finding: "), "{text}");
    }
}
