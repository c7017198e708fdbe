//! What a load has begun and what was acknowledged as durable: the truth that a file is held against.
//!
//! A file has *units*, each written whole with a *generation*, a number that only grows. The ledger lies in
//! the tester's memory, outside of what is attacked: a generation is begun before the first byte of it is
//! written, and acknowledged after the flush that covers it has returned. What is found later may be
//! the last acknowledged generation or one begun after it, nothing else. Once all that was begun has come
//! to its end (the program below was killed, and the file read again) what was found is settled: it may
//! neither change back nor change forward by itself.

use std::ops::RangeInclusive;

/// One in so many generations erases its unit instead of writing it.
const ERASING: u64 = 8;

/// What a unit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: zeroes, or no file.
    Erased,
    /// What this generation wrote.
    Generation(u64),
}

/// The state of one unit.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    /// The last generation that was acknowledged or settled; 0 is that of a fresh file.
    floor: u64,
    /// The last that was begun and erases, since the last settling.
    erasure_begun: u64,
    /// The last that was begun.
    begun: u64,
}

/// What is known of a file.
#[derive(Clone, Debug)]
pub struct Ledger {
    units: Vec<Unit>,
    generation: u64,
    /// The generation when the file was settled last.
    settled_at: u64,
    acknowledged: u64,
}

/// Does this generation erase its unit?
pub fn erases(generation: u64) -> bool {
    generation.is_multiple_of(ERASING)
}

impl Ledger {
    /// A file of so many units, all erased.
    pub fn new(units: usize) -> Ledger {
        Ledger {
            units: vec![Unit::default(); units],
            generation: 0,
            settled_at: 0,
            acknowledged: 0,
        }
    }

    /// How many units the file has.
    pub fn units(&self) -> usize {
        self.units.len()
    }

    /// How many writes of units were acknowledged in all.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Something is about to be written to `count` units from `first`; its generation.
    pub fn begin(&mut self, first: usize, count: usize) -> u64 {
        self.generation += 1;
        for unit in &mut self.units[first..first + count] {
            unit.begun = self.generation;
            if erases(self.generation) {
                unit.erasure_begun = self.generation;
            }
        }
        self.generation
    }

    /// A flush that began after `generation` was written to these units has returned.
    pub fn acknowledge(&mut self, first: usize, count: usize, generation: u64) {
        for unit in &mut self.units[first..first + count] {
            unit.floor = unit.floor.max(generation);
            self.acknowledged += 1;
        }
    }

