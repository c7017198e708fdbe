//! Which thin device of the pool a layer is: a file `layers/ID.NUMBER` for each, `views/ID.NUMBER` for each look.
//!
//! A number is taken by a durable file before the pool hears of it, and given back after the pool has forgotten
//! it. So no two layers have one number, whenever a process is killed or the power is lost.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use thinstore_storage::{Error, ErrorKind, Result};

use crate::directory::{self, failed};
use crate::driver::LayerId;
use crate::lock::Lock;

/// The empty file system that every layer on nothing is a snapshot of.
pub(super) const FRESH: ThinId = ThinId(0);
/// The kernel's Documentation/admin-guide/device-mapper/thin-provisioning.rst: 24 bits.
const END: u32 = 1 << 24;

/// A thin device's number in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ThinId(pub(super) u32);

/// Whose a number is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Layer,
    View,
}

pub(super) struct Ids {
    base: PathBuf,
}

impl Ids {
    pub(super) fn open(base: &Path) -> Result<Ids> {
        let ids = Ids { base: base.to_owned() };
        directory::make_private(&ids.folder(Owner::Layer))?;
        directory::make_private(&ids.folder(Owner::View))?;
        Ok(ids)
    }

    fn folder(&self, owner: Owner) -> PathBuf {
        self.base.join(if owner == Owner::Layer { "layers" } else { "views" })
    }

    pub(super) fn path(&self, owner: Owner, id: &LayerId, thin: ThinId) -> PathBuf {
        self.folder(owner).join(format!("{id}.{}", thin.0))
    }

    pub(super) fn all(&self, owner: Owner) -> Result<Vec<(LayerId, ThinId)>> {
        let folder = self.folder(owner);
        let entries = std::fs::read_dir(&folder).map_err(failed("look into", &folder))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.filter_map(|name| parse(name.to_str()?)).collect())
    }

    /// None if there is no such layer.
    pub(super) fn find(&self, id: &LayerId) -> Result<Option<ThinId>> {
        Ok(self.all(Owner::Layer)?.into_iter().find(|(known, _)| known == id).map(|(_, thin)| thin))
    }

    pub(super) fn get(&self, id: &LayerId) -> Result<ThinId> {
        self.find(id)?.ok_or_else(|| {
            let what = format!("there is no layer {id} in {}", self.base.display());
            Error::new(ErrorKind::NotFound, what)
        })
    }

    /// Takes a number that nobody has.
    pub(super) fn take(&self, owner: Owner, id: &LayerId) -> Result<(ThinId, Lock)> {
        let _taking = Lock::wait(&self.base.join("ids.lock"))?;
        let all = self.all(Owner::Layer)?.into_iter().chain(self.all(Owner::View)?);
        let thin = lowest_free(&all.map(|(_, thin)| thin).collect())?;
        let path = self.path(owner, id, thin);
        let lock = Lock::wait(&path)?;
        let folder = self.folder(owner);
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync", &folder))?;
        Ok((thin, lock))
    }

    /// Gives a number back that the pool has forgotten.
    pub(super) fn give_back(&self, owner: Owner, id: &LayerId, thin: ThinId) -> Result<()> {
        let path = self.path(owner, id, thin);
        std::fs::remove_file(&path).map_err(failed("remove", &path))
    }
}

fn parse(name: &str) -> Option<(LayerId, ThinId)> {
    let (id, thin) = name.split_once('.')?;
    Some((LayerId::parse(id).ok()?, ThinId(thin.parse().ok()?)))
}

fn lowest_free(taken: &BTreeSet<ThinId>) -> Result<ThinId> {
    let mut numbers = (FRESH.0.saturating_add(1)..END).map(ThinId);
    numbers.find(|number| !taken.contains(number)).ok_or_else(|| {
        Error::new(ErrorKind::Full, "the pool of dm-thin has no number for another device")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_once_and_again_when_it_was_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = Ids::open(folder.path()).expect("ids");
        let id = |number: char| LayerId::parse(&number.to_string().repeat(64)).expect("an id");
        let take = |owner, name| ids.take(owner, &id(name)).expect("a number").0;
        assert_eq!(take(Owner::Layer, '1'), ThinId(1));
        assert_eq!(take(Owner::View, '1'), ThinId(2));
        assert_eq!(take(Owner::Layer, '2'), ThinId(3));
        ids.give_back(Owner::View, &id('1'), ThinId(2)).expect("given back");
        assert_eq!(take(Owner::Layer, '3'), ThinId(2));
        assert_eq!(ids.find(&id('2')).expect("an answer"), Some(ThinId(3)));
        assert_eq!(ids.find(&id('4')).expect("an answer"), None);
        let full = (0..END).map(ThinId).collect();
        assert_eq!(lowest_free(&full).expect_err("full").kind(), ErrorKind::Full);
    }
}
