//! What every command has at hand: where the store is, and where the output goes.

use std::path::{Path, PathBuf};

use thinstore_storage::Error;
use thinstore_store::types::{UsageReport, UsageRequest, VolumeDriver};
use thinstore_store::{Access, Connection, DaemonCommand, DriverName, Operations, connect};

use crate::arguments::{DriverArgument, Global};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::template::Template;

/// The driver of commands that do not name one.
const DRIVER_VARIABLE: &str = "THINSTORE_DRIVER";

/// The store of root's containers.
const SYSTEM_ROOT: &str = "/var/lib/thinstore";

/// What every command has at hand.
pub struct Context {
    pub root: PathBuf,
    pub driver: DriverName,
    /// As it was written.
    driver_argument: Option<DriverArgument>,
    pub output: Output,
    /// What `inspect` is to print.
    pub template: Option<Template>,
}

impl Context {
    /// # Errors
    /// A driver in the environment that there is not.
    pub fn new(global: &Global) -> std::result::Result<Context, Failure> {
        let root = match &global.root {
            Some(root) if !root.as_os_str().is_empty() => root.clone(),
            _ => default_root(),
        };
        let output = Output::new(global.format.plain(), global.quiet);
        let template = global.format.template().cloned();
        let driver = match (global.driver, std::env::var(DRIVER_VARIABLE)) {
            (Some(DriverArgument::Driver(driver)), _) => driver,
            (Some(DriverArgument::Local), _) => DriverName::Thin,
            (None, Ok(text)) if !text.is_empty() => text.parse().map_err(|error: Error| {
                Failure::Engine(error.context(format!("the variable {DRIVER_VARIABLE}")))
            })?,
            (None, _) => DriverName::default(),
        };
        Ok(Context { root, driver, driver_argument: global.driver, output, template })
    }

    /// What a volume is to be made of.
    ///
    /// # Errors
    /// If that is a driver of containers alone.
    pub fn volume_driver(&self) -> std::result::Result<VolumeDriver, Failure> {
        match self.driver_argument {
            None | Some(DriverArgument::Local) => Ok(VolumeDriver::Local),
            Some(DriverArgument::Driver(DriverName::Thin)) => Ok(VolumeDriver::Thin),
            Some(DriverArgument::Driver(other)) => Err(Failure::usage(format!(
                "a volume is local or thin, not {other}; containers of every driver can use it"
            ))),
        }
    }

    /// Refuses a driver that only volumes have.
    ///
    /// # Errors
    /// `Usage`.
    pub fn refuse_volume_driver(&self) -> std::result::Result<(), Failure> {
        match self.driver_argument {
            Some(DriverArgument::Local) => Err(Failure::usage(
                "local is a driver of volumes; 'thinstore drivers' shows those of containers"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Does something with the store, and closes it.
    pub fn with_store<T>(
        &self,
        access: Access,
        action: impl FnOnce(&dyn Operations) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        self.with_driver(self.driver, access, action)
    }

    /// Does something with the pool, whatever the driver of the command is.
    pub fn with_pool<T>(
        &self,
        access: Access,
        action: impl FnOnce(&dyn Operations) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        self.with_driver(DriverName::Thin, access, action)
    }

    /// Does something with what a driver has.
    pub fn with_driver<T>(
        &self,
        driver: DriverName,
        access: Access,
        action: impl FnOnce(&dyn Operations) -> std::result::Result<T, Failure>,
    ) -> std::result::Result<T, Failure> {
        with_store_at(&self.root, driver, access, action)
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
    driver: DriverName,
    access: Access,
    action: impl FnOnce(&dyn Operations) -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    let connection: Connection = connect(root, driver, access, &DaemonCommand::this_program())?;
    let result = action(connection.operations());
    let closed = connection.close();
    let value = result?;
    closed?;
    Ok(value)
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
