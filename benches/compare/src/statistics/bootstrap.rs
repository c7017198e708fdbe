//! The bootstrap: what the same experiment might have given, drawn from what it gave.
//!
//! Intervals are those of the percentile method (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
//! chapter 13). The `BCa` method (chapter 14) corrects them by the jackknife, which is not consistent for medians
//! (section 11.6 there); so the simpler one is right here. Of n values a median's percentile interval lies within their
//! range, which holds the true median with the probability 1 - 2^(1-n): 94 % for five values, 75 % for three.

use super::{Interval, quantile};
use crate::random::Random;

/// How intervals are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap {
    /// How many samples are drawn.
    pub resamples: u32,
    /// The share of samples within the interval.
    pub confidence: f64,
    /// The same seed gives the same intervals.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, confidence: 0.95, seed: 1 }
    }
}

/// The share of such intervals that hold the true median at best: what `count` values can tell, whatever was asked
/// for.
pub fn attained_confidence(count: usize, confidence: f64) -> f64 {
    let halvings = i32::try_from(count).unwrap_or(i32::MAX).saturating_sub(1);
    confidence.min(1.0 - 0.5f64.powi(halvings))
}

impl Bootstrap {
    /// What a statistic of samples drawn from `values` comes to, sorted. `name` names the object, which makes what
    /// is drawn for it independent of all others.
    pub fn distribution(
        &self,
        name: &str,
        values: &[f64],
        mut statistic: impl FnMut(&[f64]) -> f64,
    ) -> Vec<f64> {
        if values.is_empty() {
            return Vec::new();
        }
        let mut random = Random::named(self.seed, name);
        let mut sample = vec![0.0; values.len()];
        let mut found = Vec::with_capacity(usize::try_from(self.resamples).unwrap_or(0));
        for _ in 0..self.resamples {
            for slot in &mut sample {
                *slot = values.get(random.below(values.len())).copied().unwrap_or(0.0);
            }
            found.push(statistic(&sample));
        }
        found.sort_by(f64::total_cmp);
        found
    }

    /// The medians of samples drawn from sorted values, sorted. The same as [`Self::distribution`] with the median,
    /// and much faster: a sample of sorted values is a set of ranks.
    pub fn medians(&self, name: &str, sorted: &[f64]) -> Vec<f64> {
        let mut random = Random::named(self.seed, name);
        self.medians_by(&mut random, sorted)
    }

    fn medians_by(&self, random: &mut Random, sorted: &[f64]) -> Vec<f64> {
        let mut found = self.unsorted_medians(random, sorted);
        found.sort_unstable_by(f64::total_cmp);
        found
    }

    fn unsorted_medians(&self, random: &mut Random, sorted: &[f64]) -> Vec<f64> {
        let count = sorted.len();
        if count == 0 {
            return Vec::new();
        }
        let mut drawn = vec![0_u32; count];
        let at = |rank: usize| sorted.get(rank).copied().unwrap_or(0.0);
        let mut found = Vec::with_capacity(usize::try_from(self.resamples).unwrap_or(0));
        for _ in 0..self.resamples {
            drawn.fill(0);
            for _ in 0..count {
                if let Some(times) = drawn.get_mut(random.below(count)) {
                    *times += 1;
                }
            }
            // The ranks below and above the middle; the same one if the count is odd.
            let (lower, upper) = ((count - 1) / 2, count / 2);
            let (mut seen, mut low) = (0, None);
            for (rank, times) in drawn.iter().enumerate() {
                seen += usize::try_from(*times).unwrap_or(0);
                if low.is_none() && seen > lower {
                    low = Some(at(rank));
                }
                if seen > upper {
                    let high = at(rank);
                    found.push(f64::midpoint(low.unwrap_or(high), high));
                    break;
                }
            }
        }
        found
    }

    /// What two independent sets of values say of the difference of their medians, sorted.
    pub fn median_differences(&self, name: &str, first: &[f64], second: &[f64]) -> Vec<f64> {
        let mut random = Random::named(self.seed, name);
        let firsts = self.unsorted_medians(&mut random, first);
        let seconds = self.unsorted_medians(&mut random, second);
        let mut found: Vec<f64> = firsts.iter().zip(&seconds).map(|(a, b)| a - b).collect();
        found.sort_unstable_by(f64::total_cmp);
        found
    }

