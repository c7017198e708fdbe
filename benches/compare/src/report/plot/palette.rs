//! Colours: one for each driver, everywhere the same, on light and on dark.

/// The colours of drivers that are expected, on light and on dark ground; each has a contrast of 3 to 1 at
/// least, and neighbours differ in lightness too.
const KNOWN: [(&str, &str, &str); 9] = [
    ("thin", "#1b5fd0", "#6aa6ff"),
    ("overlay2", "#d2570a", "#ff9a4a"),
    ("btrfs", "#0d8057", "#41cf9b"),
    ("reflink", "#9632a8", "#da8be6"),
    ("vfs", "#6a6f78", "#a4abb6"),
    ("fuse-overlayfs", "#97770a", "#dfc14c"),
    ("qcow2", "#c02158", "#ff7ea8"),
    ("devicemapper", "#0b7f96", "#52cfe3"),
    ("zfs", "#74502f", "#c9a27e"),
];

/// For drivers that nobody expected.
const OTHERS: [(&str, &str); 5] = [
    ("#4a3fb5", "#a79cff"),
    ("#5a7d0b", "#add358"),
    ("#a3333d", "#ff908f"),
    ("#2f6f6f", "#7fc9c4"),
    ("#8a4b83", "#d79fd0"),
];

/// The colour of a driver, on light and on dark ground. `number` decides where its name is not known.
pub fn driver_colors(name: &str, number: usize) -> (&'static str, &'static str) {
    KNOWN
        .iter()
        .find(|(known, _, _)| *known == name)
        .map(|(_, light, dark)| (*light, *dark))
        .or_else(|| OTHERS.get(number % OTHERS.len()).copied())
        .unwrap_or(("#444444", "#bbbbbb"))
}

/// The mark of a driver.
pub fn driver_shape(name: &str, number: usize) -> usize {
    KNOWN.iter().position(|(known, _, _)| *known == name).unwrap_or(number + 3)
}

/// What is drawn with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ink {
    /// The title of a plot.
    Title,
    /// What stands below the title.
    Subtitle,
    /// A name beside a bar.
    Label,
    /// A number on an axis.
    Tick,
    /// A figure beside a bar.
    Value,
    /// Words where there is no figure.
    Faint,
    /// A line across a plot.
    Grid,
    /// The line of an axis.
    Axis,
    /// An interval.
    Whisker,
    /// A driver: its number, and its colour on paper.
    Driver(usize, &'static str),
    /// A step of the scale of ratios, from worst (0) to best (10).
    Heat(usize),
    /// Text on such a step.
    OnHeat(usize),
}

/// The scale of ratios on paper: brown is worse, blue is better, white is neither. Told apart with every kind of
/// colour blindness.
pub const HEAT_LIGHT: [&str; 11] = [
    "#8c4a0b", "#a8610f", "#d99a4e", "#ebc48e", "#f6e3c8", "#f4f4f3", "#d3e3f3", "#a3c6e6",
    "#6ba2d6", "#3a78bb", "#164f93",
];
/// The same on dark ground.
pub const HEAT_DARK: [&str; 11] = [
    "#f0a04b", "#cf7f2c", "#a4611d", "#774717", "#4d3216", "#2b2e33", "#1d3a57", "#1c5080",
    "#226bab", "#3f8bd0", "#77b5f0",
];

impl Ink {
    /// Its class: fills.
    pub fn class(self) -> String {
        match self {
            Self::Title => "t-title".into(),
            Self::Subtitle => "t-sub".into(),
            Self::Label => "t-label".into(),
            Self::Tick => "t-tick".into(),
            Self::Value => "t-value".into(),
            Self::Faint => "t-faint".into(),
            Self::Grid => "f-grid".into(),
            Self::Axis => "f-axis".into(),
            Self::Whisker => "f-whisker".into(),
            Self::Driver(number, _) => format!("f{number}"),
            Self::Heat(step) => format!("h{step}"),
            Self::OnHeat(step) => format!("on-h{step}"),
        }
    }

