//! What extension headers say about the entry behind them: PAX records, GNU long names.

use std::collections::BTreeMap;

use thinstore_filesystem::Timestamp;
use thinstore_storage::Result;

use super::header::Piece;
use super::{acl, base64, number, pax, sparse};
use crate::limits::Limits;
use crate::{printable, refuse};

/// The extension headers that stand before an entry, until its own header names it.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) any: bool,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) records: Vec<u8>,
}

/// What was said about an entry before its own header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<i64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    xattr_bytes: usize,
    /// Access control lists in text form, by the attribute that they become.
    acl_texts: BTreeMap<&'static [u8], Vec<u8>>,
    pub(crate) sparse: PaxSparse,
}

/// What PAX records say about a sparse file.
#[derive(Clone, Debug, Default)]
pub(crate) struct PaxSparse {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) pieces: Option<Vec<Piece>>,
    /// The offset of a piece whose length comes in the next record.
    offset: Option<u64>,
}

impl Extensions {
    /// These defaults, and over them what stood before an entry. A PAX record wins over a GNU long name,
    /// whichever came first.
    pub(crate) fn with(&self, before: Before, limits: &Limits, entry: &str) -> Result<Extensions> {
        let mut extensions = self.clone();
        extensions.name = before.name;
        extensions.link = before.link;
        for (key, value) in pax::records(&before.records, entry)? {
            extensions.apply(key, value, limits, entry)?;
        }
        extensions.convert_acls(limits, entry)?;
        Ok(extensions)
    }

    /// Applies a global header, whose records stand for all entries that follow: times and owners are
    /// taken, comments passed over, and what would make no sense for every entry is refused.
    pub(crate) fn apply_global(&mut self, raw: &[u8], limits: &Limits) -> Result<()> {
        const SENSELESS: [&[u8]; 7] = [
            b"path",
            b"linkpath",
            b"size",
            b"GNU.sparse.",
            b"SCHILY.xattr.",
            b"SCHILY.acl.",
            b"LIBARCHIVE.xattr.",
        ];
        let entry = "a global extended header";
        for (key, value) in pax::records(raw, entry)? {
            if matches!(key, b"mtime" | b"uid" | b"gid") {
                self.apply(key, value, limits, entry)?;
            } else if SENSELESS.iter().any(|prefix| key.starts_with(prefix)) {
                let key = printable(key);
                return Err(refuse(format!(
                    "a global extended header sets '{key}' for every entry, which makes no sense"
                )));
            }
        }
        Ok(())
    }

    /// Applies one record. An empty value takes an earlier one back, but for extended attributes, which
    /// may be empty.
    fn apply(&mut self, key: &[u8], value: &[u8], limits: &Limits, entry: &str) -> Result<()> {
        let bad = || {
            let (key, value) = (printable(key), printable(value));
            refuse(format!(
                "{entry} has the extended header record '{key}' with the bad value '{value}'"
            ))
        };
        let integer = || match value {
            b"" => Ok(None),
            _ => number::parse_decimal(value).map(Some).ok_or_else(bad),
        };
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.name = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = integer()?,
            b"uid" => self.uid = integer()?,
            b"gid" => self.gid = integer()?,
            b"mtime" if value.is_empty() => self.modified = None,
            b"mtime" => self.modified = Some(number::parse_time(value).ok_or_else(bad)?),
            b"SCHILY.devmajor" => self.major = integer()?,
            b"SCHILY.devminor" => self.minor = integer()?,
            b"SCHILY.acl.access" => drop(self.acl_texts.insert(acl::ACCESS, value.to_vec())),
            b"SCHILY.acl.default" => drop(self.acl_texts.insert(acl::DEFAULT, value.to_vec())),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec(), limits, entry)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // bsdtar writes this form beside the plain one, with the same value.
                    let name = pax::percent_decoded(name, entry)?;
                    let value = base64::decode(value).ok_or_else(bad)?;
                    self.xattr(name, value, limits, entry)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.apply(name, value, limits, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Turns lists in text form into attributes. One that is there as an attribute too is not even read: it
    /// may name users whose numbers only the attribute says.
    fn convert_acls(&mut self, limits: &Limits, entry: &str) -> Result<()> {
        for (name, text) in std::mem::take(&mut self.acl_texts) {
            if !self.xattrs.contains_key(name)
                && let Some(raw) = acl::from_text(&text, entry)?
            {
                self.xattr(name.to_vec(), raw, limits, entry)?;
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>, limits: &Limits, entry: &str) -> Result<()> {
        // The kernel's bounds: 255 bytes of name, 64 KiB of value.
        if name.is_empty() || name.len() > 255 || name.contains(&0) || value.len() > 65536 {
            let name = printable(&name);
            return Err(refuse(format!(
                "{entry} has the extended attribute '{name}', whose name or size Linux does not allow"
            )));
        }
        self.xattr_bytes += name.len() + value.len();
        if self.xattr_bytes > limits.max_xattr_bytes {
            return Err(refuse(format!(
                "{entry} has more than {} bytes of extended attributes",
                limits.max_xattr_bytes
            )));
        }
        self.xattrs.insert(name, value);
        Ok(())
    }
}

impl PaxSparse {
    fn apply(&mut self, name: &[u8], value: &[u8], limits: &Limits, entry: &str) -> Result<()> {
        let max_pieces = limits.max_sparse_pieces;
        let number = || {
            sparse::parse(value).ok_or_else(|| {
                let value = printable(value);
                refuse(format!("the sparse file of {entry} says '{value}' where a number belongs"))
            })
        };
        match name {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"map" => self.pieces = Some(sparse::parse_list(value, max_pieces, entry)?),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let length = number()?;
                let Some(offset) = self.offset.take() else {
                    return Err(refuse(format!(
                        "the sparse file of {entry} has a piece without a place"
                    )));
                };
                let pieces = self.pieces.get_or_insert_default();
                sparse::push(pieces, (offset, length), max_pieces, entry)?;
            }
            _ => {}
        }
        Ok(())
    }
}