    /// May the unit hold this?
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, unit: usize, content: Content) -> Result<(), String> {
        let state = self.units[unit];
        let allowed = match content {
            Content::Generation(generation) => {
                generation == state.floor
                    || (generation > state.floor
                        && generation > self.settled_at
                        && generation <= state.begun)
            }
            Content::Erased => erases(state.floor) || state.erasure_begun > state.floor,
        };
        if allowed {
            return Ok(());
        }
        Err(format!(
            "unit {unit} holds {content:?}; acknowledged was {}, begun up to {}, and nothing of {} and \
             before was under way",
            state.floor, state.begun, self.settled_at
        ))
    }

    /// Everything that was begun has come to its end, and this is what is there: judges it, and takes it
    /// for the truth from now on.
    ///
    /// # Errors
    /// The first unit that holds what it may not.
    pub fn settle(&mut self, contents: &[Content]) -> Result<(), String> {
        self.judge_all(contents)?;
        for (state, content) in self.units.iter_mut().zip(contents) {
            state.floor = match *content {
                Content::Generation(generation) => generation,
                Content::Erased => {
                    if erases(state.floor) {
                        state.floor
                    } else {
                        state.erasure_begun
                    }
                }
            };
            state.erasure_begun = 0;
            state.begun = state.floor;
        }
        self.settled_at = self.generation;
        Ok(())
    }

    /// The generations of which parts may be found in a unit while one of them is being written over
    /// another: the last acknowledged, and all that were begun since.
    pub fn under_way(&self, unit: usize) -> RangeInclusive<u64> {
        self.units[unit].floor..=self.units[unit].begun
    }

    /// Judges every unit.
    ///
    /// # Errors
    /// The first unit that holds what it may not.
    pub fn judge_all(&self, contents: &[Content]) -> Result<(), String> {
        if contents.len() != self.units.len() {
            return Err(format!("{} units instead of {}", contents.len(), self.units.len()));
        }
        contents.iter().enumerate().try_for_each(|(unit, content)| self.judge(unit, *content))
    }

    /// What a copy may hold that was begun when the file stood at `self` and had ended at `later`:
    /// everything acknowledged before it, and nothing begun after it.
    pub fn until(&self, later: &Ledger) -> Ledger {
        let mut bounds = self.clone();
        for (unit, later) in bounds.units.iter_mut().zip(&later.units) {
            unit.begun = later.begun;
            unit.erasure_begun = unit.erasure_begun.max(later.erasure_begun);
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Content::{Erased, Generation};

    #[test]
    fn the_last_acknowledged_and_what_was_begun_after_it_may_be_found() {
        let mut ledger = Ledger::new(2);
        assert!(ledger.judge(0, Erased).is_ok());
        assert_eq!(ledger.begin(0, 2), 1);
        assert!(ledger.judge(0, Erased).is_ok());
        assert!(ledger.judge(0, Generation(1)).is_ok());
        ledger.acknowledge(0, 2, 1);
        assert!(ledger.judge(0, Erased).is_err());
        ledger.begin(0, 1);
        assert!(ledger.judge(0, Generation(1)).is_ok());
        assert!(ledger.judge(0, Generation(2)).is_ok());
        assert!(ledger.judge(1, Generation(2)).is_err(), "never begun there");
        ledger.acknowledge(0, 1, 2);
        assert!(ledger.judge(0, Generation(1)).is_err(), "acknowledged and lost");
        assert_eq!(ledger.acknowledged(), 3);
    }

    #[test]
    fn what_was_found_after_a_kill_stays() {
        let mut ledger = Ledger::new(2);
        ledger.begin(0, 1);
        ledger.begin(1, 1);
        ledger.settle(&[Generation(1), Erased]).unwrap();
        assert!(ledger.judge(0, Erased).is_err(), "it was there");
        assert!(ledger.judge(1, Generation(2)).is_err(), "it was gone, and nobody wrote it again");
        ledger.begin(1, 1);
        assert!(ledger.judge(1, Generation(3)).is_ok());
        assert!(ledger.judge(1, Generation(2)).is_err());
    }

    #[test]
    fn an_erasure_is_a_generation() {
        let mut ledger = Ledger::new(1);
        for generation in 1..=7 {
            assert_eq!(ledger.begin(0, 1), generation);
        }
        ledger.acknowledge(0, 1, 7);
        assert!(ledger.judge(0, Erased).is_err());
        assert!(erases(ledger.begin(0, 1)));
        assert!(ledger.judge(0, Erased).is_ok());
        ledger.settle(&[Erased]).unwrap();
        assert!(ledger.judge(0, Generation(7)).is_err());
    }

    #[test]
    fn a_copy_has_what_was_acknowledged_before_it_and_nothing_begun_after_it() {
        let mut ledger = Ledger::new(1);
        ledger.begin(0, 1);
        ledger.acknowledge(0, 1, 1);
        let before = ledger.clone();
        ledger.begin(0, 1);
        ledger.acknowledge(0, 1, 2);
        let bounds = before.until(&ledger);
        ledger.begin(0, 1);
        assert!(bounds.judge(0, Erased).is_err());
        assert!(bounds.judge(0, Generation(1)).is_ok());
        assert!(bounds.judge(0, Generation(2)).is_ok());
        assert!(bounds.judge(0, Generation(3)).is_err());
    }
}
