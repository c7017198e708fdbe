//! `mount`, `umount`, `attach` and `detach`

use std::path::PathBuf;

use clap::Args;
use thinstore_storage::Error;
use thinstore_store::types::{AttachRequest, MountRequest, MountSpecification, NameRequest};
use thinstore_store::{Access, mount_namespace};

use super::import::absolute;
use super::serve::check_environment;
use crate::containers::{clean_up, find_run, running};
use crate::context::Context;
use crate::failure::Failure;

#[derive(Args, Debug)]
pub struct Mount {
    /// The container
    name: String,
    /// An existing, empty folder
    directory: PathBuf,
    /// Do not write to the container
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    mounts: MountOptions,
}

/// What is mounted over a container.
#[derive(Args, Debug)]
pub struct MountOptions {
    /// Show a volume, or a folder of the host, at a path of the container; options: ro, rw, nocopy (volumes), private, shared, slave and their
    /// recursive forms rprivate, rshared, rslave (folders)
    #[arg(short = 'v', long = "volume", value_name = "VOLUME|HOSTDIR:PATH[:OPTIONS]")]
    volumes: Vec<String>,
    /// Put a file system in memory at a path of the container
    #[arg(long, value_name = "PATH[:size=SIZE,mode=MODE]")]
    tmpfs: Vec<String>,
    /// The same in Docker's long form: type=volume|bind|tmpfs,source=..,target=.. and, if wanted, readonly, volume-nocopy, bind-propagation=.., bind-nonrecursive, tmpfs-size=.., tmpfs-mode=..
    #[arg(long = "mount", value_name = "type=..,source=..,target=..")]
    mounts: Vec<String>,
}

impl MountOptions {
    pub fn specifications(&self) -> Result<Vec<MountSpecification>, Failure> {
        let here = std::env::current_dir()
            .map_err(|error| Error::io("cannot find out the current folder", error))?;
        let mut all = Vec::new();
        for text in &self.volumes {
            all.push(MountSpecification::from_volume_option(text, &here)?);
        }
        for text in &self.tmpfs {
            all.push(MountSpecification::from_tmpfs_option(text)?);
        }
        for text in &self.mounts {
            all.push(MountSpecification::from_mount_option(text, &here)?);
        }
        Ok(all)
    }
}

impl Mount {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = MountRequest {
            name: self.name.clone(),
            directory: absolute(&self.directory)?,
            read_only: self.read_only,
            mounts: self.mounts.specifications()?,
            mount_namespace: Some(mount_namespace()),
        };
        require_root("mounting a container")?;
        check_environment()?;
        let outcome = context.with_store(Access::Stay, |store| {
            let outcome = store.mount(&request)?;
            context.warn_of_full_pool(store);
            Ok(outcome)
        })?;
        context.output.outcome(&outcome, || {
            let how = if outcome.was_mounted { "is mounted on" } else { "mounted on" };
            let device = match outcome.device.as_str() {
                "" => String::new(),
                device => format!(" ({device})"),
            };
            format!("{} {how} {}{device}\n", outcome.name, outcome.directory.display())
        })
    }
}

/// Said before a daemon is started for nothing.
pub fn require_root(what: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Engine(Error::new(
        thinstore_storage::ErrorKind::Permission,
        format!(
            "{what} needs root; without it, 'thinstore cat' and 'thinstore cp' read and write containers"
        ),
    )))
}

#[derive(Args, Debug)]
pub struct Attach {
    /// The container
    name: String,
    /// A device that cannot be written to
    #[arg(long)]
    read_only: bool,
}

impl Attach {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        require_root("attaching a device")?;
        check_environment()?;
        let request = AttachRequest { name: self.name, read_only: self.read_only };
        let outcome = context.with_store(Access::Stay, |store| Ok(store.attach(&request)?))?;
        // the device is what was asked for, also of those who want to read little
        context.output.value(&outcome, || format!("{}\n", outcome.device))
    }
}

#[derive(Args, Debug)]
pub struct Named {
    /// The container
    name: String,
}

impl Named {
    pub fn unmount(self, context: &Context) -> Result<(), Failure> {
        let run = context
            .with_store(Access::Read, |store| Ok(find_run(&context.root, store, &self.name)?))?;
        if let Some(run) = run {
            clean_up(context, &run)?;
            if run.is_running()? {
                return Err(running(&run, "stop it with 'thinstore stop'").into());
            }
        }
        let request = NameRequest { name: self.name };
        let outcome = context.with_store(Access::Write, |store| Ok(store.unmount(&request)?))?;
        context.output.outcome(&outcome, || match outcome.was_attached {
            true => format!("{} unmounted\n", outcome.name),
            false => format!("{} is not mounted\n", outcome.name),
        })
    }

    pub fn detach(self, context: &Context) -> Result<(), Failure> {
        let request = NameRequest { name: self.name };
        let outcome = context.with_store(Access::Write, |store| Ok(store.detach(&request)?))?;
        context.output.outcome(&outcome, || match outcome.was_attached {
            true => format!("{} detached\n", outcome.name),
            false => format!("{} is not attached\n", outcome.name),
        })
    }
}
