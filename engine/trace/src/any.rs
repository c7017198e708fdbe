//! Traces of whatever form.

use thinstore_storage::{Error, ErrorKind, Result};

use crate::format::Trace;
use crate::{blktrace, iolog};

impl Trace {
    /// Reads a trace of ours, what blktrace has recorded, or an iolog of fio: its beginning says which. Other forms than
    /// ours do not know the device's name.
    ///
    /// # Errors
    /// `Corrupt` for anything else, and those of the forms.
    pub fn parse_any(name: &str, bytes: &[u8]) -> Result<Trace> {
        if Trace::is_one(bytes) {
            Trace::parse(bytes)
        } else if blktrace::is_one(bytes) {
            blktrace::parse(name, bytes)
        } else if iolog::is_one(bytes) {
            iolog::parse(&String::from_utf8_lossy(bytes))
        } else {
            let message =
                "this is no trace: neither one of thinstore, nor of blktrace, nor an iolog of fio";
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Header, Operation, Request, TraceWriter};

    #[test]
    fn the_beginning_says_which_form_it_is() {
        let request = Request {
            start_ns: 0,
            latency_ns: 5000,
            operation: Operation::Write,
            offset_bytes: 4096,
            length_bytes: 512,
        };
        let trace = Trace::new(Header::new("one", 8192), vec![request]);
        let mut writer = TraceWriter::new(Vec::new(), &trace.header).unwrap();
        writer.put(&request).unwrap();
        let ours = writer.finish(0).unwrap();
        let (mut events, mut log) = (Vec::new(), Vec::new());
        blktrace::write(&trace, &mut events).unwrap();
        iolog::write(&trace, "one", &mut log).unwrap();
        for (bytes, latency_ns) in [(ours, 5000), (events, 5000), (log, 0)] {
            let read = Trace::parse_any("one", &bytes).unwrap();
            assert_eq!(read.requests, [Request { latency_ns, ..request }]);
        }
        assert!(Trace::parse_any("one", b"").is_err());
    }
}
