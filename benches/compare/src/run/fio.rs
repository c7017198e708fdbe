//! What fio says.

use serde_json::Value;

use super::Answer;
use crate::number::{float, whole};
use crate::results::Histogram;

/// Of all jobs and directions together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FioResult {
    /// Operations a second.
    pub operations_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Bytes written.
    pub written_bytes: u64,
    /// How long operations took, from submission to completion.
    pub latency: Histogram,
}

/// The options that a result needs; what the workload says follows.
pub const OPTIONS: [&str; 6] = [
    "fio",
    "--output-format=json+",
    "--group_reporting",
    // It would measure the processor's clock first, which takes longer than many a trial.
    "--clocksource=clock_gettime",
    "--thread",
    "--name=work",
];

/// Reads `--output-format=json+`.
pub fn parse(said: &str) -> Answer<FioResult> {
    // Warnings may stand before it.
    let json = said.find('{').and_then(|from| said.get(from..)).ok_or("fio said nothing")?;
    let value: Value =
        serde_json::from_str(json).map_err(|error| format!("fio's answer: {error}"))?;
    let jobs = value.get("jobs").and_then(Value::as_array).ok_or("fio's answer has no jobs")?;
    let mut result = FioResult::default();
    for job in jobs {
        let error = job.get("error").and_then(Value::as_i64).unwrap_or(0);
        if error != 0 {
            return Err(format!("fio's job ended with error {error}"));
        }
        for direction in ["read", "write", "trim"] {
            let Some(part) = job.get(direction) else { continue };
            let figure = |name: &str| part.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            result.operations_per_second += figure("iops");
            result.bytes_per_second += figure("bw_bytes");
            if direction == "write" {
                result.written_bytes += whole(figure("io_bytes"));
            }
            let bins = part.get("clat_ns").and_then(|latency| latency.get("bins"));
            for (latency_ns, count) in bins.and_then(Value::as_object).into_iter().flatten() {
                if let (Ok(latency_ns), Some(count)) = (latency_ns.parse(), count.as_u64()) {
                    result.latency.add(latency_ns, count);
                }
            }
        }
    }
    if result.operations_per_second <= float(0) {
        return Err("fio did nothing: no operations".to_owned());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_directions_are_added_up() {
        let said = r#"fio: a warning
            {"jobs": [
              {"error": 0, "read": {"iops": 100.5, "bw_bytes": 4096, "io_bytes": 9, "clat_ns": {"bins": {"1000": 3, "2000": 1}}},
               "write": {"iops": 50, "bw_bytes": 4096, "io_bytes": 8192, "clat_ns": {"bins": {"1000": 2}}}},
              {"error": 0, "write": {"iops": 1, "bw_bytes": 1, "io_bytes": 1}}]}"#;
        let result = parse(said).unwrap();
        assert!((result.operations_per_second - 151.5).abs() < 1e-9);
        assert_eq!((result.written_bytes, result.latency.count()), (8193, 6));
        assert!(parse("{\"jobs\": [{\"error\": 28}]}").unwrap_err().contains("28"));
        assert!(parse("{\"jobs\": []}").unwrap_err().contains("no operations"));
        assert!(parse("out of memory").is_err());
    }
}
