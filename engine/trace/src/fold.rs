//! Traces without the space between what they touch.

use std::collections::BTreeSet;

use crate::format::Trace;
use crate::request::{Operation, Request};

/// Space is left out in units of this size: what lies near another thing stays so.
pub const FOLD_UNIT_BYTES: u64 = 1 << 20;

/// The units that are kept, in their order.
struct Units(Vec<u64>);

impl Units {
    /// Those that are read or written. What is only discarded holds nothing that anybody wanted.
    fn touched(requests: &[Request]) -> Units {
        let mut touched = BTreeSet::new();
        for request in requests {
            if request.length_bytes > 0 && request.operation != Operation::Discard {
                let last = (request.end_bytes() - 1) / FOLD_UNIT_BYTES;
                touched.extend(request.offset_bytes / FOLD_UNIT_BYTES..=last);
            }
        }
        Units(touched.into_iter().collect())
    }

    /// Where a byte is then; of one that is left out, where the next one is that is not.
    fn place(&self, byte: u64) -> u64 {
        let unit = byte / FOLD_UNIT_BYTES;
        let place = self.0.partition_point(|one| *one < unit);
        let within = if self.0.get(place) == Some(&unit) { byte % FOLD_UNIT_BYTES } else { 0 };
        bytes_of(place).saturating_add(within)
    }
}

fn bytes_of(units: usize) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX).saturating_mul(FOLD_UNIT_BYTES)
}

impl Trace {
    /// The same requests on a device that has only the units of [`FOLD_UNIT_BYTES`] that they read or write, in their
    /// order. What a device of terabytes was asked can so be asked of a file of megabytes. A request stays whole,
    /// because units that follow each other still do; a discard loses what is left out of its range.
    #[must_use]
    pub fn folded(&self) -> Trace {
        let units = Units::touched(&self.requests);
        let mut folded = self.clone();
        folded.requests.retain_mut(|request| {
            if request.length_bytes == 0 {
                return true;
            }
            let (begin, end) =
                (units.place(request.offset_bytes), units.place(request.end_bytes()));
            request.offset_bytes = begin;
            if request.operation == Operation::Discard {
                request.length_bytes = end - begin;
            }
            request.length_bytes > 0
        });
        folded.header.device_size_bytes = bytes_of(units.0.len());
        folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Header;

    const MEBIBYTE: u64 = FOLD_UNIT_BYTES;

    fn request(operation: Operation, offset_bytes: u64, length_bytes: u64) -> Request {
        Request { start_ns: 0, latency_ns: 0, operation, offset_bytes, length_bytes }
    }

    fn folded(requests: Vec<Request>) -> (u64, Vec<(u64, u64)>) {
        let folded = Trace::new(Header::new("one", 1 << 50), requests).folded();
        let ranges = folded.requests.iter().map(|one| (one.offset_bytes, one.length_bytes));
        (folded.header.device_size_bytes / MEBIBYTE, ranges.collect())
    }

    #[test]
    fn space_that_nothing_touches_goes_and_neighbours_stay_neighbours() {
        let write = |offset, length| request(Operation::Write, offset, length);
        let requests = vec![
            write(5 * MEBIBYTE + 4096, 4096),
            write(900 * MEBIBYTE - 4096, 8192),
            write(5 * MEBIBYTE, 512),
            request(Operation::Flush, 0, 0),
        ];
        let expected = vec![(4096, 4096), (2 * MEBIBYTE - 4096, 8192), (0, 512), (0, 0)];
        assert_eq!(folded(requests), (3, expected));
    }

    #[test]
    fn a_discard_keeps_what_is_left_of_its_range() {
        let requests = vec![
            request(Operation::Write, 10 * MEBIBYTE, 4096),
            request(Operation::Write, 1 << 45, 4096),
            request(Operation::Discard, 10 * MEBIBYTE + 4096, 1 << 45),
            request(Operation::Discard, 20 * MEBIBYTE, 30 * MEBIBYTE),
        ];
        let (size, ranges) = folded(requests);
        assert_eq!(size, 2);
        assert_eq!(ranges[2..], [(4096, 2 * MEBIBYTE - 4096)], "{ranges:?}");
    }
}
