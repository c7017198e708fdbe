//! What may be concluded from a few repeats: medians, bootstrap intervals, ratios pair by pair.

mod bootstrap;
mod estimate;
mod quantile;
mod ratio;

pub use bootstrap::{Bootstrap, attained_confidence};
pub use estimate::{Estimate, Interval, share_of_overlaps};
pub use quantile::{median, quantile};
pub use ratio::{Ratio, Verdict};
