//! The parameters of a workload: names and values, as `depth=100 size_bytes=4096`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::metric::size;
use crate::number::float;

/// A value of a parameter. Numbers come before words, and in their own order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// A number; of bytes, if the parameter's name ends with `_bytes`.
    Number(u64),
    /// A word.
    Text(String),
}

impl ParameterValue {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(float(*number)),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

impl From<u64> for ParameterValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for ParameterValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The parameters of one cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(pub BTreeMap<String, ParameterValue>);

impl Parameters {
    /// One parameter more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<ParameterValue>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// All but one.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut rest = self.clone();
        rest.0.remove(name);
        rest
    }

    /// For people: `depth 100, size 4 KiB`; empty if there are none.
    pub fn title(&self) -> String {
        let parts = self
            .0
            .iter()
            .map(|(name, value)| format!("{} {}", parameter_title(name), value_title(name, value)));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The same with the mark of what was measured in a guest: `depth 100, emulated`; may be empty.
    pub fn conditions(&self, emulated: bool) -> String {
        let mut conditions = self.title();
        if emulated {
            conditions.push_str(if conditions.is_empty() { "emulated" } else { ", emulated" });
        }
        conditions
    }
}

/// `depth=100 size_bytes=4096`.
impl fmt::Display for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(formatter, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

/// A parameter's name for people: of `size_bytes` it is `size`.
pub fn parameter_title(name: &str) -> String {
    name.trim_end_matches("_bytes").replace('_', " ")
}

/// A parameter's value for people.
pub fn value_title(name: &str, value: &ParameterValue) -> String {
    match value {
        ParameterValue::Number(number) if name.ends_with("_bytes") => size(*number),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_named_for_people_and_for_machines() {
        let parameters = Parameters::default()
            .with("size_bytes", 1 << 20)
            .with("depth", 10)
            .with("sync", "each");
        assert_eq!(parameters.title(), "depth 10, size 1 MiB, sync each");
        assert_eq!(parameters.to_string(), "depth=10 size_bytes=1048576 sync=each");
        assert_eq!(parameters.without("sync").title(), "depth 10, size 1 MiB");
    }

    #[test]
    fn numbers_are_in_their_own_order() {
        let small = Parameters::default().with("depth", 10);
        let large = Parameters::default().with("depth", 100);
        let word = Parameters::default().with("depth", "1");
        assert!(small < large && large < word);
    }
}
