//! PAX extended headers: `LENGTH KEY=VALUE\n` records, where LENGTH counts the whole record.

use thinstore_storage::Result;

use crate::{printable, refuse};

/// Key and value of one record.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits an extended header into its records, in order: GNU sparse files repeat keys and mean it.
/// `entry` names the entry in a refusal.
pub(crate) fn records<'a>(mut raw: &'a [u8], entry: &str) -> Result<Vec<Record<'a>>> {
    let mut found = Vec::new();
    while !raw.is_empty() {
        // Some writers pad the header with NULs.
        if raw.iter().all(|byte| *byte == 0) {
            break;
        }
        let Some((record, rest)) = first_record(raw) else {
            return Err(refuse(format!("the extended header of {entry} is malformed")));
        };
        if record.0.is_empty() || record.0.contains(&0) {
            return Err(refuse(format!(
                "the extended header of {entry} has a record without a key"
            )));
        }
        found.push(record);
        raw = rest;
    }
    Ok(found)
}

fn first_record(raw: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = raw.iter().take(20).position(|byte| *byte == b' ')?;
    let digits = raw.get(..space)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (record, rest) = raw.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some(((body.get(..equals)?, body.get(equals + 1..)?), rest))
}

/// Appends one record.
pub(crate) fn push_record(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits: try until it holds.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    header.extend_from_slice(length.to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(key);
    header.push(b'=');
    header.extend_from_slice(value);
    header.push(b'\n');
}

/// The extended attribute's name in a key that libarchive wrote: `%XX` stands for a byte.
pub(crate) fn percent_decoded(raw: &[u8], entry: &str) -> Result<Vec<u8>> {
    let mut name = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            name.push(*first);
            continue;
        }
        let byte = match tail {
            [high, low, ..] => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        let Some((high, low)) = byte else {
            let raw = printable(raw);
            return Err(refuse(format!(
                "{entry} has an extended attribute of the bad name '{raw}'"
            )));
        };
        name.push(high << 4 | low);
        rest = tail.get(2..).unwrap_or_default();
    }
    Ok(name)
}

/// The reverse of [`percent_decoded`], for names that a plain key cannot hold.
pub(crate) fn percent_encoded(name: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=') {
            encoded.push(*byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    encoded
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_nuls_and_equals_signs() {
        let mut raw = Vec::new();
        push_record(&mut raw, b"SCHILY.xattr.user.a", b"x\n=\0\n");
        push_record(&mut raw, b"path", b"p");
        let found = records(&raw, "e").unwrap();
        assert_eq!(found[0], (&b"SCHILY.xattr.user.a"[..], &b"x\n=\0\n"[..]));
        assert_eq!(found[1], (&b"path"[..], &b"p"[..]));
    }

    #[test]
    fn lengths_count_their_own_digits_at_every_size() {
        for length in 0..2000 {
            let mut raw = Vec::new();
            let value = vec![b'v'; length];
            push_record(&mut raw, b"k", &value);
            push_record(&mut raw, b"z", b"");
            assert_eq!(records(&raw, "e").unwrap(), vec![(&b"k"[..], &value[..]), (b"z", b"")]);
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for raw in [
            &b"5 a=b"[..],
            b"a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"3 a=b\n",
            b"-6 a=b\n",
            b"5 ab\n",
            b"99999999999999999999999 a=b\n",
            b"5 =b\n",
            b" 6 a=b\n",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(records(raw, "e").is_err(), "{}", String::from_utf8_lossy(raw));
        }
    }

    #[test]
    fn percent_names_come_back() {
        let name = b"user.\xff=%a b";
        assert_eq!(percent_decoded(&percent_encoded(name), "e").unwrap(), name);
        assert!(percent_decoded(b"user.%4", "e").is_err());
        assert!(percent_decoded(b"user.%zz", "e").is_err());
    }
}
