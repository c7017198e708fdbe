//! Small pieces of text that several commands print.

use thinstore_store::time::{ago, now_unix_ns};

/// The first twelve digits of an id or digest, as docker shows them.
pub fn short_id(id: &str) -> String {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// How long ago something was.
pub fn age(unix_ns: i64) -> String {
    ago(unix_ns, now_unix_ns())
}

/// `1 layer`, `2 layers`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A time as people read it: `350 us`, `12 ms`, `3.4 s`.
pub fn duration(microseconds: u64) -> String {
    match microseconds {
        0..1000 => format!("{microseconds} us"),
        1000..10_000 => format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", microseconds / 1000),
        _ => format!("{}.{} s", microseconds / 1_000_000, microseconds % 1_000_000 / 100_000),
    }
}

/// Text of the store that goes to a terminal: control characters are shown, not obeyed.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_counts_times_and_names_are_short_and_safe() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("abc"), "abc");
        assert_eq!(
            (counted(1, "layer"), counted(0, "layer")),
            ("1 layer".into(), "0 layers".into())
        );
        assert_eq!(duration(350), "350 us");
        assert_eq!(duration(1350), "1.3 ms");
        assert_eq!(duration(12_345), "12 ms");
        assert_eq!(duration(3_450_000), "3.4 s");
        assert_eq!(printable("a\x1b[31m\n"), "a\\u{1b}[31m\\n");
    }
}
