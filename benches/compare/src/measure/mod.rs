//! What a trial took: counters of the machine, read before and after, and their differences.

mod cpu;
mod disk;
mod memory;
mod space;

pub use cpu::{MachineCpu, ProcessCpu, machine_cpu, process_cpu};
pub use disk::{DiskCounters, disk_below, disk_counters};
pub use memory::page_cache_bytes;
pub use space::{allocated_bytes, used_bytes};
