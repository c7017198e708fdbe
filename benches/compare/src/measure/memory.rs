//! The page cache.

use std::path::Path;

use crate::{Error, Result};

/// What the page cache holds: `Cached` of meminfo, less what is shared memory and no cache.
pub fn page_cache_bytes() -> Result<u64> {
    let path = Path::new("/proc/meminfo");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    cached_in(&text).ok_or_else(|| Error::Invalid(format!("{}: no line 'Cached'", path.display())))
}

fn cached_in(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some(kib("Cached")?.saturating_sub(kib("Shmem").unwrap_or(0)).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_no_cache() {
        let text = "MemTotal: 100 kB\nSwapCached: 7 kB\nCached:  50 kB\nShmem:   8 kB\n";
        assert_eq!(cached_in(text), Some(42 * 1024));
        assert_eq!(cached_in("MemTotal: 1 kB\n"), None);
        assert!(page_cache_bytes().unwrap() > 0);
    }
}
