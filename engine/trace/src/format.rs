//! Our own form of a trace, as docs/format.md has it byte by byte: a header, frames of requests, and an end that says
//! how many there were. A trace that was cut off is read up to its last whole frame, and says so.

use std::io::{self, Write};

use byteorder::{ByteOrder, LittleEndian};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::request::{Operation, Request};
use crate::varint;

const MAGIC: &[u8; 8] = b"THINTRCE";
const VERSION: u32 = 1;
const HEADER_FIXED_BYTES: usize = 32;
const NAME_MAXIMUM_BYTES: usize = 255;
const FRAME_HEAD_BYTES: usize = 12;
const FRAME_MAXIMUM_BYTES: usize = 1 << 20;
const KIND_REQUESTS: u32 = 1;
const KIND_END: u32 = 2;
/// A frame is written when its requests take so much.
const FRAME_FULL_BYTES: usize = 64 << 10;
/// No kernel asks a device to read or write more than this at once.
const TRANSFER_MAXIMUM_BYTES: u64 = 1 << 30;

/// What is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The device's name.
    pub name: String,
    /// The device's size.
    pub device_size_bytes: u64,
    /// When the trace began, in nanoseconds since 1970; 0 where that is not known.
    pub started_unix_ns: i64,
}

impl Header {
    /// Of a trace whose beginning is not known.
    pub fn new(name: &str, device_size_bytes: u64) -> Header {
        Header { name: name.to_owned(), device_size_bytes, started_unix_ns: 0 }
    }
}

/// A whole trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What was traced.
    pub header: Header,
    /// The requests, by when they came.
    pub requests: Vec<Request>,
    /// So many more found no room in the recorder.
    pub lost: u64,
    /// False if the end is missing: the recorder was killed, or the file was cut.
    pub complete: bool,
}

