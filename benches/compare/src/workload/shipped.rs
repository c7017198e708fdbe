//! The workloads that come with the program.

use std::path::Path;

use super::Workload;
use crate::Result;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../workloads/", $name)))),*]
    };
}

/// All files of `benches/workloads`, in the order of the report.
const FILES: &[(&str, &str)] = &shipped!(
    "life.toml",
    "depth.toml",
    "interpreter.toml",
    "commit.toml",
    "copy-up.toml",
    "chown.toml",
    "small-files.toml",
    "random-read.toml",
    "sequential.toml",
    "first-write.toml",
    "overwrite.toml",
    "after-snapshot.toml",
    "build.toml",
    "sqlite.toml",
    "pgbench.toml",
    "live-snapshot.toml",
    "page-cache.toml",
    "space.toml",
    "space-return.toml",
    "replay-package-install.toml",
    "replay-sqlite-load.toml",
);

impl Workload {
    /// The workloads that come with the program.
    pub fn shipped() -> Result<Vec<Self>> {
        FILES.iter().map(|(name, text)| Self::parse(Path::new(name), text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_shipped_and_every_name_is_its_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".toml"))
            .collect();
        files.sort();
        let mut names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(files, names);
        for (workload, (name, _)) in Workload::shipped().unwrap().iter().zip(FILES) {
            assert_eq!(format!("{}.toml", workload.name), *name);
        }
    }
}
