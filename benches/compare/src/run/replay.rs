//! A trace, done again on a file.
//!
//! A request begins when all those have ended that had ended before it began when the trace was recorded: so the replay
//! has the order and the depth of the recorded work, and no more waiting than that work needs (as hfplayer's
//! dependencies: Haghdoost, Carns et al., "On the Accuracy and Scalability of Intensive I/O Workload Replay", FAST
//! 2017). At the original speed it does not begin before its time either.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use thinstore_trace::{Operation, Request, Trace};

use super::Answer;
use super::fio::FioResult;
use super::writing::{open_buffered, open_direct};
use crate::number::float;
use crate::results::Histogram;

/// How fast a trace is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaySpeed {
    /// As fast as the dependencies between its requests allow.
    Full,
    /// No request before its time.
    Original,
}

impl ReplaySpeed {
    /// Reads `full` and `original`.
    pub fn parse(text: &str) -> Answer<Self> {
        match text {
            "full" => Ok(Self::Full),
            "original" => Ok(Self::Original),
            _ => Err(format!("'{text}': the speed of a replay is full or original")),
        }
    }
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// How many requests were done.
    pub requests: u64,
    /// From the beginning to the last answer.
    pub seconds: f64,
    /// The bytes that were read and written.
    pub bytes: u64,
    /// How long they took.
    pub latency: Histogram,
}

/// More threads than this would measure the machine's scheduler.
const THREADS_MAXIMUM: usize = 64;

/// Direct I/O wants addresses, places and lengths that are multiples of the device's sector; none is larger than this.
const ALIGNMENT_BYTES: usize = 4096;

/// Which requests may begin.
struct Turn {
    /// The next one, by its beginning.
    next: usize,
    /// Whether each has ended, by the order of the recorded ends.
    ended: Vec<bool>,
    /// So many of the first of those have.
    ended_first: usize,
    failed: bool,
}

/// A trace and how its requests depend on each other.
struct Plan<'a> {
    requests: &'a [Request],
    /// For each request, how many of the first ends it waits for.
    waits_for: Vec<usize>,
    /// For each request, its place among the ends.
    place: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn of(trace: &'a Trace) -> Self {
        let requests = trace.requests.as_slice();
        let mut ends: Vec<(u64, u64, usize)> = (0..)
            .zip(requests)
            .map(|(index, request)| (request.end_ns(), request.start_ns, index))
            .collect();
        ends.sort_unstable();
        let mut place = vec![0; requests.len()];
        for (number, (_, _, index)) in ends.iter().enumerate() {
            if let Some(place) = place.get_mut(*index) {
                *place = number;
            }
        }
        // Where the source knows no latencies, a request has ended when it began. None may wait for itself, nor for
        // one after it: only those that began earlier count.
        let had_ended = |start_ns: u64| {
            ends.partition_point(|(end_ns, began_ns, _)| {
                *end_ns < start_ns || *end_ns == start_ns && *began_ns < start_ns
            })
        };
        let waits_for = requests.iter().map(|request| had_ended(request.start_ns)).collect();
        Self { requests, waits_for, place }
    }
}

/// Bytes at an address that direct I/O takes.
struct Buffer {
    bytes: Vec<u8>,
    begin: usize,
}

impl Buffer {
    fn new(length: usize, seed: u64) -> Self {
        let mut random = crate::random::Random::new(seed);
        let words = (length + ALIGNMENT_BYTES) / 8;
        let bytes: Vec<u8> = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
        let begin = bytes.as_ptr().align_offset(ALIGNMENT_BYTES).min(ALIGNMENT_BYTES);
        Self { bytes, begin }
    }

    fn part(&mut self, length: usize) -> &mut [u8] {
        let end = self.begin.saturating_add(length);
        self.bytes.get_mut(self.begin..end).unwrap_or_default()
    }
}

