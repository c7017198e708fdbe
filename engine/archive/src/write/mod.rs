//! Writing: tars of trees and of differences, and OCI archives of them.

pub(crate) mod changes;
pub(crate) mod oci;
pub(crate) mod tar;
pub(crate) mod tree;
