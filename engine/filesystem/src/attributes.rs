//! What both kinds of tree do with metadata alike: which of it is refused, and what the kernel makes
//! of it. The kernel is the model; a tree written in user space must come out the same.

use std::collections::BTreeMap;

use thinstore_storage::{Error, ErrorKind, Result};

use crate::acl::{ACCESS, AccessList, DEFAULT};
use crate::tree::{Metadata, Node, TreePath};

/// The largest value of an xattr, in bytes: the kernel's limit.
const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// The largest major and minor number of a device.
const MAJOR_MAX: u32 = 4095;
const MINOR_MAX: u32 = 1_048_575;

/// The longest target of a symlink, in bytes: the kernel's limit.
pub(crate) const TARGET_BYTES_MAX: usize = 4095;

/// What of a node's metadata goes to the file system, as the kernel would leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The permission bits with setuid, setgid and sticky.
    pub(crate) permissions: u32,
    /// The xattrs, in the kernel's form, but for access lists that the permission bits say as well.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn refused(path: &TreePath, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Refused, format!("'{path}' {why}"))
}

/// Checks a node and its metadata, and settles what access lists and permission bits say of each
/// other: an access list decides the nine bits, and is dropped where it says no more than they.
pub(crate) fn settle(path: &TreePath, node: &Node, metadata: &Metadata) -> Result<Settled> {
    check_node(path, node)?;
    if metadata.uid == u32::MAX || metadata.gid == u32::MAX {
        return Err(refused(path, "has the owner 4294967295, which means no owner at all"));
    }
    let mut permissions = metadata.mode & 0o7777;
    let mut xattrs = BTreeMap::new();
    for (name, value) in &metadata.xattrs {
        check_xattr(path, node, name, value)?;
        if name == ACCESS || name == DEFAULT {
            let Some(list) = AccessList::from_kernel(value) else {
                return Err(refused(path, "has a POSIX ACL that no kernel accepts"));
            };
            if list.is_empty() {
                continue;
            }
            if name == ACCESS {
                permissions = (permissions & !0o777) | list.permissions();
                if list.is_mode() {
                    continue;
                }
            }
            xattrs.insert(name.clone(), list.to_kernel());
        } else {
            xattrs.insert(name.clone(), value.clone());
        }
    }
    if matches!(node, Node::Symlink { .. }) {
        permissions = 0o777;
    }
    Ok(Settled { permissions, xattrs })
}

fn check_node(path: &TreePath, node: &Node) -> Result<()> {
    match node {
        Node::CharacterDevice { major, minor } | Node::BlockDevice { major, minor }
            if *major > MAJOR_MAX || *minor > MINOR_MAX =>
        {
            Err(refused(
                path,
                format_args!(
                    "is the device {major}:{minor}; the largest is {MAJOR_MAX}:{MINOR_MAX}"
                ),
            ))
        }
        Node::Symlink { target } if target.is_empty() => {
            Err(refused(path, "is a symlink without a target"))
        }
        Node::Symlink { target } if target.len() > TARGET_BYTES_MAX => Err(refused(
            path,
            format_args!(
                "is a symlink with a target of {} bytes; the longest has {TARGET_BYTES_MAX}",
                target.len()
            ),
        )),
        Node::Symlink { target } if target.contains(&0) => {
            Err(refused(path, "is a symlink with a NUL in its target"))
        }
        _ => Ok(()),
    }
}

fn check_xattr(path: &TreePath, node: &Node, name: &[u8], value: &[u8]) -> Result<()> {
    let shown = String::from_utf8_lossy(name);
    if name.contains(&0) || name.len() > 255 {
        return Err(refused(path, format_args!("has the impossible xattr name '{shown}'")));
    }
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(refused(
            path,
            format_args!("has the xattr '{shown}' of {} bytes; the largest has 65536", value.len()),
        ));
    }
    if name == ACCESS || name == DEFAULT {
        if matches!(node, Node::Symlink { .. }) {
            return Err(refused(path, "is a symlink and cannot have a POSIX ACL"));
        }
        let empty = AccessList::from_kernel(value).is_some_and(|list| list.is_empty());
        if name == DEFAULT && !matches!(node, Node::Directory) && !empty {
            return Err(refused(path, "is no folder and cannot have a default POSIX ACL"));
        }
        return Ok(());
    }
    let known = [&b"user."[..], b"trusted.", b"security."];
    if !known.iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len()) {
        return Err(refused(path, format_args!("has the xattr '{shown}', which ext4 cannot hold")));
    }
    if name.starts_with(b"user.") && !matches!(node, Node::File { .. } | Node::Directory) {
        return Err(refused(
            path,
            format_args!("has the xattr '{shown}', which only files and folders can have"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::kernel_form;

    fn path() -> TreePath {
        TreePath::from_archive(b"a").expect("path")
    }

    fn with(name: &[u8], value: &[u8]) -> Metadata {
        let mut metadata = Metadata { mode: 0o4711, ..Metadata::default() };
        metadata.xattrs.insert(name.to_vec(), value.to_vec());
        metadata
    }

    #[test]
    fn an_access_list_decides_the_permission_bits() {
        let none = u32::MAX;
        let file = Node::File { size_bytes: 0 };
        let plain = kernel_form(&[(1, 6, none), (4, 4, none), (32, 0, none)]);
        let settled = settle(&path(), &file, &with(ACCESS, &plain)).expect("settle");
        assert_eq!((settled.permissions, settled.xattrs.len()), (0o4640, 0));
        let named =
            kernel_form(&[(1, 6, none), (4, 4, none), (8, 7, 5), (16, 7, none), (32, 0, none)]);
        let settled = settle(&path(), &file, &with(ACCESS, &named)).expect("settle");
        assert_eq!((settled.permissions, settled.xattrs.len()), (0o4670, 1));
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        let file = Node::File { size_bytes: 0 };
        let link = Node::Symlink { target: b"x".to_vec() };
        let list = kernel_form(&[(1, 6, 0), (4, 4, 0), (32, 0, 0)]);
        let refused = |node: &Node, metadata: &Metadata| {
            settle(&path(), node, metadata).expect_err("refused").kind()
        };
        assert_eq!(refused(&file, &with(DEFAULT, &list)), ErrorKind::Refused);
        assert_eq!(refused(&link, &with(b"user.a", b"")), ErrorKind::Refused);
        assert_eq!(refused(&file, &with(b"nothing", b"")), ErrorKind::Refused);
        assert_eq!(refused(&file, &with(b"user.", b"")), ErrorKind::Refused);
        assert_eq!(refused(&file, &with(b"user.a\0b", b"")), ErrorKind::Refused);
        assert_eq!(
            refused(&Node::Symlink { target: Vec::new() }, &Metadata::default()),
            ErrorKind::Refused
        );
        assert_eq!(
            refused(&Node::BlockDevice { major: 4096, minor: 0 }, &Metadata::default()),
            ErrorKind::Refused
        );
        let nobody = Metadata { uid: u32::MAX, ..Metadata::default() };
        assert_eq!(refused(&file, &nobody), ErrorKind::Refused);
    }
}