/// Does a trace again on a file, which must be as large as the trace's device, or larger.
///
/// # Errors
/// The first that a request met.
pub fn replay(file: &File, trace: &Trace, speed: ReplaySpeed) -> Answer<Replayed> {
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let needed = trace.requests.iter().map(Request::end_bytes).max().unwrap_or(0);
    if size < needed {
        return Err(format!("the file has {size} bytes, and the trace reaches to {needed}"));
    }
    let transferred = |one: &&Request| matches!(one.operation, Operation::Read | Operation::Write);
    let longest = trace.requests.iter().filter(transferred).map(|one| one.length_bytes).max();
    let longest = usize::try_from(longest.unwrap_or(0)).map_err(|error| error.to_string())?;
    let plan = Plan::of(trace);
    let ended = vec![false; plan.requests.len()];
    let turn = Mutex::new(Turn { next: 0, ended, ended_first: 0, failed: false });
    let changed = Condvar::new();
    let threads = trace.most_at_once().clamp(1, THREADS_MAXIMUM);
    let begun = Instant::now();
    let work = |seed| {
        let done = run(file, &plan, speed, begun, &turn, &changed, Buffer::new(longest, seed));
        if done.is_err() {
            turn.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            changed.notify_all();
        }
        done
    };
    let work = &work;
    let answers: Vec<Answer<Replayed>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (1..).take(threads).map(|seed| scope.spawn(move || work(seed))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
            .collect()
    });
    let mut sum = Replayed { seconds: begun.elapsed().as_secs_f64(), ..Replayed::default() };
    for answer in answers {
        let one = answer?;
        sum.requests += one.requests;
        sum.bytes = sum.bytes.saturating_add(one.bytes);
        sum.latency.merge(&one.latency);
    }
    Ok(sum)
}

/// Sectors that no disk goes below.
const SECTOR_BYTES: u64 = 512;

/// Does a trace again on a file of a container. What opening it takes belongs to it: there a driver may copy it.
pub(super) fn replay_on(
    root: &Path,
    path: &str,
    trace: &Trace,
    speed: ReplaySpeed,
) -> Answer<FioResult> {
    let aligned = |bytes: u64| bytes.is_multiple_of(SECTOR_BYTES);
    let all_aligned =
        trace.requests.iter().all(|one| aligned(one.offset_bytes) && aligned(one.length_bytes));
    let begun = Instant::now();
    let file = if all_aligned { open_direct(root, path) } else { open_buffered(root, path) };
    let file = file.map_err(|error| format!("{path}: {error}"))?;
    let done = replay(&file, trace, speed)?;
    let seconds = begun.elapsed().as_secs_f64().max(1e-9);
    Ok(FioResult {
        operations_per_second: float(done.requests) / seconds,
        bytes_per_second: float(done.bytes) / seconds,
        written_bytes: done.bytes,
        latency: done.latency,
    })
}

/// One thread's part.
fn run(
    file: &File,
    plan: &Plan<'_>,
    speed: ReplaySpeed,
    begun: Instant,
    turn: &Mutex<Turn>,
    changed: &Condvar,
    mut buffer: Buffer,
) -> Answer<Replayed> {
    let mut done = Replayed::default();
    loop {
        let mut state = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let index = loop {
            let Some(waits_for) = plan.waits_for.get(state.next) else { return Ok(done) };
            if state.failed {
                return Ok(done);
            }
            if *waits_for <= state.ended_first {
                break state.next;
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.next += 1;
        drop(state);
        // The next one may be free to begin too.
        changed.notify_one();
        let (Some(request), Some(place)) = (plan.requests.get(index), plan.place.get(index)) else {
            return Ok(done);
        };
        if speed == ReplaySpeed::Original {
            let early = Duration::from_nanos(request.start_ns).saturating_sub(begun.elapsed());
            std::thread::sleep(early);
        }
        let since = Instant::now();
        ask(file, request, &mut buffer).map_err(|error| {
            let (operation, offset) = (request.operation.name(), request.offset_bytes);
            format!(
                "request {index}, {operation} of {} bytes at {offset}: {error}",
                request.length_bytes
            )
        })?;
        done.latency.add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX), 1);
        done.requests += 1;
        if matches!(request.operation, Operation::Read | Operation::Write) {
            done.bytes = done.bytes.saturating_add(request.length_bytes);
        }
        let mut state = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = state.ended.get_mut(*place) {
            *ended = true;
        }
        while state.ended.get(state.ended_first) == Some(&true) {
            state.ended_first += 1;
        }
        drop(state);
        changed.notify_all();
    }
}

