//! Plots as PNG: drawn by resvg, which is written in Rust, from the same SVG and with the font of this program, so that
//! nothing need be installed.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::font;
use crate::number::{float, whole};
use crate::{Error, Result};

/// So many pixels for one of the drawing: 440 wide are 3 inches at 300 dpi.
const PIXELS: f64 = 2.0;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(font::REGULAR.to_vec());
    fonts.load_font_data(font::MEDIUM.to_vec());
    for set in [
        fontdb::Database::set_sans_serif_family,
        fontdb::Database::set_serif_family,
        fontdb::Database::set_monospace_family,
    ] {
        set(&mut fonts, font::FAMILY);
    }
    Arc::new(fonts)
});

/// Draws an SVG.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let failed = |what: String| Error::Invalid(format!("a plot cannot be drawn as PNG: {what}"));
    let options = Options {
        fontdb: Arc::clone(&FONTS),
        font_family: font::FAMILY.to_owned(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let pixels = |length: f32| u32::try_from(whole((f64::from(length) * PIXELS).ceil()));
    let (width, height) = (pixels(tree.size().width()), pixels(tree.size().height()));
    let (Ok(width), Ok(height)) = (width, height) else {
        return Err(failed("it is too large".to_owned()));
    };
    let mut pixmap =
        Pixmap::new(width, height).ok_or_else(|| failed("it is too large".to_owned()))?;
    let scale = |pixels: u32, length: f32| {
        let factor = float(u64::from(pixels)) / f64::from(length);
        #[expect(clippy::as_conversions, reason = "about 2, which both kinds of float have")]
        let factor = factor as f32;
        factor
    };
    let transform = Transform::from_scale(
        scale(width, tree.size().width()),
        scale(height, tree.size().height()),
    );
    resvg::render(&tree, transform, &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| failed(error.to_string()))
}
