//! Ctrl-C and SIGTERM during something that has to be cleaned up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// The exit code of a program that a second signal ends at once: 128 + SIGINT.
const ENDED_BY_SIGNAL: i32 = 130;

/// A signal that comes sooner after the first one is the same wish told twice: timeout(1) and some
/// terminals send it to the process and to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(1000);

/// Becomes true with the first signal.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first SIGINT, SIGTERM or SIGHUP only sets the flag; the second ends the program.
    ///
    /// To be called before other threads are started: they inherit that the signals wait for the thread
    /// that this starts.
    pub fn watch() -> Interrupt {
        let interrupt = Interrupt::default();
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        if signals.thread_block().is_err() {
            return interrupt;
        }
        let seen = interrupt.clone();
        let wait = move || {
            let mut first = None;
            while signals.wait().is_ok() {
                seen.0.store(true, Ordering::SeqCst);
                if first.get_or_insert_with(Instant::now).elapsed() > SAME_SIGNAL {
                    std::process::exit(ENDED_BY_SIGNAL);
                }
            }
        };
        if std::thread::Builder::new().name("signals".to_owned()).spawn(wait).is_err() {
            // without the thread nobody would ever see them
            let _ = signals.thread_unblock();
        }
        interrupt
    }

    /// Has there been a signal?
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
