//! A store in a temporary folder, and the program that is tested.
#![allow(dead_code, missing_docs)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_thinstore");

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// It went well and said nothing on stderr.
    #[track_caller]
    pub fn good(self) -> Run {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        self
    }

    /// It failed with this code, and one sentence that has these words in it.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) -> Run {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("thinstore: "), "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} is not in {:?}", self.stderr);
        self
    }
}

/// A folder with a store in it, or room for one. A daemon that runs is ended, and what is mounted is
/// unmounted, when this is dropped.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// Without a store.
    pub fn empty() -> Place {
        let folder = tempfile::Builder::new().prefix("thinstore-cli-").tempdir().expect("a folder");
        Place { folder }
    }

    /// With a small store.
    pub fn with_store() -> Place {
        let place = Place::empty();
        place.run(["init", "--size", "1G", "--device-size", "64M"]).good();
        place
    }

    /// With a small store and the image `base:latest`.
    pub fn with_image() -> Place {
        let place = Place::with_store();
        let tree = place.make_tree();
        place.run(["import", tree.to_str().expect("UTF-8"), "--name", "base"]).good();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("store")
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.root()).current_dir(self.folder.path());
        command.env_remove("THINSTORE_ROOT").env_remove("THINSTORE_LOG").stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        finish(self.command().args(arguments))
    }

    pub fn json<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> serde_json::Value {
        finish(self.command().args(["--format", "json"]).args(arguments)).good().json()
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        path
    }

    /// A small root file system as a folder.
    pub fn make_tree(&self) -> PathBuf {
        let tree = self.path("tree");
        if tree.exists() {
            return tree;
        }
        for folder in ["bin", "etc", "usr/lib", "srv"] {
            fs::create_dir_all(tree.join(folder)).expect("made");
        }
        fs::write(tree.join("etc/motd"), "welcome\n").expect("written");
        fs::write(tree.join("bin/run"), "#!/bin/sh\n").expect("written");
        fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o755)).expect("set");
        fs::write(tree.join("srv/data"), vec![7; 1 << 20]).expect("written");
        symlink("usr/lib", tree.join("lib")).expect("linked");
        fs::hard_link(tree.join("etc/motd"), tree.join("etc/issue")).expect("linked");
        tree
    }

    /// How much of the pool is in use, and what is in the store: to be the same after what fails.
    pub fn state(&self) -> (serde_json::Value, serde_json::Value) {
        let used = self.json(["df", "--wait"]);
        (used["pool_used_bytes"].clone(), self.json(["tree"]))
    }

    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.json(["check"])["clean"], true);
    }

    pub fn daemon_pid(&self) -> Option<i32> {
        let text = fs::read(self.root().join("daemon.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        record["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.daemon_pid().is_some() {
            for container in self.run(["ls", "-q"]).text().lines() {
                self.run(["umount", container]);
                self.run(["detach", container]);
            }
            self.run(["serve", "--stop"]);
        }
    }
}

pub fn finish(command: &mut Command) -> Run {
    let output = command.output().expect("the program runs");
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Fails with a clear message where root is needed and not there.
#[track_caller]
pub fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: run tools/test as root");
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
