//! `tree`

mod layout;
mod svg;

use std::path::PathBuf;

use clap::Args;
use thinstore_storage::Error;
use thinstore_store::Access;
use thinstore_store::size::format_size;
use thinstore_store::types::{TreeEntry, TreeKind};

use crate::context::Context;
use crate::failure::Failure;
use crate::style::Style;
use crate::text::{printable, short_id};

/// Deeper than this the lines are not indented further: chains can have thousands.
const INDENT_LIMIT: usize = 40;

#[derive(Args, Debug)]
pub struct Tree {
    /// Draw it: a picture (SVG) into FILE, or to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    svg: Option<PathBuf>,
}

pub fn run(context: &Context, options: &Tree) -> Result<(), Failure> {
    let entries = context.with_store(Access::Read, |store| Ok(store.tree()?))?;
    if let Some(path) = &options.svg {
        let picture = svg::draw(&entries, context.driver.as_str());
        if path.as_os_str() == "-" {
            return context.output.text(&picture);
        }
        return std::fs::write(path, picture).map_err(|error| {
            Failure::Engine(Error::io(format!("cannot write {}", path.display()), error))
        });
    }
    let style = context.output.style();
    context.output.list(&entries, |entry| &entry.name, |entries| render(entries, style))
}

/// Which entries are the last of their siblings: those that no later one of the same depth follows
/// before the depth falls below theirs.
fn last_of_siblings(entries: &[TreeEntry]) -> Vec<bool> {
    let mut seen: Vec<u64> = Vec::new();
    let mut last: Vec<bool> = entries
        .iter()
        .rev()
        .map(|entry| {
            while seen.last().is_some_and(|depth| *depth > entry.depth) {
                seen.pop();
            }
            let followed = seen.last() == Some(&entry.depth);
            if !followed {
                seen.push(entry.depth);
            }
            !followed
        })
        .collect();
    last.reverse();
    last
}

fn label(entry: &TreeEntry, style: Style) -> String {
    match entry.kind {
        TreeKind::Container => style.strong(&printable(&entry.name)),
        TreeKind::Layer => match entry.name.split_once(':') {
            Some((scheme, hex)) => format!("{scheme}:{}", short_id(hex)),
            None => printable(&entry.name),
        },
        TreeKind::Template => style.faint(&format!("{} (empty file system)", entry.name)),
        TreeKind::Volume => format!("{} (volume)", style.strong(&printable(&entry.name))),
        TreeKind::Hidden => style.faint("(needed by those below)"),
        TreeKind::Transient => style.faint("(being written)"),
    }
}

fn render(entries: &[TreeEntry], style: Style) -> String {
    let mut text = String::new();
    // for each depth: does a line go on downwards there?
    let mut open: Vec<bool> = Vec::new();
    for (entry, is_last) in entries.iter().zip(last_of_siblings(entries)) {
        let depth = usize::try_from(entry.depth).unwrap_or(usize::MAX).min(INDENT_LIMIT);
        open.truncate(depth);
        for goes_on in open.iter().skip(1) {
            text.push_str(if *goes_on { "│  " } else { "   " });
        }
        if depth > 0 {
            text.push_str(if is_last { "└─ " } else { "├─ " });
        }
        open.resize(depth + 1, false);
        if let Some(goes_on) = open.last_mut() {
            *goes_on = !is_last;
        }
        text.push_str(&label(entry, style));
        text.push_str(&format!("  {}", format_size(entry.own_bytes)));
        if !entry.images.is_empty() {
            text.push_str("  ");
            text.push_str(&style.good(&printable(&entry.images.join(", "))));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and depths, parents first; those named `one`, `two`, `c...` or `web...` are containers.
    pub fn tree(shape: &[(&str, u64)]) -> Vec<TreeEntry> {
        let mut entries: Vec<TreeEntry> = Vec::new();
        for ((name, depth), layer_id) in shape.iter().zip(1..) {
            let is_container = ["one", "two", "web"].iter().any(|start| name.starts_with(start))
                || name.strip_prefix('c').is_some_and(|rest| rest.parse::<u32>().is_ok());
            let kind = if is_container { TreeKind::Container } else { TreeKind::Layer };
            let below = entries.iter().rev().find(|entry| entry.depth + 1 == *depth);
            let parent_layer_id = below.map(|below| below.layer_id);
            entries.push(TreeEntry { layer_id, parent_layer_id, ..entry(kind, name, *depth, &[]) });
        }
        entries
    }

    fn entry(kind: TreeKind, name: &str, depth: u64, images: &[&str]) -> TreeEntry {
        TreeEntry {
            layer_id: 1,
            kind,
            name: name.to_owned(),
            parent_layer_id: None,
            depth,
            own_bytes: 4096,
            size_bytes: 1 << 30,
            images: images.iter().map(|image| (*image).to_owned()).collect(),
        }
    }

    #[test]
    fn the_tree_shows_who_stands_on_whom() {
        let entries = [
            entry(TreeKind::Template, "ext4-1", 0, &[]),
            entry(TreeKind::Layer, "sha256:aaaa", 1, &["base:latest"]),
            entry(TreeKind::Container, "one", 2, &[]),
            entry(TreeKind::Hidden, "", 2, &[]),
            entry(TreeKind::Container, "two", 3, &[]),
            entry(TreeKind::Layer, "thin:bbbb", 1, &[]),
            entry(TreeKind::Container, "three", 2, &[]),
        ];
        assert_eq!(
            render(&entries, Style::plain()),
            "ext4-1 (empty file system)  4 KiB\n\
             ├─ sha256:aaaa  4 KiB  base:latest\n\
             │  ├─ one  4 KiB\n\
             │  └─ (needed by those below)  4 KiB\n\
             │     └─ two  4 KiB\n\
             └─ thin:bbbb  4 KiB\n   \
                └─ three  4 KiB\n"
        );
    }

    #[test]
    fn a_chain_of_thousands_is_drawn_without_recursion_or_width() {
        let entries: Vec<TreeEntry> =
            (0..5000).map(|depth| entry(TreeKind::Container, "c", depth, &[])).collect();
        let text = render(&entries, Style::plain());
        assert_eq!(text.lines().count(), 5000);
        assert!(text.lines().all(|line| line.len() < 300));
    }
}