    /// The interval of a sorted distribution; None of an empty one.
    pub fn interval(&self, distribution: &[f64]) -> Option<Interval> {
        let tail = (1.0 - self.confidence) / 2.0;
        let low = quantile(distribution, tail)?;
        let high = quantile(distribution, 1.0 - tail)?;
        Some(Interval { low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::super::median;
    use super::*;
    use crate::number::float_of;
    use proptest::prelude::*;

    /// The survival times of Efron and Tibshirani's mice, table 2.1 (treatment group).
    const MICE: [f64; 7] = [94.0, 197.0, 16.0, 38.0, 99.0, 141.0, 23.0];

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / float_of(values.len())
    }

    fn standard_error(distribution: &[f64]) -> f64 {
        let center = mean(distribution);
        let squares: f64 = distribution.iter().map(|value| (value - center).powi(2)).sum();
        (squares / float_of(distribution.len() - 1)).sqrt()
    }

    #[test]
    fn standard_errors_are_those_of_the_textbook() {
        // Efron and Tibshirani, table 2.2, the row of infinitely many samples: 23.36 and 37.83.
        let bootstrap = Bootstrap { resamples: 100_000, ..Bootstrap::default() };
        let of_mean = standard_error(&bootstrap.distribution("mice", &MICE, mean));
        assert!((of_mean - 23.36).abs() < 0.2, "{of_mean}");
        let mut sorted = MICE;
        sorted.sort_by(f64::total_cmp);
        let of_median = standard_error(&bootstrap.medians("mice", &sorted));
        assert!((of_median - 37.83).abs() < 0.3, "{of_median}");
    }

    #[test]
    fn the_fast_way_to_medians_is_the_plain_one() {
        let bootstrap = Bootstrap { resamples: 500, ..Bootstrap::default() };
        for count in 1..7 {
            let values = &MICE[..count];
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let plain = bootstrap.distribution("x", &sorted, |sample| median(sample).unwrap());
            assert_eq!(bootstrap.medians("x", &sorted), plain);
        }
    }

    #[test]
    fn of_five_values_the_interval_is_their_range() {
        // A sample's median is the least of five with probability 0.058 > 0.025.
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        let bootstrap = Bootstrap::default();
        let interval = bootstrap.interval(&bootstrap.medians("x", &values)).unwrap();
        assert_eq!(interval, Interval { low: 1.0, high: 5.0 });
        assert!((attained_confidence(5, 0.95) - 0.9375).abs() < 1e-12);
        assert!((attained_confidence(3, 0.95) - 0.75).abs() < 1e-12);
        assert!((attained_confidence(30, 0.95) - 0.95).abs() < 1e-12);
        assert!(attained_confidence(1, 0.95).abs() < 1e-12);
    }

    #[test]
    fn intervals_hold_the_true_median_about_as_often_as_they_say() {
        let mut random = Random::new(9);
        let bootstrap = Bootstrap { resamples: 400, ..Bootstrap::default() };
        let rounds = 600;
        let mut held = 0;
        for round in 0..rounds {
            // Skewed, as times are; the median is ln 2.
            let mut values: Vec<f64> = (0..15).map(|_| -(1.0 - random.unit()).ln()).collect();
            values.sort_by(f64::total_cmp);
            let medians = bootstrap.medians(&round.to_string(), &values);
            let interval = bootstrap.interval(&medians).unwrap();
            held += usize::from(interval.holds(2f64.ln()));
        }
        let share = float_of(held) / float_of(rounds);
        assert!((0.91..0.985).contains(&share), "{share}");
    }

    proptest! {
        #[test]
        fn intervals_lie_in_the_range_and_hold_most_medians(
            mut values in prop::collection::vec(0.001..1e6_f64, 1..30), seed: u64,
        ) {
            values.sort_by(f64::total_cmp);
            let bootstrap = Bootstrap { resamples: 200, seed, ..Bootstrap::default() };
            let medians = bootstrap.medians("x", &values);
            let interval = bootstrap.interval(&medians).unwrap();
            prop_assert!(interval.low <= interval.high);
            prop_assert!(values[0] <= interval.low && interval.high <= values[values.len() - 1]);
            let inside = medians.iter().filter(|median| interval.holds(**median)).count();
            prop_assert!(inside * 100 >= medians.len() * 90);
            prop_assert_eq!(bootstrap.medians("x", &values), medians);
        }
    }
}
