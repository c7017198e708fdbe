//! The traces that workloads do again.

use std::path::Path;
use std::sync::Arc;

use thinstore_trace::Trace;

/// Those that come with the program: `benches/traces`, whose README.md says how they were recorded.
const SHIPPED: [(&str, &[u8]); 2] = [
    ("package-install", include_bytes!("../../../traces/package-install.trace")),
    ("sqlite-load", include_bytes!("../../../traces/sqlite-load.trace")),
];

/// A trace that comes with the program, or a file that is named from `folder`. It has no more space than it touches.
pub(super) fn find(folder: &Path, name: &str) -> Result<Arc<Trace>, String> {
    if let Some((_, bytes)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return read(name, bytes);
    }
    let path = folder.join(name);
    let bytes = std::fs::read(&path).map_err(|error| {
        let shipped = SHIPPED.map(|(shipped, _)| shipped).join(" and ");
        format!(
            "the trace {}: {error}; those that come with the program are {shipped}",
            path.display()
        )
    })?;
    read(name, &bytes)
}

fn read(name: &str, bytes: &[u8]) -> Result<Arc<Trace>, String> {
    let trace =
        Trace::parse_any(name, bytes).map_err(|error| format!("the trace {name}: {error}"))?;
    if trace.requests.is_empty() {
        return Err(format!("the trace {name} has no requests"));
    }
    Ok(Arc::new(trace.folded()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_shipped_or_lie_beside_the_workload() {
        for (name, bytes) in SHIPPED {
            let trace = find(Path::new("/nowhere"), name).unwrap();
            assert!(trace.complete && trace.lost == 0 && trace.requests.len() > 100, "{name}");
            assert!(bytes.len() < 256 << 10, "{name} is small");
        }
        let folder = tempfile::tempdir().unwrap();
        let log = "fio version 3 iolog\n0 a add\n5 a write 1073741824 4096\n";
        std::fs::write(folder.path().join("own.iolog"), log).unwrap();
        let own = find(folder.path(), "own.iolog").unwrap();
        assert_eq!((own.requests.len(), own.requests[0].offset_bytes), (1, 0));
        std::fs::write(folder.path().join("empty"), "fio version 3 iolog\n").unwrap();
        assert!(find(folder.path(), "empty").unwrap_err().contains("no requests"));
        assert!(find(folder.path(), "missing").unwrap_err().contains("sqlite-load"));
    }
}
