//! The machine itself, from /proc and /sys.

use super::line_of;

pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn load() -> String {
    line_of("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

pub fn kernel() -> String {
    let name = rustix::system::uname();
    format!(
        "{} {} {}",
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
        name.version().to_string_lossy()
    )
}

/// The value of a line `name: value` or `name=value`.
fn value_of(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

pub fn system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    value_of(&text, "PRETTY_NAME", '=').unwrap_or_default()
}

/// Architectures name it differently.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = ["model name", "Model", "cpu model", "CPU part"];
    let name = names.iter().find_map(|name| value_of(&text, name, ':'));
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

pub fn processors() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub fn governor() -> Option<String> {
    let governor = line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    (!governor.is_empty()).then_some(governor)
}

/// A hypervisor shows itself by a flag of the processor, and by the name of the board.
pub fn virtualization() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = value_of(&text, "flags", ':')?;
    flags.split(' ').any(|flag| flag == "hypervisor").then(|| {
        let vendor = line_of("/sys/class/dmi/id/sys_vendor");
        if vendor.is_empty() { "yes".to_owned() } else { vendor }
    })
}

/// Nothing in a guest tells it from other virtual machines, whose figures are those of a machine: what boots it says so.
pub fn guest() -> Option<String> {
    std::env::var("THINSTORE_GUEST").ok().filter(|guest| !guest.is_empty())
}

pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = value_of(&text, "MemTotal", ':').unwrap_or_default();
    let kib: u64 = total.trim_end_matches("kB").trim().parse().unwrap_or(0);
    kib.saturating_mul(1024)
}

pub fn fuse_uring() -> Option<bool> {
    match line_of("/sys/module/fuse/parameters/enable_uring").as_str() {
        "Y" | "1" => Some(true),
        "N" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let text = "model name\t: A B\nflags : x\nPRETTY_NAME=\"Debian\"\n";
        assert_eq!(value_of(text, "model name", ':').as_deref(), Some("A B"));
        assert_eq!(value_of(text, "PRETTY_NAME", '=').as_deref(), Some("Debian"));
        assert_eq!(value_of(text, "model", ':'), None);
    }
}
