//! fio's iolog (fio's manual, "Trace file format v2" and "v3"): one line for each request, without latencies. Version 3
//! has the time of each in microseconds since the beginning; version 2 has waits between them.

use std::io::{self, Write};

use thinstore_storage::{Error, ErrorKind, Result};

use crate::format::{Header, Trace};
use crate::request::{Operation, Request};

/// Writes version 3, of one file of this name. Times are cut to microseconds.
///
/// # Errors
/// `InvalidInput` for a name that a line cannot hold; those of `output`.
pub fn write(trace: &Trace, file: &str, output: &mut dyn Write) -> io::Result<()> {
    if file.is_empty() || file.contains(char::is_whitespace) {
        let message = format!("fio reads no file name with blanks: '{}'", file.escape_debug());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    writeln!(output, "fio version 3 iolog")?;
    writeln!(output, "0 {file} add")?;
    writeln!(output, "0 {file} open")?;
    for request in &trace.requests {
        let action = match request.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Discard => "trim",
            Operation::Flush => "datasync",
        };
        let time_us = request.start_ns / 1000;
        writeln!(
            output,
            "{time_us} {file} {action} {} {}",
            request.offset_bytes, request.length_bytes
        )?;
    }
    let last_us = trace.requests.last().map_or(0, |request| request.start_ns / 1000);
    writeln!(output, "{last_us} {file} close")
}

/// Is this the beginning of an iolog?
pub fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(b"fio version ")
}

/// Reads version 2 or 3, of one file.
///
/// # Errors
/// `Corrupt` with the line for what is no iolog, `Unsupported` for one of several files.
pub fn parse(text: &str) -> Result<Trace> {
    let mut lines = (1_usize..).zip(text.lines());
    let has_times = match lines.next().map(|(_, line)| line.trim_end()) {
        Some("fio version 2 iolog") => false,
        Some("fio version 3 iolog") => true,
        _ => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "this is no iolog of fio: it begins with neither 'fio version 2 iolog' nor 'fio version 3 iolog'",
            ));
        }
    };
    let mut reader = Reader { has_times, file: None, now_us: 0, requests: Vec::new() };
    for (number, line) in lines {
        reader.line(line).map_err(|error| error.context(format!("line {number} of the iolog")))?;
    }
    let size_bytes = reader.requests.iter().map(Request::end_bytes).max().unwrap_or(0);
    Ok(Trace::new(
        Header::new(reader.file.as_deref().unwrap_or_default(), size_bytes),
        reader.requests,
    ))
}

struct Reader {
    has_times: bool,
    file: Option<String>,
    now_us: u64,
    requests: Vec<Request>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        let mut words = line.split_ascii_whitespace();
        let Some(mut first) = words.next() else { return Ok(()) };
        let number = |word: Option<&str>| {
            let word = word.ok_or_else(|| bad("a number is missing"))?;
            word.parse::<u64>().map_err(|_| bad(format!("'{}' is no number", word.escape_debug())))
        };
        if self.has_times {
            self.now_us = number(Some(first))?;
            first = words.next().ok_or_else(|| bad("the file is missing"))?;
        }
        let file = self.file.get_or_insert_with(|| first.to_owned());
        if file != first {
            let message = format!(
                "it has a second file, '{}': only an iolog of one file or device can be read",
                first.escape_debug()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let action = words.next().ok_or_else(|| bad("the action is missing"))?;
        let operation = match action {
            "add" | "open" | "close" => return Ok(()),
            "wait" => {
                self.now_us = self.now_us.saturating_add(number(words.next())?);
                return Ok(());
            }
            "read" => Operation::Read,
            "write" => Operation::Write,
            "trim" => Operation::Discard,
            "sync" | "datasync" => Operation::Flush,
            _ => return Err(bad(format!("there is no action '{}'", action.escape_debug()))),
        };
        let (mut offset_bytes, mut length_bytes) = (0, 0);
        if operation != Operation::Flush {
            (offset_bytes, length_bytes) = (number(words.next())?, number(words.next())?);
            offset_bytes
                .checked_add(length_bytes)
                .ok_or_else(|| bad("its end is beyond all numbers"))?;
        }
        let start_ns =
            self.now_us.checked_mul(1000).ok_or_else(|| bad("its time is beyond all numbers"))?;
        self.requests.push(Request {
            start_ns,
            latency_ns: 0,
            operation,
            offset_bytes,
            length_bytes,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let request = |start_ns, operation, offset_bytes, length_bytes| Request {
            start_ns,
            latency_ns: 0,
            operation,
            offset_bytes,
            length_bytes,
        };
        let requests = vec![
            request(5000, Operation::Write, 4096, 8192),
            request(7000, Operation::Flush, 0, 0),
            request(7000, Operation::Discard, 0, 4096),
            request(900_000, Operation::Read, 512, 512),
        ];
        Trace::new(Header::new("data", 12288), requests)
    }

    #[test]
    fn version_3_is_written_and_comes_back() {
        let mut text = Vec::new();
        write(&trace(), "data", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "fio version 3 iolog\n0 data add\n0 data open\n5 data write 4096 8192\n7 data datasync 0 0\n\
             7 data trim 0 4096\n900 data read 512 512\n900 data close\n"
        );
        assert_eq!(parse(&text).unwrap(), trace());
        assert!(write(&trace(), "a b", &mut Vec::new()).is_err());
    }

    #[test]
    fn version_2_has_waits_instead_of_times() {
        let text = "fio version 2 iolog\ndata add\ndata open\ndata wait 5 0\ndata write 4096 8192\ndata wait 2 0\n\
                    data sync 0 0\ndata trim 0 4096\ndata wait 893 0\ndata read 512 512\ndata close\n";
        assert_eq!(parse(text).unwrap(), trace());
    }

    #[test]
    fn what_is_no_iolog_is_refused_with_its_line() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        assert!(refused("fio version 1 iolog\n").contains("neither"));
        let body = |line: &str| refused(&format!("fio version 3 iolog\n0 a add\n{line}\n"));
        assert!(body("1 b read 0 1").contains("second file"));
        assert!(body("x a read 0 1").contains("line 3"));
        assert!(body("1 a fly 0 1").contains("fly"));
        assert!(body("1 a read 0").contains("missing"));
        assert!(body("1 a read 18446744073709551615 1").contains("beyond"));
        assert!(body("18446744073709551615 a read 0 1").contains("beyond"));
    }
}
