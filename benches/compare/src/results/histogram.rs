//! Latencies, compactly: a log-linear histogram, as of fio and `HdrHistogram`. Bucket `i` below 32 is `i` ns; above,
//! each power of two has 32 buckets, so a latency is known to about 3 %.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::number::{exponent, float, whole};

const BUCKETS_A_POWER: u64 = 32;
const BITS: u32 = 5;

/// How many operations took how long. In JSON: `[[bucket, count], ...]`, by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u64)>", into = "Vec<(u32, u64)>")]
pub struct Histogram {
    buckets: BTreeMap<u32, u64>,
}

impl From<Vec<(u32, u64)>> for Histogram {
    fn from(pairs: Vec<(u32, u64)>) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in pairs {
            // No latency of 64 bits lies in a higher bucket.
            let bucket = bucket.min(60 * 32 - 1);
            if count > 0 {
                let sum = histogram.buckets.entry(bucket).or_insert(0);
                *sum = sum.saturating_add(count);
            }
        }
        histogram
    }
}

impl From<Histogram> for Vec<(u32, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.buckets.into_iter().collect()
    }
}

const fn bucket_of(latency_ns: u64) -> u32 {
    if latency_ns < BUCKETS_A_POWER {
        #[expect(clippy::as_conversions, reason = "below 32")]
        return latency_ns as u32;
    }
    let shift = 63 - latency_ns.leading_zeros() - BITS;
    #[expect(clippy::as_conversions, reason = "the six highest bits: below 64")]
    let top = (latency_ns >> shift) as u32;
    shift * 32 + top
}

/// Where a bucket begins.
fn lower_bound_ns(bucket: u32) -> f64 {
    if bucket < 64 {
        return f64::from(bucket);
    }
    let shift = bucket / 32 - 1;
    f64::from(bucket - shift * 32) * 2f64.powi(exponent(f64::from(shift)))
}

impl Histogram {
    /// Counts operations of one latency.
    pub fn add(&mut self, latency_ns: u64, count: u64) {
        if count > 0 {
            let sum = self.buckets.entry(bucket_of(latency_ns)).or_insert(0);
            *sum = sum.saturating_add(count);
        }
    }

    /// Counts all that another one has.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            let sum = self.buckets.entry(*bucket).or_insert(0);
            *sum = sum.saturating_add(*count);
        }
    }

    /// How many operations there are.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency that a share (0 to 1) of all operations did not exceed, in seconds: the middle of its bucket.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        let wanted = whole((share.clamp(0.0, 1.0) * float(total)).ceil()).max(1);
        let mut seen = 0_u64;
        for (bucket, count) in &self.buckets {
            seen = seen.saturating_add(*count);
            if seen >= wanted {
                return Some(
                    f64::midpoint(lower_bound_ns(*bucket), lower_bound_ns(bucket + 1)) / 1e9,
                );
            }
        }
        None
    }

    /// The distribution as steps: a latency in seconds, and the share of operations that took no longer. At most
    /// about `limit` steps, more where the distribution is.
    pub fn steps(&self, limit: usize) -> Vec<(f64, f64)> {
        let total = float(self.count().max(1));
        let stride = (self.buckets.len() / limit.max(1)).max(1);
        let mut seen = 0_u64;
        let mut steps = Vec::new();
        let last = self.buckets.len().saturating_sub(1);
        for (position, (bucket, count)) in self.buckets.iter().enumerate() {
            if position == 0 {
                steps.push((lower_bound_ns(*bucket) / 1e9, 0.0));
            }
            seen = seen.saturating_add(*count);
            // The tail is what such a plot is looked at for.
            let share = float(seen) / total;
            if position % stride == 0 || position == last || share > 0.95 {
                steps.push((lower_bound_ns(bucket + 1) / 1e9, share));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_latency_lies_in_its_bucket_and_is_known_to_3_percent(latency_ns in 0..1_u64 << 52) {
            let bucket = bucket_of(latency_ns);
            let (low, high) = (lower_bound_ns(bucket), lower_bound_ns(bucket + 1));
            prop_assert!(low <= float(latency_ns) && float(latency_ns) < high);
            prop_assert!(high - low <= (low / 32.0).max(1.0));
        }

        #[test]
        fn quantiles_are_those_of_the_values(mut values in prop::collection::vec(1..1_u64 << 40, 1..200)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value, 1));
            values.sort_unstable();
            for share in [0.0, 0.5, 0.9, 0.99, 1.0] {
                let rank = whole((share * crate::number::float_of(values.len())).ceil()).max(1) - 1;
                let exact = float(values[usize::try_from(rank).unwrap()]) / 1e9;
                let found = histogram.quantile(share).unwrap();
                prop_assert!((found - exact).abs() <= exact * 0.032 + 1e-9, "{share}: {found} for {exact}");
            }
        }
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut first, mut second) = (Histogram::default(), Histogram::default());
        first.add(1000, 3);
        second.add(1000, 2);
        second.add(9_000_000, 1);
        first.merge(&second);
        assert_eq!(first.count(), 6);
        let json = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), first);
        assert_eq!(Histogram::default().quantile(0.5), None);
        let steps = first.steps(100);
        assert_eq!(steps.first().unwrap().1, 0.0);
        assert_eq!(steps.last().unwrap().1, 1.0);
        assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
    }

    #[test]
    fn buckets_that_no_latency_has_do_no_harm() {
        let histogram: Histogram =
            serde_json::from_str("[[4294967295, 18446744073709551615], [1919, 9]]").unwrap();
        assert!(histogram.quantile(0.5).unwrap().is_finite());
        assert_eq!(histogram.count(), u64::MAX);
    }
}