    /// Its class: strokes.
    pub fn stroke_class(self) -> String {
        match self {
            Self::Grid => "s-grid".into(),
            Self::Axis => "s-axis".into(),
            Self::Whisker => "s-whisker".into(),
            Self::Driver(number, _) => format!("s{number}"),
            other => other.class(),
        }
    }

    /// Its colour on paper.
    pub fn paper(self) -> &'static str {
        match self {
            Self::Title | Self::Label => "#1b1e23",
            Self::Subtitle | Self::Tick => "#5d646e",
            Self::Value => "#3b414a",
            Self::Faint => "#8a919b",
            Self::Grid => "#e6e8eb",
            Self::Axis => "#b4bac2",
            Self::Whisker => "#1b1e23",
            Self::Driver(_, color) => color,
            Self::Heat(step) => HEAT_LIGHT.get(step).copied().unwrap_or("#ffffff"),
            Self::OnHeat(step) => {
                if matches!(step, 0 | 1 | 9 | 10) {
                    "#ffffff"
                } else {
                    "#1b1e23"
                }
            }
        }
    }

    /// The size of a text.
    pub const fn size(self) -> f64 {
        match self {
            Self::Title => 13.0,
            Self::Label => 12.0,
            _ => 11.0,
        }
    }

    /// The attributes of a text on paper.
    pub fn text_attributes(self) -> String {
        let weight = if self == Self::Title { " font-weight=\"500\"" } else { "" };
        format!("fill=\"{}\" font-size=\"{}\"{weight}", self.paper(), self.size())
    }
}

/// The step of the scale for a ratio: 5 is neither better nor worse; each step outward is about a doubling.
pub fn heat_step(ratio: f64) -> usize {
    let logarithm = ratio.log2();
    let step = match logarithm.abs() {
        size if size < 0.07 => 0,
        size if size < 0.5 => 1,
        size if size < 1.0 => 2,
        size if size < 2.0 => 3,
        size if size < 4.0 => 4,
        _ => 5,
    };
    if logarithm < 0.0 { 5 - step } else { 5 + step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_symmetrical_and_ends_at_sixteen() {
        assert_eq!(heat_step(1.0), 5);
        for (ratio, step) in [(1.2, 6), (1.5, 7), (3.0, 8), (10.0, 9), (17.0, 10), (1e9, 10)] {
            assert_eq!(heat_step(ratio), step, "{ratio}");
            assert_eq!(heat_step(1.0 / ratio), 10 - step, "{ratio}");
        }
    }

    /// WCAG 2: relative luminance.
    fn luminance(color: &str) -> f64 {
        let part = |from: usize| {
            let value = f64::from(u8::from_str_radix(&color[from..from + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn contrast(first: &str, second: &str) -> f64 {
        let (first, second) = (luminance(first), luminance(second));
        (first.max(second) + 0.05) / (first.min(second) + 0.05)
    }

    #[test]
    fn every_driver_stands_out_on_both_grounds() {
        for (name, light, dark) in KNOWN {
            assert!(contrast(light, "#ffffff") >= 4.0, "{name} {}", contrast(light, "#ffffff"));
            assert!(contrast(dark, "#17191d") >= 4.5, "{name} {}", contrast(dark, "#17191d"));
        }
    }

    #[test]
    fn texts_can_be_read_on_every_step_of_the_scale() {
        for (step, color) in HEAT_LIGHT.iter().enumerate() {
            assert!(contrast(color, Ink::OnHeat(step).paper()) >= 4.5, "{step}");
        }
        for (step, color) in HEAT_DARK.iter().enumerate() {
            let ink = if matches!(step, 0 | 1 | 9 | 10) { "#101215" } else { "#f3f4f6" };
            assert!(contrast(color, ink) >= 4.4, "{step}: {}", contrast(color, ink));
        }
    }
}
