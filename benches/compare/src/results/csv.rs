//! Results as CSV (RFC 4180): a line a measurement, a column for each parameter that any workload has.

use std::collections::BTreeSet;
use std::io::Write;

use super::Results;

const COLUMNS: [&str; 12] = [
    "run_id",
    "workload",
    "driver",
    "repeat",
    "position",
    "emulated",
    "metric",
    "role",
    "unit",
    "better",
    "value",
    "latency_count",
];
const QUANTILES: [(&str, f64); 5] = [
    ("latency_p50_seconds", 0.5),
    ("latency_p90_seconds", 0.9),
    ("latency_p99_seconds", 0.99),
    ("latency_p999_seconds", 0.999),
    ("latency_max_seconds", 1.0),
];

/// What a spreadsheet reads as it was meant.
fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The word that JSON has for a name of a fixed list.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Writes all measurements.
pub fn write_csv(results: &Results, output: &mut impl Write) -> std::io::Result<()> {
    let names: BTreeSet<&str> = results
        .measurements
        .iter()
        .flat_map(|line| line.trial.parameters.0.keys().map(String::as_str))
        .collect();
    let headings = COLUMNS.into_iter().map(str::to_owned);
    let headings = headings.chain(QUANTILES.iter().map(|(name, _)| (*name).to_owned()));
    let headings: Vec<String> =
        headings.chain(names.iter().map(|name| field(&format!("parameter.{name}")))).collect();
    write!(output, "{}\r\n", headings.join(","))?;
    for line in &results.measurements {
        let mut fields = vec![
            field(&results.run.run_id),
            field(&line.trial.workload),
            field(&line.trial.driver),
            line.trial.repeat.to_string(),
            line.position.to_string(),
            line.trial.emulated.to_string(),
            field(&line.metric.name),
            word(&line.metric.role),
            word(&line.metric.unit),
            word(&line.metric.better),
            line.value.to_string(),
        ];
        let latency = line.latency.as_ref();
        fields.push(latency.map_or_else(String::new, |latency| latency.count().to_string()));
        fields.extend(QUANTILES.iter().map(|(_, share)| {
            let quantile = latency.and_then(|latency| latency.quantile(*share));
            quantile.map_or_else(String::new, |seconds| seconds.to_string())
        }));
        fields.extend(names.iter().map(|name| {
            let value = line.trial.parameters.0.get(*name);
            value.map_or_else(String::new, |value| field(&value.to_string()))
        }));
        write!(output, "{}\r\n", fields.join(","))?;
    }
    Ok(())
}
