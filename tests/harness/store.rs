//! A store for one test, taken down when the test ends, however it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Outcome, Running, TIME_LIMIT, run_within};
use crate::host;
use crate::program::{self, Identity, NOBODY};

/// A store in a temporary folder, and the program that works on it.
///
/// The folder holds `store/` (the store's root), `home/`, a copy of the program that everybody can
/// run, and whatever else a test puts there. A test that ends well calls [`TempStore::finish`]; one
/// that fails is cleaned up after by `Drop`.
pub struct TempStore {
    folder: TempDir,
    binary: PathBuf,
    identity: Identity,
}

impl TempStore {
    /// A place for a store, without a store in it.
    #[track_caller]
    pub fn without_init(identity: Identity) -> TempStore {
        let folder = tempfile::Builder::new()
            .prefix("thinstore-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder");
        let binary = program::copy_for_everyone(folder.path());
        let store = TempStore { folder, binary, identity };
        for name in ["home", "store"] {
            let path = store.folder.path().join(name);
            fs::create_dir(&path).expect("make a folder");
            store.give_to_user(&path);
        }
        store
    }

    /// A store of `size` (as in `init --size`).
    #[track_caller]
    pub fn with_size(identity: Identity, size: &str) -> TempStore {
        let store = TempStore::without_init(identity);
        store.ok(&["init", "--size", size]);
        store
    }

    /// A store of the default kind for tests: whoever runs them, 20 GiB, sparse.
    #[track_caller]
    pub fn new() -> TempStore {
        TempStore::with_size(Identity::Current, "20G")
    }

    /// A store of somebody without privileges.
    #[track_caller]
    pub fn unprivileged() -> TempStore {
        TempStore::with_size(Identity::Unprivileged, "20G")
    }

    /// Hands a path to the user who runs the program.
    pub fn give_to_user(&self, path: &Path) {
        if self.identity == Identity::Unprivileged && program::is_root() {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("change an owner");
        }
    }

    /// The folder that everything of the test lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The store's root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The pool's file.
    pub fn pool(&self) -> PathBuf {
        self.root().join("pool")
    }

    /// The file of the program that this test runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A path in the test's folder, as text for a command line.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    /// An empty folder of the test, made now, as text for a command line.
    pub fn new_folder(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).expect("make a folder");
        self.give_to_user(&path);
        self.path(name)
    }

    /// `thinstore --root ROOT ARGUMENTS` as `identity`, not started yet.
    pub fn command_as(&self, identity: Identity, arguments: &[&str]) -> Command {
        let home = self.folder.path().join("home");
        let mut command = program::command_of(&self.binary, identity, &home);
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    /// `thinstore --root ROOT ARGUMENTS`, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_as(self.identity, arguments)
    }

    /// Starts a command and does not wait for it.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Runs a command, whatever comes of it.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        run_within(self.command(arguments), TIME_LIMIT)
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Outcome {
        self.run(arguments).assert_success()
    }

    /// Runs a command that must succeed, as `identity`.
    #[track_caller]
    pub fn ok_as(&self, identity: Identity, arguments: &[&str]) -> Outcome {
        run_within(self.command_as(identity, arguments), TIME_LIMIT).assert_success()
    }

    /// Runs a command that must be refused: one of `codes`, and one sentence that has all `names`.
    #[track_caller]
    pub fn refused(&self, codes: &[i32], arguments: &[&str], names: &[&str]) -> Outcome {
        let outcome = self.run(arguments).assert_code(codes);
        outcome.assert_sentence(names);
        outcome
    }

    /// Runs a command with `--format json` that must succeed; what it printed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut words = vec!["--format", "json"];
        words.extend(arguments);
        self.ok(&words).json()
    }

    /// The rows of a listing in its JSON form.
    #[track_caller]
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        rows_of(&self.json(arguments))
    }

    /// The `name` of each row of a listing, sorted.
    #[track_caller]
    pub fn names(&self, listing: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .rows(&[listing])
            .iter()
            .map(|row| match row["name"].as_str() {
                Some(name) => name.to_owned(),
                None => panic!("a row of '{listing}' has no name: {row}"),
            })
            .collect();
        names.sort();
        names
    }

    /// How many layers the store has.
    #[track_caller]
    pub fn layer_count(&self) -> usize {
        self.rows(&["layers"]).len()
    }

    /// The bytes of the pool that are in use once nothing is pending.
    #[track_caller]
    pub fn pool_used_bytes(&self) -> u64 {
        let use_of_pool = self.json(&["df", "--wait"]);
        assert_eq!(use_of_pool["pending_free_bytes"], 0, "df --wait left something pending");
        match use_of_pool["pool_used_bytes"].as_u64() {
            Some(bytes) => bytes,
            None => panic!("df has no pool_used_bytes: {use_of_pool}"),
        }
    }

    /// What a person could see of the store's contents: for comparing before with after.
    #[track_caller]
    pub fn contents(&self) -> Contents {
        Contents {
            images: self.names("images"),
            containers: self.names("ls"),
            layers: self.layer_count(),
            pool_used_bytes: self.pool_used_bytes(),
        }
    }

    /// Attaches a container and returns its device.
    #[track_caller]
    pub fn attach(&self, container: &str) -> PathBuf {
        // The store may belong to somebody without privileges; devices are root's business.
        let printed = self.ok_as(Identity::Current, &["attach", container]).stdout_text();
        let device = PathBuf::from(printed.trim());
        assert!(device.starts_with("/dev"), "attach printed no device: '{}'", printed.trim());
        device
    }

    /// Checks the file system of a container that is not mounted, with e2fsck on its device.
    #[track_caller]
    pub fn assert_file_system_clean(&self, container: &str) {
        let device = self.attach(container);
        let device = device.to_str().expect("a UTF-8 path");
        let outcome = crate::run_tool("e2fsck", &["-f", "-n", device]);
        assert!(
            !outcome.stdout_text().contains("Fix? no"),
            "e2fsck would mend something\n{outcome}"
        );
        self.ok_as(Identity::Current, &["detach", container]);
    }

    /// Returns, with no daemon there, once all that layers of images own has its checksums.
    #[track_caller]
    pub fn wait_for_checksums(&self) {
        let service = self.start(&["serve"]);
        let has_all = || {
            self.daemon_pid().is_some()
                && self.rows(&["layers"]).iter().all(|layer| {
                    let name = layer["name"].as_str().expect("a layer's name");
                    let data = &self.json(&["inspect", name])[0]["GraphDriver"]["Data"];
                    data["ChecksummedBytes"].as_str().expect("a count of bytes") != "0"
                })
        };
        assert!(host::wait_until(TIME_LIMIT, has_all), "the checksums never came");
        self.ok(&["serve", "--stop"]);
        service.wait(TIME_LIMIT).assert_success();
    }

    /// The daemon's process, if `ROOT/daemon.json` names one that is alive.
    pub fn daemon_pid(&self) -> Option<i32> {
        let text = fs::read(self.root().join("daemon.json")).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        let pid = i32::try_from(value["pid"].as_i64()?).ok()?;
        // A file left behind may name somebody else's process by now.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = String::from_utf8_lossy(&line).contains("thinstore");
        (ours && host::is_alive(pid)).then_some(pid)
    }

    /// What the runtime knows of this store's containers: nothing once they have ended.
    fn running_containers(&self) -> Vec<String> {
        let list = Command::new("runc")
            .arg("--root")
            .arg(self.root().join("run/runtime"))
            .args(["list", "--quiet"])
            .output();
        let Ok(list) = list else { return Vec::new() };
        String::from_utf8_lossy(&list.stdout).lines().map(str::to_owned).collect()
    }

    /// Ends a test that went well: `check` and `scrub` must be clean, and once the daemon has been stopped no
    /// mount, loop device or process may be left on the test's folder.
    #[track_caller]
    pub fn finish(self) {
        if self.identity != Identity::Current {
            // Root may have looked at the store through a daemon of its own.
            self.ok_as(Identity::Current, &["serve", "--stop"]);
        }
        self.ok(&["check"]);
        self.ok(&["serve", "--stop"]);
        assert_eq!(self.running_containers(), [""; 0], "containers are still running");
        let gone = host::wait_until(Duration::from_secs(10), || {
            host::left_below(self.folder.path()).is_empty()
        });
        assert!(gone, "left behind: {:#?}", host::left_below(self.folder.path()));
        assert_eq!(self.daemon_pid(), None, "the daemon is still there");
        // Stopping writes its last checkpoint; what it wrote must be sound too.
        self.ok(&["check"]);
        self.ok(&["scrub"]);
    }
}

