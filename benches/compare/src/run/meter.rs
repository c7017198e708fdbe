//! What is read around every trial.

use std::path::{Path, PathBuf};

use super::Subject;
use crate::measure::{
    DiskCounters, MachineCpu, ProcessCpu, disk_below, disk_counters, machine_cpu, page_cache_bytes,
    process_cpu,
};
use crate::{Error, Result};

/// All counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Of the disk.
    pub disk: DiskCounters,
    /// Of the machine.
    pub machine: MachineCpu,
    /// Of the subject's daemons.
    pub daemons: ProcessCpu,
    /// The page cache.
    pub page_cache_bytes: u64,
    /// The subject's store.
    pub space_bytes: u64,
}

/// Reads counters.
pub trait Meter: Sync {
    /// All of them, now.
    fn read(&self, subject: &dyn Subject) -> Result<Reading>;

    /// Makes everything durable, so that what was written is counted; and empties the page cache if it is to be cold.
    fn settle(&self, cold: bool) -> Result<()>;

    /// What is free on the file system.
    fn free_bytes(&self) -> Result<u64>;
}

/// This machine.
#[derive(Clone, Debug)]
pub struct MachineMeter {
    folder: PathBuf,
    device: String,
}

impl MachineMeter {
    /// Of the disk below a folder.
    pub fn new(folder: &Path) -> Result<Self> {
        Ok(Self { folder: folder.to_owned(), device: disk_below(folder)? })
    }
}

impl Meter for MachineMeter {
    fn read(&self, subject: &dyn Subject) -> Result<Reading> {
        Ok(Reading {
            disk: disk_counters(&self.device)?,
            machine: machine_cpu()?,
            daemons: process_cpu(&subject.daemons()),
            page_cache_bytes: page_cache_bytes()?,
            space_bytes: subject.space_bytes().map_err(Error::Invalid)?,
        })
    }

    fn settle(&self, cold: bool) -> Result<()> {
        rustix::fs::sync();
        if cold {
            let path = Path::new("/proc/sys/vm/drop_caches");
            std::fs::write(path, "3").map_err(Error::io("write (as root)", path))?;
        }
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(&self.folder)
            .map_err(|error| Error::io("look at", &self.folder)(error.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}
