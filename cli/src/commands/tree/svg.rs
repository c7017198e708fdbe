//! The tree as a picture: one file that loads nothing, in the reader's light or dark colours.

use std::fmt::Write;

use thinstore_store::size::format_size;
use thinstore_store::types::{TreeEntry, TreeKind};

use super::layout::{Block, Shown, blocks};
use crate::text::{printable, short_id};

const COLUMN: usize = 230;
const HEIGHT: usize = 70;
const GAP: usize = 6;
const MARGIN: usize = 24;
const HEAD: usize = 64;
const FOOT: usize = 34;
/// The picture is not narrower: its head has to fit in.
const LEAST_WIDTH: usize = 600;
/// About what a letter takes at most, in tenths of a pixel: names are cut rather than written over others.
const LETTER_TENTHS: usize = 84;
/// What is between the border of a box and what it says.
const INSET: usize = 10;
/// The bar of the box that sees most.
const LONGEST_BAR: usize = COLUMN - GAP - 2 * INSET;

const STYLE: &str = "
  svg { --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0;
    --image: #ddf4ff; --image-line: #54aeff; --container: #dafbe1; --container-line: #4ac26b;
    --base: #f6f8fa; --base-line: #afb8c1; --volume: #fbefff; --volume-line: #c297ff; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #3d444d;
      --image: #0c2d6b; --image-line: #388bfd; --container: #04260f; --container-line: #2ea043;
      --base: #161b22; --base-line: #484f58; --volume: #271052; --volume-line: #a371f7; } }
  text { font-family: ui-sans-serif, system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif;
    font-size: 12px; fill: var(--faint); }
  .title { font-size: 17px; font-weight: 600; fill: var(--ink); }
  .name { font-size: 13px; font-weight: 600; fill: var(--ink); }
  .paper { fill: var(--paper); }
  rect { stroke-width: 1.2; }
  .layer rect, rect.layer { fill: var(--image); stroke: var(--image-line); }
  .container rect, rect.container { fill: var(--container); stroke: var(--container-line); }
  .base rect, rect.base { fill: var(--base); stroke: var(--base-line); }
  .volume rect, rect.volume { fill: var(--volume); stroke: var(--volume-line); }
  .folded rect { stroke-dasharray: 5 4; }
  rect.bar { stroke: none; }
  rect.shared { fill: var(--line); }
  .layer rect.own { fill: var(--image-line); }
  .container rect.own { fill: var(--container-line); }
  .base rect.own { fill: var(--base-line); }
  .volume rect.own { fill: var(--volume-line); }
  rect.bar.own.sample { fill: var(--image-line); }
";

/// Draws the tree of a driver.
pub fn draw(entries: &[TreeEntry], driver: &str) -> String {
    let blocks = blocks(entries);
    let levels = blocks.iter().map(|block| block.level + 1).max().unwrap_or(0);
    let columns = blocks.iter().map(|block| block.column + block.columns).max().unwrap_or(0);
    let width = (columns * COLUMN + 2 * MARGIN).max(LEAST_WIDTH);
    let bottom = HEAD + MARGIN + levels * (HEIGHT + GAP);
    let height = bottom + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"What stands on what\">\n\
         <style>{STYLE}</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    text(
        &mut svg,
        "title",
        MARGIN,
        MARGIN + 12,
        &format!(
            "{}, {} by {driver}",
            counted(entries.iter().map(|entry| entry.images.len()).sum(), "image"),
            counted(
                entries.iter().filter(|entry| entry.kind == TreeKind::Container).count(),
                "container"
            )
        ),
    );
    text(&mut svg, "sum", MARGIN, MARGIN + 34, &summary(&blocks));
    let most = blocks.iter().map(seen_bytes).max().unwrap_or(0);
    for block in &blocks {
        draw_block(&mut svg, block, bottom, most);
    }
    legend(&mut svg, bottom + 12);
    svg.push_str("</svg>\n");
    svg
}