impl Default for TempStore {
    fn default() -> Self {
        TempStore::new()
    }
}

impl Drop for TempStore {
    fn drop(&mut self) {
        for container in self.running_containers() {
            let mut delete = Command::new("runc");
            delete.arg("--root").arg(self.root().join("run/runtime"));
            let _ = delete.args(["delete", "--force", &container]).output();
        }
        if host::left_below(self.folder.path()).is_empty() && self.daemon_pid().is_none() {
            return;
        }
        // Mounts first: a daemon does not stop while they stand.
        let daemon = self.daemon_pid();
        for mount in host::mounts_below(self.folder.path()).into_iter().rev() {
            if !mount.kind.starts_with("fuse") {
                let _ = rustix::mount::unmount(&mount.point, rustix::mount::UnmountFlags::DETACH);
            }
        }
        let mut stop = self.command_as(Identity::Current, &["serve", "--stop"]);
        stop.stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut child) = stop.spawn() {
            host::wait_until(Duration::from_secs(10), || !matches!(child.try_wait(), Ok(None)));
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(pid) = daemon {
            host::kill(pid);
        }
        host::take_down(self.folder.path());
    }
}

/// What a store contains, as its listings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Names of images.
    pub images: Vec<String>,
    /// Names of containers.
    pub containers: Vec<String>,
    /// How many layers.
    pub layers: usize,
    /// What is in use once nothing is pending.
    pub pool_used_bytes: u64,
}

/// The rows of a listing: an array, or an object whose one array they are.
#[track_caller]
pub fn rows_of(value: &Value) -> Vec<Value> {
    if let Some(rows) = value.as_array() {
        return rows.clone();
    }
    let arrays: Vec<&Vec<Value>> = match value.as_object() {
        Some(fields) => fields.values().filter_map(Value::as_array).collect(),
        None => Vec::new(),
    };
    match arrays.as_slice() {
        [rows] => (*rows).clone(),
        _ => panic!("neither an array nor an object with one: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_in_both_shapes() {
        let rows = serde_json::json!([{"name": "a"}]);
        assert_eq!(rows_of(&rows), rows_of(&serde_json::json!({"images": rows, "version": 1})));
    }
}
