//! What a load has begun and what was acknowledged to it, step by step, in a file outside of what is attacked; and
//! what is known at a moment of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use thinstore_tests::attack::ledger::{Content, Ledger};
use thinstore_tests::attack::writers::Target;

/// How many containers are written.
pub const CONTAINERS: usize = 2;

/// The name of a container.
pub fn container_name(container: usize) -> String {
    format!("box-{container}")
}

/// The files that are written in a container.
pub fn targets_of(container: usize) -> Vec<Target> {
    Target::all(u64::try_from(container).unwrap_or(u64::MAX) + 1)
}

/// What the store is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An image of what a container has now.
    Commit {
        /// Which container.
        container: usize,
        /// The image's name.
        name: String,
    },
    /// A container that is a copy of another one.
    Snapshot {
        /// Which container.
        container: usize,
        /// The copy's name.
        name: String,
    },
    /// The removal of a copy.
    Remove {
        /// Its name.
        name: String,
    },
}

/// A step of a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The containers are there and mounted, and the load begins.
    Started,
    /// Units of a file are about to be written (false) or were acknowledged by a flush (true).
    Units {
        /// Which container.
        container: usize,
        /// Which of its files.
        target: usize,
        /// Was it acknowledged?
        acknowledged: bool,
        /// The first unit.
        first: usize,
        /// How many.
        count: usize,
        /// The generation.
        generation: u64,
    },
    /// A transaction of a container's database is about to be committed (false) or was (true).
    Transaction {
        /// Which container.
        container: usize,
        /// Was it acknowledged?
        acknowledged: bool,
        /// Transactions are numbered from 1.
        number: u64,
    },
    /// The store is about to be asked for something.
    Asked(Change),
    /// It has answered the last question.
    Answered {
        /// Has it done it?
        done: bool,
    },
    /// Power was lost, and this is what was found in a container: the truth from now on.
    Found {
        /// Which container.
        container: usize,
        /// For each unit of each file its generation; erased where there is none.
        units: Vec<Vec<Option<u64>>>,
        /// The newest transaction of its database.
        transaction: u64,
    },
}

/// The file that a load writes.
pub struct History {
    inner: Mutex<(File, u64)>,
}

impl History {
    /// Goes on with a file, or begins one; with the events that it has. A line that a kill has cut off was noted by
    /// nobody, and is taken away.
    ///
    /// # Errors
    /// When it cannot be opened, or has something else.
    pub fn open(path: &Path) -> Result<(History, Vec<Event>), String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| at(&error))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| at(&error))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            text.truncate(whole);
            file.set_len(u64::try_from(whole).unwrap_or(0)).map_err(|error| at(&error))?;
        }
        let events: Vec<Event> = text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| at(&format!("{line}: {error}"))))
            .collect::<Result<_, _>>()?;
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        Ok((History { inner: Mutex::new((file, count)) }, events))
    }

    /// Notes an event; it is out of reach of a loss of power on return.
    ///
    /// # Panics
    /// When it cannot be written: without it there is nothing to hold anything against.
    pub fn note(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("an event becomes JSON");
        line.push(b'\n');
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.write_all(&line).expect("write the history");
        inner.1 += 1;
    }

    /// How many events there are.
    pub fn events(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// What is known of a container.
#[derive(Clone, Debug)]
pub struct KnownContainer {
    /// One for each of [`targets_of`].
    pub ledgers: Vec<Ledger>,
    /// The newest transaction that was begun.
    pub transaction_begun: u64,
    /// The newest transaction that was acknowledged.
    pub transaction_acknowledged: u64,
}

impl KnownContainer {
    /// What may be found in this container between now and `later`.
    pub fn until(&self, later: &KnownContainer) -> KnownContainer {
        let ledgers = self.ledgers.iter().zip(&later.ledgers);
        KnownContainer {
            ledgers: ledgers.map(|(now, later)| now.until(later)).collect(),
            transaction_begun: later.transaction_begun,
            transaction_acknowledged: self.transaction_acknowledged,
        }
    }
}

/// How far something that was asked for has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// It is under way.
    Asked,
    /// There was no answer, or one that it has failed: whether it happened is open.
    Failed,
    /// It was said to be done.
    Done,
}

/// A copy of a container.
#[derive(Clone, Debug)]
pub struct KnownCopy {
    /// Is it an image?
    pub image: bool,
    /// The container of which it is a copy.
    pub container: usize,
    /// How far its making has come.
    pub made: Progress,
    /// How far its removal has come, if that was asked for.
    pub removed: Option<Progress>,
    /// What was known when it was asked for; once it is made, what may be found in it.
    pub content: KnownContainer,
}

/// What is known at a moment.
#[derive(Clone, Debug)]
pub struct Known {
    /// The containers that are written.
    pub containers: Vec<KnownContainer>,
    /// Their copies, by name.
    pub copies: BTreeMap<String, KnownCopy>,
    /// Did the containers exist?
    pub started: bool,
    asked: Option<Change>,
}

