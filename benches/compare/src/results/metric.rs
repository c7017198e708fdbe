//! What is measured: a name, a unit, and which way is better.

use serde::{Deserialize, Serialize};

use crate::number::float;

/// Units, always without a prefix: `seconds`, never milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time.
    Seconds,
    /// A size.
    Bytes,
    /// A throughput.
    BytesPerSecond,
    /// Operations, transactions, files a second.
    OperationsPerSecond,
    /// A number of things.
    Count,
    /// A quotient of two sizes or times.
    Ratio,
}

/// The prefix in which figures of about one size are shown together, as on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// What one of the shown unit is in the plain unit.
    pub factor: f64,
    /// The shown unit: `ms`, `MiB/s`; empty for plain numbers.
    pub symbol: &'static str,
}

const KIBI: f64 = 1024.0;

impl Unit {
    const fn scales(self) -> &'static [(f64, &'static str)] {
        match self {
            Self::Seconds => &[(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")],
            Self::Bytes => &[
                (1.0, "B"),
                (KIBI, "KiB"),
                (KIBI * KIBI, "MiB"),
                (KIBI * KIBI * KIBI, "GiB"),
                (KIBI * KIBI * KIBI * KIBI, "TiB"),
            ],
            Self::BytesPerSecond => &[
                (1.0, "B/s"),
                (KIBI, "KiB/s"),
                (KIBI * KIBI, "MiB/s"),
                (KIBI * KIBI * KIBI, "GiB/s"),
            ],
            Self::OperationsPerSecond => &[(1.0, "/s"), (1e3, "k/s"), (1e6, "M/s")],
            Self::Count => &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")],
            Self::Ratio => &[(1.0, "")],
        }
    }

    /// The scale in which a value of this size is best read.
    pub fn scale_of(self, value: f64) -> Scale {
        let scales = self.scales();
        let fitting = scales.iter().rev().find(|(factor, _)| value.abs() >= *factor * 0.999_5);
        let plain =
            if self == Self::Seconds && value == 0.0 { scales.last() } else { scales.first() };
        let (factor, symbol) = fitting.or(plain).copied().unwrap_or((1.0, ""));
        Scale { factor, symbol }
    }

    /// A value with three digits that count and its unit: `12.3 ms`, `1.50 MiB`, `12.3k/s`.
    pub fn format(self, value: f64) -> String {
        let Scale { factor, symbol } = self.scale_of(value);
        let digits = three_digits(value / factor);
        match self {
            Self::Seconds | Self::Bytes | Self::BytesPerSecond => format!("{digits} {symbol}"),
            _ => format!("{digits}{symbol}"),
        }
    }
}

/// Three digits that count; whole numbers up to 9999 as they are.
pub fn three_digits(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (value.fract() == 0.0 && size < 10_000.0) {
        return format!("{value:.0}");
    }
    match size {
        99.95.. => format!("{value:.0}"),
        9.995.. => format!("{value:.1}"),
        0.1.. => format!("{value:.2}"),
        0.001.. => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Times, sizes.
    Lower,
    /// Rates.
    Higher,
}

impl Better {
    /// How many times as good `value` is as `reference`; None where that cannot be said.
    pub fn ratio(self, value: f64, reference: f64) -> Option<f64> {
        let ratio = match self {
            Self::Higher => value / reference,
            Self::Lower => reference / value,
        };
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }
}

/// What a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the workload is there to measure.
    Result,
    /// What it took: bytes written, space, CPU, page cache.
    Resource,
}

/// A kind of figure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metric {
    /// Its name, in lower case with underscores.
    #[serde(rename = "metric")]
    pub name: String,
    /// What it is about.
    pub role: Role,
    /// Its unit.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
}

impl Metric {
    /// What a workload is there to measure.
    pub fn result(name: &str, unit: Unit, better: Better) -> Self {
        Self { name: name.to_owned(), role: Role::Result, unit, better }
    }

    /// Its name for people: `bytes written per byte`.
    pub fn title(&self) -> String {
        self.name.replace('_', " ")
    }
}

/// What a trial took, measured around every one of them; less of each is better.
pub mod resources {
    use super::{Better, Metric, Role, Unit};

    fn resource(name: &str, unit: Unit) -> Metric {
        Metric { name: name.to_owned(), role: Role::Resource, unit, better: Better::Lower }
    }

    /// Bytes that reached the disk (diskstats), with everything that drivers and file systems add.
    pub fn disk_bytes_written() -> Metric {
        resource("disk_bytes_written", Unit::Bytes)
    }

    /// Bytes that reached the disk for each byte the workload wrote.
    pub fn bytes_written_per_byte() -> Metric {
        resource("bytes_written_per_byte", Unit::Ratio)
    }

    /// Flushes that the disk was asked for.
    pub fn disk_flushes() -> Metric {
        resource("disk_flushes", Unit::Count)
    }

    /// By how much the store grew on its file system.
    pub fn space() -> Metric {
        resource("space", Unit::Bytes)
    }

    /// By how much the page cache grew.
    pub fn page_cache() -> Metric {
        resource("page_cache", Unit::Bytes)
    }

    /// Processor time of the whole machine outside the kernel.
    pub fn cpu_user() -> Metric {
        resource("cpu_user", Unit::Seconds)
    }

    /// Processor time of the whole machine in the kernel, interrupts with it.
    pub fn cpu_kernel() -> Metric {
        resource("cpu_kernel", Unit::Seconds)
    }

    /// Processor time of the driver's daemons.
    pub fn cpu_daemons() -> Metric {
        resource("cpu_daemons", Unit::Seconds)
    }
}

/// A size in bytes as people write it: `4 KiB`, `1 GiB`; a number of bytes where it is not whole.
pub fn size(bytes: u64) -> String {
    Unit::Bytes.format(float(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_unit() {
        assert_eq!(Unit::Seconds.format(0.012_34), "12.3 ms");
        assert_eq!(Unit::Seconds.format(0.0), "0 s");
        assert_eq!(Unit::Seconds.format(99.96), "100 s");
        assert_eq!(Unit::Seconds.format(0.000_999_9), "1.00 ms");
        assert_eq!(Unit::Seconds.format(4.2e-6), "4.20 µs");
        assert_eq!(Unit::Bytes.format(1_073_741_824.0), "1 GiB");
        assert_eq!(Unit::Bytes.format(0.0), "0 B");
        assert_eq!(Unit::OperationsPerSecond.format(12_345.0), "12.3k/s");
        assert_eq!(Unit::Ratio.format(0.0421), "0.0421");
        assert_eq!(Unit::Count.format(250.0), "250");
        assert_eq!(size(4096), "4 KiB");
    }

    #[test]
    fn better_is_always_more_than_one() {
        assert_eq!(Better::Higher.ratio(20.0, 10.0), Some(2.0));
        assert_eq!(Better::Lower.ratio(5.0, 10.0), Some(2.0));
        assert_eq!(Better::Lower.ratio(0.0, 10.0), None);
        assert_eq!(Better::Higher.ratio(0.0, 0.0), None);
    }
}
