//! What is done when there is no room: a writer is refused, or waits for some; and how full the pool is.
//!
//! A writer waits with nothing in its hands: not inside its layer's gate, and without its range. So discards,
//! removals, flushes, forks and growth go on, and they are what brings room.

use std::str::FromStr;
use std::time::{Duration, Instant};

use thinstore_storage::{Error, ErrorKind, Result};

use crate::convert::to_u64;
use crate::core::Core;
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::sync::{Condvar, Mutex};

/// How long a writer waits before it looks again: space on the host comes without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The longest wait that can be asked for: a day.
const LONGEST_WAIT_SECONDS: u64 = 86_400;
/// A warning is given when the pool becomes so full, in percent, and again once it was this much below.
const WARNINGS_PERCENT: [u8; 2] = [80, 95];
const HYSTERESIS_PERCENT: u8 = 5;

/// What a write that finds no room does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// It fails with [`ErrorKind::Full`].
    #[default]
    Error,
    /// It waits so long for room. Once a wait was in vain, no other write waits until room has come.
    Wait(Duration),
}

impl FromStr for OnFull {
    type Err = Error;

    /// `error`, or `wait:SECONDS` with 1 to 86400 seconds.
    fn from_str(text: &str) -> Result<OnFull> {
        if text == "error" {
            return Ok(OnFull::Error);
        }
        text.strip_prefix("wait:")
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|seconds| (1..=LONGEST_WAIT_SECONDS).contains(seconds))
            .map(|seconds| OnFull::Wait(Duration::from_secs(seconds)))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Usage,
                    format!(
                        "'{}' says nothing of what to do when the pool is full: give error, or \
                         wait:SECONDS with 1 to {LONGEST_WAIT_SECONDS}",
                        text.escape_debug()
                    ),
                )
            })
    }
}

#[derive(Default)]
struct State {
    /// Counts the times that room came, or that those who wait are to look up.
    changes: u64,
    ended: bool,
}

/// Who waits for room, and for how long.
pub(crate) struct Room {
    on_full: OnFull,
    state: Mutex<State>,
    changed: Condvar,
    /// A wait was in vain, and no room has come since.
    in_vain: AtomicBool,
    /// How many of the warnings have been given.
    warned: AtomicU8,
}

/// One request's waiting.
pub(crate) struct Patience {
    seen: u64,
    until: Option<Instant>,
}

impl Room {
    pub(crate) fn new(on_full: OnFull) -> Room {
        Room {
            on_full,
            state: Mutex::default(),
            changed: Condvar::default(),
            in_vain: AtomicBool::new(false),
            warned: AtomicU8::new(0),
        }
    }

    /// Begins a request: room that comes after this is not missed.
    pub(crate) fn begin(&self) -> Patience {
        Patience { seen: self.state.lock().changes, until: None }
    }

    /// Room has come: freed, or grown.
    pub(crate) fn has_come(&self) {
        self.in_vain.store(false, Ordering::Release);
        self.look_up();
    }

    /// Wakes all who wait.
    pub(crate) fn look_up(&self) {
        self.state.lock().changes += 1;
        self.changed.notify_all();
    }

    /// Nobody waits any more.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// A write has found room.
    pub(crate) fn was_found(&self) {
        if self.in_vain.load(Ordering::Relaxed) {
            self.in_vain.store(false, Ordering::Release);
        }
    }

    pub(crate) fn waits(&self) -> bool {
        self.on_full != OnFull::Error
    }

    /// Waits until it is worth to try again. False: it is not.
    fn wait(&self, patience: &mut Patience, hurried: &AtomicBool) -> bool {
        let OnFull::Wait(longest) = self.on_full else { return false };
        if self.in_vain.load(Ordering::Acquire) {
            return false;
        }
        let until = *patience.until.get_or_insert_with(|| Instant::now() + longest);
        let mut state = self.state.lock();
        if state.changes == patience.seen && !state.ended && !hurried.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            self.changed.wait_for(&mut state, left.min(LOOK_AGAIN));
        }
        if state.ended || hurried.load(Ordering::Acquire) {
            return false;
        }
        if state.changes == patience.seen && Instant::now() >= until {
            self.in_vain.store(true, Ordering::Release);
            return false;
        }
        patience.seen = state.changes;
        Instant::now() < until
    }
}

impl Core {
    /// A write found no room. Waits for some, where that was asked for; false if the write is to fail.
    /// Called with no lock held.
    pub(crate) fn wait_for_room(
        &self,
        patience: &mut Patience,
        hurried: &AtomicBool,
    ) -> Result<bool> {
        if !self.room.waits() {
            return Ok(false);
        }
        if self.background {
            self.maintenance.wake();
        }
        let again = self.room.wait(patience, hurried);
        self.check_latch()?;
        Ok(again)
    }

    /// How much of what data can take is taken, in percent.
    pub(crate) fn full_percent(&self) -> u8 {
        let counts = self.pages.space.counts();
        let geometry = self.pages.space.geometry();
        let capacity = geometry.pool_blocks - geometry.fixed_blocks();
        let capacity = capacity.saturating_sub(counts.reserve).max(1);
        let unreleased = self.unreleased_blocks.load(Ordering::Relaxed);
        let taken =
            counts.used + u64::try_from(unreleased).unwrap_or(0) + to_u64(self.pages.held_blocks());
        u8::try_from((taken * 100 / capacity).min(100)).unwrap_or(100)
    }

    /// Warns once when the pool becomes full to a mark.
    pub(crate) fn note_fullness(&self) {
        let percent = self.full_percent();
        let mut level = 0;
        let warned = self.room.warned.load(Ordering::Relaxed);
        for (mark, number) in WARNINGS_PERCENT.into_iter().zip(1..) {
            let needed = if warned >= number { mark - HYSTERESIS_PERCENT } else { mark };
            if percent >= needed {
                level = number;
            }
        }
        // Of two that come here at once, one warns.
        let changed = level != warned
            && self
                .room
                .warned
                .compare_exchange(warned, level, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if changed && level > warned {
            tracing::warn!(
                percent,
                "{} is {percent} % full: remove containers or images, or make it larger with \
                 `thinstore grow`",
                self.name
            );
        }
    }

    /// The last warning that was given and still holds, in percent.
    pub(crate) fn full_warning_percent(&self) -> Option<u8> {
        let warned = self.room.warned.load(Ordering::Relaxed);
        WARNINGS_PERCENT.into_iter().take(usize::from(warned)).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_when_full_is_read_and_nonsense_refused() {
        assert_eq!("error".parse::<OnFull>().unwrap(), OnFull::Error);
        let minute = OnFull::Wait(Duration::from_secs(60));
        assert_eq!("wait:60".parse::<OnFull>().unwrap(), minute);
        for bad in
            ["", "wait", "wait:", "wait:0", "wait:-1", "wait:+1", "wait:86401", "Error", "wait:1s"]
        {
            let error = bad.parse::<OnFull>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad}");
        }
    }
}
