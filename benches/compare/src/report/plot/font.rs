//! The font of the plots: it is part of the program, so a text is as wide here as wherever it is shown.

use std::sync::LazyLock;

use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

/// Roboto Regular, cut down; see `font/README.md`.
pub const REGULAR: &[u8] = include_bytes!("../font/roboto-regular.ttf");
/// Roboto Medium, likewise.
pub const MEDIUM: &[u8] = include_bytes!("../font/roboto-medium.ttf");
/// The same for pages.
pub const REGULAR_WOFF2: &[u8] = include_bytes!("../font/roboto-regular.woff2");
/// The same for pages.
pub const MEDIUM_WOFF2: &[u8] = include_bytes!("../font/roboto-medium.woff2");
/// Its name.
pub const FAMILY: &str = "Roboto";

/// The width of what the font lacks.
const MISSING: f64 = 0.55;

/// The widths of the characters of Latin 1 and of all others the font has, for a size of 1.
static WIDTHS: LazyLock<std::collections::HashMap<char, f64>> = LazyLock::new(|| {
    let Ok(font) = FontRef::new(REGULAR) else { return std::collections::HashMap::new() };
    let metrics = font.glyph_metrics(Size::new(1.0), LocationRef::default());
    let pairs = font.charmap().mappings().filter_map(|(character, glyph)| {
        Some((char::from_u32(character)?, f64::from(metrics.advance_width(glyph)?)))
    });
    pairs.collect()
});

/// How wide a text is.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|character| WIDTHS.get(&character).copied().unwrap_or(MISSING)).sum::<f64>()
        * size
}

/// A text cut to a width, with an ellipsis if something is missing.
pub fn fitting(text: &str, size: f64, limit: f64) -> String {
    if width(text, size) <= limit {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        short.push(character);
        if width(&short, size) + width("…", size) > limit {
            short.pop();
            break;
        }
    }
    format!("{}…", short.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_all_that_plots_write() {
        for character in "aZ09 %×÷µ−–…≈≥≤·äöü".chars() {
            assert!(WIDTHS.contains_key(&character), "{character}");
        }
        assert!((width("0", 10.0) - width("8", 10.0)).abs() < 1e-9, "figures are of one width");
        assert!(width("overlay2", 12.0) > 40.0 && width("overlay2", 12.0) < 60.0);
        assert_eq!(fitting("overlay2", 12.0, 100.0), "overlay2");
        assert!(fitting("fuse-overlayfs", 12.0, 50.0).ends_with('…'));
    }
}
