//! What may be called how: containers, images, volumes, digests, and what a user may write to mean one.
//!
//! The pool keeps any name of 1 to 255 bytes without NUL; the narrower rules of each kind are enforced
//! here, before anything is changed. They are Docker's, so that a name that is good there is good here.

use std::fmt;

use thinstore_storage::{Error, ErrorKind, Result};

/// The longest name of anything, in bytes.
pub const NAME_LIMIT_BYTES: usize = 255;

/// The tag that an image name without one stands for.
pub const DEFAULT_TAG: &str = "latest";

fn usage(message: String) -> Error {
    Error::new(ErrorKind::Usage, message)
}

/// A name as it may be printed inside a message: control characters are shown escaped.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

fn check_plain(kind: &str, name: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(usage(format!(
            "'{}' is not a {kind} name: it {why}; use letters, digits, '_', '.' and '-', starting with a letter or digit",
            shown(name)
        )))
    };
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.len() > NAME_LIMIT_BYTES {
        return refuse("is longer than 255 bytes");
    }
    if name.contains('\0') {
        return refuse("contains a NUL");
    }
    if name.contains('/') {
        return refuse("contains '/'");
    }
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return refuse("does not start with a letter or digit");
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-')) {
        Some(other) => refuse(&format!("contains '{}'", other.escape_debug())),
        None => Ok(()),
    }
}

/// A container's name: letters, digits, `_`, `.` and `-`, starting with a letter or digit, up to 255
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// Takes `name` if the rules allow it; else an error of kind `Usage`.
    pub fn parse(name: &str) -> Result<ContainerName> {
        check_plain("container", name)?;
        Ok(ContainerName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A volume's name: as a container's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// Takes `name` if the rules allow it; else an error of kind `Usage`.
    pub fn parse(name: &str) -> Result<VolumeName> {
        check_plain("volume", name)?;
        Ok(VolumeName(name.to_owned()))
    }

    /// A name for a volume that got none: 64 random hex digits.
    pub fn anonymous() -> Result<VolumeName> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes))
            .map_err(|error| Error::io("cannot read /dev/urandom", error))?;
        Ok(VolumeName(hex(&bytes)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An image's name: a repository, as Docker's reference grammar has it, and a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    repository: String,
    tag: String,
}

impl ImageName {
    /// Takes `[HOST[:PORT]/]PATH[:TAG]`; without a tag it is `latest`. Digests (`@sha256:...`) name
    /// what is there already, never something new: they are refused here.
    pub fn parse(name: &str) -> Result<ImageName> {
        let refuse = |why: &str| {
            Err(usage(format!(
                "'{}' is not an image name: {why}; write it as [HOST/]NAME[:TAG], in lower case",
                shown(name)
            )))
        };
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.contains('\0') {
            return refuse("it contains a NUL");
        }
        if name.contains('@') {
            return refuse("a digest cannot be given to an image");
        }
        let after_host = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name.get(after_host..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let at = after_host + colon;
                (name.get(..at).unwrap_or_default(), name.get(at + 1..).unwrap_or_default())
            }
            None => (name, DEFAULT_TAG),
        };
        if !is_tag(tag) {
            return refuse(
                "its tag is not 1 to 128 letters, digits, '_', '.' and '-' that start with none of '.' and '-'",
            );
        }
        if let Some(why) = repository_fault(repository) {
            return refuse(why);
        }
        let parsed = ImageName { repository: repository.to_owned(), tag: tag.to_owned() };
        if parsed.to_string().len() > NAME_LIMIT_BYTES {
            return refuse("it is longer than 255 bytes");
        }
        Ok(parsed)
    }

    /// Makes an image name of whatever text there is (a file's name, an annotation): what the grammar
    /// does not allow becomes `-`. Nothing usable gives `image`.
    pub fn from_text(text: &str) -> ImageName {
        if let Ok(name) = ImageName::parse(text) {
            return name;
        }
        let mut cleaned = String::new();
        for character in text.chars().flat_map(char::to_lowercase).take(100) {
            if character.is_ascii_lowercase() || character.is_ascii_digit() {
                cleaned.push(character);
            } else if !cleaned.is_empty() && !cleaned.ends_with('-') {
                cleaned.push('-');
            }
        }
        let cleaned = cleaned.trim_end_matches('-');
        let repository = if cleaned.is_empty() { "image" } else { cleaned };
        ImageName { repository: repository.to_owned(), tag: DEFAULT_TAG.to_owned() }
    }

    /// The part before the tag.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.repository, self.tag)
    }
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Why a repository is not one, or `None`.
fn repository_fault(repository: &str) -> Option<&'static str> {
    let mut components: Vec<&str> = repository.split('/').collect();
    let is_host = |text: &str| text == "localhost" || text.contains(['.', ':']);
    if components.len() > 1 && components.first().is_some_and(|first| is_host(first)) {
        let host = components.remove(0);
        if !is_host_name(host) {
            return Some("its host is not HOST or HOST:PORT");
        }
    }
    for component in components {
        if component.is_empty() {
            return Some("a part between slashes is empty");
        }
        if component.chars().any(|c| c.is_ascii_uppercase()) {
            return Some("it has capital letters");
        }
        if !is_path_component(component) {
            return Some(
                "its parts are lower-case letters and digits, joined by '.', '_', '__' or dashes",
            );
        }
    }
    None
}

