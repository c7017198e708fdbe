//! Sizes as people write and read them: powers of 1024.

use thinstore_storage::{Error, ErrorKind, Result};

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Takes `512`, `4K`, `20M`, `10G`, `1T` (also P and E, either case): bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorKind::Usage,
            format!(
                "'{}' is not a size: {why}; write 512, 4K, 20M, 10G or 1T",
                text.escape_debug()
            ),
        ))
    };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "P" | "p" => 50,
        "E" | "e" => 60,
        _ => return refuse("it is not a whole number with K, M, G or T"),
    };
    if number.is_empty() {
        return refuse("it has no digits");
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) => Ok(bytes),
        None => refuse("it is beyond 16 EiB"),
    }
}

/// A size in binary units with about three digits: `0 B`, `1.5 KiB`, `12.3 MiB`, `100 GiB`.
pub fn format_size(bytes: u64) -> String {
    let mut unit = 0;
    let mut scale: u64 = 1;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale <<= 10;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("EiB");
    let (whole, rest) = (u128::from(bytes / scale), u128::from(bytes % scale));
    let scale = u128::from(scale);
    let rounded = |digits: u128| (rest * digits + scale / 2) / scale;
    if unit == 0 || whole >= 100 {
        return format!("{} {name}", whole + if unit == 0 { 0 } else { rounded(1) });
    }
    let digits: u128 = if whole >= 10 { 10 } else { 100 };
    let fraction = rounded(digits);
    let (whole, fraction) = (whole + fraction / digits, fraction % digits);
    let width = if digits == 100 { 2 } else { 1 };
    let text = format!("{whole}.{fraction:0width$}");
    format!("{} {name}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("4K", 4096),
            ("20m", 20 << 20),
            ("10G", 10 << 30),
            ("1T", 1 << 40),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text).expect(text), bytes);
        }
        for bad in ["", "K", "-1", "1.5G", "10 G", "1X", "16E", "18446744073709551616", "1KB", "é"]
        {
            assert_eq!(parse_size(bad).expect_err(bad).kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn sizes_are_shown_in_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (65536, "64 KiB"),
            (12_900_000, "12.3 MiB"),
            (100 << 30, "100 GiB"),
            (1 << 50, "1 PiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }
}
