//! What may be found if the power fails now.
//!
//! For every block of every layer: the versions that it may have, the oldest of which is durable, and how
//! they may be mixed. A write is noted before it begins, and once more when it has come to its end; a
//! flush, when it has come to its end, makes the last version that was complete when it began the oldest.

use std::collections::BTreeMap;

use crate::content::{SECTORS, WriteId};

/// A write that has not come to its end, or failed.
const INCOMPLETE: u64 = u64::MAX;

/// What a block was, or was meant to be, at some time.
#[derive(Clone, Debug)]
pub struct Version {
    /// What each sector came from.
    pub sectors: [WriteId; SECTORS],
    /// The write that made it.
    pub author: WriteId,
    /// Versions of one home may lie in the same place: power that fails in between leaves sectors of each.
    pub home: u64,
    /// A snapshot has it too: what is written next lies elsewhere.
    shared: bool,
    completed: u64,
}

impl Version {
    /// Has its write come to its end?
    pub fn is_complete(&self) -> bool {
        self.completed != INCOMPLETE
    }
}

/// Is a layer there?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Certainly.
    #[default]
    Sure,
    /// Its making, renaming or removal was not acknowledged. Those of one number are there together or
    /// not at all; 0 is alone.
    Uncertain(u64),
}

/// A named layer.
#[derive(Clone, Debug, Default)]
pub struct ModelLayer {
    /// Is it there?
    pub presence: Presence,
    /// Takes no writes.
    pub sealed: bool,
    /// Its sealing was not acknowledged.
    pub sealing: bool,
    /// Sizes it may have: the durable one, then those asked for since.
    pub sizes_blocks: Vec<u64>,
    /// What was written, by block: others are holes.
    pub blocks: BTreeMap<u64, Vec<Version>>,
    /// It is a snapshot to which nothing was written since: it must be a state that its origin had.
    pub untouched: bool,
    /// The layer that it is being made of, while that goes on.
    pub made_of: Option<String>,
    /// Its document, and whether that is certain.
    pub document: Option<Vec<u8>>,
}

impl ModelLayer {
    fn versions(&mut self) -> impl Iterator<Item = &mut Version> {
        self.blocks.values_mut().flatten()
    }
}

