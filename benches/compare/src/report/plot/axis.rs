//! Axes: from values to places, with ticks at numbers that people like.

use crate::number::exponent;
use crate::results::Unit;

/// From so many times on, values are set on a logarithmic axis: below it the small ones could not be seen.
pub const LOGARITHMIC_FROM: f64 = 30.0;

/// A scale between two places.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The values at its ends.
    pub range: (f64, f64),
    /// The places of its ends.
    pub places: (f64, f64),
    /// Equal steps are equal factors.
    pub logarithmic: bool,
    /// Values and what is written beside them.
    pub ticks: Vec<(f64, String)>,
    /// The unit of the written numbers.
    pub symbol: String,
}

impl Axis {
    /// From 0, with some room behind the largest value.
    pub fn linear(unit: Unit, largest: f64, places: (f64, f64), ticks: usize) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let scale = unit.scale_of(largest);
        let step = nice_step(largest / scale.factor / crate::number::float_of(ticks.max(1)));
        let count = (largest / scale.factor / step - 1e-9).ceil().max(1.0);
        let end = count * step;
        let decimals = usize::try_from(exponent(-step.log10().floor())).unwrap_or(0).min(6);
        let ticks = (0..=crate::number::whole(count)).map(|number| {
            let value = crate::number::float(number) * step;
            let decimals = if step.log10().floor() >= 0.0 { 0 } else { decimals };
            (value * scale.factor, format!("{value:.decimals$}"))
        });
        Self {
            range: (0.0, end * scale.factor),
            places,
            logarithmic: false,
            ticks: ticks.collect(),
            symbol: scale.symbol.to_owned(),
        }
    }

    /// With equal factors; each tick has its own prefix.
    pub fn logarithmic(
        unit: Unit,
        least: f64,
        largest: f64,
        places: (f64, f64),
        ticks: usize,
    ) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let least = if least > 0.0 { least.min(largest) } else { largest / 1000.0 };
        let binary = matches!(unit, Unit::Bytes | Unit::BytesPerSecond);
        let base: f64 = if binary { 2.0 } else { 10.0 };
        // Room at both ends, so that nothing lies on the edge.
        let room = (largest / least).powf(0.04).max(1.12);
        let range = (least / room, largest * room);
        let (from, to) = (range.0.log(base), range.1.log(base));
        let limit = crate::number::float_of(ticks.max(2));
        let mut values = Vec::new();
        let steps: &[f64] =
            if binary { &[1.0, 2.0, 3.0, 5.0, 10.0, 20.0] } else { &[1.0, 2.0, 3.0, 4.0] };
        let mut multiples: &[f64] = &[1.0];
        if !binary && (to - from) * 8.0 <= limit {
            multiples = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];
        } else if !binary && (to - from) * 3.0 <= limit {
            multiples = &[1.0, 2.0, 5.0];
        } else if !binary && (to - from) * 2.0 <= limit {
            multiples = &[1.0, 3.0];
        }
        let stride = steps.iter().copied().find(|step| (to - from) / step <= limit).unwrap_or(30.0);
        let mut power = (from / stride).floor() * stride;
        while power <= to + 1e-9 {
            for multiple in multiples {
                let value = base.powf(power) * multiple;
                if value >= range.0 && value <= range.1 {
                    values.push(value);
                }
            }
            power += stride;
        }
        let ticks = values.into_iter().map(|value| (value, short(unit, value))).collect();
        Self { range, places, logarithmic: true, ticks, symbol: String::new() }
    }

    /// Linear from 0 or logarithmic, whichever shows the values. Rates and times of 0 cannot stand on a logarithmic
    /// one.
    pub fn fitting(unit: Unit, range: (f64, f64), places: (f64, f64), ticks: usize) -> Self {
        let (least, largest) = range;
        if least > 0.0 && largest / least >= LOGARITHMIC_FROM {
            Self::logarithmic(unit, least, largest, places, ticks)
        } else {
            Self::linear(unit, largest, places, ticks)
        }
    }

    /// Where a value stands; values outside are set to the end.
    pub fn place(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        let share = if self.logarithmic {
            (value.max(low).ln() - low.ln()) / (high.ln() - low.ln())
        } else {
            (value - low) / (high - low)
        };
        let (from, to) = self.places;
        (to - from).mul_add(share.clamp(0.0, 1.0), from)
    }
}

/// A tick's own unit, without digits that say nothing.
fn short(unit: Unit, value: f64) -> String {
    let scale = unit.scale_of(value);
    let number = value / scale.factor;
    let digits = if (number - number.round()).abs() < 1e-6 * number.abs() {
        format!("{number:.0}")
    } else {
        let text = format!("{number:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match unit {
        Unit::Seconds | Unit::Bytes | Unit::BytesPerSecond => format!("{digits} {}", scale.symbol),
        _ => format!("{digits}{}", scale.symbol),
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    for multiple in [1.0, 2.0, 2.5, 5.0, 10.0] {
        // Halves of a quarter cannot be written with one decimal.
        if multiple == 2.5 && power <= 1.0 {
            continue;
        }
        if multiple * power >= step * 0.999_999 {
            return multiple * power;
        }
    }
    10.0 * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_at_numbers_that_people_like() {
        let axis = Axis::linear(Unit::Seconds, 0.0123, (0.0, 100.0), 4);
        assert_eq!((labels(&axis), axis.symbol.as_str()), (vec!["0", "5", "10", "15"], "ms"));
        let axis = Axis::linear(Unit::Ratio, 0.9, (0.0, 100.0), 4);
        assert_eq!(labels(&axis), ["0.0", "0.5", "1.0"]);
        let axis = Axis::logarithmic(Unit::Seconds, 2e-5, 0.5, (0.0, 100.0), 6);
        assert_eq!(labels(&axis), ["100 µs", "1 ms", "10 ms", "100 ms"]);
        let axis = Axis::logarithmic(Unit::Bytes, 4096.0, 1e10, (0.0, 100.0), 6);
        assert_eq!(labels(&axis), ["32 KiB", "1 MiB", "32 MiB", "1 GiB"]);
        let axis = Axis::logarithmic(Unit::Ratio, 1.0, 30.0, (0.0, 100.0), 6);
        assert_eq!(labels(&axis), ["1", "2", "5", "10", "20"]);
    }

    proptest! {
        #[test]
        fn every_value_has_a_place_and_every_axis_ticks(
            first in 1e-9..1e12_f64, factor in 1.0..1e9_f64, ticks in 2..9_usize, unit in 0..6_usize,
        ) {
            let unit = [Unit::Seconds, Unit::Bytes, Unit::BytesPerSecond, Unit::OperationsPerSecond,
                Unit::Count, Unit::Ratio][unit];
            let range = (first, first * factor);
            for axis in [
                Axis::fitting(unit, range, (10.0, 90.0), ticks),
                Axis::logarithmic(unit, range.0, range.1, (10.0, 90.0), ticks),
                Axis::linear(unit, range.1, (10.0, 90.0), ticks),
            ] {
                let (low, high) = (axis.place(range.0), axis.place(range.1));
                prop_assert!((10.0..=90.0).contains(&low) && (10.0..=90.0).contains(&high) && low <= high);
                if !axis.logarithmic {
                    prop_assert!(axis.ticks.len() >= 2 && axis.ticks.len() <= 2 * ticks + 2, "{:?}", axis.ticks);
                }
                prop_assert!(axis.ticks.len() <= 3 * ticks + 2, "{:?}", axis.ticks);
                prop_assert!(axis.ticks.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
        }
    }
}
