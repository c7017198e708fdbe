//! What the store is asked to do at the moment when its daemon is killed.

use super::random::Random;
use super::records::{blocks_of, small_file_blocks};
use super::sealed::{Copied, Form};
use super::writers::Target;
use crate::TarWriter;
use crate::command::{Outcome, Running};
use crate::store::TempStore;

/// A kind of operation under which the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing but the load.
    Write,
    /// A snapshot of a mounted container.
    Snapshot,
    /// A live commit of a mounted container.
    Commit,
    /// The removal of a copy.
    Remove,
    /// An import.
    Import,
    /// Waiting until all frees are done, which takes checkpoints.
    Free,
}

impl Action {
    /// One of those that can be done now.
    pub fn choose(random: &mut Random, copies: usize) -> Action {
        // With many copies, one must go; without any, none can.
        if copies >= 4 {
            return Action::Remove;
        }
        match random.below(12) {
            0 => Action::Write,
            1..=2 => Action::Snapshot,
            3..=6 => Action::Commit,
            7..=8 if copies > 0 => Action::Remove,
            7..=10 => Action::Import,
            _ => Action::Free,
        }
    }
}

/// An operation that has been started.
pub struct Operation {
    /// Its kind.
    pub action: Action,
    running: Option<Running>,
    made: Option<Copied>,
    removed: Option<Copied>,
}

impl Operation {
    /// Starts one; `targets` are those of the container `container`.
    #[track_caller]
    pub fn start(
        action: Action,
        store: &TempStore,
        random: &mut Random,
        number: u32,
        (container, targets): (&str, &[Target]),
        copies: &mut Vec<Copied>,
    ) -> Operation {
        let name = format!("{}-{number}", format!("{action:?}").to_lowercase());
        let (mut made, mut removed) = (None, None);
        let running = match action {
            Action::Write => None,
            Action::Free => Some(store.start(&["df", "--wait"])),
            Action::Snapshot => {
                made = Some(Copied::expected(name.clone(), Form::Container, targets));
                Some(store.start(&["snapshot", container, &name]))
            }
            Action::Commit => {
                made = Some(Copied::expected(name.clone(), Form::Image, targets));
                Some(store.start(&["commit", container, &name]))
            }
            Action::Import => {
                let (target, archive) = archive(store, number);
                made = Some(Copied::expected(name.clone(), Form::Image, &[target]));
                Some(store.start(&["import", &archive, "--name", &name]))
            }
            Action::Remove => {
                let copy = copies.swap_remove(random.index(copies.len()));
                let running = store.start(&copy.removal());
                removed = Some(copy);
                Some(running)
            }
        };
        Operation { action, running, made, removed }
    }

    /// Waits for its end, whatever that is; true if it succeeded.
    #[track_caller]
    pub fn end(&mut self) -> bool {
        let Some(running) = self.running.take() else { return true };
        let outcome = running.wait(super::kill::COMMAND_LIMIT);
        assert_no_fault(&outcome);
        if let Some(made) = &mut self.made {
            made.made();
        }
        outcome.status.success()
    }

    /// After the restart: what it made is there if it succeeded, and what it removed is not; otherwise either
    /// may be. What is there is returned.
    #[track_caller]
    pub fn settle(self, store: &TempStore, succeeded: bool) -> Option<Copied> {
        if let Some(removed) = self.removed {
            let there = removed.is_there(store);
            assert!(!(succeeded && there), "{} was removed and is there", removed.name);
            return there.then_some(removed);
        }
        let made = self.made?;
        let there = made.is_there(store);
        assert!(there || !succeeded, "{} was made and is not there", made.name);
        there.then_some(made)
    }
}

/// A command whose daemon was killed may fail, but neither crash nor find the pool damaged.
#[track_caller]
pub fn assert_no_fault(outcome: &Outcome) {
    let text = outcome.stderr_text();
    assert!(outcome.code() != 6, "corruption was found\n{outcome}");
    assert!(!text.contains("panicked at"), "the program panicked\n{outcome}");
}

/// An archive of records, and the target that its content is.
#[track_caller]
fn archive(store: &TempStore, number: u32) -> (Target, String) {
    let target = Target::archived(u64::from(number));
    let mut tar = TarWriter::new().directory(target.name());
    let units = target.ledger().units();
    for unit in 0..units {
        let generation = target.ledger().begin(unit, 1);
        if super::ledger::erases(generation) {
            target.ledger().acknowledge(unit, 1, generation);
            continue;
        }
        let count = small_file_blocks(generation);
        let blocks = blocks_of(target.small_stream(unit), 0, count, generation);
        tar = tar.file(&format!("{}/{unit}", target.name()), blocks.bytes());
        target.ledger().acknowledge(unit, 1, generation);
    }
    let path = store.path("archive.tar");
    tar.write_to(std::path::Path::new(&path));
    (target, path)
}
