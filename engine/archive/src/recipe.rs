//! Recipes of layers, as Docker keeps them beside the unpacked files (`tar-split.json.gz`): everything of
//! a tar but the contents of its files, so that the tar can be had again, to the byte, from both.
//!
//! Source: github.com/vbatts/tar-split, tar/storage (the entries) and tar/asm (their order).

pub(crate) mod read;
pub(crate) mod write;

use serde::{Deserialize, Serialize};

/// The content of a file stands here, under its name.
pub(crate) const FILE: u8 = 1;
/// Bytes of the tar itself: headers, padding, the end.
pub(crate) const SEGMENT: u8 = 2;

/// One line of a recipe.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    #[serde(rename = "type")]
    pub(crate) kind: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// A name that is no UTF-8, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name_raw: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) size: u64,
    /// In base64: of a segment its bytes, of a file the CRC-64 of its content.
    pub(crate) payload: Option<String>,
    pub(crate) position: u64,
}

// serde asks for this signature
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(size: &u64) -> bool {
    *size == 0
}

/// The CRC-64 of ISO 3309, as Go's `hash/crc64` computes it.
#[derive(Clone)]
pub(crate) struct Crc64(u64);

const TABLE: [u64; 256] = table();

#[allow(
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "computed at compile time, where a wrong index does not compile"
)]
const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0xd800_0000_0000_0000 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

impl Crc64 {
    pub(crate) fn new() -> Crc64 {
        Crc64(u64::MAX)
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        for byte in data {
            let index = usize::from(self.0.to_le_bytes()[0] ^ byte);
            self.0 = self.0 >> 8 ^ TABLE.get(index).copied().unwrap_or(0);
        }
    }

    /// The value as recipes write it.
    pub(crate) fn finish(&self) -> [u8; 8] {
        (!self.0).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::base64;

    #[test]
    fn checksums_are_those_that_docker_wrote() {
        for (content, expected) in [("a\n", "YUQgAAAAAAA="), ("new\n", "YVqy3bAAAAA=")] {
            let mut crc = Crc64::new();
            crc.update(content.as_bytes());
            assert_eq!(base64::encode(&crc.finish()), expected.as_bytes());
        }
    }

    #[test]
    fn a_line_is_written_as_docker_writes_it() {
        let line = r#"{"type":1,"name":"d/z","size":2,"payload":"YTHwAAAAAAA=","position":5}"#;
        let parsed: Line = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), line);
        let line = r#"{"type":1,"name":"d/zz","payload":null,"position":7}"#;
        let parsed: Line = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), line);
    }
}
