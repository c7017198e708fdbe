//! Paths in JSON and in query strings. A path is any bytes, JSON text is not: what is not UTF-8 is
//! written as `hex:` and two digits a byte (and so is a path that begins with `hex:` itself).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serializer};

const PREFIX: &str = "hex:";

fn encode(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.starts_with(PREFIX) => text.to_owned(),
        _ => format!("{PREFIX}{}", crate::names::hex(path.as_os_str().as_bytes())),
    }
}

fn decode(text: &str) -> Option<PathBuf> {
    let Some(digits) = text.strip_prefix(PREFIX) else {
        return Some(PathBuf::from(text));
    };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    bytes.map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(path))
}

pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    decode(&text).ok_or_else(|| serde::de::Error::custom("a path after 'hex:' is not hex digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_survives_its_text() {
        for bytes in [&b"/a/b"[..], b"", b"hex:00", b"/\xff\xfe\n", "/ä".as_bytes()] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(decode(&encode(&path)).expect("a path"), path);
        }
        assert_eq!(decode("hex:0"), None);
        assert_eq!(decode("hex:zz"), None);
    }
}