fn is_host_name(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let good_port = port.is_none_or(|port| {
        (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
    });
    let good_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    good_port && name.split('.').all(good_part)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = component.starts_with(alphanumeric) && component.ends_with(alphanumeric);
    let separators = component.split(alphanumeric).filter(|between| !between.is_empty());
    edges
        && separators.into_iter().all(|between| {
            matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

/// A prefix of a digest or id that a user wrote: at least four hex digits, perhaps after `sha256:`.
/// `None` if the text cannot be one.
pub fn digest_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("thin:")).unwrap_or(text);
    let good = (4..=64).contains(&hex.len())
        && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    good.then_some(hex)
}

/// 32 bytes as 64 hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// The bytes of `sha256:<64 hex digits>`; `None` if it is not that.
pub fn digest_bytes(digest: &str) -> Option<[u8; 32]> {
    let hex = digest.strip_prefix("sha256:")?;
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let pair = hex.get(index * 2..index * 2 + 2)?;
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// `sha256:<hex>` of some bytes.
pub fn sha256_digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("sha256:{}", hex(Sha256::digest(bytes).as_slice()))
}

/// The chain id of a layer: the diff id itself for the first, else the SHA-256 of
/// `PARENT_CHAIN_ID DIFF_ID` (OCI image specification, config.md, "Layer ChainID").
pub fn chain_id(parent: Option<&str>, diff_id: &str) -> String {
    match parent {
        None => diff_id.to_owned(),
        Some(parent) => sha256_digest(format!("{parent} {diff_id}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names_follow_dockers_rules() {
        for good in ["a", "web-1", "A.b_c", "0", &"x".repeat(255)] {
            assert!(ContainerName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a/b", "a\0b", "-a", ".a", "a b", "a:b", "ä", "a\nb", "..", &"x".repeat(256)]
        {
            let error = ContainerName::parse(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!error.to_string().contains(['\0', '\n']), "{error}");
        }
    }

    #[test]
    fn image_names_take_the_default_tag() {
        let name = ImageName::parse("debian").expect("good");
        assert_eq!((name.repository(), name.tag()), ("debian", "latest"));
        assert_eq!(name.to_string(), "debian:latest");
        let name = ImageName::parse("localhost:5000/team/app:v1.2").expect("good");
        assert_eq!((name.repository(), name.tag()), ("localhost:5000/team/app", "v1.2"));
    }

    #[test]
    fn image_names_outside_the_grammar_are_refused() {
        let long = format!("{}:x", "a".repeat(254));
        for bad in [
            "",
            "Debian",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a b",
            "a..b",
            "a___b",
            "_a",
            "a@sha256:00",
            "a\0",
            "a:b:c",
            "bad_host.x:port/a",
            &long,
        ] {
            assert!(ImageName::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a--b", "a__b", "a.b/c-d", "ghcr.io/x/y", "a:UPPER.tag-1", "127.0.0.1:1/a"] {
            assert!(ImageName::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn any_text_becomes_some_image_name() {
        assert_eq!(ImageName::from_text("My Image.tar").to_string(), "my-image-tar:latest");
        assert_eq!(ImageName::from_text("a:1").to_string(), "a:1");
        assert_eq!(ImageName::from_text("///").to_string(), "image:latest");
        for text in ["--x--", "\0", "ÄÖ", &"Z".repeat(1000)] {
            let name = ImageName::from_text(text);
            assert!(ImageName::parse(&name.to_string()).is_ok(), "{name}");
        }
    }

    #[test]
    fn digests_and_prefixes_are_told_from_names() {
        assert_eq!(digest_prefix("sha256:abcd"), Some("abcd"));
        assert_eq!(digest_prefix("0123abcd"), Some("0123abcd"));
        assert_eq!(digest_prefix("abc"), None);
        assert_eq!(digest_prefix("debian"), None);
        let digest = sha256_digest(b"");
        assert_eq!(
            digest,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(hex(&digest_bytes(&digest).expect("a digest")), digest[7..]);
        assert_eq!(digest_bytes("sha256:zz"), None);
        assert_eq!(digest_bytes(&format!("sha256:{}", "+1".repeat(32))), None);
    }

    #[test]
    fn chain_ids_follow_the_oci_specification() {
        let first = sha256_digest(b"a");
        let second = sha256_digest(b"b");
        assert_eq!(chain_id(None, &first), first);
        assert_eq!(
            chain_id(Some(&first), &second),
            sha256_digest(format!("{first} {second}").as_bytes())
        );
    }
}
