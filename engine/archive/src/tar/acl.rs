//! POSIX access control lists: from the text form of archives to the form that the kernel keeps in the
//! extended attributes `system.posix_acl_access` and `system.posix_acl_default`.
//!
//! Sources: acl(5) (text forms), star(5) (`SCHILY.acl.access`, with a numeric id as fourth field), and the
//! kernel's `include/uapi/linux/posix_acl_xattr.h` (version 2: a header of four bytes, then entries of
//! tag u16, permissions u16 and id u32, little-endian, ordered by tag and id).

use thinstore_filesystem::Metadata;
use thinstore_storage::Result;

use crate::{printable, refuse};

/// The attribute of a file's access list.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of the list that a folder hands to what is made in it.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const USER_OBJECT: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJECT: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// Turns a list in text form into the kernel's form. Entries are separated by commas or newlines;
/// users and groups must be given by number, since the archive does not say whose names it means.
/// `None` for an empty list.
pub(crate) fn from_text(text: &[u8], entry: &str) -> Result<Option<Vec<u8>>> {
    let mut entries = Vec::new();
    for line in text.split(|byte| matches!(byte, b',' | b'\n')) {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if !line.is_empty() {
            entries.push(parse_entry(line, entry)?);
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    entries.sort_unstable();
    check(&entries, entry)?;
    Ok(Some(encode(&entries)))
}

fn parse_entry(line: &[u8], entry: &str) -> Result<Entry> {
    let bad = || {
        let line = printable(line);
        refuse(format!("{entry} has an access control list with the malformed entry '{line}'"))
    };
    let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').map(<[u8]>::trim_ascii).collect();
    if matches!(fields.first(), Some(&b"default" | &b"d")) {
        fields.remove(0);
    }
    let (kind, qualifier, permissions) = match *fields.as_slice() {
        // `mask::rwx` is also written `mask:rwx`.
        [kind @ (b"mask" | b"m" | b"other" | b"o"), permissions] => (kind, &b""[..], permissions),
        [kind, name, permissions] => (kind, name, permissions),
        [kind, b"", permissions, _] => (kind, &b""[..], permissions),
        [kind, _, permissions, id] => (kind, id, permissions),
        _ => return Err(bad()),
    };
    let named = !qualifier.is_empty();
    let tag = match (kind, named) {
        (b"user" | b"u", false) => USER_OBJECT,
        (b"user" | b"u", true) => USER,
        (b"group" | b"g", false) => GROUP_OBJECT,
        (b"group" | b"g", true) => GROUP,
        (b"mask" | b"m", false) => MASK,
        (b"other" | b"o", false) => OTHER,
        _ => return Err(bad()),
    };
    let id = match qualifier {
        b"" => NO_ID,
        b"root" => 0,
        digits if digits.iter().all(u8::is_ascii_digit) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .filter(|id| *id != NO_ID)
            .ok_or_else(bad)?,
        name => {
            let name = printable(name);
            return Err(refuse(format!(
                "{entry} has an access control list that names '{name}' without its number; write \
                 the archive with the list as extended attributes (tar --xattrs)"
            )));
        }
    };
    let mut bits = 0;
    for letter in permissions {
        bits |= match letter {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return Err(bad()),
        };
    }
    if permissions.is_empty() || permissions.len() > 3 {
        return Err(bad());
    }
    Ok(Entry { tag, id, permissions: bits })
}

/// What the kernel demands of a list, ordered as it stands.
fn check(entries: &[Entry], entry: &str) -> Result<()> {
    let bad = |why: &str| Err(refuse(format!("{entry} has an access control list that {why}")));
    for pair in entries.windows(2) {
        if let [first, second] = pair
            && (first.tag, first.id) >= (second.tag, second.id)
        {
            return bad("is not in order or has an entry twice");
        }
    }
    let has = |tag: u16| entries.iter().any(|entry| entry.tag == tag);
    if ![USER_OBJECT, GROUP_OBJECT, OTHER].into_iter().all(has) {
        return bad("lacks the owner, the group or the others");
    }
    if (has(USER) || has(GROUP)) && !has(MASK) {
        return bad("names users or groups and has no mask");
    }
    Ok(())
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut raw = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        raw.extend_from_slice(&entry.tag.to_le_bytes());
        raw.extend_from_slice(&entry.permissions.to_le_bytes());
        raw.extend_from_slice(&entry.id.to_le_bytes());
    }
    raw
}

fn decode(raw: &[u8], entry: &str) -> Result<Vec<Entry>> {
    let bad = || refuse(format!("{entry} has a malformed access control list attribute"));
    let (version, rest) = raw.split_first_chunk::<4>().ok_or_else(bad)?;
    let (records, remainder) = rest.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !remainder.is_empty() {
        return Err(bad());
    }
    let mut entries = Vec::with_capacity(records.len());
    for [tag_low, tag_high, low, high, id @ ..] in records {
        let tag = u16::from_le_bytes([*tag_low, *tag_high]);
        let permissions = u16::from_le_bytes([*low, *high]);
        let named = tag == USER || tag == GROUP;
        let known = named || [USER_OBJECT, GROUP_OBJECT, MASK, OTHER].contains(&tag);
        let id = u32::from_le_bytes(*id);
        if !known || permissions > 7 || (named && id == NO_ID) {
            return Err(bad());
        }
        entries.push(Entry { tag, id: if named { id } else { NO_ID }, permissions });
    }
    Ok(entries)
}

/// Brings the lists in a node's metadata into the shape in which the kernel shows them, so that writing
/// them through the kernel and writing them to a disk by hand come out the same:
///  - an access list that says no more than the mode goes into the mode, as setxattr(2) does it;
///  - one that says more sets the mode's bits (owner, mask, others), as setxattr(2) does it;
///  - an empty list is no list; symlinks have none; only folders have a default list.
pub(crate) fn normalise(
    metadata: &mut Metadata,
    is_directory: bool,
    is_symlink: bool,
    entry: &str,
) -> Result<()> {
    for name in [ACCESS, DEFAULT] {
        let Some(raw) = metadata.xattrs.remove(name) else {
            continue;
        };
        let entries = decode(&raw, entry)?;
        if is_symlink || entries.is_empty() || (name == DEFAULT && !is_directory) {
            continue;
        }
        check(&entries, entry)?;
        if name == ACCESS {
            let minimal = entries.iter().all(|entry| entry.id == NO_ID && entry.tag != MASK);
            metadata.mode = metadata.mode & !0o777 | mode_of(&entries);
            if minimal {
                continue;
            }
        }
        metadata.xattrs.insert(name.to_vec(), encode(&entries));
    }
    Ok(())
}

fn mode_of(entries: &[Entry]) -> u32 {
    let bits = |tag: u16| {
        entries.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions))
    };
    let owner = bits(USER_OBJECT).unwrap_or(0);
    let group = bits(MASK).or(bits(GROUP_OBJECT)).unwrap_or(0);
    owner << 6 | group << 3 | bits(OTHER).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENDED: &[u8] =
        b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x07\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
          \x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

    #[test]
    fn every_text_form_gives_the_kernel_form() {
        for text in [
            &b"user::rw-,user:1000:rwx,group::r--,mask::rwx,other::---"[..],
            b"user::rw-\nuser:lisa:rwx:1000\ngroup::r--\nmask::rwx\nother::---\n",
            b"u::rw,g::r,o::-,m:rwx,u:1000:rwx",
            b"default:user::rw-,default:user:1000:rwx,default:group::r--,d:mask::rwx,d:other::---",
            b"user::rw-\nuser:1000:rwx\t#effective:r-x\ngroup::r--\nmask::rwx\nother::---",
        ] {
            let raw = from_text(text, "e").unwrap().unwrap();
            assert_eq!(raw, EXTENDED, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(from_text(b"", "e").unwrap(), None);
    }

    #[test]
    fn malformed_lists_are_refused() {
        for text in [
            &b"user"[..],
            b"user::rwz",
            b"user::rw-",
            b"user::rw-,group::r--,other::---,user:5:rwx",
            b"user::rw-,user::rw-,group::r--,other::---",
            b"user::rw-,user:lisa:rwx,group::r--,mask::rwx,other::---",
            b"user::rw-,user:4294967295:rwx,group::r--,mask::rwx,other::---",
            b"wheel::rw-,group::r--,other::---",
        ] {
            assert!(from_text(text, "e").is_err(), "{}", String::from_utf8_lossy(text));
        }
        for raw in [
            &b""[..],
            b"\x02\0\0",
            b"\x01\0\0\0",
            b"\x02\0\0\0\x01\0",
            b"\x02\0\0\0\x03\0\x07\0\0\0\0\0",
        ] {
            assert!(decode(raw, "e").is_err());
        }
    }

    #[test]
    fn a_list_that_says_no_more_than_the_mode_becomes_the_mode() {
        let raw = from_text(b"user::rwx,group::r-x,other::---", "e").unwrap().unwrap();
        let mut metadata = Metadata { mode: 0o4711, ..Metadata::default() };
        metadata.xattrs.insert(ACCESS.to_vec(), raw.clone());
        metadata.xattrs.insert(DEFAULT.to_vec(), raw);
        normalise(&mut metadata, true, false, "e").unwrap();
        assert_eq!(metadata.mode, 0o4750);
        assert!(!metadata.xattrs.contains_key(ACCESS));
        assert!(metadata.xattrs.contains_key(DEFAULT));
        normalise(&mut metadata, false, false, "e").unwrap();
        assert!(metadata.xattrs.is_empty());
    }

    #[test]
    fn a_longer_list_stays_and_sets_the_group_bits_to_its_mask() {
        let mut metadata = Metadata { mode: 0o600, ..Metadata::default() };
        metadata.xattrs.insert(ACCESS.to_vec(), EXTENDED.to_vec());
        normalise(&mut metadata, false, false, "e").unwrap();
        assert_eq!(metadata.mode, 0o670);
        assert_eq!(metadata.xattrs[ACCESS], EXTENDED);
    }
}
