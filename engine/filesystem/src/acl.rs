//! POSIX access control lists in their two forms: the value of `system.posix_acl_access` and
//! `system.posix_acl_default` as the kernel shows it, and the shorter one that ext4 stores.
//!
//! Kernel form: a 32-bit version 2, then 8 bytes an entry: tag, permissions (16 bits each), id
//! (32 bits, all ones where the tag has none). Ext4's form (Documentation/filesystems/ext4,
//! "POSIX ACLs"): a 32-bit version 1, then 4 bytes an entry, or 8 where the tag has an id.

use crate::ext4::fields::{get_u16, get_u32};

/// The xattr that holds a node's own list.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The xattr that holds the list that new children of a folder get.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const KERNEL_VERSION: u32 = 2;
const STORED_VERSION: u32 = 1;
const NO_ID: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Entry {
    fn has_id(self) -> bool {
        self.tag == USER || self.tag == GROUP
    }
}

/// A valid list: in the order owner, users, owning group, groups, mask, other, with a mask wherever a
/// user or a group is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessList {
    entries: Vec<Entry>,
}

impl AccessList {
    /// Takes the kernel's form. `None` is a value that the kernel would refuse; an empty list removes
    /// the attribute.
    pub(crate) fn from_kernel(value: &[u8]) -> Option<AccessList> {
        let entries = value.get(4..)?;
        if get_u32(value, 0) != KERNEL_VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let entries = entries.chunks_exact(8).map(|entry| Entry {
            tag: get_u16(entry, 0),
            permissions: get_u16(entry, 2),
            id: get_u32(entry, 4),
        });
        Self::checked(entries.collect())
    }

    /// Takes ext4's form.
    pub(crate) fn from_stored(value: &[u8]) -> Option<AccessList> {
        if get_u32(value, 0) != STORED_VERSION {
            return None;
        }
        let mut rest = value.get(4..)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let mut entry =
                Entry { tag: get_u16(rest, 0), permissions: get_u16(rest, 2), id: NO_ID };
            let length = if entry.has_id() { 8 } else { 4 };
            let (this, after) = rest.split_at_checked(length)?;
            if entry.has_id() {
                entry.id = get_u32(this, 4);
            }
            entries.push(entry);
            rest = after;
        }
        Self::checked(entries)
    }

    fn checked(entries: Vec<Entry>) -> Option<AccessList> {
        if entries.is_empty() {
            return Some(AccessList { entries });
        }
        // The tags' values ascend in the order that a list must have; only users and groups repeat.
        let ordered = entries.windows(2).all(|pair| {
            pair[0].tag < pair[1].tag || (pair[0].tag == pair[1].tag && pair[0].has_id())
        });
        let known = entries.iter().all(|entry| {
            matches!(entry.tag, OWNER | USER | OWNING_GROUP | GROUP | MASK | OTHER)
                && entry.permissions <= 7
                && (!entry.has_id() || entry.id != NO_ID)
        });
        let has = |tag| entries.iter().any(|entry| entry.tag == tag);
        let complete = has(OWNER) && has(OWNING_GROUP) && has(OTHER);
        let masked = has(MASK) || !entries.iter().any(|entry| entry.has_id());
        (ordered && known && complete && masked).then_some(AccessList { entries })
    }

    /// Does it say nothing at all?
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Does it say no more than nine permission bits can? The kernel keeps no access list then.
    pub(crate) fn is_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The nine permission bits that go with an access list; the group's are the mask's.
    pub(crate) fn permissions(&self) -> u32 {
        let of = |tag| {
            let entry = self.entries.iter().find(|entry| entry.tag == tag);
            entry.map(|entry| u32::from(entry.permissions))
        };
        let group = of(MASK).or(of(OWNING_GROUP)).unwrap_or(0);
        (of(OWNER).unwrap_or(0) << 6) | (group << 3) | of(OTHER).unwrap_or(0)
    }

    /// The kernel's form.
    pub(crate) fn to_kernel(&self) -> Vec<u8> {
        let mut value = KERNEL_VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.permissions.to_le_bytes());
            let id = if entry.has_id() { entry.id } else { NO_ID };
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    /// Ext4's form.
    pub(crate) fn to_stored(&self) -> Vec<u8> {
        let mut value = STORED_VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.permissions.to_le_bytes());
            if entry.has_id() {
                value.extend_from_slice(&entry.id.to_le_bytes());
            }
        }
        value
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A list in the kernel's form, for tests.
    pub(crate) fn kernel_form(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn both_forms_come_back_and_the_mask_is_the_groups_permission() {
        let none = u32::MAX;
        let kernel =
            kernel_form(&[(1, 7, none), (2, 5, 1000), (4, 6, none), (16, 5, none), (32, 4, none)]);
        let list = AccessList::from_kernel(&kernel).expect("valid");
        assert_eq!(list.permissions(), 0o754);
        assert!(!list.is_mode());
        let stored = list.to_stored();
        assert_eq!(stored.len(), 4 + 4 * 4 + 8);
        assert_eq!(AccessList::from_stored(&stored).expect("valid").to_kernel(), kernel);
    }

    #[test]
    fn lists_that_the_kernel_refuses_are_refused() {
        let none = u32::MAX;
        for entries in [
            &[(1, 7, none), (4, 7, none)][..],
            &[(4, 7, none), (1, 7, none), (32, 7, none)],
            &[(1, 7, none), (2, 7, 5), (4, 7, none), (32, 7, none)],
            &[(1, 8, none), (4, 7, none), (32, 7, none)],
            &[(1, 7, none), (4, 7, none), (32, 7, none), (64, 1, none)],
        ] {
            assert!(AccessList::from_kernel(&kernel_form(entries)).is_none(), "{entries:?}");
        }
        assert!(AccessList::from_kernel(&[2, 0, 0]).is_none());
        assert!(AccessList::from_kernel(&[1, 0, 0, 0]).is_none());
        assert!(AccessList::from_kernel(&[2, 0, 0, 0]).expect("empty").is_empty());
    }
}