fn ask(file: &File, request: &Request, buffer: &mut Buffer) -> std::io::Result<()> {
    let length = usize::try_from(request.length_bytes).unwrap_or(0);
    match request.operation {
        Operation::Read => file.read_exact_at(buffer.part(length), request.offset_bytes),
        Operation::Write => file.write_all_at(buffer.part(length), request.offset_bytes),
        Operation::Flush => file.sync_data(),
        Operation::Discard => {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(file, hole, request.offset_bytes, request.length_bytes) {
                // Nobody has to take a discard.
                Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                answer => Ok(answer?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use thinstore_trace::Header;

    use super::*;

    fn request(
        start_ns: u64,
        latency_ns: u64,
        operation: Operation,
        offset: u64,
        length: u64,
    ) -> Request {
        let (offset_bytes, length_bytes) = (offset, length);
        Request { start_ns, latency_ns, operation, offset_bytes, length_bytes }
    }

    fn file(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn every_request_is_done_and_counted() {
        let file = file(1 << 20);
        let trace = Trace::new(
            Header::new("one", 1 << 20),
            vec![
                request(0, 100, Operation::Write, 4096, 8192),
                request(50, 100, Operation::Write, 65536, 4096),
                request(200, 10, Operation::Flush, 0, 0),
                request(300, 10, Operation::Discard, 4096, 4096),
                request(320, 10, Operation::Read, 0, 4096),
            ],
        );
        let done = replay(&file, &trace, ReplaySpeed::Full).unwrap();
        assert_eq!((done.requests, done.bytes, done.latency.count()), (5, 16384, 5));
        let mut bytes = [0; 4096];
        let mut is_written = |offset| {
            file.read_exact_at(&mut bytes, offset).unwrap();
            bytes.iter().any(|byte| *byte != 0)
        };
        assert_eq!([0, 4096, 8192, 65536].map(&mut is_written), [false, false, true, true]);
    }

    #[test]
    fn a_request_waits_for_those_that_had_ended_before_it_and_for_no_other() {
        let trace = Trace::new(
            Header::new("one", 1 << 20),
            vec![
                request(0, 100, Operation::Write, 0, 512),
                request(10, 20, Operation::Write, 0, 512),
                request(40, 10, Operation::Write, 0, 512),
                request(100, 10, Operation::Write, 0, 512),
            ],
        );
        let plan = Plan::of(&trace);
        assert_eq!(plan.waits_for, [0, 0, 1, 3]);
        assert_eq!(plan.place, [2, 0, 1, 3]);
    }

    #[test]
    fn a_trace_without_latencies_is_done_one_request_after_the_other() {
        let requests: Vec<_> = (0..100)
            .map(|number| request(number / 3, 0, Operation::Write, number * 512, 512))
            .collect();
        let trace = Trace::new(Header::new("one", 1 << 20), requests);
        assert_eq!(trace.most_at_once(), 1);
        let done = replay(&file(1 << 20), &trace, ReplaySpeed::Full).unwrap();
        assert_eq!(done.requests, 100);
    }

    #[test]
    fn no_request_waits_for_one_that_began_later() {
        let trace = Trace::new(
            Header::new("one", 1 << 20),
            vec![
                request(0, 100, Operation::Write, 0, 512),
                request(50, 0, Operation::Write, 0, 512),
                request(50, 0, Operation::Write, 0, 512),
                request(100, 0, Operation::Flush, 0, 0),
            ],
        );
        assert_eq!(Plan::of(&trace).waits_for, [0, 0, 0, 3]);
        assert_eq!(replay(&file(4096), &trace, ReplaySpeed::Full).unwrap().requests, 4);
    }

    #[test]
    fn at_the_original_speed_no_request_is_early() {
        let late_ns = 30_000_000;
        let trace = Trace::new(
            Header::new("one", 1 << 20),
            vec![request(late_ns, 5, Operation::Flush, 0, 0)],
        );
        let done = replay(&file(4096), &trace, ReplaySpeed::Original).unwrap();
        assert!(done.seconds >= 0.03);
    }

    #[test]
    fn a_file_that_is_too_small_and_a_request_that_fails_are_errors() {
        let trace = Trace::new(
            Header::new("one", 1 << 20),
            vec![
                request(0, 5, Operation::Write, 0, 4096),
                request(3, 5, Operation::Write, 8192, 4096),
            ],
        );
        assert!(replay(&file(8192), &trace, ReplaySpeed::Full).unwrap_err().contains("12288"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read-only");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let error = replay(&File::open(&path).unwrap(), &trace, ReplaySpeed::Full).unwrap_err();
        assert!(error.contains("write of 4096 bytes"), "{error}");
    }
}