impl Default for Known {
    fn default() -> Known {
        let container = |number| KnownContainer {
            ledgers: targets_of(number).iter().map(|target| target.ledger().clone()).collect(),
            transaction_begun: 0,
            transaction_acknowledged: 0,
        };
        Known {
            containers: (0..CONTAINERS).map(container).collect(),
            copies: BTreeMap::new(),
            started: false,
            asked: None,
        }
    }
}

impl Known {
    /// What is known after all of `events`.
    ///
    /// # Errors
    /// When they cannot have happened.
    pub fn after(events: &[Event]) -> Result<Known, String> {
        let mut known = Known::default();
        for event in events {
            known.learn(event)?;
        }
        Ok(known)
    }

    /// Takes in the next event.
    ///
    /// # Errors
    /// When it cannot have happened.
    pub fn learn(&mut self, event: &Event) -> Result<(), String> {
        let impossible = || format!("this cannot have happened: {event:?}");
        match event {
            Event::Started => self.started = true,
            Event::Units { container, target, acknowledged, first, count, generation } => {
                let ledger = self
                    .containers
                    .get_mut(*container)
                    .and_then(|container| container.ledgers.get_mut(*target))
                    .filter(|ledger| {
                        first.checked_add(*count).is_some_and(|end| end <= ledger.units())
                    })
                    .ok_or_else(impossible)?;
                if *acknowledged {
                    ledger.acknowledge(*first, *count, *generation);
                } else if ledger.begin(*first, *count) != *generation {
                    return Err(impossible());
                }
            }
            Event::Transaction { container, acknowledged, number } => {
                let known = self.containers.get_mut(*container).ok_or_else(impossible)?;
                if *acknowledged {
                    known.transaction_acknowledged = *number;
                } else {
                    known.transaction_begun = *number;
                }
            }
            Event::Asked(change) => self.ask(change).ok_or_else(impossible)?,
            Event::Answered { done } => self.answer(*done).ok_or_else(impossible)?,
            Event::Found { container, units, transaction } => {
                // Whatever was asked for when the power failed has no answer, and goes no further.
                self.asked = None;
                let known = self.containers.get_mut(*container).ok_or_else(impossible)?;
                if units.len() != known.ledgers.len() {
                    return Err(impossible());
                }
                for copy in self.copies.values_mut().filter(|copy| copy.container == *container) {
                    if copy.made == Progress::Asked {
                        copy.content = copy.content.until(known);
                        copy.made = Progress::Failed;
                    }
                }
                for (ledger, units) in known.ledgers.iter_mut().zip(units) {
                    let contents: Vec<Content> = units
                        .iter()
                        .map(|unit| unit.map_or(Content::Erased, Content::Generation))
                        .collect();
                    ledger.settle(&contents)?;
                }
                known.transaction_begun = *transaction;
                known.transaction_acknowledged = *transaction;
            }
        }
        Ok(())
    }

    fn ask(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::Commit { container, name } | Change::Snapshot { container, name } => {
                let copy = KnownCopy {
                    image: matches!(change, Change::Commit { .. }),
                    container: *container,
                    made: Progress::Asked,
                    removed: None,
                    content: self.containers.get(*container)?.clone(),
                };
                self.copies.insert(name.clone(), copy);
            }
            Change::Remove { name } => {
                self.copies.get_mut(name)?.removed = Some(Progress::Asked);
            }
        }
        self.asked = Some(change.clone());
        Some(())
    }

    fn answer(&mut self, done: bool) -> Option<()> {
        let progress = if done { Progress::Done } else { Progress::Failed };
        match self.asked.take()? {
            Change::Commit { name, .. } | Change::Snapshot { name, .. } => {
                let copy = self.copies.get_mut(&name)?;
                copy.made = progress;
                copy.content = copy.content.until(self.containers.get(copy.container)?);
            }
            Change::Remove { name } => self.copies.get_mut(&name)?.removed = Some(progress),
        }
        Some(())
    }
}

/// The bounds of what may be found when the power fails at a moment.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// All of this had happened.
    pub at_least: Known,
    /// Nothing beyond this had begun.
    pub at_most: Known,
}

impl Bounds {
    /// What may be found in a container.
    pub fn container(&self, container: usize) -> Option<KnownContainer> {
        let least = self.at_least.containers.get(container)?;
        Some(least.until(self.at_most.containers.get(container)?))
    }

    /// Must the copy be there, must it not, or may it be (none)?
    pub fn is_there(&self, name: &str) -> Option<bool> {
        let most = self.at_most.copies.get(name)?;
        let least = self.at_least.copies.get(name);
        if least.is_some_and(|copy| copy.removed == Some(Progress::Done)) {
            return Some(false);
        }
        let made = least.is_some_and(|copy| copy.made == Progress::Done);
        (made && most.removed.is_none()).then_some(true)
    }

    /// What may be found in a copy, if it is there.
    pub fn copy(&self, name: &str) -> Option<KnownContainer> {
        let copy = self.at_most.copies.get(name)?;
        Some(match copy.made {
            Progress::Done | Progress::Failed => copy.content.clone(),
            Progress::Asked => copy.content.until(self.at_most.containers.get(copy.container)?),
        })
    }
}

#[cfg(test)]
mod tests;
