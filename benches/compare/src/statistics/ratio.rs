//! How many times as good one is as another.
//!
//! Ratios are taken in logarithms, so that A to B is exactly the reciprocal of B to A, also between two middle
//! values.

use super::{Bootstrap, Interval, quantile};

/// From how few pairs nothing is concluded: the interval of two holds the truth in half of all cases.
const LEAST_PAIRS: usize = 3;

/// What a ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better than the reference: the whole interval is above 1.
    Better,
    /// Worse: all of it is below 1.
    Worse,
    /// The interval spans 1: no difference was shown.
    NoDifference,
    /// Fewer than three pairs.
    TooFew,
}

/// A ratio with its interval; above 1 is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median of the ratios.
    pub value: f64,
    /// None from less than two pairs.
    pub interval: Option<Interval>,
    /// How many pairs it is made of; of an unpaired one, how many values the smaller side has.
    pub pairs: usize,
}

impl Ratio {
    /// Of ratios taken pair by pair. None of none; all must be above 0.
    pub fn paired(name: &str, ratios: &[f64], bootstrap: &Bootstrap) -> Option<Self> {
        let mut logarithms: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        logarithms.retain(|logarithm| logarithm.is_finite());
        logarithms.sort_by(f64::total_cmp);
        let value = quantile(&logarithms, 0.5)?.exp();
        let interval = if logarithms.len() > 1 {
            bootstrap.interval(&bootstrap.medians(name, &logarithms)).map(exponential)
        } else {
            None
        };
        Some(Self { value, interval, pairs: logarithms.len() })
    }

    /// Of two independent sets, as of two runs: the ratio of their medians. All must be above 0.
    pub fn unpaired(
        name: &str,
        values: &[f64],
        reference: &[f64],
        better: crate::results::Better,
        bootstrap: &Bootstrap,
    ) -> Option<Self> {
        let logarithms = |values: &[f64]| {
            let mut logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
            logarithms.retain(|logarithm| logarithm.is_finite());
            logarithms.sort_by(f64::total_cmp);
            logarithms
        };
        let (mut first, mut second) = (logarithms(values), logarithms(reference));
        if better == crate::results::Better::Lower {
            std::mem::swap(&mut first, &mut second);
        }
        let value = (quantile(&first, 0.5)? - quantile(&second, 0.5)?).exp();
        let pairs = first.len().min(second.len());
        let interval = if pairs > 1 {
            bootstrap
                .interval(&bootstrap.median_differences(name, &first, &second))
                .map(exponential)
        } else {
            None
        };
        Some(Self { value, interval, pairs })
    }

    /// What it says.
    pub fn verdict(&self) -> Verdict {
        match self.interval {
            Some(interval) if self.pairs >= LEAST_PAIRS => {
                if interval.low > 1.0 {
                    Verdict::Better
                } else if interval.high < 1.0 {
                    Verdict::Worse
                } else {
                    Verdict::NoDifference
                }
            }
            _ => Verdict::TooFew,
        }
    }
}

fn exponential(interval: Interval) -> Interval {
    Interval { low: interval.low.exp(), high: interval.high.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Better;
    use proptest::prelude::*;

    #[test]
    fn verdicts_follow_the_interval() {
        let bootstrap = Bootstrap::default();
        let verdict = |ratios: &[f64]| Ratio::paired("x", ratios, &bootstrap).unwrap().verdict();
        assert_eq!(verdict(&[1.2, 1.3, 1.25, 1.5, 1.1]), Verdict::Better);
        assert_eq!(verdict(&[0.2, 0.3, 0.25, 0.5, 0.1]), Verdict::Worse);
        assert_eq!(verdict(&[0.9, 1.3, 1.25, 1.5, 1.1]), Verdict::NoDifference);
        assert_eq!(verdict(&[1.0, 1.0, 1.0]), Verdict::NoDifference);
        assert_eq!(verdict(&[9.0, 9.0]), Verdict::TooFew);
        assert!(Ratio::paired("x", &[], &bootstrap).is_none());
    }

    #[test]
    fn pairs_show_what_drift_hides() {
        // Each repeat is slower than the one before, for both; the second is always a tenth faster.
        let first = [1.0, 2.0, 4.0, 8.0, 16.0];
        let second = first.map(|seconds| seconds / 1.1);
        let bootstrap = Bootstrap::default();
        let ratios: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a / b).collect();
        let paired = Ratio::paired("x", &ratios, &bootstrap).unwrap();
        assert_eq!(paired.verdict(), Verdict::Better);
        let unpaired = Ratio::unpaired("x", &second, &first, Better::Lower, &bootstrap).unwrap();
        assert_eq!(unpaired.verdict(), Verdict::NoDifference);
    }

    proptest! {
        #[test]
        fn a_to_b_is_the_reciprocal_of_b_to_a(
            ratios in prop::collection::vec(0.001..1000.0_f64, 3..20),
        ) {
            let bootstrap = Bootstrap { resamples: 4000, ..Bootstrap::default() };
            let reciprocals: Vec<f64> = ratios.iter().map(|ratio| 1.0 / ratio).collect();
            let there = Ratio::paired("x", &ratios, &bootstrap).unwrap();
            let back = Ratio::paired("x", &reciprocals, &bootstrap).unwrap();
            prop_assert!((there.value * back.value - 1.0).abs() < 1e-9);
            let (there, back) = (there.interval.unwrap(), back.interval.unwrap());
            prop_assert!(there.low <= there.high && back.low <= back.high);
        }
    }
}
