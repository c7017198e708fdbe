//! How mounts that are made later reach a bind mount, or leave it.

use serde::{Deserialize, Serialize};

use super::mounting::MountSpecification;

/// Docker's `bind-propagation`: which way later mounts appear at the other place; with `r`, also those
/// below mounts that were there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Neither way.
    #[default]
    RPrivate,
    /// As that, of this mount alone.
    Private,
    /// Both ways.
    RShared,
    /// As that, of this mount alone.
    Shared,
    /// From the host into the container.
    RSlave,
    /// As that, of this mount alone.
    Slave,
}

impl Propagation {
    /// All of them.
    pub const ALL: [Propagation; 6] = [
        Propagation::RPrivate,
        Propagation::Private,
        Propagation::RShared,
        Propagation::Shared,
        Propagation::RSlave,
        Propagation::Slave,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Propagation::RPrivate => "rprivate",
            Propagation::Private => "private",
            Propagation::RShared => "rshared",
            Propagation::Shared => "shared",
            Propagation::RSlave => "rslave",
            Propagation::Slave => "slave",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Propagation> {
        Propagation::ALL.into_iter().find(|one| one.name() == word)
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Propagation::default()
    }

    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Propagation::RShared | Propagation::Shared)
    }

    pub(crate) fn is_slave(self) -> bool {
        matches!(self, Propagation::RSlave | Propagation::Slave)
    }

    pub(crate) fn is_recursive(self) -> bool {
        matches!(self, Propagation::RPrivate | Propagation::RShared | Propagation::RSlave)
    }
}

/// What a container's own view of the mounts must be, so that each of these reaches into it as it was asked
/// for (`rootfsPropagation` of a bundle); none if none does.
pub fn root_propagation(mounts: &[MountSpecification]) -> Option<Propagation> {
    if mounts.iter().any(|one| one.propagation.is_shared()) {
        return Some(Propagation::RShared);
    }
    mounts.iter().any(|one| one.propagation.is_slave()).then_some(Propagation::RSlave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_means_itself_in_json_too() {
        for one in Propagation::ALL {
            assert_eq!(Propagation::parse(one.name()), Some(one));
            assert_eq!(serde_json::to_value(one).expect("JSON"), one.name());
        }
        assert_eq!(Propagation::parse("unbindable"), None);
    }
}
