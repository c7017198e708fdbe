//! Numbers as tar writes them: octal or base-256 fields, and the decimals of PAX records.

use thinstore_filesystem::Timestamp;

/// Reads a numeric header field: octal digits between spaces and NULs, or, with the top bit set, a
/// big-endian two's complement number. An empty field is zero. `None` if it is neither.
pub(crate) fn parse_field(field: &[u8]) -> Option<i128> {
    match field.first() {
        None => Some(0),
        Some(first) if first & 0x80 != 0 => parse_base256(field),
        Some(_) => parse_octal(field),
    }
}

/// In base-256, bit 7 of the first byte is the mark and bit 6 the sign.
fn parse_base256(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if field.len() > 15 {
        return None;
    }
    let magnitude = i128::from(first & 0x3f);
    let start = if first & 0x40 != 0 { magnitude - 0x40 } else { magnitude };
    Some(rest.iter().fold(start, |value, byte| (value << 8) | i128::from(*byte)))
}

fn parse_octal(field: &[u8]) -> Option<i128> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, padding) = digits.split_at_checked(end)?;
    // Some writers leave bytes of a longer earlier value behind the terminating NUL; what follows a
    // NUL is not part of the field. Behind a space only padding may stand.
    if padding.first() == Some(&b' ') && !padding.iter().all(blank) {
        return None;
    }
    digits.iter().try_fold(0_i128, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i128::from(digit - b'0')),
        _ => None,
    })
}

/// Reads a decimal number of a PAX record: digits, with a minus sign at most.
pub(crate) fn parse_decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude =
        digits.iter().fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Reads a time of a PAX record: seconds with a fraction, of which nine digits count. The fraction of a
/// negative time reaches further into the past: -1.5 is half a second before -1.
pub(crate) fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let negative = whole.first() == Some(&b'-');
    let seconds = match whole {
        b"" | b"-" if !fraction.is_empty() => 0,
        digits => parse_decimal(digits)?,
    };
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    if negative && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1)?;
        return Some(Timestamp { seconds, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Timestamp { seconds, nanoseconds })
}

/// Writes a time as a PAX record does, without trailing zeroes of the fraction.
pub(crate) fn format_time(time: Timestamp) -> String {
    let nanoseconds = i128::from(time.nanoseconds.min(999_999_999));
    let total = i128::from(time.seconds) * 1_000_000_000 + nanoseconds;
    let sign = if total < 0 { "-" } else { "" };
    let (seconds, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_are_read_with_every_padding_in_use() {
        assert_eq!(parse_field(b"0000644\0"), Some(0o644));
        assert_eq!(parse_field(b"   644 \0"), Some(0o644));
        assert_eq!(parse_field(b"644     "), Some(0o644));
        assert_eq!(parse_field(b"\0\0\0\0"), Some(0));
        assert_eq!(parse_field(b"77777777777"), Some(0o77_777_777_777));
        assert_eq!(parse_field(b"0000648\0"), None);
        assert_eq!(parse_field(b"-000001\0"), None);
        assert_eq!(parse_field(b"64 4"), None);
    }

    #[test]
    fn base256_fields_are_read_with_their_sign() {
        assert_eq!(parse_field(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(parse_field(&[0xff; 12]), Some(-1));
        assert_eq!(parse_field(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(parse_field(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Some(0xffff_ffff));
        assert!(parse_field(&[0xbf; 12]).unwrap() > i128::from(u64::MAX));
    }

    #[test]
    fn pax_times_keep_nanoseconds_on_both_sides_of_1970() {
        let time = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(parse_time(b"12"), time(12, 0));
        assert_eq!(parse_time(b"12.5"), time(12, 500_000_000));
        assert_eq!(parse_time(b"12.1234567899"), time(12, 123_456_789));
        assert_eq!(parse_time(b"-1.5"), time(-2, 500_000_000));
        assert_eq!(parse_time(b"-0.000000001"), time(-1, 999_999_999));
        assert_eq!(parse_time(b"-12"), time(-12, 0));
        assert_eq!(parse_time(b"12."), time(12, 0));
        for bad in [&b""[..], b"-", b".", b"1.x", b"x", b"1e3", b"99999999999999999999999", b"1.-5"]
        {
            assert_eq!(parse_time(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn written_times_are_read_back() {
        for (seconds, nanoseconds) in
            [(0, 0), (0, 1), (-1, 999_999_999), (-1, 0), (-2, 500_000_000), (i64::MAX, 5), (7, 120)]
        {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(parse_time(format_time(time).as_bytes()), Some(time));
        }
        assert_eq!(format_time(Timestamp { seconds: -2, nanoseconds: 500_000_000 }), "-1.5");
    }
}
