//! What every command has at hand: where the store is, and where the output goes.

use std::path::{Path, PathBuf};

use thinstore_storage::Result;
use thinstore_store::types::{UsageReport, UsageRequest};
use thinstore_store::{Access, Connection, DaemonCommand, Operations, connect};

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::template::Template;

/// The store of root's containers.
const SYSTEM_ROOT: &str = "/var/lib/thinstore";

/// What every command has at hand.
pub struct Context {
    pub root: PathBuf,
    pub output: Output,
    /// What `inspect` is to print.
    pub template: Option<Template>,
}

impl Context {
    pub fn new(global: &Global) -> Context {
        let root = match &global.root {
            Some(root) if !root.as_os_str().is_empty() => root.clone(),
            _ => default_root(),
        };
        let output = Output::new(global.format.plain(), global.quiet);
        Context { root, output, template: global.format.template().cloned() }
    }

    /// Does something with the store, and closes it.
    pub fn with_store<T>(
        &self,
        access: Access,
        action: impl FnOnce(&dyn Operations) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        with_store_at(&self.root, access, action)
    }

    /// Says on stderr that the pool is nearly full, if it is: after a command that takes space.
    pub fn warn_of_full_pool(&self, store: &dyn Operations) {
        let request = UsageRequest { pool_only: true, ..UsageRequest::default() };
        // what was asked for is done; a warning that cannot be had is none
        if let Ok(report) = store.usage(&request) {
            self.warn_if_full(&report);
        }
    }

    /// Says on stderr that the pool is nearly full, if it is.
    pub fn warn_if_full(&self, report: &UsageReport) {
        if report.pool_full_warning_percent.is_none() {
            return;
        }
        let message = format!(
            "the pool is {}% full: remove containers or images, or make it larger with 'thinstore grow'",
            report.pool_full_percent
        );
        match self.output.format() {
            Format::Human => eprintln!("thinstore: warning: {message}"),
            Format::Json => {
                let warning = serde_json::json!({"warning": {"code": "full", "message": message}});
                eprintln!("{warning}");
            }
        }
    }
}

/// Does something with the store at `root`, and closes it.
pub fn with_store_at<T>(
    root: &Path,
    access: Access,
    action: impl FnOnce(&dyn Operations) -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    let connection: Connection = open(root, access)?;
    let result = action(connection.operations());
    let closed = connection.close();
    let value = result?;
    closed?;
    Ok(value)
}

fn open(root: &Path, access: Access) -> Result<Connection> {
    connect(root, access, &DaemonCommand::this_program())
}

fn default_root() -> PathBuf {
    let variable = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from(SYSTEM_ROOT);
    }
    let data = variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    match data {
        Some(data) => data.join("thinstore"),
        None => PathBuf::from(SYSTEM_ROOT),
    }
}
