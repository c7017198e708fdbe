//! A figure from its repeats.

use super::{Bootstrap, quantile};
use crate::number::float_of;

/// From, to; both belong to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// From.
    pub low: f64,
    /// To.
    pub high: f64,
}

impl Interval {
    /// Is the value in it?
    pub fn holds(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Do the two have a value in common?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// What the repeats of one figure come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The values, sorted.
    pub values: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Its interval. A single value has none.
    pub interval: Option<Interval>,
}

impl Estimate {
    /// None of no values.
    pub fn of(name: &str, mut values: Vec<f64>, bootstrap: &Bootstrap) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let median = quantile(&values, 0.5)?;
        let interval = if values.len() > 1 {
            bootstrap.interval(&bootstrap.medians(name, &values))
        } else {
            None
        };
        Some(Self { values, median, interval })
    }

    /// The least value.
    pub fn minimum(&self) -> f64 {
        self.values.first().copied().unwrap_or(self.median)
    }

    /// The largest value.
    pub fn maximum(&self) -> f64 {
        self.values.last().copied().unwrap_or(self.median)
    }
}

/// Of figures that were taken twice, the share whose intervals overlap: how reproducible they are. None of none.
pub fn share_of_overlaps(pairs: &[(Interval, Interval)]) -> Option<f64> {
    let overlapping = pairs.iter().filter(|(first, second)| first.overlaps(second)).count();
    (!pairs.is_empty()).then(|| float_of(overlapping) / float_of(pairs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn interval(low: f64, high: f64) -> Interval {
        Interval { low, high }
    }

    #[test]
    fn the_share_of_overlaps_counts_touching_ones() {
        let pairs = [
            (interval(1.0, 2.0), interval(2.0, 3.0)),
            (interval(1.0, 2.0), interval(2.1, 3.0)),
            (interval(5.0, 6.0), interval(1.0, 9.0)),
            (interval(1.0, 9.0), interval(5.0, 6.0)),
        ];
        assert_eq!(share_of_overlaps(&pairs), Some(0.75));
        assert_eq!(share_of_overlaps(&[]), None);
    }

    #[test]
    fn one_value_has_no_interval() {
        let bootstrap = Bootstrap::default();
        let one = Estimate::of("x", vec![3.0], &bootstrap).unwrap();
        assert_eq!((one.median, one.interval), (3.0, None));
        assert!(Estimate::of("x", vec![], &bootstrap).is_none());
        let two = Estimate::of("x", vec![5.0, 3.0], &bootstrap).unwrap();
        assert_eq!((two.median, two.minimum(), two.maximum()), (4.0, 3.0, 5.0));
        assert_eq!(two.interval, Some(interval(3.0, 5.0)));
    }
}
