//! What a trace is made of.

use crate::format::Trace;
use crate::request::Operation;

/// The requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationSummary {
    /// Which kind.
    pub operation: Operation,
    /// How many.
    pub requests: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// How many of them begin where the one before of their kind ended.
    pub sequential: u64,
}

/// All requests of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// From the beginning of the trace to the last answer, in nanoseconds.
    pub duration_ns: u64,
    /// Each kind that there is.
    pub operations: Vec<OperationSummary>,
    /// The most requests that were under way at once.
    pub most_at_once: usize,
}

impl Trace {
    /// Counts.
    pub fn summary(&self) -> Summary {
        let mut operations = Vec::new();
        for operation in Operation::ALL {
            let mut sum = OperationSummary { operation, requests: 0, bytes: 0, sequential: 0 };
            let mut end = None;
            for request in self.requests.iter().filter(|one| one.operation == operation) {
                sum.requests += 1;
                sum.bytes = sum.bytes.saturating_add(request.length_bytes);
                sum.sequential +=
                    u64::from(operation != Operation::Flush && end == Some(request.offset_bytes));
                end = Some(request.end_bytes());
            }
            if sum.requests > 0 {
                operations.push(sum);
            }
        }
        let duration_ns = self.requests.iter().map(crate::Request::end_ns).max().unwrap_or(0);
        Summary { duration_ns, operations, most_at_once: self.most_at_once() }
    }

    /// The most requests that were under way at once; one, where no latencies are known.
    pub fn most_at_once(&self) -> usize {
        let mut ends: Vec<u64> = self.requests.iter().map(crate::Request::end_ns).collect();
        ends.sort_unstable();
        let (mut ended, mut most) = (0, usize::from(!self.requests.is_empty()));
        for (begun, request) in (1..).zip(&self.requests) {
            while ends.get(ended).is_some_and(|end| *end <= request.start_ns) {
                ended += 1;
            }
            // Without latencies a request may count as ended before it began.
            most = most.max(begun - ended.min(begun));
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use crate::{Header, Operation, Request, Trace};

    #[test]
    fn kinds_sequences_and_depth_are_counted() {
        let request = |start_ns, latency_ns, operation, offset_bytes, length_bytes| Request {
            start_ns,
            latency_ns,
            operation,
            offset_bytes,
            length_bytes,
        };
        let trace = Trace::new(
            Header::new("one", 1 << 20),
            vec![
                request(0, 10, Operation::Write, 0, 4096),
                request(5, 10, Operation::Write, 4096, 4096),
                request(6, 3, Operation::Read, 0, 512),
                request(20, 7, Operation::Flush, 0, 0),
            ],
        );
        let summary = trace.summary();
        assert_eq!((summary.duration_ns, summary.most_at_once), (27, 3));
        let writes = summary.operations[1];
        assert_eq!((writes.requests, writes.bytes, writes.sequential), (2, 8192, 1));
        assert_eq!(summary.operations.len(), 3);
        assert_eq!(Trace::new(Header::new("none", 0), Vec::new()).most_at_once(), 0);
    }
}
