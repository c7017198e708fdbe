//! Conversions between whole and floating numbers, in one place: what is measured here is far below 2^53, and
//! beyond that the nearest float is what is wanted.

/// The nearest float.
#[expect(clippy::as_conversions, reason = "to the nearest float, as intended")]
pub const fn float(number: u64) -> f64 {
    number as f64
}

/// The nearest float of a count.
#[expect(clippy::as_conversions, reason = "to the nearest float, as intended")]
pub const fn float_of(count: usize) -> f64 {
    count as f64
}

/// The whole part; 0 for what is negative or no number, the largest number for what is larger.
#[expect(clippy::as_conversions, reason = "`as` saturates, and makes 0 of NaN")]
pub const fn whole(number: f64) -> u64 {
    number as u64
}

/// The whole part as an index.
#[expect(clippy::as_conversions, reason = "`as` saturates, and makes 0 of NaN")]
pub const fn index(number: f64) -> usize {
    number as usize
}

/// The exponent of a power, from a float that is known to be small.
#[expect(clippy::as_conversions, reason = "`as` saturates, and makes 0 of NaN")]
pub const fn exponent(number: f64) -> i32 {
    number as i32
}
