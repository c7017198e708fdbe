//! Notes taken while requests are served. A note never waits: where the reader is too slow, notes are lost, and
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::request::{Operation, Request};

/// So many notes may wait to be written: 40 bytes each.
const WAITING_MAXIMUM: usize = 1 << 16;

/// Where requests are noted. Any number of threads may note at once.
pub struct Recorder {
    began: Instant,
    notes: SyncSender<Request>,
    lost: Arc<AtomicU64>,
}

/// Where the notes come out.
pub struct Recording {
    notes: Receiver<Request>,
    lost: Arc<AtomicU64>,
}

/// Begins a trace now. It ends when the [`Recorder`] is dropped.
pub fn recorder() -> (Recorder, Recording) {
    let (sender, receiver) = sync_channel(WAITING_MAXIMUM);
    let lost = Arc::new(AtomicU64::new(0));
    let recorder = Recorder { began: Instant::now(), notes: sender, lost: Arc::clone(&lost) };
    (recorder, Recording { notes: receiver, lost })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Recorder {
    /// Notes a request that came at `started` and has just been answered.
    pub fn note(
        &self,
        operation: Operation,
        offset_bytes: u64,
        length_bytes: u64,
        started: Instant,
    ) {
        let request = Request {
            start_ns: nanoseconds(started.saturating_duration_since(self.began)),
            latency_ns: nanoseconds(started.elapsed()),
            operation,
            offset_bytes,
            length_bytes,
        };
        if let Err(TrySendError::Full(_)) = self.notes.try_send(request) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Recording {
    /// The next notes, as soon as there are any, but at most so many; none if `patience` is over first. `None` when
    /// the trace has ended.
    pub fn next(&self, maximum: usize, patience: Duration) -> Option<Vec<Request>> {
        let mut requests = match self.notes.recv_timeout(patience) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        requests.extend(self.notes.try_iter().take(maximum.saturating_sub(1)));
        Some(requests)
    }

    /// How many notes found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_out_in_their_order_and_the_end_is_the_end_of_the_recorder() {
        let (recorder, recording) = recorder();
        assert_eq!(recording.next(10, Duration::ZERO), Some(Vec::new()));
        for offset in 0..5 {
            recorder.note(Operation::Write, offset, 1, Instant::now());
        }
        drop(recorder);
        let patience = Duration::from_secs(1);
        let offsets = |requests: Option<Vec<Request>>| {
            requests.map(|all| all.iter().map(|one| one.offset_bytes).collect::<Vec<_>>())
        };
        assert_eq!(offsets(recording.next(3, patience)), Some(vec![0, 1, 2]));
        assert_eq!(offsets(recording.next(3, patience)), Some(vec![3, 4]));
        assert_eq!(recording.next(3, patience), None);
        assert_eq!(recording.lost(), 0);
    }

    #[test]
    fn a_slow_reader_loses_notes_and_no_request_waits_for_it() {
        let (recorder, recording) = recorder();
        let more = 7;
        for offset in 0..WAITING_MAXIMUM + more {
            recorder.note(Operation::Read, offset.try_into().unwrap(), 1, Instant::now());
        }
        assert_eq!(recording.lost(), more.try_into().unwrap());
    }
}