/// What is stored, and what all together see of it.
fn summary(blocks: &[Block<'_>]) -> String {
    let stored: u64 = blocks.iter().map(|block| block.own_bytes).sum();
    let mut seen: u64 = 0;
    for block in blocks {
        let times = match &block.shown {
            Shown::Entry(entry) if entry.kind == TreeKind::Container => 1,
            Shown::Entry(entry) => u64::try_from(entry.images.len()).unwrap_or(u64::MAX),
            Shown::Containers(count) => u64::try_from(*count).unwrap_or(u64::MAX),
            Shown::Layers(_) => 0,
        };
        let own = match &block.shown {
            Shown::Containers(_) => block.own_bytes,
            _ => block.own_bytes.saturating_mul(times.min(1)),
        };
        seen = seen.saturating_add(block.shared_bytes.saturating_mul(times)).saturating_add(own);
    }
    format!(
        "Together they see {}; {} are stored. Each box stands on the one below it.",
        format_size(seen),
        format_size(stored)
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What one that stands at a box sees.
fn seen_bytes(block: &Block<'_>) -> u64 {
    block.shared_bytes.saturating_add(block.own_bytes)
}

/// How long the bar of so many bytes is.
fn bar(bytes: u64, most: u64) -> usize {
    let longest = u64::try_from(LONGEST_BAR).unwrap_or(u64::MAX);
    let length = u128::from(bytes) * u128::from(longest) / u128::from(most.max(1));
    usize::try_from(length).unwrap_or(LONGEST_BAR).min(LONGEST_BAR)
}

fn draw_block(svg: &mut String, block: &Block<'_>, bottom: usize, most: u64) {
    let x = MARGIN + block.column * COLUMN;
    let y = bottom - (block.level + 1) * (HEIGHT + GAP);
    let width = block.columns * COLUMN - GAP;
    let (class, name, second) = words(block);
    let sizes = match block.shared_bytes {
        0 => format!("{} own", format_size(block.own_bytes)),
        shared => format!("{} own, {} shared", format_size(block.own_bytes), format_size(shared)),
    };
    let hover = escaped(&printable(&format!("{name}\n{second}\n{sizes}")).replace("\\n", "\n"));
    let _ = writeln!(
        svg,
        "<g class=\"{class}\"><title>{hover}</title>\
         <rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"6\"/>"
    );
    let letters = (width - 2 * INSET) * 10 / LETTER_TENTHS;
    let inside = x + INSET;
    text(svg, "name", inside, y + 20, &cut(&name, letters));
    text(svg, "second", inside, y + 36, &cut(&second, letters * 6 / 5));
    text(svg, "sizes", inside, y + 51, &cut(&sizes, letters * 6 / 5 + 3));
    let (seen, shared) = (bar(seen_bytes(block), most), bar(block.shared_bytes, most));
    // what is there can be seen, however small it is
    let own = (seen - shared).max(usize::from(block.own_bytes > 0) * 2);
    bar_at(svg, "own", inside, y + 58, own);
    bar_at(svg, "shared", inside + own, y + 58, shared);
    svg.push_str("</g>\n");
}

fn bar_at(svg: &mut String, class: &str, x: usize, y: usize, width: usize) {
    if width > 0 {
        let _ = writeln!(
            svg,
            "<rect class=\"bar {class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"5\"/>"
        );
    }
}

/// The class, name and second line of a box.
fn words(block: &Block<'_>) -> (&'static str, String, String) {
    let entry = match &block.shown {
        Shown::Layers(count) => {
            let second = "one upon the other".to_owned();
            return ("layer folded", format!("{count} layers"), second);
        }
        Shown::Containers(count) => {
            let second = "beside each other".to_owned();
            return ("container folded", format!("{count} more containers"), second);
        }
        Shown::Entry(entry) => entry,
    };
    let short = match entry.name.split_once(':') {
        Some((scheme, hex)) => format!("{scheme}:{}", short_id(hex)),
        None => entry.name.clone(),
    };
    match entry.kind {
        TreeKind::Container => ("container", short, "container".to_owned()),
        TreeKind::Layer if entry.images.is_empty() => ("layer", short, "layer".to_owned()),
        TreeKind::Layer => ("layer", entry.images.join(", "), short),
        TreeKind::Template => ("base", "empty file system".to_owned(), short),
        TreeKind::Volume => ("volume", short, "volume".to_owned()),
        TreeKind::Hidden => ("base folded", "no name".to_owned(), "needed above".to_owned()),
        TreeKind::Transient => {
            ("base folded", "no name yet".to_owned(), "being written".to_owned())
        }
    }
}

fn legend(svg: &mut String, y: usize) {
    let parts = [("container", "container"), ("layer", "layer of images"), ("base", "base")];
    let mut x = MARGIN;
    for (class, label) in parts {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" rx=\"3\"/>"
        );
        text(svg, "label", x + 18, y + 10, label);
        x += 46 + label.len() * 7;
    }
    for (class, label) in [("own sample", "its own"), ("shared", "of those below")] {
        bar_at(svg, class, x, y + 4, 24);
        text(svg, "label", x + 30, y + 10, label);
        x += 58 + label.len() * 7;
    }
}

fn text(svg: &mut String, class: &str, x: usize, y: usize, content: &str) {
    let content = escaped(&printable(content));
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{content}</text>");
}

/// As much of a text as fits.
fn cut(content: &str, letters: usize) -> String {
    let content = printable(content);
    if content.chars().count() <= letters {
        return content;
    }
    let mut short: String = content.chars().take(letters.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Names come from images: nothing in them is markup.
fn escaped(content: &str) -> String {
    let mut safe = String::with_capacity(content.len());
    for letter in content.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn the_picture_says_who_stands_on_whom_and_has_what() {
        let mut entries = tree(&[("sha256:aaaabbbbccccdddd", 0), ("web1", 1), ("web2", 1)]);
        entries[0].images = vec!["app:latest".to_owned()];
        entries[0].kind = TreeKind::Layer;
        let svg = draw(&entries, "overlay2");
        for text in [
            "1 image, 2 containers by overlay2",
            ">app:latest<",
            ">sha256:aaaabbbbcccc<",
            ">web1<",
            "4 KiB own, 4 KiB shared",
            "Together they see 20 KiB; 12 KiB are stored",
            "prefers-color-scheme: dark",
        ] {
            assert!(svg.contains(text), "no '{text}' in {svg}");
        }
        assert!(!svg.contains("http") || svg.matches("http").count() == 1, "it loads something");
        assert_eq!(svg.matches("<g ").count(), 3);
    }

    #[test]
    fn what_names_say_is_text_and_never_markup() {
        let mut entries = tree(&[("<script>alert('x')</script>&\"\u{7}", 0)]);
        entries[0].images = vec!["<b>".to_owned()];
        for kind in [TreeKind::Container, TreeKind::Layer] {
            entries[0].kind = kind;
            let svg = draw(&entries, "<driver>");
            assert!(!svg.contains("<script") && !svg.contains("<b>") && !svg.contains('\u{7}'));
            assert!(!svg.contains("<driver>"));
        }
    }

    #[test]
    fn a_name_that_is_too_long_for_its_box_is_cut_and_whole_in_what_the_pointer_shows() {
        let name = format!("c{}", "0".repeat(200));
        let mut entries = tree(&[("a", 0), (&name, 1)]);
        entries[1].kind = TreeKind::Container;
        let svg = draw(&entries, "thin");
        assert!(svg.contains(&format!("<title>{name}")));
        assert!(!svg.contains(&format!(">{name}</text>")) && svg.contains("00…</text>"));
    }

    #[test]
    fn bars_are_as_long_as_what_they_stand_for() {
        assert_eq!((bar(0, 0), bar(0, 9), bar(9, 9)), (0, 0, LONGEST_BAR));
        assert_eq!(bar(u64::MAX / 2, u64::MAX), (LONGEST_BAR - 1) / 2);
        let mut entries = tree(&[("a", 0), ("one", 1)]);
        entries[0].own_bytes = 3 << 30;
        entries[1].own_bytes = 1 << 30;
        let svg = draw(&entries, "thin");
        let widths = [
            ("own", LONGEST_BAR * 3 / 4),
            ("own", LONGEST_BAR / 4),
            ("shared", LONGEST_BAR * 3 / 4),
        ];
        for (class, width) in widths {
            let found = svg.lines().any(|line| {
                line.contains(&format!("\"bar {class}\""))
                    && line.contains(&format!("width=\"{width}\""))
            });
            assert!(found, "no {class} of {width} in {svg}");
        }
    }

    #[test]
    fn an_empty_store_is_a_picture_too() {
        assert!(draw(&[], "thin").contains("0 images, 0 containers by thin"));
    }
}
