//! Processor time, of the whole machine and of single processes.

use std::path::Path;

use crate::number::float;
use crate::{Error, Result};

/// Of all processors together, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineCpu {
    /// Outside the kernel.
    pub user_seconds: f64,
    /// In the kernel, interrupts with it.
    pub kernel_seconds: f64,
    /// Idle, or waiting for a disk.
    pub idle_seconds: f64,
    /// What a hypervisor gave to others.
    pub stolen_seconds: f64,
}

impl MachineCpu {
    /// What was used since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user_seconds: (self.user_seconds - earlier.user_seconds).max(0.0),
            kernel_seconds: (self.kernel_seconds - earlier.kernel_seconds).max(0.0),
            idle_seconds: (self.idle_seconds - earlier.idle_seconds).max(0.0),
            stolen_seconds: (self.stolen_seconds - earlier.stolen_seconds).max(0.0),
        }
    }
}

/// Of a set of processes, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessCpu {
    /// Outside the kernel.
    pub user_seconds: f64,
    /// In the kernel.
    pub kernel_seconds: f64,
}

impl ProcessCpu {
    /// What was used since an earlier reading of the same processes.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user_seconds: (self.user_seconds - earlier.user_seconds).max(0.0),
            kernel_seconds: (self.kernel_seconds - earlier.kernel_seconds).max(0.0),
        }
    }

    /// Both together.
    pub fn seconds(&self) -> f64 {
        self.user_seconds + self.kernel_seconds
    }
}

fn seconds(ticks: u64) -> f64 {
    float(ticks) / float(rustix::param::clock_ticks_per_second().max(1))
}

/// Of the machine, since it was started.
pub fn machine_cpu() -> Result<MachineCpu> {
    let path = Path::new("/proc/stat");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    machine_in(&text).ok_or_else(|| Error::Invalid(format!("{}: no line 'cpu'", path.display())))
}

fn machine_in(stat: &str) -> Option<MachineCpu> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what guests use is in user already.
    let at = |place: usize| ticks.get(place).copied().map_or(0.0, seconds);
    (ticks.len() >= 4).then(|| MachineCpu {
        user_seconds: at(0) + at(1),
        kernel_seconds: at(2) + at(5) + at(6),
        idle_seconds: at(3) + at(4),
        stolen_seconds: at(7),
    })
}

/// Of these processes with all their threads, since they were started. One that has ended counts nothing.
pub fn process_cpu(processes: &[u32]) -> ProcessCpu {
    processes.iter().fold(ProcessCpu::default(), |sum, process| {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let (user, kernel) = process_in(&text).unwrap_or((0, 0));
        ProcessCpu {
            user_seconds: sum.user_seconds + seconds(user),
            kernel_seconds: sum.kernel_seconds + seconds(kernel),
        }
    })
}

fn process_in(stat: &str) -> Option<(u64, u64)> {
    // The name stands in brackets, and may have brackets and blanks in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_put_together() {
        let text = "cpu  100 20 300 4000 50 6 7 8 90 1\ncpu0 1 2 3 4\n";
        let found = machine_in(text).unwrap();
        assert!((found.user_seconds - seconds(120)).abs() < 1e-9);
        assert!((found.kernel_seconds - seconds(313)).abs() < 1e-9);
        assert!((found.idle_seconds - seconds(4050)).abs() < 1e-9);
        assert!(machine_in("intr 1\n").is_none());
    }

    #[test]
    fn a_process_with_brackets_in_its_name_is_read() {
        let text = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 111 222 5 6 20 0 1 0 100 1 1\n";
        assert_eq!(process_in(text), Some((111, 222)));
    }

    #[test]
    fn working_takes_time_of_this_process() {
        let me = [std::process::id()];
        let before = process_cpu(&me);
        let machine = machine_cpu().unwrap();
        let mut sum = 0_u64;
        while process_cpu(&me).since(&before).seconds() < 0.05 {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        assert!(machine_cpu().unwrap().since(&machine).user_seconds >= 0.0, "{sum}");
        assert_eq!(process_cpu(&[]), ProcessCpu::default());
    }
}
