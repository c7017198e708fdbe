//! `diff`

use clap::Args;
use thinstore_store::Access;
use thinstore_store::types::{BlockRange, ChangeKind, DiffRequest, PathChange};

use crate::containers::find_run;
use crate::context::Context;
use crate::failure::Failure;
use crate::style::Style;
use crate::table::table;
use crate::text::printable;

#[derive(Args, Debug)]
pub struct Diff {
    /// A container, image or layer
    #[arg(value_name = "A")]
    from: String,
    /// What it is compared with [default: A is compared with its image, or its parent layer]
    #[arg(value_name = "B")]
    to: Option<String>,
    /// Show block ranges instead of paths
    #[arg(long)]
    blocks: bool,
}

impl Diff {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let request = DiffRequest { from: self.from, to: self.to };
        if self.blocks {
            let ranges =
                context.with_store(Access::Read, |store| Ok(store.block_differences(&request)?))?;
            return context.output.value(&ranges, || range_table(&ranges));
        }
        let changes = context.with_store(Access::Read, |store| {
            let mut changes = store.differences(&request)?;
            if let Some(run) = find_run(&context.root, store, &request.from)? {
                leave_out(&run.made_mount_points(), &mut changes);
            }
            Ok(changes)
        })?;
        let style = context.output.style();
        context.output.list(&changes, |change| &change.path, |changes| render(changes, style))
    }
}

/// Leaves out files of `/etc`, and the folder where nothing else in it has changed: it is listed for what is in it.
fn leave_out(made: &[String], changes: &mut Vec<PathChange>) {
    let before = changes.len();
    changes.retain(|change| !made.contains(&change.path));
    let has_other = changes.iter().any(|change| change.path.starts_with("/etc/"));
    if changes.len() < before && !has_other {
        changes.retain(|change| change.path != "/etc");
    }
}

fn render(changes: &[PathChange], style: Style) -> String {
    let line = |change: &PathChange| {
        let letter = change.kind.letter().to_string();
        let letter = match change.kind {
            ChangeKind::Added => style.good(&letter),
            ChangeKind::Changed => style.changed(&letter),
            ChangeKind::Deleted => style.gone(&letter),
        };
        format!("{letter} {}\n", printable(&change.path))
    };
    changes.iter().map(line).collect()
}

fn range_table(ranges: &[BlockRange]) -> String {
    table(
        [">OFFSET", ">LENGTH", "NOW"],
        ranges.iter().map(|range| {
            [
                range.offset_bytes.to_string(),
                range.length_bytes.to_string(),
                if range.mapped { "data" } else { "hole" }.to_owned(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(paths: &[&str]) -> Vec<PathChange> {
        let change = |path: &&str| PathChange {
            kind: ChangeKind::Changed,
            path: (*path).to_owned(),
            path_hex: None,
        };
        paths.iter().map(change).collect()
    }

    #[test]
    fn what_was_made_to_mount_on_is_left_out_and_nothing_else() {
        let made = ["/etc/hosts".to_owned()];
        for (found, left) in [
            (vec!["/etc", "/etc/hosts", "/a"], vec!["/a"]),
            (vec!["/etc", "/etc/hosts", "/etc/x"], vec!["/etc", "/etc/x"]),
            (vec!["/etc"], vec!["/etc"]),
        ] {
            let mut found = changes(&found);
            leave_out(&made, &mut found);
            assert_eq!(found, changes(&left));
        }
    }

    #[test]
    fn changes_are_printed_as_docker_diff_does() {
        let change = |kind, path: &str| PathChange { kind, path: path.to_owned(), path_hex: None };
        let changes = [
            change(ChangeKind::Changed, "/etc"),
            change(ChangeKind::Added, "/etc/a\nb"),
            change(ChangeKind::Deleted, "/tmp/x"),
        ];
        assert_eq!(render(&changes, Style::plain()), "C /etc\nA /etc/a\\nb\nD /tmp/x\n");
        let json = serde_json::to_string(&changes[..1]).expect("json");
        assert_eq!(json, r#"[{"kind":"C","path":"/etc"}]"#);
    }

    #[test]
    fn ranges_are_bytes() {
        let range = BlockRange { offset_bytes: 4096, length_bytes: 8192, mapped: true };
        assert_eq!(range_table(&[range]), "OFFSET   LENGTH   NOW\n  4096     8192   data\n");
    }
}
