//! Names of images, and the system that one is for.

use super::document::PlatformField;

/// An operating system and a processor, as images name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7`, `v8`, ...: only where one is wanted.
    pub variant: Option<String>,
}

impl Platform {
    /// What this program runs on.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    pub(crate) fn matches(&self, field: &PlatformField) -> bool {
        let variant = match (&self.variant, &field.variant) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        self.os == field.os && self.architecture == field.architecture && variant
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(formatter, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The name as people write it: without the registry and folder that Docker takes for granted.
pub(crate) fn familiar(name: &str) -> String {
    let name = name.strip_prefix("index.").unwrap_or(name);
    let short = name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("docker.io/"));
    short.unwrap_or(name).to_owned()
}

/// The name in full, as registries and containerd write it.
pub(crate) fn full(name: &str) -> String {
    let name = familiar(&tagged(name));
    let (first, rest) = name.split_once('/').unwrap_or(("", &name));
    if rest == name {
        return format!("docker.io/library/{name}");
    }
    let is_host = first.contains(['.', ':']) || first == "localhost";
    if is_host { name } else { format!("docker.io/{name}") }
}

/// The name with a tag: `latest` if it has neither tag nor digest.
pub(crate) fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

/// Do two names mean the same image?
pub(crate) fn same(first: &str, second: &str) -> bool {
    first == second || full(first) == full(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_docker_shortens_are_the_same() {
        assert!(same("debian:12", "docker.io/library/debian:12"));
        assert!(same("debian", "debian:latest"));
        assert!(same("user/app", "docker.io/user/app:latest"));
        assert!(!same("debian:12", "debian:11"));
        assert!(!same("localhost/debian:12", "debian:12"));
        assert_eq!(full("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(familiar("docker.io/library/debian:12"), "debian:12");
        assert_eq!(familiar("index.docker.io/library/debian:12"), "debian:12");
        assert_eq!(tagged("localhost:5000/a/b"), "localhost:5000/a/b:latest");
    }
}
