//! What an outer archive holds, found in one pass: names and where their bytes stand, so that blobs are
//! read in place and nothing is unpacked.

use std::collections::HashMap;

use thinstore_filesystem::TreePath;
use thinstore_storage::Result;

use crate::limits::{Budget, Limits};
use crate::region::Region;
use crate::tar::members::{Kind, Member, Members};
use crate::{printable, refuse};

/// More members than this no image archive has; a root file system may.
const MAX_MEMBERS: usize = 100_000;
/// No document or blob of an image has a longer name; a hostile archive may have many.
const MAX_NAME_BYTES: usize = 512;
/// Links followed to find a member.
const MAX_LINKS: usize = 16;

#[derive(Clone, Debug)]
enum Found {
    File {
        offset: u64,
        length_bytes: u64,
    },
    /// `docker save` before version 25 writes a layer that occurs twice as a symlink.
    Link {
        target: Vec<u8>,
        symbolic: bool,
    },
}

/// The members of an archive by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemberIndex {
    members: HashMap<Vec<u8>, Found>,
    /// All members there were, of any kind.
    pub(crate) count: u64,
}

impl MemberIndex {
    /// Goes through an uncompressed archive, passing over contents. It must end as archives end: of one
    /// cut short, what is missing would not be missed.
    pub(crate) fn of(region: &Region, limits: &Limits) -> Result<MemberIndex> {
        let budget = Budget::new(limits, (0, 0));
        let mut members = Members::new(region.reader()?, budget, false);
        let mut index = MemberIndex::default();
        loop {
            match members.next().map_err(|error| error.context(region.name()))? {
                Some(member) => index.note(&member),
                None => return Ok(index),
            }
        }
    }

    /// Takes note of one member. Names that no document or blob of an image has are passed over.
    pub(crate) fn note(&mut self, member: &Member) {
        self.count += 1;
        let too_long = member.name.len().max(member.link.len()) > MAX_NAME_BYTES;
        if too_long || self.members.len() >= MAX_MEMBERS {
            return;
        }
        let Ok(path) = TreePath::from_archive(&member.name) else {
            return;
        };
        let found = match member.kind {
            Kind::File => {
                let size = member.size_bytes;
                let in_one_piece = match member.pieces.as_slice() {
                    [] => size == 0,
                    [piece] => *piece == (0, size),
                    _ => false,
                };
                if !in_one_piece {
                    return;
                }
                Found::File { offset: member.content_at, length_bytes: size }
            }
            Kind::Symlink | Kind::HardLink => {
                Found::Link { target: member.link.clone(), symbolic: member.kind == Kind::Symlink }
            }
            _ => return,
        };
        self.members.insert(path.as_bytes().to_vec(), found);
    }

    /// Is there a file, or a link, of this name?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name.as_bytes())
    }

    /// The bytes of a member of the archive in `region`; none if it has no such member.
    pub(crate) fn find(&self, region: &Region, name: &str) -> Result<Option<Region>> {
        let Ok(path) = TreePath::from_archive(name.as_bytes()) else {
            return Ok(None);
        };
        let mut path = path.as_bytes().to_vec();
        for _ in 0..MAX_LINKS {
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Found::File { offset, length_bytes }) => {
                    let name = format!("'{}' of {}", printable(name.as_bytes()), region.name());
                    return region.part(*offset, *length_bytes, name).map(Some);
                }
                Some(Found::Link { target, symbolic }) => {
                    let Some(next) = resolve(&path, target, *symbolic) else {
                        break;
                    };
                    path = next;
                }
            }
        }
        let name = printable(name.as_bytes());
        Err(refuse(format!("'{name}' of {} is a link that leads nowhere", region.name())))
    }
}

/// Where a link leads, by names alone; none if out of the archive.
fn resolve(path: &[u8], target: &[u8], symbolic: bool) -> Option<Vec<u8>> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let mut components: Vec<&[u8]> = Vec::new();
    if symbolic {
        components.extend(path.split(|byte| *byte == b'/'));
        components.pop();
    }
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()?),
            name => components.push(name),
        }
    }
    Some(components.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_inside_the_archive_only() {
        let resolved = |path: &str, target: &str, symbolic| {
            resolve(path.as_bytes(), target.as_bytes(), symbolic)
                .map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(resolved("b/layer.tar", "../a/layer.tar", true).as_deref(), Some("a/layer.tar"));
        assert_eq!(resolved("b/layer.tar", "a/layer.tar", false).as_deref(), Some("a/layer.tar"));
        assert_eq!(resolved("b/layer.tar", "../../x", true), None);
        assert_eq!(resolved("b/layer.tar", "/etc/passwd", true), None);
    }
}
