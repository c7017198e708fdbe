//! One request.

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A range is given back, and reads as zeroes.
    Discard,
    /// What was written is made durable.
    Flush,
}

impl Operation {
    /// All of them, in the order of their codes in a trace.
    pub const ALL: [Operation; 4] =
        [Operation::Read, Operation::Write, Operation::Discard, Operation::Flush];

    /// Its name, as text formats have it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Discard => "discard",
            Operation::Flush => "flush",
        }
    }

    /// Its code in a trace.
    pub(crate) fn code(self) -> u8 {
        match self {
            Operation::Read => 0,
            Operation::Write => 1,
            Operation::Discard => 2,
            Operation::Flush => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Operation> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// A request, from when the device was asked until it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came, in nanoseconds since the trace began.
    pub start_ns: u64,
    /// How long the answer took; 0 where the source does not say.
    pub latency_ns: u64,
    /// What was asked.
    pub operation: Operation,
    /// Where it begins; 0 of a flush.
    pub offset_bytes: u64,
    /// How long it is; 0 of a flush.
    pub length_bytes: u64,
}

impl Request {
    /// When it was answered.
    pub fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.latency_ns)
    }

    /// The first byte after it.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.length_bytes)
    }
}
