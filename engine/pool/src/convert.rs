//! The few conversions between integers that cannot fail here, in one place, so that `as` stands
//! nowhere else.

#![allow(clippy::as_conversions)]

// Offsets and counts travel between u64 (on disk) and usize (in memory) without loss.
const _: () = assert!(usize::BITS == 64, "thinstore needs a 64-bit target");

/// A count or an index as the memory sees it.
pub(crate) const fn to_usize(value: u64) -> usize {
    value as usize
}

/// A length in memory as the disk sees it.
pub(crate) const fn to_u64(value: usize) -> u64 {
    value as u64
}

/// The low half. Callers pass values that were checked, or masked, to fit.
pub(crate) const fn low_u32(value: u64) -> u32 {
    value as u32
}

/// The low 16 bits. Callers pass values that were checked, or masked, to fit.
pub(crate) const fn low_u16(value: u64) -> u16 {
    value as u16
}
