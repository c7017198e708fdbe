//! Content digests as OCI writes them (`sha256:HEX`), running hashes, and chain ids.
//!
//! Source: the OCI image specification, descriptor.md (digests) and config.md (`ChainID`).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};
use thinstore_storage::{Error, Result};

use crate::{printable, refuse};

/// The hash function of a [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: what every tool writes.
    Sha256,
    /// SHA-512: registered by the specification, optional.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// A content digest: the hash function and the value in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of `bytes` by the same hash function as this one.
    #[must_use]
    pub fn same_kind_of(&self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value, in lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Checks `bytes` against this digest; `what` names them in the refusal.
    pub(crate) fn verify(&self, bytes: &[u8], what: &str) -> Result<()> {
        self.expect(&self.same_kind_of(bytes), what)
    }

    /// Checks that `found` is this digest.
    pub(crate) fn expect(&self, found: &Digest, what: &str) -> Result<()> {
        if found == self {
            return Ok(());
        }
        Err(refuse(format!("{what} has the digest {found} where {self} is promised")))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads `sha256:HEX` or `sha512:HEX`; anything else is refused.
    fn from_str(text: &str) -> Result<Digest> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let hex = text.strip_prefix(algorithm.name()).and_then(|rest| rest.strip_prefix(':'));
            if let Some(hex) = hex
                && hex.len() == algorithm.hex_digits()
                && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            {
                return Ok(Digest { algorithm, hex: hex.to_owned() });
            }
        }
        let text = printable(text.as_bytes());
        Err(refuse(format!("'{text}' is not a digest of the form sha256:HEX or sha512:HEX")))
    }
}

/// A running hash.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => {
                Digest { algorithm: Algorithm::Sha256, hex: to_hex(&hasher.finalize()) }
            }
            Hasher::Sha512(hasher) => {
                Digest { algorithm: Algorithm::Sha512, hex: to_hex(&hasher.finalize()) }
            }
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The chain id of every layer, lowest first: what identifies a layer together with all below it.
///
/// The first is its diff id; each further one is the SHA-256 of `"CHAIN DIFF"`, the chain id below and
/// the layer's diff id joined by a space.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The chain id of a whole stack of layers; none for an empty stack.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    chain_ids(diff_ids).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_known_bytes_is_the_published_value() {
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let sha512 = format!("sha512:{}", "0".repeat(128)).parse::<Digest>().unwrap();
        assert!(sha512.same_kind_of(b"abc").to_string().starts_with("sha512:ddaf35a193617aba"));
    }

    #[test]
    fn malformed_digests_are_refused() {
        for text in ["", "sha256:", "sha256:AB", "md5:00", "sha256", &"a".repeat(64)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = format!("sha256:{}", "A".repeat(64));
        assert!(upper.parse::<Digest>().is_err());
        let slash = format!("sha256:../{}", "a".repeat(61));
        assert!(slash.parse::<Digest>().is_err());
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id_and_of_two_the_hash_of_both() {
        let first = Digest::of(b"1");
        let second = Digest::of(b"2");
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&first)), Some(first.clone()));
        let expected = Digest::of(format!("{first} {second}").as_bytes());
        assert_eq!(chain_id(&[first, second]), Some(expected));
    }
}