impl Trace {
    /// A trace of requests in any order.
    pub fn new(header: Header, mut requests: Vec<Request>) -> Trace {
        requests.sort_by_key(|request| request.start_ns);
        Trace { header, requests, lost: 0, complete: true }
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Writes a trace piece by piece.
pub struct TraceWriter<W: Write> {
    output: W,
    frame: Vec<u8>,
    previous: Previous,
    requests: u64,
}

/// What the numbers of a request are told from: the request before it in its frame.
#[derive(Default)]
struct Previous {
    start_ns: u64,
    end_bytes: u64,
}

impl<W: Write> TraceWriter<W> {
    /// Begins with the header. A name is cut to 255 bytes.
    ///
    /// # Errors
    /// Those of `output`, here and below.
    pub fn new(mut output: W, header: &Header) -> io::Result<TraceWriter<W>> {
        let name_bytes = header.name.floor_char_boundary(NAME_MAXIMUM_BYTES);
        let name = header.name.as_bytes().get(..name_bytes).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER_FIXED_BYTES + NAME_MAXIMUM_BYTES + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length_of(name).to_le_bytes());
        bytes.extend_from_slice(&header.device_size_bytes.to_le_bytes());
        bytes.extend_from_slice(&header.started_unix_ns.to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        output.write_all(&bytes)?;
        Ok(TraceWriter { output, frame: Vec::new(), previous: Previous::default(), requests: 0 })
    }

    /// Adds a request. It is in the file with the next [`TraceWriter::flush`] at the latest.
    ///
    /// # Errors
    /// See [`TraceWriter::new`].
    pub fn put(&mut self, request: &Request) -> io::Result<()> {
        let frame = &mut self.frame;
        frame.push(request.operation.code());
        varint::put_difference(frame, request.start_ns, self.previous.start_ns);
        varint::put(frame, request.latency_ns);
        self.previous.start_ns = request.start_ns;
        if request.operation != Operation::Flush {
            varint::put_difference(frame, request.offset_bytes, self.previous.end_bytes);
            varint::put(frame, request.length_bytes);
            self.previous.end_bytes = request.end_bytes();
        }
        self.requests += 1;
        if frame.len() >= FRAME_FULL_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hands all requests so far to `output`.
    ///
    /// # Errors
    /// See [`TraceWriter::new`].
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.frame.is_empty() {
            let payload = std::mem::take(&mut self.frame);
            self.previous = Previous::default();
            self.write_frame(KIND_REQUESTS, &payload)?;
        }
        self.output.flush()
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// See [`TraceWriter::new`].
    pub fn finish(mut self, lost: u64) -> io::Result<W> {
        self.flush()?;
        let mut end = self.requests.to_le_bytes().to_vec();
        end.extend_from_slice(&lost.to_le_bytes());
        self.write_frame(KIND_END, &end)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn write_frame(&mut self, kind: u32, payload: &[u8]) -> io::Result<()> {
        let mut head = [0; FRAME_HEAD_BYTES];
        LittleEndian::write_u32(&mut head[..4], kind);
        LittleEndian::write_u32(&mut head[4..8], length_of(payload));
        let crc = frame_crc(&head[..8], payload);
        LittleEndian::write_u32(&mut head[8..], crc);
        self.output.write_all(&head)?;
        self.output.write_all(payload)
    }
}

fn frame_crc(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// Splits off the first `count` bytes, if there are so many.
fn split<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (first, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(first)
}

impl Trace {
    /// Is this the beginning of a trace of ours?
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads a trace.
    ///
    /// # Errors
    /// `Incompatible` for another version, `Corrupt` for what is no trace or is damaged. One whose end is missing
    /// is no error.
    pub fn parse(bytes: &[u8]) -> Result<Trace> {
        let mut input = bytes;
        let header = parse_header(&mut input)?;
        let mut requests = Vec::new();
        loop {
            let at = bytes.len() - input.len();
            let Some((kind, payload)) = next_frame(&mut input, at)? else {
                requests.sort_by_key(|request: &Request| request.start_ns);
                return Ok(Trace { header, requests, lost: 0, complete: false });
            };
            match kind {
                KIND_REQUESTS => parse_requests(payload, &mut requests)
                    .ok_or_else(|| corrupt(format!("the trace has a bad frame at byte {at}")))?,
                KIND_END => {
                    let lost = parse_end(payload, requests.len(), input)?;
                    requests.sort_by_key(|request| request.start_ns);
                    return Ok(Trace { header, requests, lost, complete: true });
                }
                _ => {
                    return Err(corrupt(format!(
                        "the trace has a frame of kind {kind} at byte {at}"
                    )));
                }
            }
        }
    }
}

fn parse_header(input: &mut &[u8]) -> Result<Header> {
    let whole = *input;
    if !Trace::is_one(whole) {
        return Err(corrupt("this is no trace of thinstore: it does not begin with THINTRCE"));
    }
    let cut = || corrupt("the trace ends within its header");
    let fixed = split(input, HEADER_FIXED_BYTES).ok_or_else(cut)?;
    let version = LittleEndian::read_u32(&fixed[8..12]);
    if version != VERSION {
        let message =
            format!("the trace has version {version}; this program reads version {VERSION}");
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    let length = usize::try_from(LittleEndian::read_u32(&fixed[12..16])).unwrap_or(usize::MAX);
    if length > NAME_MAXIMUM_BYTES {
        return Err(corrupt(format!("the trace's name has {length} bytes")));
    }
    let name = split(input, length).ok_or_else(cut)?;
    let crc = LittleEndian::read_u32(split(input, 4).ok_or_else(cut)?);
    if crc != crc32fast::hash(whole.get(..HEADER_FIXED_BYTES + length).unwrap_or_default()) {
        return Err(corrupt("the trace's header is damaged"));
    }
    Ok(Header {
        name: String::from_utf8_lossy(name).into_owned(),
        device_size_bytes: LittleEndian::read_u64(&fixed[16..24]),
        started_unix_ns: LittleEndian::read_i64(&fixed[24..32]),
    })
}

/// The kind and payload of the next frame; `None` if it is not there as a whole.
fn next_frame<'a>(input: &mut &'a [u8], at: usize) -> Result<Option<(u32, &'a [u8])>> {
    let Some(head) = split(input, FRAME_HEAD_BYTES) else { return Ok(None) };
    let length = usize::try_from(LittleEndian::read_u32(&head[4..8])).unwrap_or(usize::MAX);
    if length > FRAME_MAXIMUM_BYTES {
        return Err(corrupt(format!("the trace has a frame of {length} bytes at byte {at}")));
    }
    let Some(payload) = split(input, length) else { return Ok(None) };
    if LittleEndian::read_u32(&head[8..]) != frame_crc(&head[..8], payload) {
        return Err(corrupt(format!("the trace is damaged at byte {at}")));
    }
    Ok(Some((LittleEndian::read_u32(&head[..4]), payload)))
}

fn parse_requests(mut payload: &[u8], requests: &mut Vec<Request>) -> Option<()> {
    let mut previous = Previous::default();
    while let Some((&code, rest)) = payload.split_first() {
        payload = rest;
        let operation = Operation::from_code(code)?;
        let start_ns = varint::take_difference(&mut payload, previous.start_ns)?;
        let latency_ns = varint::take(&mut payload)?;
        let mut request =
            Request { start_ns, latency_ns, operation, offset_bytes: 0, length_bytes: 0 };
        if operation != Operation::Flush {
            request.offset_bytes = varint::take_difference(&mut payload, previous.end_bytes)?;
            request.length_bytes = varint::take(&mut payload)?;
            let end = request.offset_bytes.checked_add(request.length_bytes)?;
            let transfers = operation != Operation::Discard;
            if transfers && request.length_bytes > TRANSFER_MAXIMUM_BYTES {
                return None;
            }
            previous.end_bytes = end;
        }
        start_ns.checked_add(latency_ns)?;
        previous.start_ns = start_ns;
        requests.push(request);
    }
    Some(())
}

/// How many requests were lost.
fn parse_end(payload: &[u8], found: usize, rest: &[u8]) -> Result<u64> {
    if payload.len() != 16 {
        return Err(corrupt("the trace's end is damaged"));
    }
    let count = LittleEndian::read_u64(&payload[..8]);
    if u64::try_from(found) != Ok(count) {
        return Err(corrupt(format!("the trace has {found} requests and says {count}")));
    }
    if !rest.is_empty() {
        return Err(corrupt(format!("the trace has {} bytes behind its end", rest.len())));
    }
    Ok(LittleEndian::read_u64(&payload[8..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(start_ns: u64, operation: Operation, offset: u64, length: u64) -> Request {
        let (offset_bytes, length_bytes) = match operation {
            Operation::Flush => (0, 0),
            _ => (offset, length),
        };
        Request { start_ns, latency_ns: 1000, operation, offset_bytes, length_bytes }
    }

    fn written(header: &Header, requests: &[Request], lost: u64) -> Vec<u8> {
        let mut writer = TraceWriter::new(Vec::new(), header).unwrap();
        for one in requests {
            writer.put(one).unwrap();
        }
        writer.finish(lost).unwrap()
    }

    fn some() -> (Header, Vec<Request>) {
        let header =
            Header { name: "web".to_owned(), device_size_bytes: 1 << 30, started_unix_ns: -5 };
        let requests = vec![
            request(5, Operation::Read, 4096, 8192),
            request(7, Operation::Write, 12288, 4096),
            request(1000, Operation::Flush, 0, 0),
            request(70_000, Operation::Discard, 0, 4096),
        ];
        (header, requests)
    }

    #[test]
    fn the_bytes_of_a_trace_are_those_of_the_document() {
        let (header, requests) = some();
        let bytes = written(&header, &requests, 3);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "5448494e5452434501000000030000000000004000000000fbffffffffffffff776562eb1c40fe010000001f00000053",
        "6a0c76000ae807804080400104e80700802003c20fe8070290b608e807ffff01802002000000100000006ee682c00400",
        "0000000000000300000000000000",
    );

    #[test]
    fn a_sequential_request_takes_seven_bytes() {
        let (header, _) = some();
        let size = |count: u64| {
            let requests: Vec<Request> = (0..count)
                .map(|number| request(number * 5000, Operation::Write, number * 4096, 4096))
                .collect();
            written(&header, &requests, 0).len()
        };
        assert_eq!(size(1000) - size(900), 800);
    }

    #[test]
    fn a_trace_that_was_cut_gives_what_is_whole_and_a_damaged_one_is_refused() {
        let (header, requests) = some();
        let mut writer = TraceWriter::new(Vec::new(), &header).unwrap();
        writer.put(&requests[0]).unwrap();
        writer.flush().unwrap();
        writer.put(&requests[1]).unwrap();
        let bytes = writer.finish(0).unwrap();
        let header_bytes = HEADER_FIXED_BYTES + 3 + 4;
        let mut most = 0;
        for cut in 0..bytes.len() {
            match Trace::parse(&bytes[..cut]) {
                Ok(trace) => {
                    assert!(cut >= header_bytes && !trace.complete);
                    assert_eq!(trace.requests, requests[..trace.requests.len()]);
                    most = most.max(trace.requests.len());
                }
                Err(error) => assert!(cut < header_bytes, "{error}"),
            }
        }
        assert_eq!(most, 2);
        for byte in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[byte] ^= 1 << bit;
                // A damaged length may reach past the end of the file, which looks as if that had been cut.
                if let Ok(trace) = Trace::parse(&damaged) {
                    assert!(!trace.complete, "bit {bit} of byte {byte}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_trace_comes_back(
            some in proptest::collection::vec((0_u64..1 << 40, 0_usize..4, 0_u64..1 << 29, 0_u64..1 << 29, any::<u32>()), 0..200),
            lost: u64,
        ) {
            let header = Header::new("any", 1 << 30);
            let requests: Vec<Request> = some
                .iter()
                .map(|(start, operation, offset, length, latency)| Request {
                    latency_ns: u64::from(*latency),
                    ..request(*start, Operation::ALL[*operation], *offset, *length)
                })
                .collect();
            let trace = Trace::parse(&written(&header, &requests, lost)).unwrap();
            prop_assert_eq!(trace, Trace { lost, ..Trace::new(header, requests) });
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, crc: bool) {
            let (header, requests) = some();
            let good = written(&header, &requests, 0);
            drop(Trace::parse(&bytes).map(|trace| (trace.folded(), trace.summary())));
            let mut whole = good[..HEADER_FIXED_BYTES + 7].to_vec();
            if crc {
                let mut head = KIND_REQUESTS.to_le_bytes().to_vec();
                head.extend_from_slice(&length_of(&bytes).to_le_bytes());
                head.extend_from_slice(&frame_crc(&head, &bytes).to_le_bytes());
                whole.extend_from_slice(&head);
            }
            whole.append(&mut bytes);
            drop(Trace::parse(&whole).map(|trace| (trace.folded(), trace.summary())));
        }
    }
}
