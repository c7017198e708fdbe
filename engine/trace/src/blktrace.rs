//! The binary form of blktrace, as the kernel writes it and blkparse, btt and fio read it: `struct blk_io_trace` of
//! the kernel's include/uapi/linux/blktrace_api.h. Each request is two events there: one when it is queued, one when it
//! is complete.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};

use byteorder::{BigEndian, ByteOrder, LittleEndian};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::format::{Header, Trace};
use crate::request::{Operation, Request};

const MAGIC: u32 = 0x6561_7400;
const VERSION: u32 = 7;
const EVENT_BYTES: usize = 48;
const SECTOR_BYTES: u64 = 512;

// What a request is, in the upper half of an event's action.
const READ: u32 = 1 << 0;
const WRITE: u32 = 1 << 1;
const FLUSH: u32 = 1 << 2;
const QUEUED: u32 = 1 << 4;
const COMPLETED: u32 = 1 << 7;
const NOTE: u32 = 1 << 10;
const DISCARD: u32 = 1 << 13;

// What has happened, in its lower half.
const HAS_QUEUED: u32 = 1;
const HAS_ISSUED: u32 = 7;
const HAS_COMPLETED: u32 = 8;

/// The device that is named in events: 7:0, the first loop device. Ours has no number that would outlive it.
const DEVICE: u32 = 7 << 20;

/// An event can tell of so much at most, in whole sectors.
const EVENT_MAXIMUM_BYTES: u64 = 0xffff_fe00;

struct Event {
    time_ns: u64,
    sector: u64,
    bytes: u32,
    action: u32,
}

/// Writes the events by their time. A request that does not begin and end at a sector is widened to whole ones, as
/// the block layer has it; one of 4 GiB or more is several.
///
/// # Errors
/// Those of `output`.
pub fn write(trace: &Trace, output: &mut dyn Write) -> io::Result<()> {
    let mut events = Vec::with_capacity(trace.requests.len().saturating_mul(2));
    for request in &trace.requests {
        let kind = match request.operation {
            Operation::Read => READ,
            Operation::Write => WRITE,
            Operation::Discard => WRITE | DISCARD,
            Operation::Flush => WRITE | FLUSH,
        };
        for (sector, bytes) in pieces(request) {
            let event = |time_ns, action| Event { time_ns, sector, bytes, action };
            events.push(event(request.start_ns, HAS_QUEUED | (kind | QUEUED) << 16));
            events.push(event(request.end_ns(), HAS_COMPLETED | (kind | COMPLETED) << 16));
        }
    }
    events.sort_by_key(|event| event.time_ns);
    for (sequence, event) in (1_u32..).zip(&events) {
        let mut bytes = [0; EVENT_BYTES];
        LittleEndian::write_u32(&mut bytes[..4], MAGIC | VERSION);
        LittleEndian::write_u32(&mut bytes[4..8], sequence);
        LittleEndian::write_u64(&mut bytes[8..16], event.time_ns);
        LittleEndian::write_u64(&mut bytes[16..24], event.sector);
        LittleEndian::write_u32(&mut bytes[24..28], event.bytes);
        LittleEndian::write_u32(&mut bytes[28..32], event.action);
        LittleEndian::write_u32(&mut bytes[36..40], DEVICE);
        output.write_all(&bytes)?;
    }
    Ok(())
}

