//! The gate of a layer: writes pass through it, and a fork or a seal closes it.
//!
//! Whether a block is the layer's own is decided when a write begins, and acted on when its data is
//! down. A fork in between would let it change what is sealed by then; so the fork waits until nobody is
//! inside, and lets nobody in before the layer has its new base.

use crate::planted::{Fault, planted};
use crate::sync::{Condvar, Mutex};

#[derive(Default)]
struct State {
    inside: usize,
    closed: bool,
}

/// Lets many in at once, or nobody.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// Somebody is inside until this is dropped.
pub(crate) struct Inside<'a>(&'a Gate);

/// The gate is closed until this is dropped.
pub(crate) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Waits while the gate is closed, and goes in.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let mut state = self.state.lock();
        while state.closed {
            self.changed.wait(&mut state);
        }
        state.inside += 1;
        Inside(self)
    }

    /// Closes the gate, and waits until everybody has come out.
    pub(crate) fn close(&self) -> Closed<'_> {
        let mut state = self.state.lock();
        while state.closed {
            self.changed.wait(&mut state);
        }
        state.closed = true;
        while state.inside > 0 && !planted(Fault::ForkDoesNotDrain) {
            self.changed.wait(&mut state);
        }
        Closed(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside -= 1;
        if state.closed && state.inside == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().closed = false;
        self.0.changed.notify_all();
    }
}
