//! Copies of containers that were made while they were written: images and snapshots. Each must hold what was
//! acknowledged before it was asked for, nothing that was begun after it was made, and the same for ever.

use std::path::Path;

use super::ledger::{Content, Ledger};
use super::writers::Target;
use crate::store::TempStore;

/// What a copy is, and so how it is looked at and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An image.
    Image,
    /// A container.
    Container,
}

/// A copy that was asked for.
pub struct Copied {
    /// Its name.
    pub name: String,
    /// What it is.
    pub form: Form,
    parts: Vec<(Target, Ledger)>,
    seen: Option<Vec<Vec<Content>>>,
}

impl Copied {
    /// A copy that is about to be asked for: all that is acknowledged by now must be in it.
    pub fn expected(name: String, form: Form, targets: &[Target]) -> Copied {
        let parts = targets.iter().map(|one| (one.clone(), one.ledger().clone())).collect();
        Copied { name, form, parts, seen: None }
    }

    /// The copy has been made, or never will be: what is begun from now on is not in it.
    pub fn made(&mut self) {
        for (target, bounds) in &mut self.parts {
            *bounds = bounds.until(&target.ledger());
        }
    }

    /// Is it in the store?
    #[track_caller]
    pub fn is_there(&self, store: &TempStore) -> bool {
        let (listing, name) = match self.form {
            Form::Image => ("images", format!("{}:latest", self.name)),
            Form::Container => ("ls", self.name.clone()),
        };
        store.names(listing).contains(&name)
    }

    /// Mounts it and judges what it holds.
    #[track_caller]
    pub fn verify(&mut self, store: &TempStore) {
        let point = store.new_folder("copy");
        let container = match self.form {
            Form::Container => self.name.clone(),
            Form::Image => {
                store.ok(&["snapshot", &self.name, "probe"]);
                "probe".to_owned()
            }
        };
        store.ok(&["mount", "--read-only", &container, &point]);
        let found: Vec<Vec<Content>> = self
            .parts
            .iter()
            .map(|(target, bounds)| {
                let contents = target.read(Path::new(&point));
                let judged =
                    contents.and_then(|contents| bounds.judge_all(&contents).map(|()| contents));
                match judged {
                    Ok(contents) => contents,
                    Err(error) => panic!("the copy {} of {}: {error}", self.name, target.name()),
                }
            })
            .collect();
        store.ok(&["umount", &container]);
        if self.form == Form::Image {
            store.ok(&["rm", "probe"]);
        }
        if let Some(seen) = &self.seen {
            assert!(*seen == found, "the copy {} is not what it was", self.name);
        }
        self.seen = Some(found);
    }

    /// The words of the command that removes it.
    pub fn removal(&self) -> [&str; 2] {
        [if self.form == Form::Image { "rmi" } else { "rm" }, &self.name]
    }
}