/// Sectors and bytes.
fn pieces(request: &Request) -> Vec<(u64, u32)> {
    let mut begin = request.offset_bytes / SECTOR_BYTES * SECTOR_BYTES;
    let end = request.end_bytes().div_ceil(SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
    if request.length_bytes == 0 {
        return vec![(begin / SECTOR_BYTES, 0)];
    }
    let mut pieces = Vec::new();
    while begin < end {
        let length = (end - begin).min(EVENT_MAXIMUM_BYTES);
        pieces.push((begin / SECTOR_BYTES, u32::try_from(length).unwrap_or(u32::MAX)));
        begin += length;
    }
    pieces
}

/// Is this the beginning of what blktrace has recorded?
pub fn is_one(bytes: &[u8]) -> bool {
    let whole = |magic: u32| magic & 0xffff_ff00 == MAGIC;
    bytes.len() >= 4 && (whole(LittleEndian::read_u32(bytes)) || whole(BigEndian::read_u32(bytes)))
}

/// Reads events of one device: the files that blktrace writes, one for each CPU, put together in any order. Requests
/// are what was queued; where nothing was, what was issued. The latency is the time until the completion at the same
/// sector, and 0 where there is none.
///
/// # Errors
/// `Corrupt` for what is no such file, `Unsupported` for the other byte order and for several devices.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Trace> {
    let mut events = parse_events(bytes)?;
    events.sort_by_key(|event| event.time_ns);
    let has = |event: &Event| event.action & 0xffff;
    let begins = match events.iter().any(|event| has(event) == HAS_QUEUED) {
        true => HAS_QUEUED,
        false => HAS_ISSUED,
    };
    let first_ns = events.first().map_or(0, |event| event.time_ns);
    let mut requests: Vec<Request> = Vec::new();
    // Those without a completion yet, by what they are and where.
    let mut open: HashMap<(Operation, u64), VecDeque<usize>> = HashMap::new();
    for event in &events {
        let Some(operation) = operation_of(event) else { continue };
        let start_ns = event.time_ns - first_ns;
        if has(event) == begins {
            let offset_bytes = event.sector.saturating_mul(SECTOR_BYTES);
            let (offset_bytes, length_bytes) = match operation {
                Operation::Flush => (0, 0),
                _ => (offset_bytes, u64::from(event.bytes)),
            };
            if offset_bytes.checked_add(length_bytes).is_none() {
                return Err(bad(format!("it has a request at sector {}", event.sector)));
            }
            open.entry((operation, offset_bytes)).or_default().push_back(requests.len());
            requests.push(Request {
                start_ns,
                latency_ns: 0,
                operation,
                offset_bytes,
                length_bytes,
            });
        } else if has(event) == HAS_COMPLETED {
            let offset_bytes = match operation {
                Operation::Flush => 0,
                _ => event.sector.saturating_mul(SECTOR_BYTES),
            };
            let request = open
                .get_mut(&(operation, offset_bytes))
                .and_then(VecDeque::pop_front)
                .and_then(|index| requests.get_mut(index));
            if let Some(request) = request {
                request.latency_ns = start_ns.saturating_sub(request.start_ns);
            }
        }
    }
    let size_bytes = requests.iter().map(Request::end_bytes).max().unwrap_or(0);
    Ok(Trace::new(Header::new(name, size_bytes), requests))
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// What an event of the file system's requests is about.
fn operation_of(event: &Event) -> Option<Operation> {
    let kind = event.action >> 16;
    if kind & NOTE != 0 {
        None
    } else if kind & DISCARD != 0 {
        Some(Operation::Discard)
    } else if kind & FLUSH != 0 && event.bytes == 0 {
        Some(Operation::Flush)
    } else if event.bytes == 0 {
        None
    } else if kind & WRITE != 0 {
        Some(Operation::Write)
    } else if kind & READ != 0 {
        Some(Operation::Read)
    } else {
        None
    }
}

fn parse_events(mut bytes: &[u8]) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut device = None;
    while !bytes.is_empty() {
        let Some((event, rest)) = bytes.split_at_checked(EVENT_BYTES) else {
            return Err(bad("what blktrace has recorded ends within an event"));
        };
        let magic = LittleEndian::read_u32(&event[..4]);
        if magic & 0xffff_ff00 != MAGIC {
            if BigEndian::read_u32(&event[..4]) & 0xffff_ff00 == MAGIC {
                let message = "it was recorded on a machine of the other byte order";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            return Err(bad(format!(
                "event {} of what blktrace has recorded is damaged",
                events.len() + 1
            )));
        }
        let more = usize::from(LittleEndian::read_u16(&event[46..48]));
        let Some((_, rest)) = rest.split_at_checked(more) else {
            return Err(bad("what blktrace has recorded ends within an event"));
        };
        bytes = rest;
        let action = LittleEndian::read_u32(&event[28..32]);
        let read = Event {
            time_ns: LittleEndian::read_u64(&event[8..16]),
            sector: LittleEndian::read_u64(&event[16..24]),
            bytes: LittleEndian::read_u32(&event[24..28]),
            action,
        };
        if operation_of(&read).is_none() {
            continue;
        }
        let number = LittleEndian::read_u32(&event[36..40]);
        if *device.get_or_insert(number) != number {
            let message = "it has requests of several devices: only those of one can be read";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        events.push(read);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(
        start_ns: u64,
        latency_ns: u64,
        operation: Operation,
        sector: u64,
        sectors: u64,
    ) -> Request {
        Request {
            start_ns,
            latency_ns,
            operation,
            offset_bytes: sector * SECTOR_BYTES,
            length_bytes: sectors * SECTOR_BYTES,
        }
    }

    fn written(requests: Vec<Request>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&Trace::new(Header::new("one", 0), requests), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn requests_come_back_with_their_latencies() {
        let requests = vec![
            request(0, 100, Operation::Write, 8, 8),
            request(10, 20, Operation::Read, 8, 8),
            request(40, 300, Operation::Write, 8, 16),
            request(150, 70, Operation::Flush, 0, 0),
            request(500, 1, Operation::Discard, 1 << 30, 1 << 20),
        ];
        let bytes = written(requests.clone());
        assert_eq!(bytes.len(), 10 * EVENT_BYTES);
        assert_eq!(bytes[..4], [0x07, 0x74, 0x61, 0x65]);
        let trace = parse("one", &bytes).unwrap();
        assert_eq!(trace.requests, requests);
    }

    #[test]
    fn what_an_event_cannot_tell_of_is_several_and_bytes_become_sectors() {
        let requests = vec![
            request(0, 1, Operation::Discard, 0, 1 << 25),
            Request {
                offset_bytes: 700,
                length_bytes: 10,
                ..request(5, 1, Operation::Write, 0, 0)
            },
        ];
        let trace = parse("one", &written(requests)).unwrap();
        let ranges: Vec<_> =
            trace.requests.iter().map(|one| (one.offset_bytes, one.length_bytes)).collect();
        let rest = (16 << 30) % EVENT_MAXIMUM_BYTES;
        assert_eq!(ranges.len(), 6);
        assert_eq!(ranges[4..], [((16 << 30) - rest, rest), (512, 512)]);
    }

    #[test]
    fn other_files_are_refused() {
        let good = written(vec![request(0, 1, Operation::Write, 0, 8)]);
        let refused = |bytes: &[u8]| parse("one", bytes).unwrap_err().to_string();
        assert!(refused(&good[..50]).contains("ends within"));
        let mut other_order = good.clone();
        other_order[..4].reverse();
        assert!(is_one(&other_order) && refused(&other_order).contains("byte order"));
        let mut two = good.clone();
        two[EVENT_BYTES + 36] = 1;
        assert!(refused(&two).contains("several devices"));
        assert!(refused(b"nothing of the kind, but long enough for one event").contains("damaged"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0_usize..96, byte: u8) {
            drop(parse("one", &bytes));
            let mut near = written(vec![request(0, 1, Operation::Write, 0, 8)]);
            near[at] = byte;
            drop(parse("one", &near));
        }
    }
}
