//! The tar format: headers, PAX and GNU extensions, sparse files.
//!
//! This is written out here, and not taken from the `tar` crate, because version 0.4 of that crate splits
//! PAX records at newlines (extended attributes are binary, and file capabilities often hold that
//! byte), reads GNU long names and PAX headers of any size into memory, knows no PAX sparse files, and
//! gives the holes of sparse files as zeroes.
//!
//! Sources: POSIX.1-2017 `pax` ("ustar Interchange Format" and "pax Extended Header"), the GNU tar
//! manual ("Basic Tar Format", "Storing Sparse Files"), star(5), libarchive's tar(5).

pub(crate) mod acl;
pub(crate) mod base64;
pub(crate) mod extensions;
pub(crate) mod header;
pub(crate) mod members;
pub(crate) mod number;
pub(crate) mod pax;
pub(crate) mod sparse;
