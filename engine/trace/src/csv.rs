//! Traces as comma-separated values, for spreadsheets and data frames.

use std::io::{self, Write};

use crate::format::Trace;

/// Writes a line for each request, below one with the names of the columns.
///
/// # Errors
/// Those of `output`.
pub fn write(trace: &Trace, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "start_ns,latency_ns,operation,offset_bytes,length_bytes")?;
    for request in &trace.requests {
        writeln!(
            output,
            "{},{},{},{},{}",
            request.start_ns,
            request.latency_ns,
            request.operation.name(),
            request.offset_bytes,
            request.length_bytes
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Header, Operation, Request};

    #[test]
    fn each_request_has_a_line() {
        let request = Request {
            start_ns: 3,
            latency_ns: 9,
            operation: Operation::Discard,
            offset_bytes: 4096,
            length_bytes: 512,
        };
        let mut text = Vec::new();
        write(&Trace::new(Header::new("one", 1 << 20), vec![request]), &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "start_ns,latency_ns,operation,offset_bytes,length_bytes\n3,9,discard,4096,512\n"
        );
    }
}
