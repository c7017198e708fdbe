//! SVG, written by hand. The crate plotters draws well, but what it writes has no names: nothing to hover over,
//! nothing to filter by, and no colours that follow the reader's theme.
//!
//! Every shape carries its colour on paper as an attribute, and a class. A style sheet is stronger than an attribute,
//! so the same text is a figure for papers and a plot in a page with a dark theme.

use std::fmt::Write;

use super::palette::Ink;

/// What may not stand in HTML or SVG as it is.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in XML, whatever way they are written.
            character if character.is_control() && !matches!(character, '\n' | '\t') => {
                escaped.push('\u{b7}');
            }
            character => escaped.push(character),
        }
    }
    escaped
}

/// Two decimals are a hundredth of a pixel.
pub struct Number(pub f64);

impl std::fmt::Display for Number {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.2}", self.0);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        formatter.write_str(if text == "-0" { "0" } else { text })
    }
}

/// Where a text is anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// At its beginning.
    Start,
    /// In its middle.
    Middle,
    /// At its end.
    End,
}

/// A drawing.
#[derive(Clone, Debug)]
pub struct Svg {
    /// Its width in pixels.
    pub width: f64,
    /// Its height.
    pub height: f64,
    body: String,
}

// Writing to a String does not fail.
impl Svg {
    /// An empty one.
    pub const fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A text; `y` is its base line.
    pub fn text(&mut self, x: f64, y: f64, ink: Ink, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        writeln!(
            self.body,
            "<text x=\"{}\" y=\"{}\" class=\"{}\" {}{anchor}>{}</text>",
            Number(x),
            Number(y),
            ink.class(),
            ink.text_attributes(),
            escape(text)
        )
        .ok();
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64) {
        writeln!(
            self.body,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\" stroke=\"{}\" stroke-width=\"{}\"/>",
            Number(from.0),
            Number(from.1),
            Number(to.0),
            Number(to.1),
            ink.stroke_class(),
            ink.paper(),
            Number(width)
        )
        .ok();
    }

    /// A rectangle.
    pub fn rectangle(&mut self, corner: (f64, f64), size: (f64, f64), ink: Ink, extra: &str) {
        writeln!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{}\" fill=\"{}\"{extra}/>",
            Number(corner.0),
            Number(corner.1),
            Number(size.0.max(0.0)),
            Number(size.1.max(0.0)),
            ink.class(),
            ink.paper()
        )
        .ok();
    }

    /// A line through points.
    pub fn polyline(&mut self, points: &[(f64, f64)], ink: Ink, width: f64) {
        writeln!(
            self.body,
            "<path d=\"{}\" class=\"{}\" stroke=\"{}\" stroke-width=\"{}\" fill=\"none\" \
             stroke-linejoin=\"round\" stroke-linecap=\"round\"/>",
            path(points),
            ink.stroke_class(),
            ink.paper(),
            Number(width)
        )
        .ok();
    }

    /// An area.
    pub fn polygon(&mut self, points: &[(f64, f64)], ink: Ink, opacity: f64) {
        let opacity = Number(opacity);
        self.area(points, ink, &format!("fill-opacity=\"{opacity}\""), "");
    }

    fn area(&mut self, points: &[(f64, f64)], ink: Ink, attributes: &str, class: &str) {
        writeln!(
            self.body,
            "<path d=\"{}Z\" class=\"{}{class}\" fill=\"{}\" {attributes}/>",
            path(points),
            ink.class(),
            ink.paper()
        )
        .ok();
    }

    /// A mark: each driver has a shape of its own, so that colours are not all that tells them apart.
    /// Each has an edge in the colour of the ground, which parts those that lie upon each other.
    pub fn mark(&mut self, center: (f64, f64), shape: usize, radius: f64, ink: Ink) {
        const EDGE: &str = "stroke=\"#fff\" stroke-width=\"0.8\"";
        let (x, y) = center;
        let around = |turns: &[(f64, f64)]| -> Vec<(f64, f64)> {
            turns.iter().map(|(dx, dy)| (dx.mul_add(radius, x), dy.mul_add(radius, y))).collect()
        };
        let corners = match shape % 6 {
            1 => around(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            2 => around(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)]),
            3 => around(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            4 => around(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)]),
            5 => around(&[
                (-0.4, -1.2),
                (0.4, -1.2),
                (0.4, -0.4),
                (1.2, -0.4),
                (1.2, 0.4),
                (0.4, 0.4),
                (0.4, 1.2),
                (-0.4, 1.2),
                (-0.4, 0.4),
                (-1.2, 0.4),
                (-1.2, -0.4),
                (-0.4, -0.4),
            ]),
            _ => {
                writeln!(
                    self.body,
                    "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" class=\"{} edge\" fill=\"{}\" {EDGE}/>",
                    Number(x),
                    Number(y),
                    Number(radius),
                    ink.class(),
                    ink.paper()
                )
                .ok();
                return;
            }
        };
        self.area(&corners, ink, EDGE, " edge");
    }

    /// Opens a group that tells something when it is pointed at, and goes away with its driver.
    pub fn open_group(
        &mut self,
        class: &str,
        driver: Option<usize>,
        tip: &str,
        shift: Option<f64>,
    ) {
        let driver = driver.map_or_else(String::new, |driver| format!(" data-driver=\"{driver}\""));
        let tip = if tip.is_empty() {
            String::new()
        } else {
            format!(" data-tip=\"{}\"", escape(tip).replace('\n', "&#10;"))
        };
        let shift = shift
            .map_or_else(String::new, |y| format!(" transform=\"translate(0 {})\"", Number(y)));
        writeln!(self.body, "<g class=\"{class}\"{driver}{tip}{shift}>").ok();
    }

    /// Closes it.
    pub fn close_group(&mut self) {
        self.body.push_str("</g>\n");
    }

    /// Something that can be pointed at, and is not seen.
    pub fn target(&mut self, corner: (f64, f64), size: (f64, f64)) {
        writeln!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#000\" fill-opacity=\"0\"/>",
            Number(corner.0),
            Number(corner.1),
            Number(size.0.max(0.0)),
            Number(size.1.max(0.0))
        )
        .ok();
    }

    /// As part of a page: colours come from its style sheet. `label` is what it is called aloud.
    pub fn inline(&self, label: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" font-family=\"Roboto,sans-serif\">\n{}</svg>",
            Number(self.width),
            Number(self.height),
            escape(label),
            self.body
        )
    }

    /// As a file of its own, on white.
    pub fn document(&self, label: &str) -> String {
        const MARGIN: f64 = 12.0;
        let (width, height) = (
            Number(2.0f64.mul_add(MARGIN, self.width)),
            Number(2.0f64.mul_add(MARGIN, self.height)),
        );
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"-{MARGIN} -{MARGIN} {width} {height}\" \
             font-family=\"Roboto,Helvetica,Arial,sans-serif\">\n<title>{}</title>\n\
             <rect x=\"-{MARGIN}\" y=\"-{MARGIN}\" width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{}</svg>\n",
            escape(label),
            self.body
        )
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (place, (x, y)) in points.iter().enumerate() {
        let command = if place == 0 { 'M' } else { 'L' };
        write!(path, "{command}{} {}", Number(*x), Number(*y)).ok();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_results_becomes_markup() {
        assert_eq!(escape("<a b=\"c\">&'\u{1b}"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;·");
        assert_eq!(Number(-0.001).to_string(), "0");
        assert_eq!(Number(12.5).to_string(), "12.5");
        assert_eq!(Number(100.0).to_string(), "100");
    }
}
