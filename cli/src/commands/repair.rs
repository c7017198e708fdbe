//! `repair`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use thinstore_storage::{Error, ErrorKind};
use thinstore_store::types::{RepairLoss, RepairSummary};
use thinstore_store::{Client, Layout, RepairTarget, repair};

use super::check::finding_line;
use super::serve::stop_and_wait;
use crate::context::Context;
use crate::failure::Failure;
use crate::style::Style;
use crate::text::{counted, printable};

/// Losses and findings beyond this many are counted only; JSON has them all.
const MOST_LINES: usize = 40;

#[derive(Args, Debug)]
pub struct Repair {
    /// Write the repaired pool; without it, only say what would be done
    #[arg(long)]
    yes: bool,
    /// Repair a copy of the pool, made as this new file, and leave the store as it is
    #[arg(long, value_name = "FILE", requires = "yes")]
    copy: Option<PathBuf>,
}

impl Repair {
    /// Exit code 6 if something is damaged and not repaired, or lost.
    pub fn run(&self, context: &Context) -> Result<ExitCode, Failure> {
        end_idle_daemon(context)?;
        let target = match (self.yes, &self.copy) {
            (false, _) => RepairTarget::Nothing,
            (true, None) => RepairTarget::Pool,
            (true, Some(path)) => RepairTarget::Copy(path.clone()),
        };
        let summary = repair(&context.root, &target)?;
        let style = context.output.style();
        context.output.value(&summary, || render(&summary, style))?;
        let is_whole = !summary.damaged || (summary.written.is_some() && summary.losses.is_empty());
        Ok(if is_whole {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(ErrorKind::Corrupt.exit_code())
        })
    }
}

/// The pool must be nobody else's. A daemon that a command has started ends if it can; one that was started
/// as a service is its owner's to end.
fn end_idle_daemon(context: &Context) -> Result<(), Failure> {
    let layout = Layout::new(&context.root);
    let Some(client) = Client::connect(&layout)? else { return Ok(()) };
    if client.version().service {
        return Err(Failure::Engine(Error::new(
            ErrorKind::InUse,
            format!(
                "a daemon (process {}) serves this store; end it with 'thinstore serve --stop' first",
                client.version().pid
            ),
        )));
    }
    stop_and_wait(&layout, client).map(drop)
}

fn render(summary: &RepairSummary, style: Style) -> String {
    if !summary.damaged {
        let copy = summary.written.as_ref().map(|path| format!("; {} is a copy", printable(path)));
        return format!("{}: nothing to repair{}\n", style.good("clean"), copy.unwrap_or_default());
    }
    let mut text = String::new();
    for finding in summary.findings.iter().take(MOST_LINES) {
        text.push_str(&finding_line(finding, style));
    }
    rest(&mut text, summary.findings.len(), "finding");
    for loss in summary.losses.iter().take(MOST_LINES) {
        text.push_str(&loss_line(loss, style));
    }
    rest(&mut text, summary.losses.len(), "loss");
    for finding in summary.remaining.iter().take(MOST_LINES) {
        text.push_str(&format!("still {}", finding_line(finding, style)));
    }
    if summary.from_older_superblock {
        text.push_str(
            "the older superblock and the journal after it say more than the newer one\n",
        );
    }
    if summary.made_parents > 0 {
        text.push_str(&format!(
            "{} in the place of lost ones, with what others still see of them\n",
            counted(summary.made_parents, "layer")
        ));
    }
    let verdict = match (summary.losses.is_empty(), summary.remaining.is_empty()) {
        (_, false) => style.error("this cannot be repaired"),
        (true, true) => style.good("all of it can be given back"),
        (false, true) => style.error("all but the above can be given back"),
    };
    text.push_str(&format!("{verdict}; "));
    text.push_str(&match &summary.written {
        Some(path) => format!("{} is repaired\n", printable(path)),
        None => "nothing was written: 'thinstore repair --yes' does\n".to_owned(),
    });
    text
}

fn rest(text: &mut String, count: usize, what: &str) {
    if let Some(more) = count.checked_sub(MOST_LINES).filter(|more| *more > 0) {
        text.push_str(&format!("... {more} more, of {count} of this kind ({what})\n"));
    }
}

fn loss_line(loss: &RepairLoss, style: Style) -> String {
    let whose = match (&loss.kind, &loss.name, loss.layer_id) {
        (Some(kind), Some(name), _) => format!(" ({kind} '{}')", printable(name)),
        (_, _, Some(id)) => format!(" (layer {id})"),
        _ => String::new(),
    };
    format!("{}{whose}: {}\n", style.error("lost"), loss.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(message: &str) -> RepairLoss {
        RepairLoss {
            layer_id: Some(3),
            kind: Some("container".to_owned()),
            name: Some("web".to_owned()),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_is_lost_is_named_and_what_was_not_written_is_said() {
        let mut summary = RepairSummary { damaged: true, ..RepairSummary::default() };
        let text = render(&summary, Style::plain());
        assert!(text.starts_with("all of it can be given back; nothing was written"), "{text}");
        summary.losses = vec![loss("blocks 1 to 2 cannot be read any more")];
        summary.written = Some("/store/pool".to_owned());
        let text = render(&summary, Style::plain());
        assert_eq!(
            text,
            "lost (container 'web'): blocks 1 to 2 cannot be read any more\n\
             all but the above can be given back; /store/pool is repaired\n"
        );
    }

    #[test]
    fn long_lists_are_cut_short() {
        let summary = RepairSummary {
            damaged: true,
            losses: vec![loss("x"); MOST_LINES + 2],
            ..RepairSummary::default()
        };
        let text = render(&summary, Style::plain());
        assert_eq!(text.lines().count(), MOST_LINES + 2);
        assert!(text.contains("... 2 more"), "{text}");
    }
}
