//! Whose a pointer is: one comparison, no reference counts.
//!
//! The idea is that of write-anywhere file systems with birth times (Bonwick et al., ZFS): what was born
//! after a layer's `base_epoch` is the layer's own; everything older belongs to an ancestor, and is
//! neither changed nor freed through this layer.

use crate::planted::{Fault, planted};
use crate::types::{Epoch, LogicalBlock};

/// While a layer takes over the blocks of its removed origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absorption {
    /// What lies wholly before this has been taken over.
    pub(crate) cursor: LogicalBlock,
    /// The layer's base once it is done: that of its origin.
    pub(crate) base: Epoch,
}

/// To whom a pointer in a layer's tree belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// To the layer.
    Own,
    /// To the layer since it was taken over from the origin, whose counts still contain it.
    Inherited,
    /// To an ancestor.
    Ancestor,
}

/// How a layer tells what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) base: Epoch,
    pub(crate) absorption: Option<Absorption>,
}

impl Ownership {
    /// A tree with a single owner, such as the tables.
    pub(crate) const EVERYTHING: Ownership = Ownership { base: Epoch::ZERO, absorption: None };

    /// The owner of a pointer born at `birth` to something that ends before logical block `end`.
    pub(crate) fn of(&self, birth: Epoch, end: u64) -> Owner {
        if birth > self.base || (planted(Fault::OwnOffByOne) && birth == self.base) {
            return Owner::Own;
        }
        match self.absorption {
            Some(absorption) if end <= absorption.cursor.get() && birth > absorption.base => {
                Owner::Inherited
            }
            _ => Owner::Ancestor,
        }
    }

    /// May the layer free it, or change it in place?
    pub(crate) fn owns(&self, birth: Epoch, end: u64) -> bool {
        self.of(birth, end) != Owner::Ancestor
    }
}

/// How many blocks and pages a change gave to a layer or took from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnDelta {
    pub(crate) data: i64,
    pub(crate) pages: i64,
    /// The same for what is counted at the origin that is being taken over.
    pub(crate) inherited_data: i64,
    pub(crate) inherited_pages: i64,
}

impl OwnDelta {
    pub(crate) fn lose_data(&mut self, owner: Owner) {
        match owner {
            Owner::Own => self.data -= 1,
            Owner::Inherited => self.inherited_data -= 1,
            Owner::Ancestor => {}
        }
    }

    pub(crate) fn lose_page(&mut self, owner: Owner) {
        match owner {
            Owner::Own => self.pages -= 1,
            Owner::Inherited => self.inherited_pages -= 1,
            Owner::Ancestor => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_younger_than_the_base_is_own() {
        let ownership = Ownership { base: Epoch::new(5), absorption: None };
        assert_eq!(ownership.of(Epoch::new(6), 10), Owner::Own);
        assert_eq!(ownership.of(Epoch::new(5), 10), Owner::Ancestor);
    }

    #[test]
    fn an_absorption_counts_only_below_its_cursor() {
        let absorption = Absorption { cursor: LogicalBlock::new(100), base: Epoch::new(2) };
        let ownership = Ownership { base: Epoch::new(5), absorption: Some(absorption) };
        assert_eq!(ownership.of(Epoch::new(3), 100), Owner::Inherited);
        assert_eq!(ownership.of(Epoch::new(3), 101), Owner::Ancestor);
        assert_eq!(ownership.of(Epoch::new(2), 50), Owner::Ancestor);
        assert_eq!(ownership.of(Epoch::new(6), 101), Owner::Own);
    }
}
