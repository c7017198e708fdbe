//! Writing: tars of trees and of differences, and OCI archives of them.

pub(crate) mod changes;
pub(crate) mod data_root;
pub(crate) mod oci;
pub(crate) mod tar;
pub(crate) mod tree;