/// All layers.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By name.
    pub layers: BTreeMap<String, ModelLayer>,
    /// Counts writes and flushes: what was complete before a flush began has a lower number.
    clock: u64,
    next_home: u64,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn own_home(&mut self) -> u64 {
        self.next_home += 1;
        self.next_home | 1 << 63
    }

    /// Adds a layer whose making begins.
    pub fn begin_layer(&mut self, name: &str, layer: ModelLayer, group: u64) {
        let presence = Presence::Uncertain(group);
        self.layers.insert(name.to_owned(), ModelLayer { presence, ..layer });
    }

    /// A layer's making is acknowledged.
    pub fn acknowledge(&mut self, name: &str) {
        if let Some(layer) = self.layers.get_mut(name) {
            layer.presence = Presence::Sure;
        }
    }

    /// A layer as a snapshot of it begins: what was complete, and what may still come in.
    pub fn begin_snapshot(&mut self, source: &str, name: &str, sealed: bool) -> u64 {
        let since = self.tick();
        let mut copy = self.layers[source].clone();
        copy.sealed = sealed;
        copy.untouched = true;
        copy.made_of = Some(source.to_owned());
        copy.document = None;
        for versions in copy.blocks.values_mut() {
            let from = versions.iter().rposition(Version::is_complete);
            versions.drain(..from.unwrap_or(0));
        }
        let size = copy.sizes_blocks.last().copied();
        copy.sizes_blocks.drain(..copy.sizes_blocks.len() - 1);
        debug_assert!(size.is_some());
        for versions in copy.blocks.values_mut() {
            for version in versions {
                self.next_home += 1;
                version.home = self.next_home | 1 << 63;
                version.shared = true;
            }
        }
        self.begin_layer(name, copy, 0);
        since
    }

    /// The snapshot that began at `since` is acknowledged, and was seen to have `found`, by block. What the
    /// source had then is shared from here on.
    pub fn end_snapshot(
        &mut self,
        source: &str,
        name: &str,
        since: u64,
        found: &BTreeMap<u64, usize>,
    ) {
        if let Some(layer) = self.layers.get_mut(name) {
            layer.made_of = None;
            layer.presence = Presence::Sure;
            for (block, index) in found {
                if let Some(versions) = layer.blocks.get_mut(block) {
                    let kept = versions[*index].clone();
                    *versions = vec![Version { completed: 0, ..kept }];
                }
            }
        }
        for version in self.layers.get_mut(source).into_iter().flat_map(ModelLayer::versions) {
            version.shared |= version.completed < since;
        }
    }

    /// A layer's removal begins. Those that stood on it may come to own what they shared with it, and to
    /// overwrite it in place.
    pub fn begin_removal(&mut self, name: &str) {
        if let Some(layer) = self.layers.get_mut(name) {
            layer.presence = Presence::Uncertain(0);
        }
        for version in self.layers.values_mut().flat_map(ModelLayer::versions) {
            version.shared = false;
        }
    }

    /// A write begins: `sectors` says what each sector of the block will come from; none: as before.
    pub fn begin_write(
        &mut self,
        name: &str,
        block: u64,
        author: WriteId,
        sectors: &[Option<WriteId>; SECTORS],
    ) {
        let lone = self.own_home();
        let hole = self.own_home();
        let going_on: Vec<String> = self
            .layers
            .iter()
            .filter(|(_, layer)| layer.made_of.as_deref() == Some(name))
            .map(|(name, _)| name.clone())
            .collect();
        let layer = self.layers.get_mut(name).unwrap();
        layer.untouched = false;
        let versions = layer.blocks.entry(block).or_insert_with(|| vec![zeroes(hole)]);
        let before = versions.last().unwrap();
        let mut version = Version {
            sectors: before.sectors,
            author,
            // A hole is no place; and what is shared is not written to.
            home: if before.shared { lone } else { before.home },
            shared: false,
            completed: INCOMPLETE,
        };
        for (target, new) in version.sectors.iter_mut().zip(sectors) {
            *target = new.unwrap_or(*target);
        }
        let was_hole = before.sectors.iter().all(|write| *write == WriteId::ZEROES);
        let is_hole = version.sectors.iter().all(|write| *write == WriteId::ZEROES);
        if is_hole || was_hole {
            version.home = lone;
        }
        versions.push(version.clone());
        for copy in going_on {
            self.next_home += 1;
            let home = self.next_home | 1 << 63;
            let hole = zeroes(home);
            let copy = self.layers.get_mut(&copy).unwrap();
            let versions = copy.blocks.entry(block).or_insert_with(|| vec![hole]);
            versions.push(Version { home: home | 1 << 62, shared: true, ..version.clone() });
        }
    }

    /// The write to a block has come to its end.
    pub fn end_write(&mut self, name: &str, block: u64, author: WriteId) {
        let now = self.tick();
        let layer = self.layers.get_mut(name).unwrap();
        for version in layer.blocks.get_mut(&block).into_iter().flatten() {
            if version.author == author {
                version.completed = now;
            }
        }
    }

    /// Blocks of a layer in a range that were ever written.
    pub fn written(&self, name: &str, range: std::ops::Range<u64>) -> Vec<u64> {
        self.layers[name].blocks.range(range).map(|(block, _)| *block).collect()
    }

    /// A flush begins: what is complete now will be durable when it has come to its end.
    pub fn begin_flush(&mut self) -> u64 {
        self.tick()
    }

    /// The flush that began at `since` has come to its end.
    pub fn end_flush(&mut self, since: u64) {
        for layer in self.layers.values_mut().filter(|layer| layer.made_of.is_none()) {
            for versions in layer.blocks.values_mut() {
                let durable = versions.iter().rposition(|version| version.completed < since);
                versions.drain(..durable.unwrap_or(0));
            }
        }
    }

    /// A new life: what was found is what there is.
    pub fn resolve(
        &mut self,
        name: &str,
        found: &BTreeMap<u64, [WriteId; SECTORS]>,
        size_blocks: u64,
    ) {
        let mut home = self.next_home;
        let layer = self.layers.get_mut(name).unwrap();
        layer.presence = Presence::Sure;
        layer.made_of = None;
        layer.sizes_blocks = vec![size_blocks];
        layer.blocks = found
            .iter()
            .map(|(block, sectors)| {
                home += 1;
                let author = sectors.iter().copied().max().unwrap_or_default();
                let home = home | 1 << 63;
                let sectors = *sectors;
                (*block, vec![Version { sectors, author, home, shared: false, completed: 0 }])
            })
            .collect();
        self.next_home = home;
    }
}

fn zeroes(home: u64) -> Version {
    let sectors = [WriteId::ZEROES; SECTORS];
    Version { sectors, author: WriteId::ZEROES, home, shared: false, completed: 0 }
}
