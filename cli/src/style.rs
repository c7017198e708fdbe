//! Colour: only on a terminal, and not where NO_COLOR is set (no-color.org).

use std::io::IsTerminal;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// For a stream, by what it is and what the environment wants.
    pub fn for_stream(stream: &impl IsTerminal) -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Style { coloured: stream.is_terminal() && !refused && !dumb }
    }

    /// Without colour.
    #[cfg(test)]
    pub fn plain() -> Style {
        Style { coloured: false }
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What went wrong.
    pub fn error(self, text: &str) -> String {
        self.painted("1;31", text)
    }

    /// What went well, or was added.
    pub fn good(self, text: &str) -> String {
        self.painted("32", text)
    }

    /// What was removed.
    pub fn gone(self, text: &str) -> String {
        self.painted("31", text)
    }

    /// What was changed.
    pub fn changed(self, text: &str) -> String {
        self.painted("33", text)
    }

    /// What leads the eye.
    pub fn strong(self, text: &str) -> String {
        self.painted("1", text)
    }

    /// What is beside the point.
    pub fn faint(self, text: &str) -> String {
        self.painted("2", text)
    }
}
