//! The thread that does what can wait: checkpoints before the ring is full, walks over removed layers, and
//! settling when nothing else goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};

/// How long nothing must be recorded before the rest is settled.
const IDLE: Duration = Duration::from_millis(200);
/// After a portion of checksums, the thread rests so many times as long as it took: whoever else wants the
/// disk has most of it.
const REST_FACTOR: u32 = 9;

#[derive(Default)]
struct State {
    woken: bool,
    stopping: bool,
}

/// How the pool speaks to its thread.
#[derive(Default)]
pub(crate) struct Maintenance {
    state: Mutex<State>,
    changed: Condvar,
}

impl Maintenance {
    /// There is something to do.
    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Waits for a wake, or for so long. None: stop. True: woken.
    fn wait(&self, duration: Duration) -> Option<bool> {
        let mut state = self.state.lock();
        if !state.woken && !state.stopping {
            self.changed.wait_for(&mut state, duration);
        }
        (!state.stopping).then(|| std::mem::take(&mut state.woken))
    }

    fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }
}

/// Starts the thread of a pool.
pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<JoinHandle<()>> {
    let core = Arc::clone(core);
    thread::Builder::new().name("pool-maintenance".to_owned()).spawn(move || run(&core))
}

fn run(core: &Core) {
    let mut last_sequence = 0;
    let mut rest = IDLE;
    // While there are checksums to take, the waits are shorter than an idle moment.
    let mut waited = Duration::ZERO;
    while let Some(woken) = core.maintenance.wait(rest) {
        waited = if woken { Duration::ZERO } else { waited + rest };
        let is_moment = woken || waited >= IDLE;
        let tended = if is_moment { tend(core, woken, &mut last_sequence) } else { Ok(()) };
        if is_moment {
            waited = Duration::ZERO;
        }
        match tended.and_then(|()| sum(core)) {
            Ok(next) => rest = next,
            Err(error) => {
                // The pool is latched, or full: whoever uses it next is told.
                tracing::warn!("maintenance of {}: {error}", core.name);
                if core.check_latch().is_err() {
                    return;
                }
                rest = IDLE;
            }
        }
    }
}

/// Takes a portion of checksums, if there are any to take; gives how long to rest.
fn sum(core: &Core) -> thinstore_storage::Result<Duration> {
    if core.maintenance.is_stopping() {
        return Ok(IDLE);
    }
    let begin = Instant::now();
    Ok(if core.sum_portion()? { (begin.elapsed() * REST_FACTOR).min(IDLE) } else { IDLE })
}

fn tend(core: &Core, woken: bool, last_sequence: &mut u64) -> thinstore_storage::Result<()> {
    core.note_fullness();
    let pending_bytes = core.pending.length_bytes();
    let (crowded, sequence) = {
        let writer = core.writer.lock();
        (writer.is_past(5, pending_bytes), writer.position().sequence)
    };
    if crowded || core.has_too_many_dirty_pages() {
        core.checkpoint()?;
    }
    while !core.maintenance.is_stopping() && core.reclaim_portion()? {}
    let idle = !woken && sequence == *last_sequence;
    *last_sequence = sequence;
    if idle {
        core.settle()?;
    }
    Ok(())
}
