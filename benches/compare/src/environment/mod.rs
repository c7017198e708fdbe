//! The machine that a run was made on: part of every result.

mod disk;
mod machine;
mod programs;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a figure depends on besides the program. What cannot be found out is empty or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// The host's name.
    pub host: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// `Linux 6.18.0 #1 SMP ...`.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// The processor's model.
    pub processor: String,
    /// How many processors the system has online.
    pub processors: u32,
    /// The frequency governor, where there is one.
    pub governor: Option<String>,
    /// The hypervisor, where there is one.
    pub virtualization: Option<String>,
    /// What runs the guest that this is, as `tools/guest` says it: its figures say nothing about a machine, and are
    /// compared with each other alone. None on a machine of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// All memory.
    pub memory_bytes: u64,
    /// What else the machine did when the run began: the load averages of 1, 5 and 15 minutes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub load: String,
    /// What lies below the store.
    pub disk: Disk,
    /// Does FUSE have its `io_uring` transport switched on? None if the kernel has none.
    pub fuse_uring: Option<bool>,
    /// thinstore's version.
    pub thinstore: String,
    /// The commit it was built from; empty outside git.
    pub commit: String,
    /// Were there changes that are in no commit?
    pub dirty: bool,
    /// Of the programs that drivers and workloads run: name and version.
    pub programs: BTreeMap<String, String>,
}

impl Environment {
    /// Looks at this machine; `store` is the folder below which everything is measured. What cannot be found out is
    /// left empty: a run is not refused for it.
    pub fn collect(store: &Path) -> Self {
        Self {
            host: machine::host(),
            date: crate::time::now(),
            kernel: machine::kernel(),
            system: machine::system(),
            processor: machine::processor(),
            processors: machine::processors(),
            governor: machine::governor(),
            virtualization: machine::virtualization(),
            guest: machine::guest(),
            memory_bytes: machine::memory_bytes(),
            load: machine::load(),
            disk: disk::disk(store),
            fuse_uring: machine::fuse_uring(),
            thinstore: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("THINSTORE_COMMIT").to_owned(),
            dirty: env!("THINSTORE_DIRTY") == "true",
            programs: programs::programs(),
        }
    }
}

/// The first line of a file, without blanks around it; empty if it cannot be read.
fn line_of(path: impl AsRef<Path>) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// A file system and its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// `ext4`.
    pub file_system: String,
    /// As in mountinfo: those of the mount, then those of the file system.
    pub mount_options: String,
    /// What it is mounted from: `/dev/vda1`.
    pub source: String,
    /// The whole disk: `vda`.
    pub device: String,
    /// Its model.
    pub model: String,
    /// Its size.
    pub size_bytes: u64,
    /// The I/O scheduler in use.
    pub scheduler: String,
    /// Does it turn?
    pub rotational: Option<bool>,
    /// `write back` if it has a cache that wants to be flushed.
    pub write_cache: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::collect(folder.path());
        assert!(environment.kernel.starts_with("Linux "), "{}", environment.kernel);
        assert!(environment.processors > 0 && environment.memory_bytes > 1 << 20);
        assert!(!environment.disk.file_system.is_empty());
        assert_eq!(
            environment.load.split(' ').filter(|load| load.parse::<f64>().is_ok()).count(),
            3
        );
        assert!(environment.date.starts_with("20") && environment.date.ends_with('Z'));
        let json = serde_json::to_string(&environment).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&json).unwrap(), environment);
    }

    #[test]
    fn an_older_environment_with_less_in_it_is_read() {
        let environment: Environment = serde_json::from_str(r#"{"host":"a","later":1}"#).unwrap();
        assert_eq!(environment.host, "a");
        assert_eq!(environment.fuse_uring, None);
    }
}
