//! Medians and other quantiles of samples.

use crate::number::{float_of, index};

/// A quantile of sorted values: definition 7 of Hyndman and Fan (Sample quantiles in statistical packages, The
/// American Statistician 50, 1996), which R and `NumPy` use. None of none.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * float_of(last);
    let below = index(place).min(last);
    let low = *sorted.get(below)?;
    let high = *sorted.get(below + 1).unwrap_or(&low);
    Some((high - low).mul_add(place - float_of(below), low))
}

/// The median of values in any order. None of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_definition_7() {
        // R: quantile(c(1, 2, 3, 4, 10), c(.1, .25, .5, .9)), type 7.
        let values = [1.0, 2.0, 3.0, 4.0, 10.0];
        for (share, expected) in [(0.1, 1.4), (0.25, 2.0), (0.5, 3.0), (0.9, 7.6), (1.0, 10.0)] {
            let found = quantile(&values, share).unwrap();
            assert!((found - expected).abs() < 1e-12, "{share}: {found}");
        }
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
