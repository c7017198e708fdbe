//! Values in which parameters stand: `{size_bytes}`, `--iodepth={queue_depth}`.

use crate::results::Parameters;

/// A text with places for parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Of a text as it stands in the file.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The names of the parameters in it; an error if a bracket is not closed.
    pub fn names(&self) -> Result<Vec<&str>, String> {
        let mut names = Vec::new();
        let mut rest = self.0.as_str();
        while let Some((_, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| format!("'{}' has a '{{' without '}}'", self.0))?;
            names.push(name);
            rest = after;
        }
        Ok(names)
    }

    /// With the parameters' values. An unknown one is an error.
    pub fn text(&self, parameters: &Parameters) -> Result<String, String> {
        let mut text = self.0.clone();
        for name in self.names()? {
            let value = parameters
                .0
                .get(name)
                .ok_or_else(|| format!("'{}': there is no parameter '{name}'", self.0))?;
            text = text.replace(&format!("{{{name}}}"), &value.to_string());
        }
        Ok(text)
    }

    /// A number or a size: `12`, `4K`.
    pub fn number(&self, parameters: &Parameters) -> Result<u64, String> {
        let text = self.text(parameters)?;
        number(&text).ok_or_else(|| format!("'{text}' is no number and no size like 4K, 20M or 1G"))
    }
}

/// A number, with K, M, G or T for powers of 1024.
pub fn number(text: &str) -> Option<u64> {
    let (digits, factor) = match text.chars().last()? {
        'K' => (text.strip_suffix('K')?, 1 << 10),
        'M' => (text.strip_suffix('M')?, 1 << 20),
        'G' => (text.strip_suffix('G')?, 1 << 30),
        'T' => (text.strip_suffix('T')?, 1_u64 << 40),
        _ => (text, 1),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse::<u64>().ok()?.checked_mul(factor)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_take_their_places() {
        let parameters = Parameters::default().with("size_bytes", 4096).with("mode", "randread");
        let text = |template: &str| Template::new(template).text(&parameters);
        assert_eq!(text("--rw={mode} --bs={size_bytes}").unwrap(), "--rw=randread --bs=4096");
        assert!(text("{depth}").unwrap_err().contains("no parameter 'depth'"));
        assert!(text("{depth").unwrap_err().contains("without"));
        assert_eq!(Template::new("{size_bytes}").number(&parameters), Ok(4096));
        assert_eq!(Template::new("2M").number(&parameters), Ok(2 << 20));
        for wrong in ["", "K", "-1", "1.5G", "99999999999T", "{mode}", "+4"] {
            assert!(Template::new(wrong).number(&parameters).is_err(), "{wrong}");
        }
    }
}
